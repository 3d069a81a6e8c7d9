//! Our own graph: a hierarchical navigable small world (Malkov and Yashunin, arXiv 1603.09320) in
//! flat arrays.
//!
//! - `line`, `codes`, `stored`: rows, of which a walk reads one byte per component
//! - `links`: neighbours in fixed places, a layer each
//! - `simd`: the instructions, chosen once per search
//! - `scratch`, `queue`, `walk`, `filtered`: walks, and what they write on
//! - `choose`, `build`, `order`: which neighbours are linked, and where points lie
//!
//! A search walks on codes of one byte, and then scores what it found with all bytes.

mod build;
mod choose;
mod codes;
mod file;
mod filtered;
mod huge;
mod line;
mod links;
mod order;
mod queue;
mod scratch;
mod simd;
mod stored;
mod walk;

use std::{ops::Range, path::Path};

use self::{
    filtered::Allowed,
    links::Links,
    queue::MAX_POINTS,
    scratch::{Scratch, with_scratch},
    simd::{Simd, Task, dispatch},
    stored::Stored,
    walk::Paths,
};
use super::{
    Ask, BuildError, Builder, Cancel, FileError, Found, Graph, Near, Params, RowSet, Rows,
    SearchError, Sequence, points::Points,
};

/// Builds [`NativeGraph`]s. With one thread a build is repeatable: rows and parameters decide every
/// link, on any processor.
#[derive(Debug)]
pub(crate) struct Native;

/// Rows and the links between them.
#[derive(Debug)]
struct NativeGraph {
    params: Params,
    /// The rows of each point.
    points: Points,
    /// The point of each row.
    by_row: Vec<u32>,
    stored: Stored,
    /// Lowest first.
    layers: Vec<Links>,
}

impl Builder for Native {
    fn build(
        &self,
        rows: &dyn Rows,
        params: &Params,
        cancel: &Cancel,
    ) -> Result<Box<dyn Graph>, BuildError> {
        super::check(rows, params)?;
        if rows.len() > MAX_POINTS {
            return Err(BuildError::TooMany { rows: rows.len(), limit: MAX_POINTS });
        }
        let mut sequence = Sequence::new(params.seed);
        let points = Points::collapse(rows);
        let mut order: Vec<u32> = (0..points.len() as u32).collect();
        sequence.shuffle(&mut order);
        let points = points.reordered(&order);
        let firsts = points.firsts();
        let low = params.storage.bytes() - 1;
        let codes = stored::encode_codes(rows, &firsts, low);
        let layers = build::empty_layers(firsts.len(), params, &mut sequence);
        let leaders = build::link_all(&layers, &codes, params, cancel)?;
        drop(codes);
        let order = order::by_leader(&layers, &leaders);
        let layers = order::renumbered(&layers, &order);
        let points = points.reordered(&order);
        let stored = Stored::encode(rows, &points.firsts(), params.storage);
        let by_row = points.by_row();
        Ok(Box::new(NativeGraph { params: *params, points, by_row, stored, layers }))
    }

    fn load(&self, path: &Path) -> Result<Box<dyn Graph>, FileError> {
        Ok(Box::new(file::load(path)?))
    }
}

impl Graph for NativeGraph {
    fn len(&self) -> usize {
        self.by_row.len()
    }

    fn dims(&self) -> usize {
        self.stored.dims
    }

    fn search(&self, query: &[f32], ask: &Ask<'_>) -> Result<Found, SearchError> {
        super::check_query(query, self.stored.dims, self.len())?;
        if self.len() == 0 || ask.k == 0 {
            return Ok(Found::default());
        }
        Ok(with_scratch(|scratch| dispatch(Search { graph: self, query, ask, scratch })))
    }

    fn row(&self, row: usize) -> Option<Vec<f32>> {
        self.by_row.get(row).map(|&point| self.stored.decode(point))
    }

    fn read(&self, rows: Range<usize>, out: &mut Vec<f32>) {
        dispatch(Read { graph: self, rows, out });
    }

    fn bounds(&self, query: &[f32], rows: &[u32], out: &mut Vec<f32>) -> bool {
        if query.len() != self.stored.dims {
            return false;
        }
        with_scratch(|scratch| {
            scratch.target.set_vector(query);
            dispatch(Bounds { graph: self, rows, out, scratch });
        });
        true
    }

    fn memory_bytes(&self) -> usize {
        let links: usize = self.layers.iter().map(Links::bytes).sum();
        links + self.stored.bytes() + self.points.bytes() + 4 * self.by_row.capacity()
    }

    fn save(&self, path: &Path) -> Result<(), FileError> {
        file::save(self, path)
    }
}

/// The components of some rows.
struct Read<'a> {
    graph: &'a NativeGraph,
    rows: Range<usize>,
    out: &'a mut Vec<f32>,
}

impl Task for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { graph, rows, out } = self;
        let stored = &graph.stored;
        let mut room = Vec::new();
        let points = graph.by_row.get(rows).unwrap_or_default();
        for (i, &point) in points.iter().enumerate() {
            // Rows lie in no order, so each is a wait for memory unless it was asked for before.
            if let Some(&ahead) = points.get(i + 4) {
                stored.codes.prefetch(simd, ahead);
                for byte in stored.apart(ahead).iter().step_by(line::LINE) {
                    simd.prefetch(byte);
                }
            }
            stored.widen(point, &mut room, out);
        }
    }
}

/// What the dot products of some rows with the scratch's target do not exceed.
struct Bounds<'a> {
    graph: &'a NativeGraph,
    rows: &'a [u32],
    out: &'a mut Vec<f32>,
    scratch: &'a mut Scratch,
}

impl Task for Bounds<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { graph, rows, out, scratch } = self;
        let Stored { codes, dims, .. } = &graph.stored;
        let point = |row: &u32| graph.by_row.get(*row as usize).copied();
        out.clear();
        for (i, row) in rows.iter().enumerate() {
            if let Some(ahead) = rows.get(i + AHEAD).and_then(point) {
                codes.prefetch(simd, ahead);
            }
            // A row that is not there is no nearer than any other.
            let bound = point(row).map(|point| codes.bound(simd, &scratch.target, point, *dims));
            out.push(bound.unwrap_or(f32::NEG_INFINITY));
        }
    }
}

/// A filter that allows no more rows than this many times the width of the walk is answered by
/// comparing them all: a walk would compare about as many, look at many times more on its way, and
/// might miss some. By the example `bench_filter`.
const SCAN_PER_WIDTH: usize = 128;
/// Points fetched ahead of their comparison.
const AHEAD: usize = 16;

/// Points whose bytes are fetched before the first of them is scored.
const SCORED_AHEAD: usize = 6;

/// One search.
struct Search<'a> {
    graph: &'a NativeGraph,
    query: &'a [f32],
    ask: &'a Ask<'a>,
    scratch: &'a mut Scratch,
}

impl Task for Search<'_> {
    type Output = Found;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Found {
        let Self { graph, query, ask, scratch } = self;
        let paths = Paths { layers: &graph.layers, codes: &graph.stored.codes };
        scratch.target.set_vector(query);
        let width = ask.ef.max(ask.k).min(graph.points.len());
        let within = ask.allow.filter(|_| !ask.through);
        if let Some(rows) = within.filter(|rows| rows.len() <= SCAN_PER_WIDTH * width) {
            let visited = graph.scan(simd, rows, width, scratch);
            return Found { near: graph.score_all(simd, query, ask, scratch), visited };
        }
        let Some(entry) = paths.entry(simd, &scratch.target) else { return Found::default() };
        let (at, above) = paths.descend(simd, &scratch.target, entry, 1);
        let count = graph.points.len();
        scratch.seen.start(count);
        scratch.queue.start(width);
        scratch.seen.first(at.point);
        let visited = match within {
            None => {
                scratch.queue.insert(at.similarity, at.point);
                let room = (&mut scratch.queue, &mut scratch.seen);
                paths.widen(simd, &scratch.target, 0, room)
            }
            Some(rows) => {
                scratch.bridges.start(width);
                let allowed = Allowed { points: &graph.points, rows };
                paths.widen_allowed(simd, allowed, at, scratch)
            }
        };
        let near = graph.score_all(simd, query, ask, scratch);
        Found { near, visited: 1 + above + visited }
    }
}

impl NativeGraph {
    /// Compares all allowed points, and leaves the best in the queue.
    #[inline(always)]
    fn scan<S: Simd>(&self, simd: S, rows: &RowSet, width: usize, scratch: &mut Scratch) -> usize {
        let codes = &self.stored.codes;
        scratch.seen.start(self.points.len());
        scratch.queue.start(width);
        let mut visited = 0;
        let mut rows = rows.iter();
        let mut batch = [0_u32; AHEAD];
        loop {
            let mut count = 0;
            for row in rows.by_ref() {
                let Some(&point) = self.by_row.get(row as usize) else { break };
                if scratch.seen.first(point) {
                    codes.prefetch(simd, point);
                    batch[count] = point;
                    count += 1;
                }
                if count == AHEAD {
                    break;
                }
            }
            for &point in &batch[..count] {
                let similarity = codes.similarity(simd, &scratch.target, point);
                scratch.queue.insert(similarity, point);
            }
            visited += count;
            if count < AHEAD {
                break;
            }
        }
        visited
    }

    /// The best k points of the queue by all their bytes, and their rows. Points that are no longer
    /// near enough to be among them, whatever rounding did, are not looked at.
    #[inline(always)]
    fn score_all<S: Simd>(
        &self,
        simd: S,
        query: &[f32],
        ask: &Ask<'_>,
        scratch: &mut Scratch,
    ) -> Vec<Near> {
        let Scratch { queue, bridges: best, target, room, .. } = scratch;
        best.start(ask.k.min(queue.len()));
        let margin = self.stored.codes.margin(target);
        let allowed = |(_, point): &(f32, u32)| {
            let rows = self.points.rows(*point).iter();
            ask.allow.is_none_or(|allow| rows.copied().any(|row| allow.contains(row)))
        };
        let mut ahead = queue.best().filter(allowed);
        ahead.by_ref().take(SCORED_AHEAD).for_each(|(_, point)| self.stored.prefetch(simd, point));
        for (similarity, point) in queue.best().filter(allowed) {
            if let Some((_, point)) = ahead.next() {
                self.stored.prefetch(simd, point);
            }
            if best.worst().is_some_and(|worst| similarity + margin < worst) {
                break;
            }
            best.insert(self.stored.score(query, point, room), point);
        }
        let mut near = Vec::with_capacity(best.len());
        for (score, point) in best.best() {
            if near.len() >= ask.k {
                break;
            }
            let rows = self.points.rows(point).iter().copied();
            let allowed = rows.filter(|&row| ask.allow.is_none_or(|allow| allow.contains(row)));
            near.extend(allowed.map(|row| Near { row, score }));
        }
        near
    }
}
