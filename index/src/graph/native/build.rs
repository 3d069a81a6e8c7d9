//! Insertion (Malkov and Yashunin, arXiv 1603.09320, algorithm 1).
//!
//! Points come in a shuffled order, so that rows sorted by cluster do no harm, and those of higher
//! layers come first: then the points of each layer are the first ones, no list of layers is
//! needed, and an insertion finds all upper layers ready. A point's layer has nothing to do with
//! where it lies, so on each layer the order is as random as before.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;

use super::{
    super::{BuildError, Cancel, Params, Sequence},
    codes::Codes,
    links::Links,
    scratch::{Scratch, with_scratch},
    simd::{Simd, Task, dispatch},
    walk::{At, Paths},
};
use crate::background;

/// Layers at most, the lowest included: more than 2^31 points ever fill.
pub(super) const MAX_LAYERS: usize = 32;
/// Points inserted one by one, so that no later one finds an empty graph.
const SERIAL_POINTS: usize = 256;
/// Points inserted before any of the next ones, by all threads.
const STEP: usize = 1024;
/// Locks that writers of links share. Far more than threads, so that two seldom meet.
const LOCKS: usize = 1024;

/// Points per layer, lowest first, for a level of `floor(-ln(U) / ln(M))` per point, U in (0, 1].
fn layer_sizes(points: usize, m: usize, sequence: &mut Sequence) -> Vec<usize> {
    let mut sizes = vec![points];
    let scale = 1.0 / (m as f64).ln();
    for _ in 0..points {
        let level = ((-sequence.share().ln() * scale) as usize).min(MAX_LAYERS - 1);
        sizes.resize(sizes.len().max(level + 1), 0);
        sizes[1..=level].iter_mut().for_each(|size| *size += 1);
    }
    sizes
}

/// Most links of a point on a layer.
pub(super) fn max_links(layer: usize, m: usize) -> usize {
    if layer == 0 { 2 * m } else { m }
}

/// Empty layers for so many points.
pub(super) fn empty_layers(points: usize, params: &Params, sequence: &mut Sequence) -> Vec<Links> {
    let sizes = layer_sizes(points, params.m, sequence);
    let layers = sizes.iter().enumerate();
    layers.map(|(layer, &size)| Links::new(size, max_links(layer, params.m))).collect()
}

/// Links all points. Gives for each the point above that led to it.
pub(super) fn link_all(
    layers: &[Links],
    codes: &Codes,
    params: &Params,
    cancel: &Cancel,
) -> Result<Vec<u32>, BuildError> {
    let inserter = Inserter {
        paths: Paths { layers, codes },
        m: params.m,
        ef: params.ef_construction.max(params.m),
        locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
        leaders: (0..codes.points()).map(|_| AtomicU32::new(0)).collect(),
    };
    let points = codes.points() as u32;
    // The first point is where walks start; it has nobody to link to.
    let serial = points.min(SERIAL_POINTS as u32);
    inserter.insert_range(1..serial, cancel);
    let mut next = serial;
    while next < points && !cancel.load(Ordering::Relaxed) {
        let end = points.min(next + STEP as u32);
        if rayon::current_num_threads() == 1 {
            inserter.insert_range(next..end, cancel);
        } else {
            (next..end).into_par_iter().for_each(|point| inserter.insert(point, cancel));
        }
        next = end;
    }
    if cancel.load(Ordering::Relaxed) {
        return Err(BuildError::Cancelled);
    }
    Ok(inserter.leaders.into_iter().map(AtomicU32::into_inner).collect())
}

struct Inserter<'a> {
    paths: Paths<'a>,
    m: usize,
    ef: usize,
    locks: Vec<Mutex<()>>,
    leaders: Vec<AtomicU32>,
}

struct Insert<'a> {
    inserter: &'a Inserter<'a>,
    scratch: &'a mut Scratch,
    point: u32,
}

impl Inserter<'_> {
    fn insert_range(&self, points: std::ops::Range<u32>, cancel: &AtomicBool) {
        points.for_each(|point| self.insert(point, cancel));
    }

    fn insert(&self, point: u32, cancel: &AtomicBool) {
        if !cancel.load(Ordering::Relaxed) {
            with_scratch(|scratch| dispatch(Insert { inserter: self, scratch, point }));
            background::pause();
        }
    }
}

impl Task for Insert<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { inserter, scratch, point } = self;
        let Paths { layers, codes } = inserter.paths;
        let top = layers.iter().rposition(|links| (point as usize) < links.points()).unwrap_or(0);
        scratch.target.set_point(codes, point);
        let Some(entry) = inserter.paths.entry(simd, &scratch.target) else { return };
        let (mut at, _) = inserter.paths.descend(simd, &scratch.target, entry, top + 1);
        inserter.leaders[point as usize].store(at.point, Ordering::Relaxed);
        let mut chosen = [const { Vec::new() }; MAX_LAYERS];
        for layer in (0..=top).rev() {
            scratch.seen.start(codes.points());
            scratch.queue.start(inserter.ef);
            // A point is no neighbour of its own.
            scratch.seen.first(point);
            scratch.seen.first(at.point);
            scratch.queue.insert(at.similarity, at.point);
            let room = (&mut scratch.queue, &mut scratch.seen);
            inserter.paths.widen(simd, &scratch.target, layer, room);
            scratch.choice.candidates.clear();
            let near = scratch.queue.best().map(|(similarity, point)| At { point, similarity });
            scratch.choice.candidates.extend(near);
            if let Some(&nearest) = scratch.choice.candidates.first() {
                at = nearest;
            }
            scratch.choice.choose(simd, codes, inserter.m);
            chosen[layer] = scratch.choice.chosen.clone();
        }
        // From the bottom up: who meets the point on a layer finds it linked on those below.
        for (layer, chosen) in chosen.iter().enumerate().take(top + 1) {
            inserter.connect(simd, scratch, (layer, point), chosen);
        }
    }
}

impl Inserter<'_> {
    /// Links a point to those chosen, and them to it.
    #[inline(always)]
    fn connect<S: Simd>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        (layer, point): (usize, u32),
        chosen: &[u32],
    ) {
        let links = &self.paths.layers[layer];
        {
            let _lock = self.locks[point as usize % LOCKS].lock();
            links.set(point, chosen.iter().copied());
        }
        for &neighbour in chosen {
            let _lock = self.locks[neighbour as usize % LOCKS].lock();
            if !links.push(neighbour, point) {
                self.shrink(simd, scratch, (layer, neighbour), point);
            }
        }
    }

    /// Chooses anew among a full list and one more, by the same rule as a new point does.
    #[inline(always)]
    fn shrink<S: Simd>(
        &self,
        simd: S,
        scratch: &mut Scratch,
        (layer, point): (usize, u32),
        newcomer: u32,
    ) {
        let links = &self.paths.layers[layer];
        let codes = self.paths.codes;
        scratch.target.set_point(codes, point);
        let choice = &mut scratch.choice;
        choice.candidates.clear();
        for other in links.of(point).chain([newcomer]) {
            codes.prefetch(simd, other);
            let similarity = codes.similarity(simd, &scratch.target, other);
            choice.candidates.push(At { point: other, similarity });
        }
        choice.candidates.sort_unstable_by(|a, b| {
            b.similarity.total_cmp(&a.similarity).then(a.point.cmp(&b.point))
        });
        choice.choose(simd, codes, links.max());
        links.set(point, choice.chosen.iter().copied());
    }
}
