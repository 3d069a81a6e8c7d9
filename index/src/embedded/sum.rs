//! The best by a sum over several spaces: every row is scored in each, and rows meet by version.

use std::sync::Arc;

use rayon::prelude::*;
use tokio::sync::oneshot;

use super::{
    EmbeddedEngine, held, prepare,
    rows::Scores,
    scan,
    view::{Entry, SlotView, View},
};
use crate::{
    engine::{Neighbours, Route, Sum, SumPart},
    error::{Error, Result},
    store::key::Slot,
    topk::{Scored, TopK},
};

/// Rows over which only an exact search is answered so: below, it costs no more than scoring the
/// candidates of wide lists one by one.
const MOST_ROWS: usize = 1 << 20;
/// Rows scored at a time.
const BLOCK_ROWS: usize = 1024;

/// A row with its score so far.
struct Row<'a> {
    version: u64,
    score: f32,
    entry: &'a Arc<Entry>,
}

impl EmbeddedEngine {
    /// `None` where it would cost more than it is worth.
    pub(super) async fn best_sum(
        &self,
        collection: &str,
        mut sum: Sum,
    ) -> Result<Option<Neighbours>> {
        let collection = self.open_collection(collection)?;
        for part in &mut sum.parts {
            let place = (sum.modality, part.space);
            part.vector = prepare::unit_vector(&collection, "vector", place, &part.vector)?;
        }
        if let Some(filter) = &sum.filter {
            filter.check()?;
        }
        let view = match &sum.pin {
            Some(pin) => held::held(&self.pins, &collection, pin)?,
            None => collection.view.load_full(),
        };
        if !sum.exact && rows(&view, &sum) > MOST_ROWS {
            return Ok(None);
        }
        let (sender, receiver) = oneshot::channel();
        let pool = if sum.bulk { &self.bulk } else { &self.scans };
        pool.spawn(move || {
            // A caller that left does not need its answer.
            if !sender.is_closed() {
                drop(sender.send(nearest(&view, &sum)));
            }
        });
        receiver.await.map(Some).map_err(|_| Error::internal("a scan ended early"))
    }
}

/// Rows of the first part; the others have as many.
fn rows(view: &View, sum: &Sum) -> usize {
    let first = sum.parts.first().and_then(|part| view.slot(Slot::new(sum.modality, part.space)));
    first.map_or(0, |slot| slot.rows())
}

fn nearest(view: &View, sum: &Sum) -> Neighbours {
    let mut visited = 0;
    let mut scored = |part: &SumPart| {
        let slot = view.slot(Slot::new(sum.modality, part.space));
        visited += slot.map_or(0, |slot| slot.rows() as u64);
        slot.map(|slot| scores(slot, &part.vector, view.generation)).unwrap_or_default()
    };
    let mut rows: Option<Vec<Row<'_>>> = None;
    for part in &sum.parts {
        let mut found = scored(part);
        rows = Some(match rows {
            None => {
                found.iter_mut().for_each(|row| row.score = 0.0 + part.weight * row.score);
                found
            }
            Some(rows) => add(rows, found, part.weight),
        });
    }
    let mut best = TopK::new(sum.k);
    for row in rows.iter().flatten() {
        let passes = |entry: &Entry| sum.filter.as_ref().is_none_or(|filter| filter.passes(entry));
        if best.admits(row.score) && passes(row.entry) {
            best.push(Scored { score: row.score, id: &row.entry.id, item: row.entry.as_ref() });
        }
    }
    let route = if sum.filter.is_some() { Route::ExactFiltered } else { Route::Exact };
    Neighbours { neighbours: scan::neighbours(best), route, visited, generation: view.generation }
}

/// Adds what another space has for the same rows. Both by ascending version.
fn add<'a>(mut rows: Vec<Row<'a>>, others: Vec<Row<'a>>, weight: f32) -> Vec<Row<'a>> {
    let mut others = others.into_iter().peekable();
    rows.retain_mut(|row| {
        while others.next_if(|other| other.version < row.version).is_some() {}
        let same = others.next_if(|other| other.version == row.version);
        row.score += same.as_ref().map_or(0.0, |other| weight * other.score);
        same.is_some()
    });
    rows
}

/// The visible rows of a slot by ascending version, each with its cosine.
fn scores<'a>(slot: &'a SlotView, query: &[f32], generation: u64) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::with_capacity(slot.rows());
    for segment in &slot.segments {
        let hidden = segment.hidden(generation);
        let blocks = (0..segment.len().div_ceil(BLOCK_ROWS)).into_par_iter();
        rows.par_extend(blocks.flat_map_iter(|block| {
            let range = block * BLOCK_ROWS..segment.len().min((block + 1) * BLOCK_ROWS);
            let mut room = Scores::default();
            segment.scores(query, range.clone(), &mut room);
            let scored = range.zip(room.out);
            let seen = scored.filter(move |(row, _)| hidden.is_none_or(|h| !h.contains(*row)));
            seen.map(|(row, score)| Row {
                version: segment.versions()[row],
                score,
                entry: segment.entry(row),
            })
        }));
    }
    rows.par_extend(slot.delta.chunks.par_iter().flat_map_iter(|chunk| {
        let mut room = Scores::default();
        chunk.vectors.scores(query, 0..chunk.entries.len(), &mut room);
        let scored = chunk.entries.iter().zip(room.out);
        let seen = scored.filter(move |(entry, _)| entry.visible(generation));
        seen.map(|(entry, score)| Row { version: entry.version, score, entry })
    }));
    if !rows.is_sorted_by_key(|row| row.version) {
        rows.par_sort_unstable_by_key(|row| row.version);
    }
    rows
}
