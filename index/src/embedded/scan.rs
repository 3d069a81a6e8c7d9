//! Neighbours in one view: by exact scan, or by a graph with an exact scan of what is newer.

use std::ops::Range;

use rayon::prelude::*;

use super::view::{Entry, SlotView};
use crate::{
    engine::{Neighbour, Route},
    filter::Filter,
    kernel,
    topk::{Scored, TopK},
};

/// Chunks that one thread takes at a time: about a million floats.
const CHUNKS_PER_TASK: usize = 16;
/// Rows looked at to guess how many pass a filter.
const SAMPLE_ROWS: usize = 256;
/// Below this share of passing rows a graph walk wastes more than a scan costs.
const LEAST_SHARE: f64 = 0.05;

/// A question to one slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// Unit vector of the slot's length.
    pub(crate) vector: &'a [f32],
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) k: usize,
    pub(crate) ef_search: usize,
    pub(crate) exact: bool,
    pub(crate) generation: u64,
    /// See [`super::EmbeddedConfig::walk_cost_rows`].
    pub(crate) walk_cost_rows: usize,
}

impl Question<'_> {
    fn passes(&self, entry: &Entry) -> bool {
        entry.visible(self.generation) && self.filter.is_none_or(|filter| filter.passes(entry))
    }
}

/// The best k, and how they were found.
pub(crate) fn nearest(slot: &SlotView, question: &Question<'_>) -> (Vec<Neighbour>, Route) {
    let by_graph = if question.exact { None } else { walk(slot, question) };
    let (found, route) = match by_graph {
        Some(found) => (found, Route::Graph),
        None => (scan(slot, 0..slot.rows, question), Route::Exact),
    };
    let neighbours = found.into_sorted().into_iter().map(|scored| Neighbour {
        id: scored.item.id.clone(),
        group: scored.item.group.clone(),
        score: scored.score,
    });
    (neighbours.collect(), route)
}

/// Exact scan of some rows. The filter is asked only for rows whose score could enter.
pub(crate) fn scan<'a>(
    slot: &'a SlotView,
    rows: Range<usize>,
    question: &Question<'_>,
) -> TopK<'a, &'a Entry> {
    let first = rows.start / slot.chunk_rows;
    let last = rows.end.div_ceil(slot.chunk_rows).max(first);
    slot.chunks[first..last]
        .par_iter()
        .enumerate()
        .with_min_len(CHUNKS_PER_TASK)
        .fold(
            || (TopK::new(question.k), Vec::new()),
            |(mut best, mut scores): (TopK<'a, &'a Entry>, Vec<f32>), (i, chunk)| {
                let offset = (first + i) * slot.chunk_rows;
                let from = rows.start.saturating_sub(offset);
                let to = (rows.end - offset).min(chunk.entries.len());
                scores.resize(to - from, 0.0);
                let vectors = &chunk.vectors[from * slot.dims..to * slot.dims];
                kernel::dot_rows(question.vector, vectors, &mut scores);
                for (entry, &score) in chunk.entries[from..to].iter().zip(&scores) {
                    if best.admits(score) && question.passes(entry) {
                        best.push(Scored { score, id: &entry.id, item: entry });
                    }
                }
                (best, scores)
            },
        )
        .map(|(best, _)| best)
        .reduce(|| TopK::new(question.k), TopK::merge)
}

/// Graph search, its rows scored exactly, with a scan of the rows that the graph does not have.
/// `None` when a scan is the better way: too few rows pass or there are, or the walk came back
/// short.
fn walk<'a>(slot: &'a SlotView, question: &Question<'_>) -> Option<TopK<'a, &'a Entry>> {
    let base = slot.base.as_ref()?;
    let share = passing_share(slot, base.rows, question);
    if share < LEAST_SHARE {
        return None;
    }
    let wanted = question.ef_search.max(question.k).max(base.ef_search);
    let ef = (wanted as f64 / share).ceil() as usize;
    if ef.saturating_mul(question.walk_cost_rows) > base.rows {
        return None;
    }
    let found = base.graph.search(question.vector, ef)?;
    let mut best = TopK::new(question.k);
    let mut passed = 0;
    for row in found {
        let (entry, vector) = slot.row(row as usize);
        if question.passes(entry) {
            passed += 1;
            let score = kernel::dot(question.vector, vector);
            best.push(Scored { score, id: &entry.id, item: entry.as_ref() });
        }
    }
    if passed < question.k {
        return None;
    }
    Some(best.merge(scan(slot, base.rows..slot.rows, question)))
}

/// Guess of how many of the graph's rows pass, from rows spread evenly.
fn passing_share(slot: &SlotView, rows: usize, question: &Question<'_>) -> f64 {
    let step = rows.div_ceil(SAMPLE_ROWS).max(1);
    let sampled = (0..rows).step_by(step);
    let total = sampled.len().max(1);
    let passed = sampled.filter(|&row| question.passes(slot.row(row).0)).count();
    passed as f64 / total as f64
}
