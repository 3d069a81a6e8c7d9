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
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use hnsw_rs::{anndists::dist::Distance, hnsw::Hnsw};
use rayon::prelude::*;

use super::{Cancel, Graph, Rows, Sequence};
use crate::kernel;

const M: usize = 16;
const EF_CONSTRUCTION: usize = 100;
const MAX_LAYER: usize = 16;
const SHUFFLE_SEED: u64 = 0x0D19_7C41;
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

struct HnswGraph {
    hnsw: Hnsw<'static, f32, UnitDistance>,
    points: Points,
}

impl fmt::Debug for HnswGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HnswGraph").field("points", &self.points.len()).finish_non_exhaustive()
    }
}

impl Graph for HnswGraph {
    fn search(&self, query: &[f32], ef: usize) -> Option<Vec<u32>> {
        let found = catch_unwind(AssertUnwindSafe(|| self.hnsw.search(query, ef, ef)));
        let Ok(found) = found else {
            tracing::error!("a graph search panicked; the rows are scanned instead");
            return None;
        };
        Some(found.iter().flat_map(|near| self.points.rows(near.d_id)).copied().collect())
    }
}

/// Builds a graph on the current rayon pool. `None` when cancelled, or when the build panicked.
pub(crate) fn build(rows: &dyn Rows, cancel: &Cancel) -> Option<Box<dyn Graph>> {
    let built = catch_unwind(AssertUnwindSafe(|| insert_all(rows, cancel)));
    built.unwrap_or_else(|_| {
        tracing::error!("a graph build panicked; searches go on scanning");
        None
    })
}

fn insert_all(rows: &dyn Rows, cancel: &Cancel) -> Option<Box<dyn Graph>> {
    let points = Points::collapse(rows);
    let hnsw = Hnsw::new(M, points.len().max(1), MAX_LAYER, EF_CONSTRUCTION, UnitDistance);
    let mut order: Vec<usize> = (0..points.len()).collect();
    Sequence::new(SHUFFLE_SEED).shuffle(&mut order);
    let insert = |&point: &usize| {
        if let Some(&row) = points.rows(point).first() {
            hnsw.insert((rows.row(row as usize), point));
        }
    };
    let (first, rest) = order.split_at(order.len().min(SERIAL_POINTS));
    first.iter().for_each(insert);
    for step in rest.chunks(STEP) {
        if cancel.load(Ordering::Relaxed) {
            return None;
        }
        step.par_iter().for_each(insert);
    }
    Some(Box::new(HnswGraph { hnsw, points }))
}

/// Rows grouped by equal vectors; a point of the graph stands for one group.
struct Points {
    /// Rows of point `p` are `rows[starts[p]..starts[p + 1]]`.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Points {
    fn collapse(rows: &dyn Rows) -> Self {
        let mut by_hash: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        for row in 0..rows.len() {
            let vector = rows.row(row);
            let mut hasher = DefaultHasher::new();
            bytemuck::cast_slice::<f32, u32>(vector).hash(&mut hasher);
            let same_hash = by_hash.entry(hasher.finish()).or_default();
            let equal = same_hash.iter().find(|&&group| {
                let first = groups[group as usize][0];
                rows.row(first as usize) == vector
            });
            match equal {
                Some(&group) => groups[group as usize].push(row as u32),
                None => {
                    same_hash.push(groups.len() as u32);
                    groups.push(vec![row as u32]);
                }
            }
        }
        let mut starts = Vec::with_capacity(groups.len() + 1);
        let mut flat = Vec::with_capacity(rows.len());
        for group in groups {
            starts.push(flat.len() as u32);
            flat.extend(group);
        }
        starts.push(flat.len() as u32);
        Self { starts, rows: flat }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn rows(&self, point: usize) -> &[u32] {
        match (self.starts.get(point), self.starts.get(point + 1)) {
            (Some(&from), Some(&to)) => &self.rows[from as usize..to as usize],
            _ => &[],
        }
    }
}
