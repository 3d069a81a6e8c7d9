//! What all use cases share: the engine, the bundles, the limits. Each use case is a file with its own `impl Service`:
//! `embedding.rs`, `retrieval.rs`, `explain.rs`, `recall.rs`, `items.rs`, `collections.rs`, `aliases.rs`, `snapshots.rs`,
//! `reembed.rs`, `operations.rs`, `compaction.rs`, `ingest.rs`, `export.rs`, `loading.rs`, `activation.rs`, `self_test.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use diptych_index::{CollectionInfo, Engine};
use diptych_proto::v1::ErrorReason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::collections::NAME_MAX_BYTES;
use crate::error::{Error, Kind, Result};
use crate::gates::{Gates, WriteGuard};
use crate::ingest::Seats;
use crate::memory::Memory;
use crate::models::{Model, Models, ModelsFolder};
use crate::operations::Operations;
use crate::page::PageKey;
use crate::recall::Gauge;
use crate::reembed::Reembeds;
use crate::requests::Requests;

/// What a request may hold at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a message, each way.
    pub message_bytes: usize,
    /// Bytes of a picture.
    pub image_bytes: u64,
    /// Pixels of a picture.
    pub image_pixels: u64,
    /// Pixels of a picture's longer side.
    pub image_side: u32,
    /// Bytes of a text.
    pub text_bytes: usize,
    /// Inputs or items of a batch.
    pub batch_items: usize,
    /// Hits of a search.
    pub search_limit: usize,
    /// Items of a page.
    pub page_size: usize,
}

/// Hits of a search that names no limit.
pub const DEFAULT_SEARCH_LIMIT: usize = 10;
/// Items of a page that names no size.
pub const DEFAULT_PAGE_SIZE: usize = 50;

/// States of the door to callers.
const STARTING: u8 = 0;
const OPEN: u8 = 1;
const DRAINING: u8 = 2;

/// The use cases, free of transport.
#[derive(Debug)]
pub struct Service {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) models: Arc<Models>,
    /// Where bundles may be loaded from; nowhere without one.
    pub(crate) models_folder: Option<ModelsFolder>,
    pub(crate) limits: Limits,
    pub(crate) pages: PageKey,
    pub(crate) requests: Requests,
    /// The lane of searches that nobody waits for: one at a time.
    pub(crate) bulk: Arc<Semaphore>,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) reembeds: Reembeds,
    pub(crate) gates: Gates,
    pub(crate) ingests: Arc<Seats>,
    pub(crate) started: SystemTime,
    pub(crate) memory: Arc<Memory>,
    /// Cancelled when the server begins to go down: what waits for more to come, waits no longer.
    pub(crate) winding_down: CancellationToken,
    door: AtomicU8,
}

impl Service {
    /// The use cases over an engine and bundles. Every call but information answers UNAVAILABLE until
    /// [`Service::set_ready`].
    pub fn new(
        engine: Arc<dyn Engine>,
        models: Arc<Models>,
        limits: Limits,
        pages: PageKey,
    ) -> Self {
        Self {
            engine,
            models,
            models_folder: None,
            limits,
            pages,
            requests: Requests::default(),
            bulk: Arc::new(Semaphore::new(1)),
            gauge: Arc::new(Gauge::new(0.0)),
            operations: Arc::default(),
            reembeds: Reembeds::default(),
            gates: Gates::default(),
            ingests: Arc::default(),
            memory: Arc::new(Memory::new(0)),
            started: SystemTime::now(),
            winding_down: CancellationToken::new(),
            door: AtomicU8::new(STARTING),
        }
    }

    /// Compares this share of the searches, 0 to 1, with their exact answers; none without this.
    #[must_use]
    pub fn with_recall_share(mut self, share: f64) -> Self {
        self.gauge = Arc::new(Gauge::new(share));
        self
    }

    /// Refuses to hold more from so many bytes of memory on; 0, and without this, never.
    #[must_use]
    pub fn with_memory(mut self, most: u64) -> Self {
        self.memory = Arc::new(Memory::new(most));
        self
    }

    /// Loads bundles from below this folder when asked to; without this, or with `None`, from nowhere.
    #[must_use]
    pub fn with_models_folder(mut self, folder: Option<ModelsFolder>) -> Self {
        self.models_folder = folder;
        self
    }

    /// Opens or closes the door to callers. Once it was open, closing it means going down.
    pub fn set_ready(&self, ready: bool) {
        let door = match (ready, self.door.load(Ordering::Acquire)) {
            (true, _) => OPEN,
            (false, STARTING) => STARTING,
            (false, _) => DRAINING,
        };
        self.door.store(door, Ordering::Release);
    }

    /// Ends what waits for more to come: streams finish what they have taken, waits for operations end. Calls are still let in.
    pub fn wind_down(&self) {
        self.winding_down.cancel();
    }

    /// Whether callers are let in.
    pub fn is_ready(&self) -> bool {
        self.door.load(Ordering::Acquire) == OPEN
    }

    /// Refuses a call while the server starts or drains.
    ///
    /// # Errors
    /// UNAVAILABLE `STARTING` or `DRAINING`, with a time to wait.
    pub fn admit(&self) -> Result<()> {
        match self.door.load(Ordering::Acquire) {
            OPEN => Ok(()),
            STARTING => Err(starting()),
            _ => Err(draining()),
        }
    }

    /// A collection as it is now.
    ///
    /// # Errors
    /// INVALID_ARGUMENT under the field `collection` for a name that is empty or too long to be one, NOT_FOUND.
    pub async fn collection(&self, name: &str) -> Result<CollectionInfo> {
        self.collection_at("collection", name).await
    }

    /// A collection as it is now; `field` is where the request names it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a name that is empty or too long to be one, NOT_FOUND.
    pub(crate) async fn collection_at(&self, field: &str, name: &str) -> Result<CollectionInfo> {
        match name.len() {
            0 => Err(Error::field(field, "is required")),
            1..=NAME_MAX_BYTES => {
                let found = self.engine.collection(name).await;
                found.map_err(|error| named_at(field, error))
            }
            length => {
                let sizes = ("bytes", NAME_MAX_BYTES as u64, length as u64);
                Err(Error::limit(ErrorReason::FieldInvalid, field, sizes))
            }
        }
    }

    /// A collection to write to, and leave to do so: for as long as the guard is held, no alias that was asked for moves away.
    ///
    /// # Errors
    /// As [`Service::collection`].
    pub(crate) async fn open_to_write(&self, name: &str) -> Result<(CollectionInfo, WriteGuard)> {
        loop {
            let info = self.collection(name).await?;
            let guard = self.gates.enter(info.number).await;
            // An alias may have moved while the gate was closed.
            let now = self.collection(name).await?;
            if now.number == info.number {
                return Ok((now, guard));
            }
        }
    }

    /// Makes sure, after work that read a collection by name, that it was this one all the time. Numbers are never used
    /// again, so asking at the end is enough.
    ///
    /// # Errors
    /// NOT_FOUND when it was deleted meanwhile, though another one may have its name now.
    pub(crate) async fn same(&self, collection: &CollectionInfo) -> Result<()> {
        let name = &collection.spec.name;
        let now = self.collection(name).await?;
        if now.number == collection.number {
            return Ok(());
        }
        Err(Error::missing(ErrorReason::CollectionNotFound, "collection", name).at("collection"))
    }

    /// The bundle that makes a collection's vectors.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for a collection of bare vectors, or one whose bundle is not here.
    pub fn encoders_of(&self, collection: &CollectionInfo) -> Result<Arc<Model>> {
        let Some(digest) = &collection.spec.embedding_digest else {
            return Err(Error::precondition(
                ErrorReason::CollectionHasNoBundle,
                "the collection holds vectors made elsewhere: use vectors or item ids",
            ));
        };
        self.models.get(digest).ok_or_else(|| {
            let message = format!(
                "the collection's bundle {digest} is not here: use vectors or item ids, load it with LoadModel, or start \
                 the server with it"
            );
            Error::precondition(ErrorReason::BundleMissing, message)
        })
    }

    /// A limit on hits or items as asked for: 0 is `default`, above `most` is refused.
    pub(crate) fn bounded(
        field: &str,
        asked: u32,
        (default, most): (usize, usize),
    ) -> Result<usize> {
        match usize::try_from(asked).unwrap_or(usize::MAX) {
            0 => Ok(default.min(most)),
            asked if asked <= most => Ok(asked),
            asked => Err(Error::limit(
                ErrorReason::FieldInvalid,
                field,
                ("asked for", most as u64, asked as u64),
            )),
        }
    }
}

/// Refuses a call while the server starts.
pub(crate) fn starting() -> Error {
    away(ErrorReason::Starting, "the server is starting; try again shortly")
}

/// Refuses a call while the server goes down.
pub(crate) fn draining() -> Error {
    away(ErrorReason::Draining, "the server is going down; ask another one")
}

fn away(reason: ErrorReason, message: &str) -> Error {
    Error::new(Kind::Unavailable, reason, message).retry_after(Duration::from_secs(1))
}

/// An engine's error; a collection that is missing, or there already, is told under `field` too.
pub(crate) fn named_at(field: &str, error: diptych_index::Error) -> Error {
    use diptych_index::Error as Index;
    let named = matches!(error, Index::CollectionMissing { .. } | Index::CollectionExists { .. });
    let error = Error::from(error);
    if named { error.at(field) } else { error }
}

#[cfg(test)]
mod tests {
    use diptych_index::{CollectionSpec, Dims, EmbeddedConfig, EmbeddedEngine};

    use super::*;
    use crate::config::{Config, Flags};

    #[tokio::test]
    async fn a_collection_that_was_made_anew_is_not_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::resolve(&Flags::default(), std::iter::empty()).unwrap();
        let settings = EmbeddedConfig::new(folder.path().join("store"));
        let engine = Arc::new(EmbeddedEngine::open(&settings).unwrap());
        let bundle = diptych_model::testing::tiny_bundle(7).unwrap();
        let decoders = Arc::new(crate::encoder::Decoders::start(1, config.decode_bytes).unwrap());
        let model = Model::start(bundle, config.encoder, &decoders).unwrap();
        let models = Arc::new(Models::new(folder.path().join("bundles"), model));
        let key = PageKey::new(*b"0123456789abcdef");
        let service = Service::new(Arc::clone(&engine) as _, models, config.limits, key);
        let dims = Dims { shared: Some(4), exclusive_image: None, exclusive_text: None };
        let spec = CollectionSpec::new("things", dims);
        let first = engine.create_collection(spec.clone()).await.unwrap();
        service.same(&first).await.unwrap();
        engine.drop_collection("things").await.unwrap();
        engine.create_collection(spec).await.unwrap();
        assert_eq!(service.same(&first).await.unwrap_err().kind(), Kind::NotFound);
    }
}
