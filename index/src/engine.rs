//! Where a collection's vectors live.
//!
//! [`Engine`] is what search and the server need of a vector database and no more. Fusion of
//! terms, groups, minimum score and pages are written once, in [`mod@crate::search`], above it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Rejection, Result},
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<ItemId>),
    /// All of one group.
    Group(String),
}

/// Items to be deleted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteBatch {
    /// Which.
    pub selection: Selection,
    /// Makes the delete repeatable.
    pub request: Option<RequestKey>,
}

/// What became of a [`DeleteBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteOutcome {
    /// Items that were there.
    pub deleted: u64,
    /// Ids that were not. Always 0 for a group.
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
    /// Width of a graph search; raised to `k` when smaller. Ignored by an exact scan.
    pub ef_search: usize,
    /// Bypass graphs.
    pub exact: bool,
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

/// How neighbours were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Every row was looked at: the right answer.
    Exact,
    /// A graph was walked: most of the right answer.
    Graph,
}

/// Answer to [`Nearest`].
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// By score descending, then id.
    pub neighbours: Vec<Neighbour>,
    /// How they were found.
    pub route: Route,
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
/// Every method answers [`crate::Error::CollectionMissing`] for a collection that does not exist.
#[async_trait]
pub trait Engine: Send + Sync + fmt::Debug {
    /// What this engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Makes a collection.
    ///
    /// # Errors
    /// [`Rejection`] for a bad spec, [`crate::Error::CollectionExists`].
    async fn create_collection(&self, spec: CollectionSpec) -> Result<CollectionInfo>;

    /// One collection.
    async fn collection(&self, name: &str) -> Result<CollectionInfo>;

    /// All collections, by name.
    async fn collections(&self) -> Result<Vec<CollectionInfo>>;

    /// Deletes a collection with all its items.
    async fn drop_collection(&self, name: &str) -> Result<()>;

    /// Writes items: when this returns `Ok` they are durable and visible to the next search.
    ///
    /// # Errors
    /// Of the whole batch only: [`crate::Error::RequestConflict`], or a store that refused. What
    /// is wrong with one item is in its place of [`PutOutcome::results`].
    async fn put(&self, collection: &str, batch: PutBatch) -> Result<PutOutcome>;

    /// Deletes items; idempotent.
    ///
    /// # Errors
    /// [`crate::Error::RequestConflict`], or a store that refused.
    async fn delete(&self, collection: &str, batch: DeleteBatch) -> Result<DeleteOutcome>;

    /// The stored outcome of an earlier request, so that a repeated one need not be computed again.
    ///
    /// # Errors
    /// [`crate::Error::RequestConflict`] when the digest is another one.
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

    /// Unit vectors of items in one space, aligned with the ids; `None` where there is no item.
    async fn vectors(
        &self,
        collection: &str,
        ids: &[ItemId],
        space: Space,
    ) -> Result<Vec<Option<StoredVector>>>;

    /// Ends background work and releases files; every later call answers
    /// [`crate::Error::Closed`]. Calling it again does nothing.
    async fn close(&self) -> Result<()>;
}
