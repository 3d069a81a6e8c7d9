//! Exact neighbours: every row of a part, or every row that may be found.

use std::ops::Range;

use rayon::prelude::*;
use tokio::sync::oneshot;

use super::{
    delta::{Chunk, Delta},
    rows::Scores,
    segment::Segment,
    view::Entry,
};
use crate::{
    engine::Neighbour,
    filter::Filter,
    topk::{Scored, TopK},
};

/// Chunks of a delta that one thread takes at a time: about a million floats.
const CHUNKS_PER_TASK: usize = 16;
/// Floats of a segment scored at a time, about; what follows looks at these scores again.
const BLOCK_FLOATS: usize = 1 << 16;
/// Blocks of a segment that one thread takes at a time.
const BLOCKS_PER_TASK: usize = 16;
/// The same in floats.
pub(super) const FLOATS_PER_TASK: usize = BLOCK_FLOATS * BLOCKS_PER_TASK;
/// Allowed rows that one thread takes at a time.
const ROWS_PER_TASK: usize = 4096;

/// Who asked. A scan looks for them before each of its parts, and leaves the rest undone when they have gone.
pub(crate) trait Asker: Sync + std::fmt::Debug {
    /// Nobody reads the answer any longer, so it may be any.
    fn left(&self) -> bool;
}

impl<T: Send + std::fmt::Debug> Asker for oneshot::Sender<T> {
    fn left(&self) -> bool {
        self.is_closed()
    }
}

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
    pub(crate) asker: &'a dyn Asker,
}

impl Question<'_> {
    pub(super) fn passes(&self, entry: &Entry) -> bool {
        entry.visible(self.generation) && self.filter.is_none_or(|filter| filter.passes(entry))
    }
}

/// The best entries of a part.
pub(super) type Best<'a> = TopK<'a, &'a Entry>;

/// The entries as callers get them, best first.
pub(super) fn neighbours(best: Best<'_>) -> Vec<Neighbour> {
    let neighbours = best.into_sorted().into_iter().map(|scored| Neighbour {
        id: scored.item.id.clone(),
        group: scored.item.group.clone(),
        score: scored.score,
    });
    neighbours.collect()
}

/// All rows of a delta. The filter is asked only for rows whose score could enter.
pub(super) fn delta<'a>(delta: &'a Delta, question: &Question<'_>) -> Best<'a> {
    delta_by(delta, question, |chunk, room| {
        chunk.vectors.scores(question.vector, 0..chunk.entries.len(), room);
    })
}

/// As [`delta`], by other scores.
pub(super) fn delta_by<'a>(
    delta: &'a Delta,
    question: &Question<'_>,
    scores: impl Fn(&Chunk, &mut Scores) + Sync,
) -> Best<'a> {
    let chunks = delta.chunks.par_iter().with_min_len(CHUNKS_PER_TASK);
    let best = chunks.fold(
        || (TopK::new(question.k), Scores::default()),
        |(mut best, mut room): (Best<'a>, Scores), chunk| {
            if question.asker.left() {
                return (best, room);
            }
            scores(chunk, &mut room);
            for (entry, &score) in chunk.entries.iter().zip(&room.out) {
                if best.admits(score) && question.passes(entry) {
                    best.push(Scored { score, id: &entry.id, item: entry });
                }
            }
            (best, room)
        },
    );
    best.map(|(best, _)| best).reduce(|| TopK::new(question.k), TopK::merge)
}

/// All rows of a segment. The filter is asked only for rows whose score could enter.
pub(super) fn segment<'a>(segment: &'a Segment, question: &Question<'_>) -> Best<'a> {
    if !segment.has_bounds() {
        return segment_by(segment, question, |rows, room| {
            segment.scores(question.vector, rows, room);
        });
    }
    let hidden = segment.hidden(question.generation);
    let parts = (0..segment.len().div_ceil(ROWS_PER_TASK)).into_par_iter().map(|at| {
        let rows = at * ROWS_PER_TASK..segment.len().min((at + 1) * ROWS_PER_TASK);
        let seen = rows.filter(|&row| !hidden.is_some_and(|hidden| hidden.contains(row)));
        let rows: Vec<u32> = seen.map(|row| row as u32).collect();
        promising(segment, &rows, question, question.filter)
    });
    parts.reduce(|| TopK::new(question.k), TopK::merge)
}

/// As [`segment`], by other scores.
pub(super) fn segment_by<'a>(
    segment: &'a Segment,
    question: &Question<'_>,
    scores: impl Fn(Range<usize>, &mut Scores) + Sync,
) -> Best<'a> {
    let hidden = segment.hidden(question.generation);
    let block = (BLOCK_FLOATS / question.vector.len().max(1)).clamp(16, 4096);
    let blocks = (0..segment.len().div_ceil(block)).into_par_iter().with_min_len(BLOCKS_PER_TASK);
    let best = blocks.fold(
        || (TopK::new(question.k), Scores::default()),
        |(mut best, mut room): (Best<'a>, Scores), at| {
            if question.asker.left() {
                return (best, room);
            }
            let rows: Range<usize> = at * block..segment.len().min((at + 1) * block);
            scores(rows.clone(), &mut room);
            for (row, &score) in rows.zip(&room.out) {
                if best.admits(score) && !hidden.is_some_and(|hidden| hidden.contains(row)) {
                    let entry = segment.entry(row).as_ref();
                    if question.filter.is_none_or(|filter| filter.passes(entry)) {
                        best.push(Scored { score, id: &entry.id, item: entry });
                    }
                }
            }
            (best, room)
        },
    );
    best.map(|(best, _)| best).reduce(|| TopK::new(question.k), TopK::merge)
}

/// Some rows of a segment, which all may be found.
pub(super) fn rows<'a>(segment: &'a Segment, rows: &[u32], question: &Question<'_>) -> Best<'a> {
    let parts = rows.par_chunks(ROWS_PER_TASK).map(|rows| promising(segment, rows, question, None));
    parts.reduce(|| TopK::new(question.k), TopK::merge)
}

/// The best of some rows that pass. Those whose bound says that they cannot be among them are not
/// read, and the most promising come first, so that this is soon said of most.
fn promising<'a>(
    segment: &'a Segment,
    rows: &[u32],
    question: &Question<'_>,
    filter: Option<&Filter>,
) -> Best<'a> {
    let (mut best, mut room) = (TopK::new(question.k), Scores::default());
    if question.asker.left() {
        return best;
    }
    let mut take = |row: u32, best: &mut Best<'a>| {
        let entry = segment.entry(row as usize).as_ref();
        if filter.is_none_or(|filter| filter.passes(entry)) {
            let score = segment.score(question.vector, row as usize, &mut room);
            best.push(Scored { score, id: &entry.id, item: entry });
        }
    };
    let mut bounds = Vec::new();
    if !segment.bounds(question.vector, rows, &mut bounds) {
        rows.iter().for_each(|&row| take(row, &mut best));
        return best;
    }
    let mut ordered: Vec<(f32, u32)> = bounds.into_iter().zip(rows.iter().copied()).collect();
    let first = question.k.min(ordered.len());
    if first < ordered.len() && first > 0 {
        ordered.select_nth_unstable_by(first - 1, |a, b| b.0.total_cmp(&a.0));
    }
    for (bound, row) in ordered {
        if best.admits(bound) {
            take(row, &mut best);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::types::{ItemId, Modality, VectorStorage};

    /// Leaves after it was looked for so many times.
    #[derive(Debug)]
    struct Impatient {
        patience: usize,
        looked: AtomicUsize,
    }

    impl Asker for Impatient {
        fn left(&self) -> bool {
            self.looked.fetch_add(1, Ordering::Relaxed) >= self.patience
        }
    }

    #[test]
    fn a_scan_whose_caller_leaves_reads_no_further_part() {
        let mut rows = Delta::new(2, VectorStorage::F32);
        for version in 0..40 * rows.chunk_rows as u64 {
            let id = ItemId::trusted(&format!("{version}"));
            let entry = Entry::new(id, None, Modality::Text, version, Box::default());
            rows.push(Arc::new(entry), &[1.0, 0.0]);
        }
        for patience in [0, 3, usize::MAX] {
            let asker = Impatient { patience, looked: AtomicUsize::new(0) };
            let read = AtomicUsize::new(0);
            let question = Question {
                vector: &[1.0, 0.0],
                filter: None,
                k: 1,
                ef_search: 0,
                exact: true,
                generation: u64::MAX - 1,
                walk_cost_rows: 1,
                asker: &asker,
            };
            let best = delta_by(&rows, &question, |chunk, room| {
                read.fetch_add(1, Ordering::Relaxed);
                chunk.vectors.scores(question.vector, 0..chunk.entries.len(), room);
            });
            assert_eq!(read.into_inner(), patience.min(rows.chunks.len()));
            assert_eq!(neighbours(best).is_empty(), patience == 0);
        }
    }
}
