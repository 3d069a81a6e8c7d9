//! The bundles that this server knows, by embedding digest.
//!
//! The default bundle, and others beside it, come from the settings; without a word it is built in. A checkpoint of others in
//! Hugging Face layout is one too. Each bundle that a collection was made with is kept in the data
//! folder by its digest and loaded from there again, so that a replaced default never orphans a collection. One that is gone
//! stops nothing: its collections answer BUNDLE_MISSING where they would need it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use diptych_index::{Modality, Space};
use diptych_model::{Bundle, Calibration, Encoder};
use diptych_proto::v1::ErrorReason;

use crate::encoder::{Decoders, EncoderHandle, EncoderSettings};
use crate::error::{Error, Kind, Result};
use crate::probe::Probe;

/// Loaded bundles.
#[derive(Debug)]
pub struct Models {
    folder: PathBuf,
    default: Arc<Model>,
    by_digest: ArcSwap<BTreeMap<String, Arc<Model>>>,
}

/// A bundle whose golden inputs, where it has some, gave their golden vectors, with its encoders running.
#[derive(Debug)]
pub struct Model {
    handle: EncoderHandle,
    calibration: Option<Calibration>,
    probe: Probe,
    /// The files, to be kept with the first collection that is made with them; `None` for what was loaded from there.
    files: Option<Bundle>,
}

impl Model {
    /// Verifies a bundle and starts its encoders, for pictures that `decoders` prepare.
    ///
    /// # Errors
    /// What is wrong with the bundle; a thread that the system refuses.
    pub fn start(
        bundle: Bundle,
        settings: EncoderSettings,
        decoders: &Arc<Decoders>,
    ) -> anyhow::Result<Self> {
        let encoder = Arc::new(Encoder::open(&bundle)?);
        let probe = Probe::new(&bundle, &encoder, &settings)?;
        let handle = EncoderHandle::start(encoder, settings, decoders)?;
        Ok(Self { handle, calibration: calibration(&bundle), probe, files: Some(bundle) })
    }

    /// The encoders.
    pub fn encoders(&self) -> &EncoderHandle {
        &self.handle
    }

    /// The verified encoder, for what is known without computing.
    pub fn encoder(&self) -> &Arc<Encoder> {
        self.handle.encoder()
    }

    /// Sends a golden input of every modality through the queues, as a caller's would go.
    ///
    /// # Errors
    /// A sentence that says which encoder does not answer, or not as it did when the bundle was opened.
    pub async fn self_test(&self, patience: Duration) -> Result<(), String> {
        self.probe.try_on(&self.handle, patience).await
    }

    /// Digest of what determines vectors.
    pub fn digest(&self) -> &str {
        self.encoder().embedding_digest()
    }

    /// Lengths of prefixes of a space's vectors that work alone, rising.
    pub fn prefixes(&self, modality: Modality, space: Space) -> &[usize] {
        let modality = match modality {
            Modality::Image => diptych_model::Modality::Image,
            Modality::Text => diptych_model::Modality::Text,
        };
        let space = match space {
            Space::Shared => diptych_model::Space::Shared,
            Space::Exclusive => diptych_model::Space::Exclusive,
        };
        self.encoder().space(modality, space).map_or(&[], |space| &space.prefixes)
    }

    /// Whether the bundle turns scores into probabilities.
    pub fn calibrated(&self) -> bool {
        self.calibration.is_some()
    }

    /// From scores to probabilities, where the bundle says how.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }
}

/// A bundle's calibration. No vector depends on it, so one that cannot be read is left out and told in the log.
fn calibration(bundle: &Bundle) -> Option<Calibration> {
    match Calibration::parse(bundle.calibration()?) {
        Ok(calibration) => Some(calibration),
        Err(error) => {
            tracing::warn!(%error, "hits have no probabilities");
            None
        }
    }
}

impl Models {
    /// The default bundle alone; kept ones join by [`Models::load_kept`]. `folder` is where bundles are kept.
    pub fn new(folder: PathBuf, default: Model) -> Self {
        let default = Arc::new(default);
        let digest = default.digest().to_owned();
        let by_digest = ArcSwap::from_pointee(BTreeMap::from([(digest, Arc::clone(&default))]));
        Self { folder, default, by_digest }
    }

    /// A further bundle beside the default. Of two with one digest the first stays.
    pub fn join(&self, model: Model) {
        if self.get(model.digest()).is_none() {
            self.add(model);
        }
    }

    /// Sizes of the queues and batches of every bundle.
    pub fn settings(&self) -> EncoderSettings {
        self.default.handle.settings()
    }

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

    /// What a new collection gets when it names no bundle.
    pub fn default_model(&self) -> &Arc<Model> {
        &self.default
    }

    /// All loaded bundles, by digest.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.by_digest.load().values().cloned().collect()
    }

    /// The bundle of a digest, when it is here.
    pub fn get(&self, digest: &str) -> Option<Arc<Model>> {
        self.by_digest.load().get(digest).cloned()
    }

    /// The bundle of a digest, or the default when it is empty.
    ///
    /// # Errors
    /// NOT_FOUND `BUNDLE_NOT_FOUND`.
    pub fn find(&self, digest: &str) -> Result<Arc<Model>> {
        if digest.is_empty() {
            return Ok(Arc::clone(&self.default));
        }
        self.get(digest)
            .ok_or_else(|| Error::missing(ErrorReason::BundleNotFound, "bundle", digest))
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
    /// it that there is a whole copy. What cannot be had is told in the log and left out. Blocks.
    pub fn load_kept(&self, digest: &str, settings: EncoderSettings) {
        let loaded = match self.get(digest) {
            Some(model) => self.keep_blocking(&model),
            None => self.open_kept(digest, settings).map(|model| self.add(model)),
        };
        if let Err(error) = loaded {
            let error = format!("{error:#}");
            tracing::warn!(
                digest,
                error,
                "the bundle of a collection cannot be had from the data folder"
            );
        }
    }

    /// Whether all encoder threads live and none is stuck.
    pub fn healthy(&self) -> bool {
        self.by_digest.load().values().all(|model| model.handle.healthy())
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

    fn open_kept(&self, digest: &str, settings: EncoderSettings) -> anyhow::Result<Model> {
        let folder = self.place(digest)?;
        let bundle = Bundle::open(&folder)?;
        let decoders = self.default.handle.decoders();
        let found = bundle.embedding_digest();
        anyhow::ensure!(found == digest, "{} holds the bundle {found}", folder.display());
        Ok(Model { files: None, ..Model::start(bundle, settings, decoders)? })
    }

    fn add(&self, model: Model) {
        let model = Arc::new(model);
        self.by_digest.rcu(|known| {
            let mut known = BTreeMap::clone(known);
            known.insert(model.digest().to_owned(), Arc::clone(&model));
            known
        });
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

    fn decoders() -> Arc<Decoders> {
        Arc::new(Decoders::start(1, 1 << 30).unwrap())
    }

    fn settings() -> EncoderSettings {
        Config::resolve(&Flags::default(), std::iter::empty()).unwrap().encoder
    }

    /// Models in `folder` with the tiny bundle of `seed` as the default.
    fn models(folder: &tempfile::TempDir, seed: u64) -> Arc<Models> {
        let model = Model::start(tiny_bundle(seed).unwrap(), settings(), &decoders()).unwrap();
        Arc::new(Models::new(folder.path().join("bundles"), model))
    }

    #[tokio::test]
    async fn a_replaced_default_is_still_there_for_what_was_made_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = models(&folder, 1);
        let digest = first.default_model().digest().to_owned();
        first.keep(first.default_model()).await.unwrap();

        let second = models(&folder, 2);
        assert!(second.get(&digest).is_none());
        second.load_kept(&digest, settings());
        assert_eq!(second.find(&digest).unwrap().digest(), digest);
        assert_ne!(second.find("").unwrap().digest(), digest);
        assert!(second.healthy());
    }

    #[tokio::test]
    async fn a_damaged_copy_is_left_out_and_replaced_by_a_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = models(&folder, 1);
        let digest = first.default_model().digest().to_owned();
        first.keep(first.default_model()).await.unwrap();
        let weights = folder.path().join("bundles").join(&digest).join("model.safetensors");
        std::fs::write(&weights, b"cut off").unwrap();

        let second = models(&folder, 2);
        second.load_kept(&digest, settings());
        assert!(second.get(&digest).is_none());
        assert_eq!(second.find(&digest).unwrap_err().kind(), Kind::NotFound);

        first.load_kept(&digest, settings());
        second.load_kept(&digest, settings());
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
