//! Where a collection's vectors live.
//!
//! [`Engine`] is what search and the server need of a vector database and no more. Fusion of
//! terms, groups, minimum score and pages are written once, in [`mod@crate::search`], above it.

mod admin;
mod draw;
mod pin;
mod sum;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::{
    admin::{
        Alias, AliasChange, ChangeKind, ChangePage, CollectionUpdate, EngineAdmin, ItemChange,
        Progress, SnapshotInfo,
    },
    draw::{Draw, Drawn},
    pin::{Pin, PinId},
    sum::{Sum, SumPart},
};
use crate::{
    error::{Error, Rejection, Result},
    filter::Filter,
    types::{CollectionInfo, CollectionSpec, Item, ItemId, Modality, NewItem, Space},
};

/// How an engine keeps pages of one search together while items change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// A later page goes on after the last (score, id) in the collection as it is then. Deleted
    /// items never come back; an item written in between may be missed or seen twice.
    BestEffort,
    /// A later page reads the generation of the first one.
    Pinned,
}

/// What an engine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Name for people and configuration: `embedded`.
    pub name: &'static str,
    /// How pages behave.
    pub pages: Pages,
    /// Whether [`Engine::nearest`] can be told to be exact.
    pub exact: bool,
    /// Whether scores of [`Engine::nearest`] are exact cosines, so that they need no re-scoring.
    pub exact_scores: bool,
}

/// Makes a write repeatable: the same id and digest again gets the stored outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Chosen by the caller, 1 to 256 bytes, unique in the collection for an hour.
    pub id: String,
    /// SHA-256 over what was asked for.
    pub digest: [u8; 32],
}

/// Items to be written together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PutBatch {
    /// Written in this order; of two with one id the later one wins.
    pub items: Vec<NewItem>,
    /// Makes the batch repeatable.
    pub request: Option<RequestKey>,
    /// [`CollectionInfo::number`] of the collection that the items were made for. Where the name
    /// stands for another one by now, the batch is refused as one for a missing collection.
    pub collection: Option<u32>,
    /// Stored with the outcome and given back by it: what the caller needs to answer a repeat.
    pub note: Vec<u8>,
    /// Written together with the items, or not at all; also when every item is refused, or there is
    /// none.
    pub mark: Option<Mark>,
}

/// How far someone who writes batch after batch has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Whose it is, 1 to 200 bytes; of two marks with one key the later one stands.
    pub key: String,
    /// What the caller needs to go on behind the batch.
    pub value: Vec<u8>,
}

/// A mark with what became of the batch that it was written with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredMark {
    /// As [`Mark::value`].
    pub value: Vec<u8>,
    /// Of the batch.
    pub outcome: PutOutcome,
}

/// A written item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its new version.
    pub version: u64,
    /// Whether there was no item of this id before.
    pub created: bool,
}

/// What became of a [`PutBatch`]: durable, and visible to the next search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutOutcome {
    /// Aligned with the items; a refused one never spoils its neighbours.
    pub results: Vec<Result<Written, Rejection>>,
    /// Generation of the collection after the write.
    pub generation: u64,
    /// The note of the batch; of a repeated one, that of the first.
    pub note: Vec<u8>,
}

/// Which items to delete.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// These.
    Ids(Vec<ItemId>),
    /// All of one group.
    Group(String),
    /// All that pass.
    Filter(Arc<Filter>),
}

/// Items to be deleted together.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteBatch {
    /// Which.
    pub selection: Selection,
    /// How many there must be at the moment of the delete, else nothing is deleted.
    pub expected_count: Option<u64>,
    /// Makes the delete repeatable.
    pub request: Option<RequestKey>,
}

/// What became of a [`DeleteBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteOutcome {
    /// Items that were there.
    pub deleted: u64,
    /// Ids that were not. Always 0 for a group or a filter.
    pub not_found: u64,
    /// Generation of the collection after the delete.
    pub generation: u64,
}

/// Outcome of an earlier request, from the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StoredOutcome {
    /// It was a put.
    Put(PutOutcome),
    /// It was a delete.
    Delete(DeleteOutcome),
}

/// Which parts of an item are read beyond id, modality, group, metadata, version and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields {
    /// The source.
    pub source: bool,
    /// The vectors.
    pub vectors: bool,
}

/// A page of a listing, in the order of ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scan {
    /// Start after this id.
    pub after: Option<ItemId>,
    /// Most items returned, at least 1.
    pub limit: usize,
    /// Only this modality.
    pub modality: Option<Modality>,
    /// Only this group.
    pub group: Option<String>,
    /// Only items that pass.
    pub filter: Option<Arc<Filter>>,
    /// Parts to read.
    pub fields: Fields,
}

/// Answer to a [`Scan`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScanPage {
    /// The items.
    pub items: Vec<Item>,
    /// Pass it as `after` for more; `None` at the end. A page may be short, even empty, while this
    /// is set: an engine may stop after it looked at many items that did not pass.
    pub next: Option<ItemId>,
    /// Generation of the collection that was read.
    pub generation: u64,
}

/// A question for neighbours in one space of one modality.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest {
    /// Pictures or texts.
    pub modality: Modality,
    /// Space of the query vector.
    pub space: Space,
    /// Query of any length but zero; scores are cosines.
    pub vector: Vec<f32>,
    /// Only items that pass.
    pub filter: Option<Arc<Filter>>,
    /// Most neighbours returned; fewer when fewer pass.
    pub k: usize,
    /// Width of a graph search, raised to `k` when smaller; 0 for the least that was seen to be good
    /// enough for each graph. Ignored by an exact scan.
    pub ef_search: usize,
    /// Bypass graphs.
    pub exact: bool,
    /// Search this generation in place of the present one.
    pub pin: Option<Pin>,
    /// Nobody waits for it: it gives way to other searches.
    pub bulk: bool,
    /// Compare only the first so many components, by the cosine of these prefixes, bypassing
    /// graphs; 0 for the whole vectors. Scores are those of the prefixes then.
    pub prefix_dims: usize,
}

impl Nearest {
    /// The nearest `k`, without further wishes.
    pub fn new(modality: Modality, space: Space, vector: Vec<f32>, k: usize) -> Self {
        Self {
            modality,
            space,
            vector,
            filter: None,
            k,
            ef_search: 0,
            exact: false,
            pin: None,
            bulk: false,
            prefix_dims: 0,
        }
    }
}

/// One neighbour.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbour {
    /// The item.
    pub id: ItemId,
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Cosine with the query.
    pub score: f32,
}

/// How neighbours were found. A collection's rows lie in several parts; where these were searched
/// in different ways, the least certain one is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Every row was looked at: the right answer.
    Exact,
    /// Every row that the filter allows was looked at: the right answer.
    ExactFiltered,
    /// A graph was walked and came back short, so every allowed row was looked at: the right
    /// answer.
    GraphEscalated,
    /// A graph was walked: most of the right answer.
    Graph,
    /// A graph was walked along rows that the filter allows: most of the right answer.
    GraphFiltered,
}

impl Route {
    /// Whether the answer is the right one, not only most of it.
    pub fn is_exact(self) -> bool {
        self <= Self::GraphEscalated
    }

    /// The name that the wire has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::ExactFiltered => "exact_filtered",
            Self::GraphEscalated => "graph_escalated",
            Self::Graph => "graph",
            Self::GraphFiltered => "graph_filtered",
        }
    }
}

/// Answer to [`Nearest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// By score descending, then id.
    pub neighbours: Vec<Neighbour>,
    /// How they were found.
    pub route: Route,
    /// Rows whose score was computed.
    pub visited: u64,
    /// Generation of the collection that was searched.
    pub generation: u64,
}

/// A unit vector as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVector {
    /// Modality of its item.
    pub modality: Modality,
    /// `None` when the item has no vector in the space asked for.
    pub vector: Option<Vec<f32>>,
}

/// A vector database, as far as search and the server need it.
///
/// Every method answers [`Error::CollectionMissing`] for a collection that does not exist.
#[async_trait]
pub trait Engine: EngineAdmin + Send + Sync + fmt::Debug {
    /// What this engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes a collection.
    ///
    /// # Errors
    /// [`Rejection`] for a bad spec, [`Error::CollectionExists`].
    async fn create_collection(&self, spec: CollectionSpec) -> Result<CollectionInfo>;

    /// One collection, by its name or by an alias; what is given back has its own name.
    async fn collection(&self, name: &str) -> Result<CollectionInfo>;

    /// All collections, by name.
    async fn collections(&self) -> Result<Vec<CollectionInfo>>;

    /// Deletes a collection with all its items.
    ///
    /// # Errors
    /// [`crate::Error::CollectionHasAlias`] while one stands for it.
    async fn drop_collection(&self, name: &str) -> Result<()>;

    /// Writes items: when this returns `Ok` they are durable and visible to the next search.
    ///
    /// # Errors
    /// Of the whole batch only: [`Error::RequestConflict`], or a store that refused. What
    /// is wrong with one item is in its place of [`PutOutcome::results`].
    async fn put(&self, collection: &str, batch: PutBatch) -> Result<PutOutcome>;

    /// Deletes items; idempotent.
    ///
    /// # Errors
    /// [`Error::RequestConflict`], [`Error::CountMismatch`], or a store that refused.
    async fn delete(&self, collection: &str, batch: DeleteBatch) -> Result<DeleteOutcome>;

    /// The stored outcome of an earlier request, so that a repeated one need not be computed again.
    ///
    /// # Errors
    /// [`Error::RequestConflict`] when the digest is another one.
    async fn outcome(
        &self,
        collection: &str,
        request: &RequestKey,
    ) -> Result<Option<StoredOutcome>>;

    /// Items by id, aligned with the ids; `None` where there is none.
    async fn get(
        &self,
        collection: &str,
        ids: &[ItemId],
        fields: Fields,
    ) -> Result<Vec<Option<Item>>>;

    /// Items in the order of ids.
    ///
    /// # Errors
    /// [`Rejection`] for a bad filter or a limit of 0.
    async fn scan(&self, collection: &str, scan: Scan) -> Result<ScanPage>;

    /// Neighbours of a vector.
    ///
    /// # Errors
    /// [`Rejection`] naming `vector` (length, not finite, zero), `space`, `filter` or `k`.
    async fn nearest(&self, collection: &str, query: Nearest) -> Result<Neighbours>;

    /// The best by a sum over several spaces, exactly; `None` by an engine that cannot, and, unless
    /// it must be [`Sum::exact`], where another way costs less.
    ///
    /// # Errors
    /// As [`Engine::nearest`].
    async fn nearest_sum(&self, _collection: &str, _sum: Sum) -> Result<Option<Neighbours>> {
        Ok(None)
    }

    /// Unit vectors of items in one space, aligned with the ids; `None` where there is no item.
    async fn vectors(
        &self,
        collection: &str,
        ids: &[ItemId],
        space: Space,
    ) -> Result<Vec<Option<StoredVector>>>;

    /// Holds the collection as it is now; `None` by an engine that cannot.
    async fn pin(&self, _collection: &str) -> Result<Option<Pin>> {
        Ok(None)
    }

    /// Goes on holding a generation for a while after its [`Pin`] is gone, so that
    /// [`Engine::pinned`] finds it; false where nothing is held. How many and for how long is the
    /// engine's affair: it may let go of any at any time.
    async fn keep(&self, _collection: &str, _pin: &Pin) -> Result<bool> {
        Ok(false)
    }

    /// A generation that is still held; `None` when it is not.
    async fn pinned(&self, _collection: &str, _id: PinId) -> Result<Option<Pin>> {
        Ok(None)
    }

    /// As [`Engine::vectors`], of items as they were at a held generation.
    async fn pinned_vectors(
        &self,
        collection: &str,
        _pin: &Pin,
        ids: &[ItemId],
        space: Space,
    ) -> Result<Vec<Option<StoredVector>>> {
        self.vectors(collection, ids, space).await
    }

    /// Rows drawn at random, to ask with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] by an engine that cannot.
    async fn draw(&self, _collection: &str, _draw: Draw) -> Result<Drawn> {
        Err(Error::Unsupported { operation: "drawing rows" })
    }

    /// Ends background work and releases files; every later call answers
    /// [`Error::Closed`]. Calling it again does nothing.
    async fn close(&self) -> Result<()>;
}
