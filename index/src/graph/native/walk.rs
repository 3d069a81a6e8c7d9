//! Walks over the links (Malkov and Yashunin, arXiv 1603.09320: algorithm 2, and algorithm 5 less
//! its last step).

use super::{
    codes::{Codes, Target},
    links::Links,
    queue::Queue,
    scratch::Seen,
    simd::Simd,
};

/// What is walked. On layer `l` the points are the first `layers[l].points()`; layer 0 has all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paths<'a> {
    pub(super) layers: &'a [Links],
    pub(super) codes: &'a Codes,
}

/// A point and how near it is to the target.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) point: u32,
    pub(super) similarity: f32,
}

impl Paths<'_> {
    /// The point that every walk starts at: it is on all layers. `None` without points.
    #[inline(always)]
    pub(super) fn entry<S: Simd>(&self, simd: S, target: &Target) -> Option<At> {
        if self.codes.points() == 0 {
            return None;
        }
        Some(At { point: 0, similarity: self.codes.similarity(simd, target, 0) })
    }

    /// Goes to nearer neighbours until there is none, on each layer from the top down to `last`.
    #[inline(always)]
    pub(super) fn descend<S: Simd>(
        &self,
        simd: S,
        target: &Target,
        from: At,
        last: usize,
    ) -> (At, usize) {
        let mut at = from;
        let mut visited = 0;
        for links in self.layers.iter().skip(last).rev() {
            loop {
                let start = at.point;
                for neighbour in links.of(start) {
                    self.codes.prefetch(simd, neighbour);
                }
                for neighbour in links.of(start) {
                    visited += 1;
                    let similarity = self.codes.similarity(simd, target, neighbour);
                    if similarity > at.similarity {
                        at = At { point: neighbour, similarity };
                    }
                }
                if at.point == start {
                    break;
                }
            }
        }
        (at, visited)
    }

    /// Expands the best points of the queue until those in it are all expanded. The caller has put
    /// in where to start. Returns how many points were compared.
    #[inline(always)]
    pub(super) fn widen<S: Simd>(
        &self,
        simd: S,
        target: &Target,
        layer: usize,
        (queue, seen): (&mut Queue, &mut Seen),
    ) -> usize {
        let links = &self.layers[layer];
        let mut visited = 0;
        while let Some(point) = queue.expand() {
            // Most often the next point is the best of those that wait already: its links are on
            // their way while this one's neighbours are compared.
            if let Some(next) = queue.peek() {
                links.lines(next).iter().for_each(|line| simd.prefetch(line));
            }
            let neighbours = seen.firsts(links.of(point), links.max());
            visited += neighbours.len();
            neighbours.iter().for_each(|&neighbour| self.codes.prefetch(simd, neighbour));
            for &neighbour in neighbours {
                queue.insert(self.codes.similarity(simd, target, neighbour), neighbour);
            }
        }
        visited
    }
}
