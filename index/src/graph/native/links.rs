//! Who is linked to whom on one layer: a fixed number of whole cache lines per point.

use std::sync::atomic::{AtomicU32, Ordering};

use super::huge;

/// Ends a list that is not full.
const NONE: u32 = u32::MAX;
/// Links of a cache line.
const PER_LINE: usize = 16;

/// Some links. Atomic, so that a build may walk what another thread is linking: a walk then sees
/// the old or the new neighbour in each place, and both are points of the layer. An atomic read
/// without order costs what a plain one does.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct LinkLine([AtomicU32; PER_LINE]);

impl LinkLine {
    fn empty() -> Self {
        Self([const { AtomicU32::new(NONE) }; PER_LINE])
    }
}

/// One layer. Its points are numbered from 0.
#[derive(Debug)]
pub(super) struct Links {
    lines: Vec<LinkLine>,
    per_point: usize,
    max: usize,
}

impl Links {
    /// Points without links, each with room for `max`, 1 at least.
    pub(super) fn new(points: usize, max: usize) -> Self {
        let per_point = Self::places_for(max) / PER_LINE;
        let mut lines = huge::with_room(points * per_point);
        lines.resize_with(points * per_point, LinkLine::empty);
        Self { lines, per_point, max }
    }

    /// Numbers that a point's list takes with room for `max`.
    pub(super) fn places_for(max: usize) -> usize {
        max.max(1).div_ceil(PER_LINE) * PER_LINE
    }

    /// All places, points one after the other.
    pub(super) fn places(&self) -> impl Iterator<Item = u32> {
        let places = self.lines.iter().flat_map(|line| &line.0);
        places.map(|place| place.load(Ordering::Relaxed))
    }

    /// From all places. `None` when there are not as many as the points have, or a link leads to no
    /// point.
    pub(super) fn from_places(places: &[u32], points: usize, max: usize) -> Option<Self> {
        let good = |&id: &u32| id == NONE || (id as usize) < points;
        if places.len() != points * Self::places_for(max) || !places.iter().all(good) {
            return None;
        }
        let told = places.as_chunks::<PER_LINE>().0.iter();
        let mut lines = huge::with_room(told.len());
        lines.extend(told.map(|line| LinkLine(line.map(AtomicU32::new))));
        Some(Self { lines, per_point: Self::places_for(max) / PER_LINE, max })
    }

    pub(super) fn points(&self) -> usize {
        self.lines.len() / self.per_point
    }

    /// Most links of a point.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<LinkLine>()
    }

    #[inline(always)]
    pub(super) fn lines(&self, point: u32) -> &[LinkLine] {
        let from = point as usize * self.per_point;
        &self.lines[from..from + self.per_point]
    }

    /// The neighbours of a point.
    #[inline(always)]
    pub(super) fn of(&self, point: u32) -> impl Iterator<Item = u32> {
        let places = self.lines(point).iter().flat_map(|line| &line.0);
        places.map(|place| place.load(Ordering::Relaxed)).take_while(|&id| id != NONE)
    }

    /// Replaces the neighbours of a point; those past [`Self::max`] are left out.
    pub(super) fn set(&self, point: u32, neighbours: impl Iterator<Item = u32>) {
        let rest = std::iter::repeat(NONE);
        let places = self.lines(point).iter().flat_map(|line| &line.0);
        for (place, id) in places.zip(neighbours.take(self.max).chain(rest)) {
            place.store(id, Ordering::Relaxed);
        }
    }

    /// Adds a neighbour if there is room. The caller sees to it that no other thread writes here.
    pub(super) fn push(&self, point: u32, neighbour: u32) -> bool {
        let mut places = self.lines(point).iter().flat_map(|line| &line.0).take(self.max);
        let free = places.find(|place| place.load(Ordering::Relaxed) == NONE);
        free.inspect(|place| place.store(neighbour, Ordering::Relaxed)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_as_many_as_it_says_and_no_more() {
        for max in [1, 5, 16, 17, 32] {
            let links = Links::new(3, max);
            assert_eq!(links.points(), 3);
            for id in 0..max as u32 {
                assert!(links.push(1, id));
            }
            assert!(!links.push(1, 99));
            assert_eq!(links.of(1).collect::<Vec<_>>(), (0..max as u32).collect::<Vec<_>>());
            assert_eq!(links.of(0).count() + links.of(2).count(), 0);
            links.set(1, [7, 8].into_iter());
            assert_eq!(links.of(1).collect::<Vec<_>>(), [7, 8][..max.min(2)]);
            links.set(1, 0..100);
            assert_eq!(links.of(1).count(), max);
        }
    }
}
