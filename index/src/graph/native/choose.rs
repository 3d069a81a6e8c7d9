//! Which neighbours to link (Malkov and Yashunin, arXiv 1603.09320, algorithm 4, without extension
//! and without keeping what was pruned).

use super::{
    codes::{Codes, Target},
    simd::Simd,
    walk::At,
};

/// Room to choose in.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// What may be chosen, best first.
    pub(super) candidates: Vec<At>,
    /// What was, best first.
    pub(super) chosen: Vec<u32>,
    targets: Vec<Target>,
}

impl Choice {
    /// Chooses at most `max` of the candidates: those that are nearer to the point they are
    /// candidates of than to each one chosen before, so that links lead in all directions.
    #[inline(always)]
    pub(super) fn choose<S: Simd>(&mut self, simd: S, codes: &Codes, max: usize) {
        self.chosen.clear();
        if self.targets.len() < max {
            self.targets.resize_with(max, Target::default);
        }
        for candidate in &self.candidates {
            if self.chosen.len() >= max {
                return;
            }
            let shadowed = self.targets[..self.chosen.len()].iter().any(
                #[inline(always)]
                |chosen| codes.similarity(simd, chosen, candidate.point) >= candidate.similarity,
            );
            if !shadowed {
                self.targets[self.chosen.len()].set_point(codes, candidate.point);
                self.chosen.push(candidate.point);
            }
        }
    }
}
