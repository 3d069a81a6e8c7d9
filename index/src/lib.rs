//! Vectors to neighbours: engines, store of record, exact scan, graphs, search.
//!
//! - [`types`]: items, metadata, collections; the rules for names and sizes
//! - [`filter`]: typed conditions on metadata
//! - [`engine`]: the [`Engine`] trait, where a collection's vectors live
//! - [`embedded`]: the engine in this process (LMDB, exact scan, graphs, snapshots)
//! - `background`: how long work gives way to calls
//! - `archive`: the file that a snapshot is
//! - [`mod@search`]: weighted terms to hits, written once above the trait
//! - [`recall`]: how much of the right answer an engine finds
//! - [`error`]: what can go wrong, by cause
//! - [`mod@bench`]: graphs measured on a file of vectors
//! - [`fuzzing`]: doors for fuzzing
//!
//! The store is the truth; rows and graphs in memory are derived from it and can always be rebuilt.

mod archive;
mod background;
pub mod bench;
pub mod embedded;
mod encoding;
pub mod engine;
pub mod error;
pub mod filter;
pub mod fuzzing;
mod graph;
mod kernel;
pub mod recall;
pub mod search;
mod store;
mod topk;
pub mod types;

pub use embedded::{EmbeddedConfig, EmbeddedEngine};
pub use engine::{
    Alias, AliasChange, Capabilities, ChangeKind, ChangePage, CollectionUpdate, DeleteBatch,
    DeleteOutcome, Draw, Drawn, Engine, EngineAdmin, Fields, ItemChange, Mark, Nearest, Neighbour,
    Neighbours, Pages, Pin, PinId, Progress, PutBatch, PutOutcome, RequestKey, Route, Scan,
    ScanPage, Selection, SnapshotInfo, StoredMark, StoredOutcome, StoredVector, Sum, SumPart,
    Written,
};
pub use error::{Error, Kind, Rejection, Result};
pub use filter::{Comparison, Filter};
pub use graph::{BuilderKind, Params as GraphParams, Storage};
pub use recall::{Measure, Measured, measure_recall};
pub use search::{
    Explanation, Hit, Resume, SearchQuery, SearchReply, Term, TermSource, explain, search,
};
pub use types::{
    CollectionInfo, CollectionSpec, Counts, Dims, IndexStatus, Item, ItemId, Metadata, Modality,
    NewItem, Space, Value, VectorStorage, Vectors,
};
