//! The bundles that this server knows, by embedding digest, and which of them new collections are made with.
//!
//! The default bundle, and others beside it, come from the settings; without a word it is built in. A checkpoint of others in
//! Hugging Face layout is one too. More are loaded, activated and unloaded while the server serves (`loading.rs`,
//! `activation.rs`): all that is loaded is one value, swapped by pointer, so that whoever looks sees a default that is there.
//! Calls hold the bundle that they began with; the last of them ends its threads and gives its memory back.
//!
//! - `kept`: copies in the data folder, so that a replaced default never orphans a collection
//! - `folder`: where bundles may be loaded from while the server serves

mod folder;
mod kept;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use diptych_index::{Modality, Space};
use diptych_model::bundle::GoldenInput;
use diptych_model::{Bundle, Calibration, Encoder};
use diptych_proto::v1::ErrorReason;
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

pub use self::folder::ModelsFolder;
use crate::encoder::{Decoders, EncoderHandle, EncoderSettings};
use crate::error::{Error, Result};
use crate::memory::give_back;
use crate::probe::Probe;

/// The bundles of a server.
#[derive(Debug)]
pub struct Models {
    /// Where copies are kept.
    folder: PathBuf,
    settings: EncoderSettings,
    /// What prepares the pictures of all bundles.
    decoders: Arc<Decoders>,
    /// Digest of the bundle that the settings put first; `None` for the built-in one.
    named: Option<String>,
    loaded: ArcSwap<Loaded>,
    /// Held by who loads a bundle: one at a time, so that two who ask for the same one load it once, and memory never holds
    /// more than one that nobody is served from yet.
    loading: Mutex<()>,
    /// Open while collections are made with a bundle, closed while one is unloaded or another becomes the default.
    uses: Arc<RwLock<()>>,
}

/// What is loaded at one moment.
#[derive(Debug, Clone)]
pub struct Loaded {
    default: Arc<Model>,
    activated: Option<Activated>,
    by_digest: BTreeMap<String, Arc<Model>>,
}

/// How a bundle became the default, unless the settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// When, milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// Digest of the default before.
    pub previous: String,
}

impl Loaded {
    /// What a new collection gets when it names no bundle.
    pub fn default_model(&self) -> &Arc<Model> {
        &self.default
    }

    /// How the default became it; `None` for that of the settings.
    pub fn activated(&self) -> Option<&Activated> {
        self.activated.as_ref()
    }

    /// All bundles, by digest.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.by_digest.values()
    }
}

/// A bundle that stays loaded as long as `in_use` is held.
#[derive(Debug)]
pub struct Held {
    /// The bundle.
    pub model: Arc<Model>,
    /// Keeps it loaded.
    pub in_use: OwnedRwLockReadGuard<()>,
}

/// A bundle whose golden inputs, where it has some, gave their golden vectors, with its encoders running.
#[derive(Debug)]
pub struct Model {
    handle: EncoderHandle,
    calibration: Option<Calibration>,
    probe: Probe,
    golden: Vec<GoldenInput>,
    loaded_ms: u64,
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
        let golden = bundle.golden_inputs()?;
        let probe = Probe::new(&golden, &encoder, &settings)?;
        let handle = EncoderHandle::start(encoder, settings, decoders)?;
        probe.warm_up(&handle)?;
        let calibration = calibration(&bundle);
        let (loaded_ms, files) = (now_ms(), Some(bundle));
        Ok(Self { handle, calibration, probe, golden, loaded_ms, files })
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

    /// The golden inputs with the vectors that they gave when it was loaded; none of a checkpoint of others.
    pub fn golden(&self) -> &[GoldenInput] {
        &self.golden
    }

    /// When it was loaded, milliseconds since 1970-01-01 UTC.
    pub fn loaded_ms(&self) -> u64 {
        self.loaded_ms
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
    /// The default bundle, which the settings name, alone; kept ones join by [`Models::load_kept`]. `folder` is where bundles
    /// are kept.
    pub fn new(folder: PathBuf, default: Model) -> Self {
        let settings = default.handle.settings();
        let decoders = Arc::clone(default.handle.decoders());
        let digest = default.digest().to_owned();
        let default = Arc::new(default);
        let by_digest = BTreeMap::from([(digest.clone(), Arc::clone(&default))]);
        let loaded = ArcSwap::from_pointee(Loaded { default, activated: None, by_digest });
        let (loading, uses) = (Mutex::default(), Arc::default());
        Self { folder, settings, decoders, named: Some(digest), loaded, loading, uses }
    }

    /// The same where no setting names the default: it is built in.
    #[must_use]
    pub fn built_in(self) -> Self {
        Self { named: None, ..self }
    }

    /// Digest of the bundle that the settings put first; `None` for the built-in one.
    pub(crate) fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    /// A further bundle beside the default. Of two with one digest the first stays.
    pub fn join(&self, model: Model) {
        if self.get(model.digest()).is_none() {
            self.add(model);
        }
    }

    /// All that is loaded now.
    pub fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// What a new collection gets when it names no bundle.
    pub fn default_model(&self) -> Arc<Model> {
        Arc::clone(&self.loaded.load().default)
    }

    /// All loaded bundles, by digest.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.loaded.load().all().cloned().collect()
    }

    /// The bundle of a digest, when it is here.
    pub fn get(&self, digest: &str) -> Option<Arc<Model>> {
        self.loaded.load().by_digest.get(digest).cloned()
    }

    /// The bundle of a digest, or the default when it is empty.
    ///
    /// # Errors
    /// NOT_FOUND `BUNDLE_NOT_FOUND`.
    pub fn find(&self, digest: &str) -> Result<Arc<Model>> {
        if digest.is_empty() {
            return Ok(self.default_model());
        }
        self.get(digest)
            .ok_or_else(|| Error::missing(ErrorReason::BundleNotFound, "bundle", digest))
    }

    /// [`Models::find`] for who makes a collection with it: it is not unloaded before the collection is there.
    ///
    /// # Errors
    /// NOT_FOUND `BUNDLE_NOT_FOUND`.
    pub async fn hold(&self, digest: &str) -> Result<Held> {
        let in_use = Arc::clone(&self.uses).read_owned().await;
        Ok(Held { model: self.find(digest)?, in_use })
    }

    /// Waits until nobody holds a bundle, and lets nobody take hold of one while the guard is there.
    pub(crate) async fn close(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.uses).write_owned().await
    }

    /// Loads the bundle in `folder`, off tokio's threads; the one that is here, when there is one of its digest.
    ///
    /// # Errors
    /// What is wrong with it, or what `room` says of the bytes of its weights before it is taken in. Nothing of it stays in memory then.
    pub(crate) async fn load(
        self: &Arc<Self>,
        folder: &Path,
        room: impl FnOnce(u64) -> Result<()> + Send + 'static,
    ) -> anyhow::Result<Arc<Model>> {
        let _turn = self.loading.lock().await;
        let (models, folder) = (Arc::clone(self), folder.to_path_buf());
        let load = move || {
            let bundle = Bundle::open(folder)?;
            if let Some(known) = models.get(bundle.embedding_digest()) {
                return Ok(known);
            }
            room(bundle.parameters() as u64 * WEIGHT_BYTES)?;
            let model = models.add(Model::start(bundle, models.settings, &models.decoders)?);
            let (digest, bytes) = (model.digest(), model.encoder().weight_bytes());
            tracing::info!(digest, bytes, "a bundle was loaded");
            Ok(model)
        };
        tokio::task::spawn_blocking(move || {
            let loaded = load();
            // The files, and a bundle that was refused.
            give_back();
            loaded
        })
        .await?
    }

    /// Makes a loaded bundle the default, from one moment to the next.
    pub(crate) fn set_default(&self, model: &Arc<Model>, activated: &Activated) {
        self.change(|loaded| {
            loaded.default = Arc::clone(model);
            loaded.activated = Some(activated.clone());
        });
    }

    /// Takes a bundle that is not the default out of sight. Calls that hold it go on.
    pub(crate) fn remove(&self, digest: &str) {
        self.change(|loaded| drop(loaded.by_digest.remove(digest)));
    }

    /// Whether all encoder threads live and none is stuck.
    pub fn healthy(&self) -> bool {
        self.loaded.load().all().all(|model| model.handle.healthy())
    }

    fn add(&self, model: Model) -> Arc<Model> {
        let model = Arc::new(model);
        self.change(|loaded| {
            loaded.by_digest.insert(model.digest().to_owned(), Arc::clone(&model));
        });
        model
    }

    fn change(&self, change: impl Fn(&mut Loaded)) {
        self.loaded.rcu(|loaded| {
            let mut loaded = Loaded::clone(loaded);
            change(&mut loaded);
            loaded
        });
    }
}

/// Of one weight while the networks compute with it: f32.
const WEIGHT_BYTES: u64 = 4;

/// Milliseconds since 1970-01-01 UTC.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
