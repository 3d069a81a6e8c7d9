//! From a similarity to the probability of a true pair: `calibration.json` of a bundle.
//!
//! A [`Curve`] is a rising line through knots, fitted by isotonic regression (Zadrozny and Elkan, 2002)
//! on pairs mixed with random non-pairs. What it says holds for that mixture, whose share of true pairs
//! is the [`Calibration::prior`]: among all candidates of a search true pairs are rarer.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The version of the file that this code writes, and the only one it reads.
pub const VERSION: u32 = 1;

const FILE: &str = "calibration.json";

/// The content of `calibration.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// [`VERSION`].
    pub version: u32,
    /// The share of true pairs that the probabilities assume, between 0 and 1, neither included.
    pub prior: f64,
    /// For a text asking for pictures.
    pub text_to_image: Curve,
    /// For a picture asking for texts.
    pub image_to_text: Curve,
}

/// Probability by score in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// At least one; scores rise, probabilities do not fall.
    pub knots: Vec<Knot>,
    /// True pairs that the curve was fitted on.
    pub pairs: u64,
    /// Random non-pairs that it was fitted on.
    pub non_pairs: u64,
    /// The expected calibration error (15 bins) on pairs that it was not fitted on, 0 to 1; absent
    /// where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_calibration_error: Option<f64>,
}

/// A point of a [`Curve`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Knot {
    /// Cosine similarity of shared vectors, -1 to 1 but for rounding.
    pub score: f64,
    /// Probability of a true pair, 0 to 1.
    pub probability: f64,
}

impl Calibration {
    /// Reads and checks the content of `calibration.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for another version, or values that no calibration has.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let calibration: Self = serde_json::from_slice(json)
            .map_err(|error| damaged(&format!("is not a calibration ({error})")))?;
        let Self { version, prior, text_to_image, image_to_text } = &calibration;
        if *version != VERSION {
            return Err(damaged(&format!("has version {version}, this program reads {VERSION}")));
        }
        if !(*prior > 0.0 && *prior < 1.0) {
            return Err(damaged(&format!("has the prior {prior}, not one between 0 and 1")));
        }
        for (name, curve) in [("text_to_image", text_to_image), ("image_to_text", image_to_text)] {
            curve.check().map_err(|wrong| damaged(&format!("{wrong} in `{name}`")))?;
        }
        Ok(calibration)
    }

    /// The content of `calibration.json`.
    ///
    /// # Errors
    /// [`Error::Internal`] if it cannot be written, which is not expected.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Internal { message: format!("{FILE}: {error}") })?;
        json.push(b'\n');
        Ok(json)
    }
}

impl Curve {
    /// The probability of a true pair at a score: linear between knots, as the nearest knot outside of
    /// them. 0 for a score that is no number.
    #[must_use]
    pub fn probability(&self, score: f64) -> f64 {
        if score.is_nan() {
            return 0.0;
        }
        let after = self.knots.partition_point(|knot| knot.score <= score);
        match (after.checked_sub(1).and_then(|at| self.knots.get(at)), self.knots.get(after)) {
            (Some(low), Some(high)) => {
                let along = (score - low.score) / (high.score - low.score);
                // Rounding may not leave the range between the two.
                (low.probability + along * (high.probability - low.probability))
                    .clamp(low.probability, high.probability)
            }
            (Some(only), None) | (None, Some(only)) => only.probability,
            (None, None) => 0.0,
        }
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.knots.is_empty() {
            return Err("has no knots");
        }
        let usable =
            |knot: &Knot| knot.score.is_finite() && (0.0..=1.0).contains(&knot.probability);
        if !self.knots.iter().all(usable) {
            return Err("has a knot out of range");
        }
        let rising =
            |two: &[Knot]| two[0].score < two[1].score && two[0].probability <= two[1].probability;
        if self.knots.windows(2).all(rising) { Ok(()) } else { Err("has knots that do not rise") }
    }
}

fn damaged(wrong: &str) -> Error {
    Error::corrupt(FILE, format!("{wrong}; export the bundle again"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curve(knots: &[(f64, f64)]) -> Curve {
        let knot =
            |(score, probability): &(f64, f64)| Knot { score: *score, probability: *probability };
        Curve {
            knots: knots.iter().map(knot).collect(),
            pairs: 3,
            non_pairs: 3,
            expected_calibration_error: Some(0.01),
        }
    }

    fn calibration(knots: &[(f64, f64)]) -> Calibration {
        let (text_to_image, image_to_text) = (curve(knots), curve(&[(0.0, 0.5)]));
        Calibration { version: VERSION, prior: 0.5, text_to_image, image_to_text }
    }

    #[test]
    fn between_knots_it_is_linear_and_outside_it_stays() {
        let curve = curve(&[(0.0, 0.1), (0.2, 0.1), (0.6, 0.9)]);
        let expected =
            [(-1.0, 0.1), (0.0, 0.1), (0.1, 0.1), (0.2, 0.1), (0.3, 0.3), (0.6, 0.9), (1.0, 0.9)];
        for (score, probability) in expected {
            assert!((curve.probability(score) - probability).abs() < 1e-12, "{score}");
        }
        assert!(curve.probability(f64::NAN).abs() < f64::EPSILON);
        assert!((curve.probability(f64::INFINITY) - 0.9).abs() < f64::EPSILON);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let calibration = calibration(&[(0.0, 0.25), (0.5, 0.75)]);
        assert_eq!(Calibration::parse(&calibration.to_json().unwrap()).unwrap(), calibration);
    }

    #[test]
    fn what_no_calibration_has_is_refused() {
        let good = calibration(&[(0.0, 0.25), (0.5, 0.75)]);
        let mut future = good.clone();
        future.version = 2;
        let mut prior = good;
        prior.prior = 1.0;
        let wrong = [
            (future, "version 2"),
            (prior, "prior"),
            (calibration(&[]), "no knots in `text_to_image`"),
            (calibration(&[(0.0, 0.5), (0.1, 1.5)]), "out of range"),
            (calibration(&[(0.0, 0.5), (0.1, 0.4)]), "do not rise"),
            (calibration(&[(0.0, 0.5), (0.0, 0.6)]), "do not rise"),
        ];
        for (calibration, expected) in wrong {
            let error = Calibration::parse(&calibration.to_json().unwrap()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        assert!(Calibration::parse(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn a_higher_score_is_never_less_probable(
            steps in prop::collection::vec((1e-6..1.0_f64, 0.0..1.0_f64), 1..20),
            scores in prop::collection::vec(-2.0..25.0_f64, 2),
        ) {
            let total: f64 = steps.iter().map(|step| step.1).sum();
            let (mut score, mut probability) = (-1.0, 0.0);
            let knots: Vec<(f64, f64)> = steps
                .iter()
                .map(|step| {
                    score += step.0;
                    probability += step.1 / total.max(1e-9);
                    (score, f64::min(probability, 1.0))
                })
                .collect();
            let curve = curve(&knots);
            prop_assert!(curve.check().is_ok());
            let (low, high) = (scores[0].min(scores[1]), scores[0].max(scores[1]));
            let (low, high) = (curve.probability(low), curve.probability(high));
            prop_assert!(low <= high && (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high));
        }
    }
}
