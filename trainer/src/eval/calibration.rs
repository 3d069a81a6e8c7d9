//! Scores to probabilities: isotonic regression, and how far what it says can be relied on.

mod isotonic;
mod sampling;

use diptych_model::calibration::{Calibration, Curve, VERSION};
use serde::{Deserialize, Serialize};

pub use isotonic::{Block, knots, pool_adjacent_violators};
use sampling::Scored;

use super::division::Division;
use super::encoded::{Encoded, in_scope};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::shards::Split;

/// The share of true pairs among those fitted on: as many as non-pairs.
const PRIOR: f64 = 0.5;

/// Bins of the expected calibration error, equally wide.
pub const BINS: usize = 15;

/// Bars of a histogram of scores, over -1 to 1.
pub const BARS: usize = 50;

/// Curves from scores to probabilities, and how they fare on pairs they were not fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// Whose pairs the curves are fitted on, in words.
    pub fitted_on: String,
    /// Whose pairs the figures below are of, in words. They are mixed with as many random non-pairs.
    pub scored_on: String,
    /// A text asking for pictures.
    pub text_to_picture: Reliability,
    /// A picture asking for texts.
    pub picture_to_text: Reliability,
    /// The curves, as `export` writes them into a bundle.
    pub calibration: Calibration,
}

/// How probabilities fare on pairs that they were not fitted on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reliability {
    /// True pairs.
    pub pairs: usize,
    /// Random non-pairs.
    pub non_pairs: usize,
    /// How far the probability is from the frequency in the mean, 0 to 1.
    pub expected_calibration_error: f64,
    /// What was said and what was so, by probability.
    pub bins: Vec<Bin>,
    /// True pairs by score: equally wide bars over -1 to 1.
    pub pair_scores: Vec<usize>,
    /// Non-pairs by score.
    pub non_pair_scores: Vec<usize>,
}

/// Pairs and non-pairs whose probability lies in one fifteenth of 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many.
    pub count: usize,
    /// Their mean probability.
    pub probability: f64,
    /// The share of true pairs among them.
    pub frequency: f64,
}

/// Fits the curves on the dev split (train where there is none) and scores them on what is reported on
/// and was not fitted on. Where that is nothing, half of the concepts are fitted on and half scored.
/// `None` where there are no pairs.
///
/// # Errors
/// None is expected.
pub fn evaluate(
    corpus: &Corpus,
    encoded: &Encoded,
    scope: Option<Split>,
) -> Result<Option<Calibrated>> {
    let source = if corpus.has(Split::Dev) { Split::Dev } else { Split::Train };
    let fitted = in_scope(corpus, Some(source));
    let asked = in_scope(corpus, scope);
    let scored: Vec<bool> =
        asked.iter().zip(&fitted).map(|(asked, fitted)| *asked && !fitted).collect();
    let (fitted, scored, words) = if scored.contains(&true) {
        let scored_on = scope.map_or("all others", Split::as_str);
        (fitted, scored, (source.as_str().to_owned(), scored_on.to_owned()))
    } else {
        let Division { fitted, scored, .. } = Division::drawn(&asked, 0.5, 1);
        let word = scope.map_or("all", Split::as_str);
        (
            fitted,
            scored,
            (format!("{word}, half of the concepts"), format!("{word}, the other half")),
        )
    };
    let part = |concepts: &[bool]| {
        let (pictures, names) = encoded.of_concepts(|concept| concepts[concept as usize]);
        (sampling::pairs(&names, &pictures, 0), sampling::pairs(&pictures, &names, 1))
    };
    let (fitted, scored) = (part(&fitted), part(&scored));
    if [&fitted.0, &fitted.1, &scored.0, &scored.1].iter().any(|scored| scored.is_empty()) {
        return Ok(None);
    }
    let (there, text_to_picture) = curve(&fitted.0, &scored.0);
    let (back, picture_to_text) = curve(&fitted.1, &scored.1);
    Ok(Some(Calibrated {
        fitted_on: words.0,
        scored_on: words.1,
        text_to_picture,
        picture_to_text,
        calibration: Calibration {
            version: VERSION,
            prior: PRIOR,
            text_to_image: there,
            image_to_text: back,
        },
    }))
}

fn curve(fitted: &[Scored], scored: &[Scored]) -> (Curve, Reliability) {
    let pairs = fitted.iter().filter(|scored| scored.pair).count();
    let mut curve = Curve {
        knots: knots(fitted.iter().map(|scored| (scored.score, scored.pair)).collect()),
        pairs: pairs as u64,
        non_pairs: (fitted.len() - pairs) as u64,
        expected_calibration_error: None,
    };
    let reliability = reliability(&curve, scored);
    curve.expected_calibration_error = Some(reliability.expected_calibration_error);
    (curve, reliability)
}

fn reliability(curve: &Curve, scored: &[Scored]) -> Reliability {
    let said: Vec<(f64, bool)> =
        scored.iter().map(|scored| (curve.probability(scored.score), scored.pair)).collect();
    let bins = bins(&said);
    let bars = |pair: bool| {
        let mut bars = vec![0; BARS];
        for scored in scored.iter().filter(|scored| scored.pair == pair) {
            bars[bin_of((scored.score + 1.0) / 2.0, BARS)] += 1;
        }
        bars
    };
    let pairs = said.iter().filter(|(_, pair)| *pair).count();
    Reliability {
        pairs,
        non_pairs: said.len() - pairs,
        expected_calibration_error: expected_calibration_error(&bins),
        bins,
        pair_scores: bars(true),
        non_pair_scores: bars(false),
    }
}

/// Sorts probabilities, each with whether it was so, into [`BINS`] equally wide bins.
#[must_use]
pub fn bins(said: &[(f64, bool)]) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for (probability, pair) in said {
        let bin = &mut bins[bin_of(*probability, BINS)];
        bin.count += 1;
        bin.probability += probability;
        bin.frequency += f64::from(u8::from(*pair));
    }
    for bin in &mut bins {
        let count = bin.count.max(1) as f64;
        bin.probability /= count;
        bin.frequency /= count;
    }
    bins
}

/// The distance of probability and frequency in the mean over all, by bin (Naeini et al., 2015).
#[must_use]
pub fn expected_calibration_error(bins: &[Bin]) -> f64 {
    let all: usize = bins.iter().map(|bin| bin.count).sum();
    let off = |bin: &Bin| bin.count as f64 * (bin.probability - bin.frequency).abs();
    bins.iter().map(off).sum::<f64>() / all.max(1) as f64
}

/// Which of `count` equal parts of 0 to 1 a value lies in; the ends take what lies beyond.
fn bin_of(value: f64, count: usize) -> usize {
    ((value * count as f64).max(0.0) as usize).min(count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calibration_error_is_the_one_computed_by_hand() {
        // Fifteenths of 0 to 1. In bin 1 (.0667 to .1333): .1 twice, one of them a pair: |.1 - .5| = .4.
        // In bin 7: .5 once, a pair: .5. In bin 14: .95 and 1, both pairs: |.975 - 1| = .025.
        // (2 x .4 + .5 + 2 x .025) / 5 = .27.
        let said = [(0.1, true), (0.1, false), (0.5, true), (0.95, true), (1.0, true)];
        let bins = bins(&said);
        assert_eq!([bins[1].count, bins[7].count, bins[14].count], [2, 1, 2]);
        assert!((expected_calibration_error(&bins) - 0.27).abs() < 1e-12);
        assert!(expected_calibration_error(&[]).abs() < 1e-12);
    }

    #[test]
    fn scores_with_a_known_probability_are_calibrated() {
        // Pairs score uniformly in .2 to 1, non-pairs in -.2 to .6: by Bayes 0, 1/2, 1.
        let grid = |low: f64, pair| {
            (0..4_000).map(move |at| Scored { score: low + 0.8 * f64::from(at) / 4_000.0, pair })
        };
        let all: Vec<Scored> = grid(0.2, true).chain(grid(-0.2, false)).collect();
        let (curve, reliability) = curve(&all, &all);
        assert!(reliability.expected_calibration_error < 0.01, "{reliability:?}");
        for (score, probability) in [(0.0, 0.0), (0.4, 0.5), (0.8, 1.0)] {
            assert!((curve.probability(score) - probability).abs() < 0.01, "{score}");
        }
        assert_eq!((curve.pairs, curve.non_pairs), (4_000, 4_000));
        assert_eq!(reliability.pair_scores.iter().sum::<usize>(), 4_000);
    }
}
