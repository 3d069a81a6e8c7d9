//! Copies of bundles in the data folder, by digest: each that a collection was made with, so that it is there whatever the
//! settings name later. One that is gone stops nothing: its collections answer BUNDLE_MISSING where they would need it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use diptych_model::{Bundle, Encoder};
use diptych_proto::v1::ErrorReason;

use super::{Model, Models};
use crate::error::{Error, Kind, Result};

impl Models {
    /// Opens the kept copy of a bundle anew and embeds its golden inputs: what it is served from gives the vectors that it
    /// promises. Computes for a while, off tokio's threads.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn verify_golden(self: &Arc<Self>, digest: &str) -> Result<()> {
        let (models, digest) = (Arc::clone(self), digest.to_owned());
        let verify = move || -> anyhow::Result<()> {
            Encoder::open(&Bundle::open(models.place(&digest)?)?)?;
            Ok(())
        };
        let verified = tokio::task::spawn_blocking(verify).await;
        let verified = verified.map_err(|_| Error::internal("a verification ended early"))?;
        verified.map_err(|error| {
            let message = format!("the bundle does not give its golden vectors: {error:#}");
            Error::precondition(ErrorReason::VerificationFailed, message)
        })
    }

    /// Copies a bundle into the data folder, unless it is there and whole.
    ///
    /// # Errors
    /// UNAVAILABLE `STORAGE_READ_ONLY` for a disk that refuses.
    pub async fn keep(self: &Arc<Self>, model: &Arc<Model>) -> Result<()> {
        let (models, model) = (Arc::clone(self), Arc::clone(model));
        let kept = tokio::task::spawn_blocking(move || models.keep_blocking(&model)).await;
        let refused = match kept {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refused)) => format!("{refused:#}"),
            Err(ended) => ended.to_string(),
        };
        tracing::error!(error = refused, "a bundle cannot be kept in the data folder");
        let message = "the bundle cannot be copied into the data folder; the server's log says why";
        Err(Error::new(Kind::Unavailable, ErrorReason::StorageReadOnly, message))
    }

    /// Makes the bundle of a stored collection available: loads the kept copy, or, when that bundle is loaded already, sees to
    /// it that there is a whole copy. What cannot be had is told in the log and left out. Blocks; for a start, when nobody else
    /// loads.
    pub fn load_kept(&self, digest: &str) {
        let loaded = match self.get(digest) {
            Some(model) => self.keep_blocking(&model),
            None => self.open_kept(digest).map(|model| drop(self.add(model))),
        };
        if let Err(error) = loaded {
            let error = format!("{error:#}");
            tracing::warn!(digest, error, "a bundle cannot be had from the data folder");
        }
    }

    /// [`Models::load_kept`] while the server serves.
    pub async fn load_kept_beside(self: &Arc<Self>, digest: String) {
        let _turn = self.loading.lock().await;
        let _use = self.uses.read().await;
        let models = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || models.load_kept(&digest)).await;
        if let Err(error) = loaded {
            tracing::warn!(%error, "a kept bundle was not loaded");
        }
    }

    fn keep_blocking(&self, model: &Model) -> anyhow::Result<()> {
        let Some(files) = &model.files else { return Ok(()) };
        let folder = self.place(model.digest())?;
        if Bundle::open(&folder).is_ok_and(|kept| kept.embedding_digest() == model.digest()) {
            return Ok(());
        }
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            // Its own name must outlive a power loss, as the names in it do.
            let around = self.folder.parent().unwrap_or(&self.folder);
            std::fs::File::open(around)?.sync_all()
        };
        made().with_context(|| format!("{} cannot be made", self.folder.display()))?;
        files.write(&folder)?;
        Ok(())
    }

    fn open_kept(&self, digest: &str) -> anyhow::Result<Model> {
        let folder = self.place(digest)?;
        let bundle = Bundle::open(&folder)?;
        let found = bundle.embedding_digest();
        anyhow::ensure!(found == digest, "{} holds the bundle {found}", folder.display());
        Ok(Model { files: None, ..Model::start(bundle, self.settings, &self.decoders)? })
    }

    /// Where the bundle of a digest is kept.
    fn place(&self, digest: &str) -> anyhow::Result<PathBuf> {
        // Digests come out of a store that may come from elsewhere; anything but hex could leave the folder.
        let safe = !digest.is_empty() && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        anyhow::ensure!(safe, "{digest:?} is no digest");
        Ok(self.folder.join(digest))
    }
}

#[cfg(test)]
mod tests {
    use diptych_model::testing::tiny_bundle;

    use super::*;
    use crate::config::{Config, Flags};
    use crate::encoder::{Decoders, EncoderSettings};

    fn settings() -> EncoderSettings {
        Config::resolve(&Flags::default(), std::iter::empty()).unwrap().encoder
    }

    /// Models in `folder` with the tiny bundle of `seed` as the default.
    fn models(folder: &tempfile::TempDir, seed: u64) -> Arc<Models> {
        let decoders = Arc::new(Decoders::start(1, 1 << 30).unwrap());
        let model = Model::start(tiny_bundle(seed).unwrap(), settings(), &decoders).unwrap();
        Arc::new(Models::new(folder.path().join("bundles"), model))
    }

    #[tokio::test]
    async fn a_replaced_default_is_still_there_for_what_was_made_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = models(&folder, 1);
        let digest = first.default_model().digest().to_owned();
        first.keep(&first.default_model()).await.unwrap();

        let second = models(&folder, 2);
        assert!(second.get(&digest).is_none());
        second.load_kept(&digest);
        assert_eq!(second.find(&digest).unwrap().digest(), digest);
        assert_ne!(second.find("").unwrap().digest(), digest);
        assert!(second.healthy());
    }

    #[tokio::test]
    async fn a_damaged_copy_is_left_out_and_replaced_by_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = models(&folder, 1);
        let digest = first.default_model().digest().to_owned();
        first.keep(&first.default_model()).await.unwrap();
        let weights = folder.path().join("bundles").join(&digest).join("model.safetensors");
        std::fs::write(&weights, b"cut off").unwrap();

        let second = models(&folder, 2);
        second.load_kept(&digest);
        assert!(second.get(&digest).is_none());
        assert_eq!(second.find(&digest).unwrap_err().kind(), Kind::NotFound);

        first.load_kept(&digest);
        second.load_kept(&digest);
        assert!(second.get(&digest).is_some());
    }

    #[test]
    fn a_digest_that_would_leave_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let models = models(&folder, 1);
        for digest in ["", "..", "../bundles", "/etc"] {
            assert!(models.place(digest).is_err(), "{digest}");
        }
    }
}
