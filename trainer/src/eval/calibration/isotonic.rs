//! The rising step function nearest to what was so, and a few knots that stand for it.

use diptych_model::calibration::Knot;

/// Most knots of a curve: two for each block.
const KNOTS: usize = 64;

/// Neighbours in score that share a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// The lowest score.
    pub low: f64,
    /// The highest score.
    pub high: f64,
    /// How many.
    pub count: f64,
    /// How many of them are true pairs.
    pub pairs: f64,
}

impl Block {
    /// The share of true pairs.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.pairs / self.count
    }

    fn with(self, next: Self) -> Self {
        Self {
            low: self.low,
            high: next.high,
            count: self.count + next.count,
            pairs: self.pairs + next.pairs,
        }
    }
}

/// Isotonic regression of truth on score, by pooling adjacent violators (Ayer et al., 1955): the
/// non-decreasing function with the least squared error. Equal scores share a block. Scores that are no
/// number are left out.
#[must_use]
pub fn pool_adjacent_violators(mut scored: Vec<(f64, bool)>) -> Vec<Block> {
    scored.retain(|(score, _)| score.is_finite());
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut singles: Vec<Block> = Vec::new();
    for (score, pair) in scored {
        let block = Block { low: score, high: score, count: 1.0, pairs: f64::from(u8::from(pair)) };
        match singles.last_mut() {
            Some(last) if last.high >= score => *last = last.with(block),
            _ => singles.push(block),
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for mut block in singles {
        // Blocks of one share are pooled too: nothing but their number is lost.
        while let Some(before) = blocks.pop_if(|before| before.share() >= block.share()) {
            block = before.with(block);
        }
        blocks.push(block);
    }
    blocks
}

/// Scores are told apart to this part of 1, so that knots are still apart once written as text and read.
const STEPS: f64 = 1e9;

/// At most 64 knots of the isotonic regression: the ends of its blocks, of which neighbours are joined
/// that lose the least squared error by it until they are few enough.
#[must_use]
pub fn knots(mut scored: Vec<(f64, bool)>) -> Vec<Knot> {
    scored.iter_mut().for_each(|(score, _)| *score = (*score * STEPS).round() / STEPS);
    let mut blocks = pool_adjacent_violators(scored);
    while blocks.len() > KNOTS / 2 {
        let loss = |at: &usize| {
            let (a, b) = (&blocks[*at], &blocks[*at + 1]);
            a.count * b.count / (a.count + b.count) * (a.share() - b.share()).powi(2)
        };
        let best = (0..blocks.len() - 1).min_by(|a, b| loss(a).total_cmp(&loss(b)));
        let Some(best) = best else { break };
        blocks[best] = blocks[best].with(blocks[best + 1]);
        blocks.remove(best + 1);
    }
    let mut knots = Vec::new();
    for block in &blocks {
        let probability = block.share().clamp(0.0, 1.0);
        knots.push(Knot { score: block.low, probability });
        if block.high > block.low {
            knots.push(Knot { score: block.high, probability });
        }
    }
    knots
}

#[cfg(test)]
mod tests {
    use diptych_model::calibration::Curve;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn violators_are_pooled_as_by_hand() {
        // Truth by score: .1 no, .2 yes, .3 no, .4 no, .5 yes, .6 no, .7 yes, .8 yes.
        // yes no no (.2 to .4) pool to 1/3; yes no (.5, .6) to 1/2, which is above 1/3; yes yes to 1.
        // Blocks: 0 at .1; 1/3 over .2 to .4; 1/2 over .5 to .6; 1 over .7 to .8.
        let truth = [false, true, false, false, true, false, true, true];
        let scored: Vec<(f64, bool)> =
            truth.iter().enumerate().map(|(at, truth)| ((at + 1) as f64 / 10.0, *truth)).collect();
        let mut mixed = scored.clone();
        mixed.rotate_left(3);
        for scored in [scored, mixed] {
            let blocks: Vec<(f64, f64, f64)> = pool_adjacent_violators(scored)
                .iter()
                .map(|block| (block.low, block.high, block.share()))
                .collect();
            let third = 1.0 / 3.0;
            assert_eq!(
                blocks,
                [(0.1, 0.1, 0.0), (0.2, 0.4, third), (0.5, 0.6, 0.5), (0.7, 0.8, 1.0)]
            );
        }
    }

    #[test]
    fn equal_scores_share_a_probability() {
        let scored = vec![(0.5, true), (0.5, false), (0.5, true), (0.1, false), (f64::NAN, true)];
        let blocks = pool_adjacent_violators(scored);
        assert_eq!(blocks.len(), 2);
        assert!((blocks[1].share() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(knots(Vec::new()), []);
    }

    proptest! {
        #[test]
        fn what_comes_out_rises_and_is_a_probability(
            scored in prop::collection::vec((-100..100_i32, any::<bool>()), 1..600),
        ) {
            let pairs = scored.iter().filter(|(_, pair)| *pair).count() as f64;
            let scored: Vec<(f64, bool)> =
                scored.into_iter().map(|(score, pair)| (f64::from(score) / 100.0, pair)).collect();
            let blocks = pool_adjacent_violators(scored.clone());
            // Pooling moves no mass.
            prop_assert!((blocks.iter().map(|block| block.pairs).sum::<f64>() - pairs).abs() < 1e-9);
            prop_assert!(blocks.windows(2).all(|two| two[0].share() < two[1].share()));
            prop_assert!(blocks.windows(2).all(|two| two[0].high < two[1].low));
            let knots = knots(scored);
            prop_assert!(knots.len() <= KNOTS);
            let curve = Curve { knots, pairs: 0, non_pairs: 0, expected_calibration_error: None };
            let said: Vec<f64> =
                (-110..110).map(|at| curve.probability(f64::from(at) / 100.0)).collect();
            prop_assert!(said.windows(2).all(|two| two[0] <= two[1]));
            prop_assert!(said.iter().all(|said| (0.0..=1.0).contains(said)));
        }
    }
}
