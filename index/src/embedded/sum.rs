//! The best by a sum over several spaces: for every row, what it can reach in each, where rows meet
//! by version, then the score of those that can be among the best.

use std::{ops::Range, sync::Arc};

use rayon::prelude::*;
use tokio::sync::oneshot;

use super::{
    EmbeddedEngine, held, prepare,
    rows::Scores,
    scan::{self, Asker},
    scans::Extent,
    segment::Segment,
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

/// Spaces that a sum goes over.
const SPACES: usize = 2;
/// Rounding errors of a score and its bound, per unit of weight.
const SLACK: f32 = 1e-5;

/// A row with the most that its score can be.
struct Row<'a> {
    version: u64,
    bound: f32,
    entry: &'a Arc<Entry>,
    /// Where its vector lies, by part of the sum.
    places: [Place; SPACES],
}

/// A segment of a slot, or its delta behind the last one, and a row in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u32,
    row: u32,
}

impl Place {
    const NONE: Self = Self { segment: u32::MAX, row: u32::MAX };
}

impl EmbeddedEngine {
    /// `None` where it would cost more than it is worth, or for more parts than there are spaces.
    pub(super) async fn best_sum(
        &self,
        collection: &str,
        mut sum: Sum,
    ) -> Result<Option<Neighbours>> {
        let collection = self.open_collection(collection)?;
        if sum.parts.len() > SPACES {
            return Ok(None);
        }
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
        self.run(sum.bulk, Extent::Large, move || {
            if !sender.left() {
                let found = nearest(&view, &sum, &sender);
                // A caller that left does not need its answer.
                drop(sender.send(found));
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

fn nearest(view: &View, sum: &Sum, asker: &dyn Asker) -> Neighbours {
    let slots: Vec<(&SlotView, &SumPart)> = sum
        .parts
        .iter()
        .filter_map(|part| Some((&**view.slot(Slot::new(sum.modality, part.space))?, part)))
        .collect();
    let visited = slots.iter().map(|(slot, _)| slot.rows() as u64).sum();
    let mut rows: Option<Vec<Row<'_>>> = None;
    for (space, (slot, part)) in slots.iter().enumerate() {
        let found = bounds(slot, part, (space, view.generation), asker);
        rows = Some(match rows {
            None => found,
            Some(rows) => add(rows, found),
        });
    }
    let passes =
        |row: &Row<'_>| sum.filter.as_ref().is_none_or(|filter| filter.passes(row.entry.as_ref()));
    let mut rows = rows.unwrap_or_default();
    // The most promising first, so that what they score soon rules out most of the others.
    let first = sum.k.min(rows.len());
    if first > 0 && first < rows.len() {
        rows.select_nth_unstable_by(first - 1, |a, b| b.bound.total_cmp(&a.bound));
    }
    let (mut best, mut room) = (TopK::new(sum.k), Scores::default());
    for row in rows {
        if best.admits(row.bound) && passes(&row) {
            let score = score(&slots, &row, &mut room);
            best.push(Scored { score, id: &row.entry.id, item: row.entry.as_ref() });
        }
    }
    let route = if sum.filter.is_some() { Route::ExactFiltered } else { Route::Exact };
    Neighbours { neighbours: scan::neighbours(best), route, visited, generation: view.generation }
}

/// The score of a row over all spaces.
fn score(slots: &[(&SlotView, &SumPart)], row: &Row<'_>, room: &mut Scores) -> f32 {
    let spaces = slots.iter().zip(row.places);
    spaces.fold(0.0, |score, ((slot, part), Place { segment, row })| {
        let row = row as usize;
        match slot.segments.get(segment as usize) {
            Some(segment) => score + part.weight * segment.score(&part.vector, row, room),
            None => {
                let (chunk, row) = slot.delta.place(row);
                chunk.vectors.scores(&part.vector, row..row + 1, room);
                score + part.weight * room.out.first().copied().unwrap_or(f32::NEG_INFINITY)
            }
        }
    })
}

/// Adds what another space has for the same rows. Both by ascending version.
fn add<'a>(mut rows: Vec<Row<'a>>, others: Vec<Row<'a>>) -> Vec<Row<'a>> {
    let mut others = others.into_iter().peekable();
    rows.retain_mut(|row| {
        while others.next_if(|other| other.version < row.version).is_some() {}
        let same = others.next_if(|other| other.version == row.version);
        if let Some(same) = &same {
            row.bound += same.bound;
            for (place, other) in row.places.iter_mut().zip(same.places) {
                *place = if other == Place::NONE { *place } else { other };
            }
        }
        same.is_some()
    });
    rows
}

/// The visible rows of a slot by ascending version, each with what it adds to its score at most.
fn bounds<'a>(
    slot: &'a SlotView,
    part: &SumPart,
    (space, generation): (usize, u64),
    asker: &dyn Asker,
) -> Vec<Row<'a>> {
    let place = |segment: usize, row: usize| {
        let mut places = [Place::NONE; SPACES];
        if let Some(place) = places.get_mut(space) {
            *place = Place { segment: segment as u32, row: row as u32 };
        }
        places
    };
    // A row is pushed away as far as it lies in the other direction.
    let (query, weight): (Vec<f32>, f32) = match part.weight < 0.0 {
        true => (part.vector.iter().map(|x| -x).collect(), -part.weight),
        false => (part.vector.clone(), part.weight),
    };
    let mut rows: Vec<Row<'a>> = Vec::with_capacity(slot.rows());
    for (number, segment) in slot.segments.iter().enumerate() {
        let hidden = segment.hidden(generation);
        let blocks = (0..segment.len().div_ceil(BLOCK_ROWS)).into_par_iter();
        let blocks = blocks.filter(|_| !asker.left());
        let query = &query;
        rows.par_extend(blocks.flat_map_iter(|block| {
            let range = block * BLOCK_ROWS..segment.len().min((block + 1) * BLOCK_ROWS);
            let bounds = at_most(segment, query, range.clone());
            let seen = range.zip(bounds);
            let seen = seen.filter(move |(row, _)| hidden.is_none_or(|h| !h.contains(*row)));
            seen.map(|(row, bound)| Row {
                version: segment.versions()[row],
                bound: weight * bound + SLACK * weight,
                entry: segment.entry(row),
                places: place(number, row),
            })
        }));
    }
    let newest = slot.segments.len();
    let chunks = slot.delta.chunks.par_iter().enumerate().filter(|_| !asker.left());
    rows.par_extend(chunks.flat_map_iter(|(number, chunk)| {
        let first = number * slot.delta.chunk_rows;
        let mut room = Scores::default();
        chunk.vectors.scores(&query, 0..chunk.entries.len(), &mut room);
        let scored = chunk.entries.iter().zip(room.out).enumerate();
        let seen = scored.filter(move |(_, (entry, _))| entry.visible(generation));
        seen.map(move |(row, (entry, score))| Row {
            version: entry.version,
            bound: weight * score + SLACK * weight,
            entry,
            places: place(newest, first + row),
        })
    }));
    if !rows.is_sorted_by_key(|row| row.version) {
        rows.par_sort_unstable_by_key(|row| row.version);
    }
    rows
}

/// A bound of each row's cosine; the cosine itself where there are no cheaper bounds.
fn at_most(segment: &Segment, query: &[f32], rows: Range<usize>) -> Vec<f32> {
    if segment.has_bounds() {
        let numbers: Vec<u32> = rows.clone().map(|row| row as u32).collect();
        let mut bounds = Vec::new();
        if segment.bounds(query, &numbers, &mut bounds) {
            return bounds;
        }
    }
    let mut room = Scores::default();
    segment.scores(query, rows, &mut room);
    room.out
}
