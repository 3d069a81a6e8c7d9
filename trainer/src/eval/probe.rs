//! Probes: what small classifiers read from the frozen vectors.
//!
//! What only one modality says (the style of a picture, the language of a name) should be read from its
//! exclusive vectors and not from its shared ones; what both say (category, concept) the other way
//! round. Each probe is fitted on some rows and scored on others, beside the share that the most
//! frequent class has among the scored.

pub mod classifier;
mod factors;
mod network;
pub mod regressor;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::SEED;
use super::division::{Division, Rule};
use super::encoded::{Encoded, Side};
use super::matrix::Matrix;
use crate::corpus::Corpus;
use crate::error::Result;
use classifier::{Kind, Rows, accuracy};
use factors::{Factor, NumberFactor};

/// What was read of one factor from one modality.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// `image`, `text`, or `counterpart` for pictures that stand in place of texts.
    pub modality: String,
    /// A label column of the dataset, `concept`, or `language`.
    pub factor: String,
    /// How rows to fit on and rows to score were told apart.
    pub rule: Rule,
    /// Rows fitted on.
    pub fitted: usize,
    /// Rows scored.
    pub scored: usize,
    /// Classes among the rows fitted on. Of concepts a seeded draw of at most 256.
    pub classes: usize,
    /// The share of the most frequent class among the scored rows.
    pub chance: f64,
    /// Read from the shared vectors.
    pub shared: Accuracy,
    /// Read from the exclusive vectors.
    pub exclusive: Accuracy,
}

/// How much was read of a factor that is a number from one modality: coefficients of determination in place
/// of shares, 0 being chance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberReading {
    /// `image`, `text`, or `counterpart` for pictures that stand in place of texts.
    pub modality: String,
    /// A factor of the dataset that is a number.
    pub factor: String,
    /// How rows to fit on and rows to score were told apart.
    pub rule: Rule,
    /// Rows fitted on.
    pub fitted: usize,
    /// Rows scored.
    pub scored: usize,
    /// Read from the shared vectors.
    pub shared: Accuracy,
    /// Read from the exclusive vectors.
    pub exclusive: Accuracy,
}

/// The share of scored rows whose class was said; of numbers, the share of their variance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// By logistic regression; numbers by linear regression.
    pub linear: f64,
    /// By a perceptron with one hidden layer.
    pub mlp: f64,
}

/// Reads every factor of the dataset from both modalities. `asked` says which concepts are those that
/// are reported on: the concept itself is read among these.
///
/// # Errors
/// If a product fails.
pub fn read(
    corpus: &Corpus,
    encoded: &Encoded,
    division: &Division,
    asked: &[bool],
) -> Result<Vec<Reading>> {
    let of_pictures = factors::of_pictures(corpus, &encoded.pictures, division, asked);
    let of_names = factors::of_names(corpus, encoded, division, asked);
    let pictures = of_pictures.iter().map(|factor| ("image", &encoded.pictures, factor));
    let second = second_modality(corpus);
    let names = of_names.iter().map(|factor| (second, &encoded.names, factor));
    let all: Vec<_> = pictures.chain(names).collect();
    all.par_iter().map(|(modality, side, factor)| reading(modality, side, factor)).collect()
}

/// Reads every factor of the dataset that is a number from the pictures of both kinds.
///
/// # Errors
/// If a product fails.
pub fn read_numbers(
    corpus: &Corpus,
    encoded: &Encoded,
    division: &Division,
) -> Result<Vec<NumberReading>> {
    let of_pictures = factors::numbers(corpus, &encoded.pictures.rows, &encoded.pictures, division);
    let counterparts: Vec<usize> =
        encoded.names.rows.iter().filter_map(|row| encoded.texts[*row].picture).collect();
    let of_names = match corpus.pairs_pictures() {
        true => factors::numbers(corpus, &counterparts, &encoded.names, division),
        false => Vec::new(),
    };
    let pictures = of_pictures.iter().map(|factor| ("image", &encoded.pictures, factor));
    let second = second_modality(corpus);
    let names = of_names.iter().map(|factor| (second, &encoded.names, factor));
    let all: Vec<_> = pictures.chain(names).collect();
    all.par_iter().map(|(modality, side, factor)| number_reading(modality, side, factor)).collect()
}

/// What stands beside pictures.
#[must_use]
pub const fn second_modality(corpus: &Corpus) -> &'static str {
    if corpus.pairs_pictures() { "counterpart" } else { "text" }
}

fn number_reading(modality: &str, side: &Side, factor: &NumberFactor) -> Result<NumberReading> {
    let values = (factor.values.select(&factor.fitted), factor.values.select(&factor.scored));
    let read = |kind: Kind, vectors: &Matrix| -> Result<f64> {
        if vectors.columns() == 0 {
            return Ok(0.0);
        }
        let (inputs, others) = (vectors.select(&factor.fitted), vectors.select(&factor.scored));
        let fitted = regressor::Rows { inputs: &inputs, values: &values.0 };
        let scored = regressor::Rows { inputs: &others, values: &values.1 };
        regressor::determination(kind, fitted, scored, SEED)
    };
    let both = |vectors: &Matrix| -> Result<Accuracy> {
        Ok(Accuracy { linear: read(Kind::Linear, vectors)?, mlp: read(Kind::Mlp, vectors)? })
    };
    Ok(NumberReading {
        modality: modality.to_owned(),
        factor: factor.name.clone(),
        rule: factor.rule,
        fitted: factor.fitted.len(),
        scored: factor.scored.len(),
        shared: both(&side.shared)?,
        exclusive: both(&side.exclusive)?,
    })
}

fn reading(modality: &str, side: &Side, factor: &Factor) -> Result<Reading> {
    let classes =
        |rows: &[usize]| -> Vec<u32> { rows.iter().map(|at| factor.classes[*at]).collect() };
    let (fitted, scored) = (classes(&factor.fitted), classes(&factor.scored));
    let cells = [
        (Kind::Linear, &side.shared),
        (Kind::Mlp, &side.shared),
        (Kind::Linear, &side.exclusive),
        (Kind::Mlp, &side.exclusive),
    ];
    let chance = majority(&scored, factor.count);
    let read = |(kind, vectors): &(Kind, &Matrix)| {
        if vectors.columns() == 0 {
            return Ok(chance);
        }
        let (inputs, others) = (vectors.select(&factor.fitted), vectors.select(&factor.scored));
        let fitted = Rows { inputs: &inputs, classes: &fitted };
        let scored = Rows { inputs: &others, classes: &scored };
        accuracy(*kind, fitted, scored, factor.count, SEED)
    };
    let read: Vec<f64> = cells.par_iter().map(read).collect::<Result<_>>()?;
    let of = |first: usize| Accuracy { linear: read[first], mlp: read[first + 1] };
    Ok(Reading {
        modality: modality.to_owned(),
        factor: factor.name.clone(),
        rule: factor.rule,
        fitted: fitted.len(),
        scored: scored.len(),
        classes: factor.count,
        chance,
        shared: of(0),
        exclusive: of(2),
    })
}

/// The share of the most frequent class.
fn majority(classes: &[u32], count: usize) -> f64 {
    let mut counts = vec![0_usize; count];
    classes.iter().for_each(|class| counts[*class as usize] += 1);
    let most = counts.into_iter().max().unwrap_or(0);
    most as f64 / classes.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_share_of_the_most_frequent_class() {
        assert!((majority(&[0, 1, 1, 2], 3) - 0.5).abs() < 1e-12);
        assert!(majority(&[], 3).abs() < 1e-12);
    }
}
