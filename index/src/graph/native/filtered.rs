//! A walk that finds allowed points only.
//!
//! Where a filter lets few points pass, the links among those left do not hold together, and a walk
//! that keeps to them strands. So a neighbour that is not allowed is passed through: its own
//! neighbours are looked at in its place (the two-hop rule of ACORN, Patel, Kraft, Guestrin and
//! Zaharia, arXiv 2403.04871, section 5). Where even that gives few, those not allowed are kept as
//! bridges and expanded in their turn: a filter may let pass only what lies far from the query, or
//! in other clusters.

use super::{
    super::{RowSet, points::Points},
    codes::Target,
    queue::Queue,
    scratch::{Scratch, Seen},
    simd::Simd,
    walk::{At, Paths},
};

/// Most neighbours that are looked at together: those of a point with the most links there may be.
const BATCH: usize = 256;

/// Which points are allowed: those with an allowed row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    pub(super) points: &'a Points,
    pub(super) rows: &'a RowSet,
}

impl Allowed<'_> {
    #[inline(always)]
    fn contains(&self, point: u32) -> bool {
        self.points.rows(point).iter().any(|&row| self.rows.contains(row))
    }
}

/// Neighbours of one point that are to be compared.
struct Batch {
    allowed: [u32; BATCH],
    count: usize,
    /// Not allowed.
    passed: [u32; BATCH],
    passed_count: usize,
}

impl Batch {
    #[inline(always)]
    fn push(&mut self, point: u32) {
        if let Some(place) = self.allowed.get_mut(self.count) {
            *place = point;
            self.count += 1;
        }
    }
}

impl Paths<'_> {
    /// As [`Paths::widen`] on layer 0, from one point on. The scratch's queue then holds allowed
    /// points alone.
    #[inline(always)]
    pub(super) fn widen_allowed<S: Simd>(
        &self,
        simd: S,
        allowed: Allowed<'_>,
        from: At,
        scratch: &mut Scratch,
    ) -> usize {
        let Scratch { seen, queue, bridges, target, .. } = scratch;
        let first = if allowed.contains(from.point) { &mut *queue } else { &mut *bridges };
        first.insert(from.similarity, from.point);
        let mut batch =
            Batch { allowed: [0; BATCH], count: 0, passed: [0; BATCH], passed_count: 0 };
        let mut visited = 0;
        while let Some(point) = queue.expand_either(bridges) {
            self.gather(simd, allowed, point, (seen, &mut batch));
            visited += self.compare(simd, target, queue, &batch.allowed[..batch.count]);
            if batch.count < self.layers[0].max() / 2 {
                let passed = &batch.passed[..batch.passed_count];
                visited += self.compare(simd, target, bridges, passed);
            }
        }
        visited
    }

    /// Finds allowed neighbours not seen before, as many as a point has links at most: first those
    /// linked, then those behind a neighbour that is not allowed.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        simd: S,
        allowed: Allowed<'_>,
        point: u32,
        (seen, batch): (&mut Seen, &mut Batch),
    ) {
        let links = &self.layers[0];
        (batch.count, batch.passed_count) = (0, 0);
        for &neighbour in seen.firsts(links.of(point), links.max()) {
            if allowed.contains(neighbour) {
                self.codes.prefetch(simd, neighbour);
                batch.push(neighbour);
            } else if let Some(place) = batch.passed.get_mut(batch.passed_count) {
                *place = neighbour;
                batch.passed_count += 1;
                links.lines(neighbour).iter().for_each(|line| simd.prefetch(line));
            }
        }
        for i in 0..batch.passed_count.min(BATCH) {
            for neighbour in links.of(batch.passed[i]) {
                if batch.count >= links.max() {
                    return;
                }
                if allowed.contains(neighbour) && seen.first(neighbour) {
                    self.codes.prefetch(simd, neighbour);
                    batch.push(neighbour);
                }
            }
        }
    }

    #[inline(always)]
    fn compare<S: Simd>(
        &self,
        simd: S,
        target: &Target,
        queue: &mut Queue,
        points: &[u32],
    ) -> usize {
        for &point in points {
            queue.insert(self.codes.similarity(simd, target, point), point);
        }
        points.len()
    }
}
