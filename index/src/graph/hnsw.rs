//! `hnsw_rs` behind a guard. Nothing else names that crate.
//!
//! What it does to the careless, and what keeps that away here:
//!
//! | it | here |
//! |---|---|
//! | panics on NaN, on another length, on a dot product above one | vectors are checked at the door; the distance is our own, at least 0 |
//! | loses members of groups of equal vectors | equal rows are one point of the graph |
//! | reaches a poor recall when rows come in the order of clusters | rows are inserted in a shuffled order |
//! | may leave the first points without links when inserted in parallel | the first points go in one by one |
//! | can panic in a filtered search that leaves nothing | its filter is not used; the caller filters a wider answer |
//! | ends the process on a damaged file or `m` over 256 | no files are used; `m` is a constant |
//! | no delete | ended rows are filtered by the caller until the next build |
//! | any panic left | is caught; the caller scans |

use std::{
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::Ordering,
};

use hnsw_rs::{anndists::dist::Distance, hnsw::Hnsw};
use rayon::prelude::*;

use super::{
    Ask, BuildError, Builder, Cancel, FileError, Found, Graph, Near, Params, RowSet, Rows,
    SearchError, Sequence, points::Points,
};
use crate::kernel;

const MAX_LAYER: usize = 16;
/// Points inserted one by one, so that no later one finds an empty graph.
const SERIAL_POINTS: usize = 256;
/// Points inserted between two looks at the cancel flag.
const STEP: usize = 256;

/// 1 - dot product of unit vectors, kept from falling below 0 by rounding.
#[derive(Debug, Clone, Copy, Default)]
struct UnitDistance;

impl Distance<f32> for UnitDistance {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - kernel::dot(a, b)).max(0.0)
    }
}

/// Builds with `hnsw_rs`.
#[derive(Debug)]
pub(crate) struct HnswRs;

struct HnswGraph {
    hnsw: Hnsw<'static, f32, UnitDistance>,
    points: Points,
    dims: usize,
}

impl fmt::Debug for HnswGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HnswGraph").field("points", &self.points.len()).finish_non_exhaustive()
    }
}

impl Builder for HnswRs {
    fn build(
        &self,
        rows: &dyn Rows,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Box<dyn Graph>, BuildError> {
        super::check(rows, params)?;
        let built = catch_unwind(AssertUnwindSafe(|| insert_all(rows, params, cancel)));
        built.unwrap_or_else(|_| {
            tracing::error!("a graph build panicked; searches go on scanning");
            Err(BuildError::Panicked)
        })
    }

    fn load(&self, _path: &Path) -> Result<Box<dyn Graph>, FileError> {
        Err(FileError::Unsupported)
    }
}

fn insert_all(
    rows: &dyn Rows,
    params: &Params,
    cancel: &Cancel,
) -> Result<Box<dyn Graph>, BuildError> {
    let points = Points::collapse(rows);
    let size = points.len().max(1);
    let hnsw = Hnsw::new(params.m, size, MAX_LAYER, params.ef_construction, UnitDistance);
    let mut order: Vec<u32> = (0..points.len() as u32).collect();
    Sequence::new(params.seed).shuffle(&mut order);
    let insert = |&point: &u32| {
        if let Some(&row) = points.rows(point).first() {
            hnsw.insert((rows.row(row as usize), point as usize));
        }
    };
    let (first, rest) = order.split_at(order.len().min(SERIAL_POINTS));
    first.iter().for_each(insert);
    for step in rest.chunks(STEP) {
        if cancel.load(Ordering::Relaxed) {
            return Err(BuildError::Cancelled);
        }
        step.par_iter().for_each(insert);
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(BuildError::Cancelled);
    }
    Ok(Box::new(HnswGraph { hnsw, points, dims: rows.dims() }))
}

impl Graph for HnswGraph {
    fn len(&self) -> usize {
        self.points.row_count()
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn search(&self, query: &[f32], ask: &Ask<'_>) -> Result<Found, SearchError> {
        super::check_query(query, self.dims, self.len())?;
        let count = self.points.len();
        let allowed = ask.allow.map_or(self.len(), RowSet::len);
        if count == 0 || ask.k == 0 || allowed == 0 {
            return Ok(Found::default());
        }
        // Its filter is not used: of a wider answer, about as many rows are allowed.
        let wider = |wanted: usize| match ask.through {
            true => wanted.min(count),
            false => wanted.saturating_mul(self.len()).div_ceil(allowed).min(count),
        };
        let (k, ef) = (wider(ask.k), wider(ask.ef.max(ask.k)));
        let found = catch_unwind(AssertUnwindSafe(|| self.hnsw.search(query, ef.max(k), ef)));
        let Ok(found) = found else {
            tracing::error!("a graph search panicked; the rows are scanned instead");
            return Err(SearchError::Panicked);
        };
        let visited = found.len();
        let mut near = Vec::with_capacity(ask.k);
        for point in &found {
            if near.len() >= ask.k {
                break;
            }
            let rows = self.points.rows(point.d_id as u32).iter().copied();
            let allowed = rows.filter(|&row| ask.allow.is_none_or(|allow| allow.contains(row)));
            near.extend(allowed.map(|row| Near { row, score: 1.0 - point.distance }));
        }
        Ok(Found { near, visited })
    }

    fn row(&self, _row: usize) -> Option<Vec<f32>> {
        None
    }

    fn read(&self, _rows: Range<usize>, _out: &mut Vec<f32>) {}

    /// A guess: each vector, link and list is an allocation of its own.
    fn memory_bytes(&self) -> usize {
        self.points.len() * (4 * self.dims + 1800) + self.points.bytes()
    }

    fn save(&self, _path: &Path) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }
}
