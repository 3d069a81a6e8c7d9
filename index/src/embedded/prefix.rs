//! Neighbours by the first components of the vectors: a scan that reads less of each row.

use super::{
    scan::{self, Question},
    view::SlotView,
};
use crate::{
    engine::{Neighbour, Route},
    error::Rejection,
    kernel,
    topk::TopK,
};

/// A prefix is shorter than the vectors; 0 stands for none.
pub(crate) fn check(prefix_dims: usize, dims: usize) -> Result<(), Rejection> {
    if prefix_dims == 0 || prefix_dims < dims {
        return Ok(());
    }
    Err(Rejection::limit("prefix_dims", "dimensions", dims - 1, prefix_dims))
}

/// The best k by the cosine of the first `dims` components, and how they were found.
pub(crate) fn nearest(
    slot: &SlotView,
    question: &Question<'_>,
    dims: usize,
) -> (Vec<Neighbour>, Route, u64) {
    // A query that begins with zeros is as near to one row as to another.
    let query = kernel::unit(&question.vector[..dims]).unwrap_or_else(|| vec![0.0; dims]);
    let newer = scan::delta_by(&slot.delta, question, |chunk, room| {
        chunk.vectors.prefix_scores(&query, 0..chunk.entries.len(), room);
    });
    let segments = slot.segments.iter().map(|segment| {
        scan::segment_by(segment, question, |rows, room| segment.prefix_scores(&query, rows, room))
    });
    let best = segments.fold(newer, TopK::merge);
    (scan::neighbours(best), Route::Exact, slot.rows() as u64)
}
