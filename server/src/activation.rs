//! Use case: make a loaded bundle the default for new collections, and find it again after a restart.
//!
//! The settings name a default and an activation another one: the newer word holds. An activation is written down with the
//! bundle that the settings named at that time; a start that finds the same in its settings takes the activated bundle, from its
//! copy in the data folder, and one that finds another forgets the activation. The built-in bundle is no word of anybody, so
//! that a new version of the program, with another one, leaves the activation as it is.

use std::sync::Arc;

use diptych_index::Engine;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::models::{Activated, Model, Models, now_ms};
use crate::service::Service;

/// Key of the note.
const NOTE: &str = "models/default";

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Activation {
    digest: String,
    previous: String,
    /// What the settings named then; `None` for the built-in bundle.
    settings: Option<String>,
    at_ms: u64,
}

impl Service {
    /// Makes a loaded bundle the default, and gives it with the digest of the default before.
    ///
    /// # Errors
    /// NOT_FOUND `BUNDLE_NOT_FOUND` under the field `embedding_digest`; a disk that refuses.
    pub async fn activate_model(&self, digest: &str) -> Result<(Arc<Model>, String)> {
        self.admit()?;
        let model = self.loaded_model(digest)?;
        let previous = self.make_default(&model).await?;
        Ok((model, previous))
    }

    /// A bundle by the digest in a request's `embedding_digest`, which must be there.
    pub(crate) fn loaded_model(&self, digest: &str) -> Result<Arc<Model>> {
        if digest.is_empty() {
            return Err(Error::field("embedding_digest", "is required; ListModels has them"));
        }
        self.models.find(digest).map_err(|error| error.at("embedding_digest"))
    }

    /// Makes a bundle the default and gives the digest of the one before.
    pub(crate) async fn make_default(&self, model: &Arc<Model>) -> Result<String> {
        let models = &self.models;
        // The next start must find it, so the copy is there before anything is written down.
        models.keep(model).await?;
        let _closed = models.close().await;
        let digest = model.digest().to_owned();
        // It may have been unloaded meanwhile.
        self.loaded_model(&digest)?;
        let loaded = models.loaded();
        let before = loaded.default_model().digest();
        if let Some(activated) = loaded.activated().filter(|_| before == digest) {
            return Ok(activated.previous.clone());
        }
        let activated = Activated { at_ms: now_ms(), previous: before.to_owned() };
        let activation = Activation {
            digest,
            previous: activated.previous.clone(),
            settings: models.named().map(str::to_owned),
            at_ms: activated.at_ms,
        };
        let note = serde_json::to_vec(&activation)
            .map_err(|_| Error::internal("an activation cannot be written down"))?;
        self.engine.put_note(NOTE, Some(note)).await?;
        models.set_default(model, &activated);
        let (digest, previous) = (&activation.digest, &activation.previous);
        tracing::info!(
            digest,
            previous,
            "a bundle was activated: new collections are made with it"
        );
        Ok(activated.previous)
    }
}

impl Models {
    /// Takes up, at a start, what was activated before it. What cannot be had is told in the log, and the default of the
    /// settings stands in for it; the activation stays written down for the start that finds the bundle again.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn take_up_activation(self: &Arc<Self>, engine: &dyn Engine) -> Result<()> {
        let Some(activation) = noted(engine).await? else { return Ok(()) };
        let Activation { digest, previous, settings, at_ms } = activation;
        if settings.as_deref() != self.named() {
            tracing::warn!(
                activated = digest,
                settings = self.named().unwrap_or("the built-in bundle"),
                "the settings name another bundle than when one was activated: theirs is the default from now on"
            );
            if let Err(error) = engine.put_note(NOTE, None).await {
                tracing::warn!(%error, "an activation that holds no more is still in the store");
            }
            return Ok(());
        }
        self.load_kept_beside(digest.clone()).await;
        match self.get(&digest) {
            Some(model) => {
                self.set_default(&model, &Activated { at_ms, previous });
                tracing::info!(
                    digest,
                    "the default is the bundle that was activated, not that of the settings"
                );
            }
            None => tracing::error!(
                digest,
                default = self.default_model().digest(),
                "the bundle that was activated cannot be had: new collections are made with that of the settings"
            ),
        }
        Ok(())
    }
}

/// The activation that is written down. One that cannot be read is told in the log.
async fn noted(engine: &dyn Engine) -> Result<Option<Activation>> {
    let notes = engine.notes().await?;
    let Some((_, value)) = notes.into_iter().find(|(key, _)| key == NOTE) else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&value);
    Ok(read.map_err(|error| tracing::error!(%error, "an activation is not readable")).ok())
}

#[cfg(test)]
mod tests {
    use diptych_index::{EmbeddedConfig, EmbeddedEngine, EngineAdmin as _};
    use diptych_model::testing::tiny_bundle;

    use super::*;
    use crate::config::{Config, Flags};
    use crate::encoder::Decoders;
    use crate::page::PageKey;

    /// A data folder, and servers on it that start one after another.
    struct Starts {
        folder: tempfile::TempDir,
        engine: Arc<EmbeddedEngine>,
    }

    impl Starts {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let settings = EmbeddedConfig::new(folder.path().join("store"));
            Self { folder, engine: Arc::new(EmbeddedEngine::open(&settings).unwrap()) }
        }

        /// A start with the tiny bundle of `seed` as what the settings name, or as what is built in.
        async fn start(&self, seed: u64, built_in: bool) -> Service {
            let config = Config::resolve(&Flags::default(), std::iter::empty()).unwrap();
            let decoders = Arc::new(Decoders::start(1, 1 << 30).unwrap());
            let bundle = tiny_bundle(seed).unwrap();
            let model = Model::start(bundle, config.encoder, &decoders).unwrap();
            let models = Models::new(self.folder.path().join("bundles"), model);
            let models = Arc::new(if built_in { models.built_in() } else { models });
            models.take_up_activation(&*self.engine).await.unwrap();
            let key = PageKey::new(*b"0123456789abcdef");
            let service = Service::new(Arc::clone(&self.engine) as _, models, config.limits, key);
            service.set_ready(true);
            service
        }

        /// Loads the tiny bundle of `seed` into a server and activates it.
        async fn activate(&self, service: &Service, seed: u64) {
            let bundle = self.folder.path().join(format!("bundle-{seed}"));
            tiny_bundle(seed).unwrap().write(&bundle).unwrap();
            let digest =
                service.models.load(&bundle, |_| Ok(())).await.unwrap().digest().to_owned();
            service.activate_model(&digest).await.unwrap();
            // The next start has its own copy.
            std::fs::remove_dir_all(bundle).unwrap();
        }
    }

    /// The seed of the default, and whether it was activated.
    fn default_of(service: &Service) -> (u64, bool) {
        let loaded = service.models.loaded();
        let is = |seed: &u64| {
            tiny_bundle(*seed).unwrap().embedding_digest() == loaded.default_model().digest()
        };
        ((1..4).find(is).unwrap(), loaded.activated().is_some())
    }

    #[tokio::test]
    async fn an_activation_holds_over_restarts_until_the_settings_name_another_bundle() {
        let starts = Starts::new();
        let first = starts.start(1, false).await;
        assert_eq!(default_of(&first), (1, false));
        starts.activate(&first, 2).await;
        for _ in 0..2 {
            let again = starts.start(1, false).await;
            assert_eq!(default_of(&again), (2, true));
            let digest = again.models.default_model().digest().to_owned();
            let (_, previous) = again.activate_model(&digest).await.unwrap();
            assert_eq!(previous, tiny_bundle(1).unwrap().embedding_digest());
        }
        assert_eq!(default_of(&starts.start(3, false).await), (3, false));
        // The newer word was that of the settings, and the older one is forgotten.
        assert_eq!(default_of(&starts.start(1, false).await), (1, false));
    }

    #[tokio::test]
    async fn an_activation_outlives_another_built_in_bundle_and_no_first_flag() {
        let starts = Starts::new();
        starts.activate(&starts.start(1, true).await, 2).await;
        assert_eq!(default_of(&starts.start(3, true).await), (2, true));
        assert_eq!(default_of(&starts.start(3, false).await), (3, false));
    }

    #[tokio::test]
    async fn a_bundle_that_cannot_be_had_is_stood_in_for_until_it_is_back() {
        let starts = Starts::new();
        starts.activate(&starts.start(1, false).await, 2).await;
        let kept = starts.folder.path().join("bundles");
        let away = starts.folder.path().join("away");
        std::fs::rename(&kept, &away).unwrap();
        assert_eq!(default_of(&starts.start(1, false).await), (1, false));
        std::fs::rename(&away, &kept).unwrap();
        assert_eq!(default_of(&starts.start(1, false).await), (2, true));
    }

    #[tokio::test]
    async fn a_note_that_cannot_be_read_hinders_no_start() {
        let starts = Starts::new();
        starts.engine.put_note(NOTE, Some(b"{".to_vec())).await.unwrap();
        assert_eq!(default_of(&starts.start(1, false).await), (1, false));
    }
}
