//! Approximate neighbours: one small trait, its two builders, and the proof that a graph is good.
//!
//! - `native`: our own graph, which owns its rows, is saved and loaded, and walks with a filter
//! - `hnsw`: the crate `hnsw_rs` behind a guard; rows and files stay the caller's
//! - `points`: rows grouped by equal vectors
//! - `verify`: a graph's recall against a scan
//!
//! ```text
//! builder(kind).build(rows, params, cancel) -> Graph
//! Graph::search(query, ask) -> Found { near, visited }
//! Graph::save(path), builder(kind).load(path) -> Graph
//! ```

mod error;
mod hnsw;
mod native;
mod points;
mod rowset;
mod verify;

use std::{fmt, ops::Range, path::Path, sync::atomic::AtomicBool};

use serde::{Deserialize, Serialize};

pub(crate) use self::{
    error::{BuildError, FileError, SearchError},
    rowset::RowSet,
    verify::reaches_recall,
};
use crate::types::VectorStorage;

/// Who builds graphs.
pub(crate) trait Builder: Send + Sync + fmt::Debug {
    /// Builds a graph on the current rayon pool. Rows that are equal become one point of it.
    ///
    /// # Errors
    /// [`BuildError`]; nothing of the graph is left then.
    fn build(
        &self,
        rows: &dyn Rows,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Box<dyn Graph>, BuildError>;

    /// Reads what [`Graph::save`] wrote.
    ///
    /// # Errors
    /// [`FileError`], when the file is not exactly what was written.
    fn load(&self, path: &Path) -> Result<Box<dyn Graph>, FileError>;
}

/// Rows that can be walked. Row numbers are those of the [`Rows`] it was built from.
pub(crate) trait Graph: Send + Sync + fmt::Debug {
    /// Number of rows, equal ones counted each.
    fn len(&self) -> usize;

    /// Components of a row.
    fn dims(&self) -> usize;

    /// The `k` rows nearest to the query, as far as a walk of width `ef` finds them.
    ///
    /// # Errors
    /// [`SearchError`]; a scan then answers.
    fn search(&self, query: &[f32], ask: &Ask<'_>) -> Result<Found, SearchError>;

    /// A row as the graph holds it, see [`Storage`]. `None` past the last row, and when the graph
    /// holds no rows that can be read.
    fn row(&self, row: usize) -> Option<Vec<f32>>;

    /// Appends the components of some rows, as [`Graph::row`] gives them. Only of a graph that holds
    /// its rows.
    fn read(&self, rows: Range<usize>, out: &mut Vec<f32>);

    /// Numbers that the dot products of some rows with a query do not exceed, and seldom are far below,
    /// into `out`, which is made as long: so most rows need not be read whole. Both are unit vectors.
    /// False by a graph that has no such numbers.
    fn bounds(&self, _query: &[f32], _rows: &[u32], _out: &mut Vec<f32>) -> bool {
        false
    }

    /// Bytes of memory held, rows included.
    fn memory_bytes(&self) -> usize;

    /// Writes the graph to a file, which is there whole or not at all.
    ///
    /// # Errors
    /// [`FileError`], when the disk refuses or the builder has no files.
    fn save(&self, path: &Path) -> Result<(), FileError>;
}

/// Unit vectors by row number.
pub(crate) trait Rows: Sync {
    /// Number of rows.
    fn len(&self) -> usize;
    /// Components of each row.
    fn dims(&self) -> usize;
    /// One row.
    fn row(&self, row: usize) -> &[f32];
}

/// What is asked of a search.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// Rows wanted.
    pub(crate) k: usize,
    /// Width of the walk: points kept while it goes on; raised to `k`.
    pub(crate) ef: usize,
    /// Rows that may be found; `None` for all.
    pub(crate) allow: Option<&'a RowSet>,
    /// Walks as without a filter and leaves out of what it found the rows that are not allowed, which
    /// count in `ef`: the quicker way where a filter lets much pass near the query.
    pub(crate) through: bool,
}

impl Ask<'_> {
    /// The nearest `k` by a walk of width `ef`, of all rows.
    pub(crate) fn new(k: usize, ef: usize) -> Self {
        Self { k, ef, allow: None, through: false }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Found {
    /// Best first, each row once. Fewer than `k` when the walk came to no more; more when rows are
    /// equal to the last of them.
    pub(crate) near: Vec<Near>,
    /// Points whose vector was compared with the query.
    pub(crate) visited: usize,
}

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Near {
    /// Its number.
    pub(crate) row: u32,
    /// Dot product with the query, from the row as the graph holds it.
    pub(crate) score: f32,
}

/// Tells a long build to end.
pub(crate) type Cancel = AtomicBool;

/// Which builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum BuilderKind {
    /// Our own.
    #[default]
    Native,
    /// The crate `hnsw_rs`. It takes no [`Storage`] and has no files.
    HnswRs,
}

/// How a graph holds a row's components: fixed point, with a scale per row.
///
/// With `b` bytes a component is off by at most `max / (127 * 2^(8b - 7))`, where `max` is the row's
/// largest magnitude. All kinds are walked by their highest byte alone and scored by all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// One byte: off by at most `max / 254`.
    Bits8,
    /// Two bytes: off by at most `max / 65,024`; finer than half floats for all but small
    /// components.
    Bits16,
    /// Three bytes: off by at most `max * 6.01e-8`, which is what rounding to f32 costs the largest
    /// component.
    Bits24,
    /// Four bytes: off by at most `max * 2.35e-10`.
    #[default]
    Bits32,
}

impl From<VectorStorage> for Storage {
    fn from(storage: VectorStorage) -> Self {
        match storage {
            VectorStorage::F32 => Self::Bits32,
            VectorStorage::I16 => Self::Bits16,
            VectorStorage::I8 => Self::Bits8,
        }
    }
}

impl Storage {
    /// Bytes of a component.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bits8 => 1,
            Self::Bits16 => 2,
            Self::Bits24 => 3,
            Self::Bits32 => 4,
        }
    }
}

/// How a graph is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Links that a new point makes on each layer; twice as many are kept on the lowest. 2 to 128;
    /// multiples of 8 waste no memory.
    pub m: usize,
    /// Width of the walk that looks for a new point's neighbours; raised to `m`.
    pub ef_construction: usize,
    /// How rows are held.
    pub storage: Storage,
    /// Decides the order in which rows enter and their layers.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { m: 16, ef_construction: 100, storage: Storage::default(), seed: 0x0D19_7C41 }
    }
}

/// The builder of a kind.
pub(crate) fn builder(kind: BuilderKind) -> &'static dyn Builder {
    match kind {
        BuilderKind::Native => &native::Native,
        BuilderKind::HnswRs => &hnsw::HnswRs,
    }
}

/// What every builder refuses.
fn check(rows: &dyn Rows, params: &Params) -> Result<(), BuildError> {
    let within = |name, actual, least, most| {
        let good = (least..=most).contains(&actual);
        if good { Ok(()) } else { Err(BuildError::Parameter { name, actual, least, most }) }
    };
    within("m", params.m, 2, 128)?;
    within("ef_construction", params.ef_construction, 1, 1 << 16)?;
    let expected = rows.dims();
    for row in 0..rows.len() {
        let vector = rows.row(row);
        if vector.len() != expected {
            return Err(BuildError::Dimension { row, expected, actual: vector.len() });
        }
        if !vector.iter().all(|x| x.is_finite()) {
            return Err(BuildError::NotFinite { row });
        }
    }
    Ok(())
}

/// What every graph refuses. A graph without rows takes a query of any length.
fn check_query(query: &[f32], expected: usize, rows: usize) -> Result<(), SearchError> {
    let actual = query.len();
    if actual != expected && rows > 0 {
        return Err(SearchError::Dimension { expected, actual });
    }
    if query.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(SearchError::NotFinite) }
}

/// A repeatable sequence of numbers (splitmix64, Steele, Lea and Flood 2014). Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is over 0. The bias is below 2^-32 for any count of rows.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in (0, 1].
    pub(crate) fn share(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
pub(crate) mod conformance;
