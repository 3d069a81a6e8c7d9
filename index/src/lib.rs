//! Vectors to neighbours: engines, store of record, exact scan, graphs, search.
//!
//! - [`types`]: items, metadata, collections; the rules for names and sizes
//! - [`filter`]: typed conditions on metadata
//! - [`engine`]: the [`Engine`] trait, where a collection's vectors live
//! - [`embedded`]: the engine in this process (LMDB, exact scan, graphs)
//! - [`mod@search`]: weighted terms to hits, written once above the trait
//! - [`error`]: what can go wrong, by cause
//!
//! The store is the truth; rows and graphs in memory are derived from it and can always be rebuilt.

pub mod embedded;
pub mod engine;
pub mod error;
pub mod filter;
mod graph;
mod kernel;
pub mod search;
mod store;
mod topk;
pub mod types;

pub use embedded::{EmbeddedConfig, EmbeddedEngine};
pub use engine::{
    Capabilities, DeleteBatch, DeleteOutcome, Engine, Fields, Nearest, Neighbour, Neighbours,
    Pages, PutBatch, PutOutcome, RequestKey, Route, Scan, ScanPage, Selection, StoredOutcome,
    StoredVector, Written,
};
pub use error::{Error, Kind, Rejection, Result};
pub use filter::{Comparison, Filter};
pub use search::{Hit, Resume, SearchQuery, SearchReply, Term, TermSource, search};
pub use types::{
    CollectionInfo, CollectionSpec, Counts, Dims, Item, ItemId, Metadata, Modality, NewItem, Space,
    Value, Vectors,
};
