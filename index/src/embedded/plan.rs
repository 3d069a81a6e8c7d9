//! The way of a search: for each segment the cheapest of scan, walk, scan of the rows that a filter
//! allows, and walk along these; a scan of what is newer beside it.

use std::sync::Arc;

use rayon::prelude::*;

use super::{
    rows::Scores,
    scan::{self, Best, Question},
    scans::Extent,
    segment::{Body, Segment, Walk},
    view::SlotView,
};
use crate::{
    engine::{Neighbour, Route},
    graph::{Ask, RowSet},
    topk::{Scored, TopK},
};

/// What one part found.
struct Part<'a> {
    best: Best<'a>,
    route: Route,
    visited: usize,
}

impl<'a> Part<'a> {
    fn merge(self, other: Self) -> Self {
        Self {
            best: self.best.merge(other.best),
            route: self.route.max(other.route),
            visited: self.visited + other.visited,
        }
    }
}

/// The best k, how they were found, and how many rows were scored for it.
pub(crate) fn nearest(slot: &SlotView, question: &Question<'_>) -> (Vec<Neighbour>, Route, u64) {
    let segments = || {
        let parts = slot.segments.par_iter().map(|segment| one_segment(segment, question));
        parts.reduce_with(Part::merge)
    };
    let delta = || (slot.delta.rows > 0).then(|| scan::delta(&slot.delta, question));
    let (found, newer) = rayon::join(segments, delta);
    let route = if question.filter.is_some() { Route::ExactFiltered } else { Route::Exact };
    let newer = Part {
        best: newer.unwrap_or_else(|| TopK::new(question.k)),
        route,
        visited: slot.delta.rows,
    };
    let found = match found {
        Some(found) => found.merge(newer),
        None => newer,
    };
    (scan::neighbours(found.best), found.route, found.visited as u64)
}

/// Where a search of some rows is [`Extent::Large`]: more than so many walks, or so many times what one thread scans at a time.
const MEDIUM: usize = 4;

/// How much a search of these rows has to do.
pub(crate) fn extent(slot: &SlotView, exact: bool) -> Extent {
    let walks = |segment: &&Arc<Segment>| !exact && segment.walk().is_some();
    let (walked, scanned): (Vec<_>, Vec<_>) = slot.segments.iter().partition(walks);
    let rows = slot.delta.rows + scanned.iter().map(|segment| segment.len()).sum::<usize>();
    let floats = rows.saturating_mul(slot.delta.dims);
    let within = |times| walked.len() <= times && floats <= times * scan::FLOATS_PER_TASK;
    match (within(1), within(MEDIUM)) {
        (true, _) => Extent::Small,
        (_, true) => Extent::Medium,
        _ => Extent::Large,
    }
}

fn one_segment<'a>(segment: &'a Segment, question: &Question<'_>) -> Part<'a> {
    match (question.filter, segment.sets()) {
        (None, _) => unfiltered(segment, question),
        (Some(filter), Some(sets)) => {
            let mut allowed = sets.rows(filter);
            if let Some(hidden) = segment.hidden(question.generation) {
                hidden.remove_from(Arc::make_mut(&mut allowed));
            }
            filtered(segment, &allowed, question)
        }
        // The sets are made soon after a start.
        (Some(_), None) => Part {
            best: scan::segment(segment, question),
            route: Route::ExactFiltered,
            visited: segment.len(),
        },
    }
}

fn unfiltered<'a>(segment: &'a Segment, question: &Question<'_>) -> Part<'a> {
    let costs = Costs::of(segment, question);
    if let Some(walk) = segment.walk().filter(|_| !question.exact)
        && costs.walk(width(walk, question)) <= costs.scan(segment.len())
    {
        let hidden = segment.hidden(question.generation);
        let allow = hidden.map(|hidden| {
            let mut allow = RowSet::all(segment.len());
            hidden.remove_from(&mut allow);
            allow
        });
        if let Some((best, visited)) = walk_segment(segment, walk, question, allow.as_ref()) {
            return Part { best, route: Route::Graph, visited };
        }
    }
    Part { best: scan::segment(segment, question), route: Route::Exact, visited: segment.len() }
}

fn filtered<'a>(segment: &'a Segment, allowed: &RowSet, question: &Question<'_>) -> Part<'a> {
    let costs = Costs::of(segment, question);
    let count = allowed.len();
    let mut route = Route::ExactFiltered;
    if let Some(walk) = segment.walk().filter(|_| !question.exact && count > question.k) {
        let width = width(walk, question);
        let way = costs.cheapest((question.k, width), (count, segment.len()));
        let keeps = costs.within(width, (count, segment.len())) < costs.pick(count);
        let within = || walk_segment(segment, walk, question, Some(allowed));
        let found = match way {
            Way::Pick => None,
            Way::Within => within(),
            // What passes may lie elsewhere than what is near.
            Way::Wider(width) => walk_wider(segment, walk, question, (allowed, width))
                .or_else(|| keeps.then(within).flatten()),
        };
        if let Some((best, visited)) = found {
            return Part { best, route: Route::GraphFiltered, visited };
        }
        if way != Way::Pick {
            route = Route::GraphEscalated;
        }
    }
    let rows: Vec<u32> = allowed.iter().collect();
    Part { best: scan::rows(segment, &rows, question), route, visited: count }
}

/// The ways to the neighbours among some allowed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Each of them is scored.
    Pick,
    /// The graph keeps to them.
    Within,
    /// The graph is walked as without a filter, but wider, and what is not allowed is left out.
    Wider(usize),
}

/// What the caller wants, or what the graph was seen to need.
fn width(walk: &Walk, question: &Question<'_>) -> usize {
    let asked = if question.ef_search == 0 { walk.ef_search } else { question.ef_search };
    asked.max(question.k)
}

/// What each way costs, in rows of a matrix scanned in order. By the examples `bench_scan` and
/// `bench_filter`.
#[derive(Debug, Clone, Copy)]
struct Costs {
    /// A row read in order.
    scan: f64,
    /// A row picked out of the others.
    pick: f64,
    /// A walk, for each unit of its width.
    walk: f64,
    /// Whether the graph can keep to allowed rows.
    keeps: bool,
}

/// Least share of the allowed rows to be expected of a wider walk that it must have come by: where
/// they are fewer, what passes lies elsewhere than what is near, and the nearest of it may not be
/// among them. By `bench_filter` on 100,000 x 256, filters of whole clusters: at .8 recall@10 is .976,
/// at .95 it is .983.
const LEAST_PASSING: f64 = 0.95;
/// A walk that keeps to allowed rows passes through many others: by so much it is dearer.
const WITHIN: f64 = 15.0;
/// And where fewer than one row in so many is allowed, it finds too few of the nearest: on 100,000 x 256
/// clustered vectors .94 of ten at 4 % and a width of 32, .79 at 2 %.
const ONE_IN: usize = 25;

impl Costs {
    fn of(segment: &Segment, question: &Question<'_>) -> Self {
        let walk = question.walk_cost_rows as f64;
        match segment.body() {
            Body::Rows(_) => Self { scan: 1.0, pick: 1.5, walk, keeps: false },
            // It tells by a byte of each component which rows need no reading; its walks are eight times
            // as fast as those of hnsw_rs.
            Body::Graph(_) => Self { scan: 0.6, pick: 0.6, walk: walk / 8.0, keeps: true },
        }
    }

    fn scan(&self, rows: usize) -> f64 {
        self.scan * rows as f64
    }

    fn pick(&self, rows: usize) -> f64 {
        self.pick * rows as f64
    }

    fn walk(&self, width: usize) -> f64 {
        self.walk * width as f64
    }

    /// A walk that keeps to so many allowed rows of all; infinite where it is no way.
    fn within(&self, width: usize, (allowed, rows): (usize, usize)) -> f64 {
        let keeps = self.keeps && allowed.saturating_mul(ONE_IN) >= rows;
        if keeps { WITHIN * self.walk(width) } else { f64::INFINITY }
    }

    /// The cheapest way to the nearest k among so many allowed rows of all.
    fn cheapest(&self, (k, width): (usize, usize), (allowed, rows): (usize, usize)) -> Way {
        let wider = wider((k, width), rows as f64 / allowed.max(1) as f64);
        let ways = [
            (self.pick(allowed), Way::Pick),
            (self.walk(wider), Way::Wider(wider)),
            (self.within(width, (allowed, rows)), Way::Within),
        ];
        let cheapest = ways.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        cheapest.map_or(Way::Pick, |(_, way)| way)
    }
}

/// How wide a walk finds the nearest k allowed ones as well as one of `width` finds the nearest k of
/// all, where one row of `of_one` is allowed: they lie among the first `k * of_one`, for which the
/// width need not grow as many times.
fn wider((k, width): (usize, usize), of_one: f64) -> usize {
    (width as f64 + k as f64 * (of_one - 1.0)).ceil() as usize
}

/// A walk of the given width, of which the allowed rows are kept. `None` when the graph failed or
/// too few are allowed.
fn walk_wider<'a>(
    segment: &'a Segment,
    walk: &Walk,
    question: &Question<'_>,
    (allowed, width): (&RowSet, usize),
) -> Option<(Best<'a>, usize)> {
    let share = allowed.len() as f64 / segment.len().max(1) as f64;
    let expected = ((width as f64 * share * LEAST_PASSING) as usize).max(question.k);
    let ask = Ask { allow: Some(allowed), through: true, ..Ask::new(expected, width) };
    let found = walk.graph.search(question.vector, &ask).ok()?;
    if found.near.len() < expected {
        return None;
    }
    // The best come first; a few more, because what a graph says may be off in the last bits.
    let near = found.near.iter().map(|near| near.row);
    let near: Vec<u32> = near.take(question.k.saturating_add(8)).collect();
    Some((scan::rows(segment, &near, question), found.visited))
}

/// Rows near the query that may be found, scored exactly. `None` when the graph failed or came back
/// short.
fn walk_segment<'a>(
    segment: &'a Segment,
    walk: &Walk,
    question: &Question<'_>,
    allow: Option<&RowSet>,
) -> Option<(Best<'a>, usize)> {
    // What a filter lets pass may lie apart, and a walk that keeps to it finds its way less well.
    let wider = if question.filter.is_some() { 2 } else { 1 };
    let ask = Ask { allow, ..Ask::new(question.k, wider * width(walk, question)) };
    let found = walk.graph.search(question.vector, &ask).ok()?;
    if found.near.len() < question.k {
        return None;
    }
    let (mut best, mut room) = (TopK::new(question.k), Scores::default());
    for near in &found.near {
        let row = near.row as usize;
        let entry = segment.entry(row).as_ref();
        // What a graph says may be off in the last bits.
        let score = segment.score(question.vector, row, &mut room);
        best.push(Scored { score, id: &entry.id, item: entry });
    }
    Some((best, found.visited))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_allowed_rows_are_picked_many_are_found_by_a_wider_walk_and_no_walk_keeps_to_few() {
        let graph = Costs { scan: 0.6, pick: 0.6, walk: 32.0, keeps: true };
        for rows in [1_000, 100_000, 1_000_000, 10_000_000, 100_000_000] {
            assert_eq!(graph.cheapest((10, 64), (rows / 1000, rows)), Way::Pick, "{rows}");
            for allowed in (1..ONE_IN).map(|part| part * rows / (ONE_IN * ONE_IN)) {
                assert_ne!(
                    graph.cheapest((10, 64), (allowed, rows)),
                    Way::Within,
                    "{allowed} of {rows}"
                );
            }
        }
        assert_eq!(graph.cheapest((10, 64), (50_000, 100_000)), Way::Wider(74));
        let other = Costs { keeps: false, ..graph };
        assert!(other.within(64, (50_000, 100_000)).is_infinite());
    }
}
