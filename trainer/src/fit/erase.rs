//! Vectors from which no line tells a known factor, by construction.
//!
//! Where a factor is known to be one side's own (`style`, `language`), what is left of it in shared vectors is projected
//! out of the head when a stage ends: the oblique projection that makes vectors and factor uncorrelated and changes the
//! vectors least (LEACE; Belrose et al., 2023, "LEACE: Perfect linear concept erasure in closed form", theorem 4.2). With S the
//! covariance of the vectors (d, d) and C that of vectors and factor (d, k) it is
//!
//! `P = I - C (C' S^-1 C)^-1 C' S^-1`,
//!
//! which is folded into the last layer, so that what serves knows nothing of it. Uncorrelated is what no linear
//! classifier reads better than a guess (their theorem 3.1). It is done once: bringing vectors to unit length afterwards restores a
//! trace, but each further turn would take as many directions again, and what they say of the rest with them. In the same way a factor
//! that both sides say can be taken out of exclusive vectors.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Tensor, Var};
use diptych_model::{Modality, Space};
use serde::{Deserialize, Serialize};

use super::Training;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::eval::encoded::{Encoded, Side};
use crate::eval::matrix::{Matrix, column_products};
use crate::eval::{Subject, ridge};
use crate::shards::Split;

/// Added to the diagonals of matrices that are inverted, as a part of their mean: a direction may have no variance.
const RIDGE: f64 = 1e-6;
/// The factor that is the language of a text.
const LANGUAGE: &str = "language";

/// What is taken out of which vectors, an entry of `erase` of a stage in a run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// Whose vectors.
    pub modality: Modality,
    /// Which of them.
    pub space: Space,
    /// A label column of the pictures, of texts one that all pictures of a concept agree in; or `language` of texts.
    pub factor: String,
}

/// Takes known factors out of the heads, as learnt from what there is to train on.
pub(super) fn erase(training: &Training, rules: &[Erase]) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let corpus = &training.corpus;
    let wanted: Vec<bool> = corpus.concepts.iter().map(|c| c.split == Split::Train).collect();
    let encoded = Encoded::new(&Subject::of_training(training), &training.withheld, &wanted)?;
    for (modality, name) in [(Modality::Image, "image"), (Modality::Text, "text")] {
        for (space, layer) in [(Space::Shared, "shared"), (Space::Exclusive, "exclusive.output")] {
            let factors: Vec<&str> = rules
                .iter()
                .filter(|rule| rule.modality == modality && rule.space == space)
                .map(|rule| rule.factor.as_str())
                .collect();
            if factors.is_empty() {
                continue;
            }
            let side = if modality == Modality::Image { &encoded.pictures } else { &encoded.names };
            let indicators = indicators(corpus, &encoded, (modality, side), &factors)?;
            let vars = training.params.vars();
            let name = if modality == Modality::Text && corpus.pairs_pictures() {
                "counterpart"
            } else {
                name
            };
            let var = |part: &str| {
                let name = format!("{name}.{layer}.{part}");
                vars.get(&name).ok_or_else(|| {
                    Error::setting(
                        "erase",
                        format!("the model has no layer `{name}` to take it out of"),
                    )
                })
            };
            let vectors = if space == Space::Shared { &side.shared } else { &side.exclusive };
            fold((vectors, &side.concepts), &indicators, (var("weight")?, var("bias")?))?;
        }
    }
    Ok(())
}

/// (rows, classes): which classes of the factors each row has, one of each factor's left out, since it follows from the others.
fn indicators(
    corpus: &Corpus,
    encoded: &Encoded,
    (modality, side): (Modality, &Side),
    factors: &[&str],
) -> Result<Matrix> {
    let mut columns: Vec<Vec<f32>> = Vec::new();
    for factor in factors {
        let column = corpus.label(factor);
        let value = |at: usize| -> Option<&str> {
            let row = side.rows[at];
            match (modality, column) {
                (Modality::Text, _) if *factor == LANGUAGE => Some(&encoded.texts[row].language),
                (Modality::Image, Some(column)) => corpus.pictures[row].labels[column].as_deref(),
                (Modality::Text, Some(column)) => match encoded.texts[row].picture {
                    Some(picture) => corpus.pictures[picture].labels[column].as_deref(),
                    None => corpus.concept_label(side.concepts[at], column),
                },
                (_, None) => None,
            }
        };
        let values: BTreeSet<&str> = (0..side.len()).filter_map(value).collect();
        if values.len() < 2 {
            let message =
                format!("`{factor}` has {} values there; it takes two to tell apart", values.len());
            return Err(Error::setting("erase", message));
        }
        columns.extend(
            values.iter().skip(1).map(|class| {
                (0..side.len()).map(|at| f32::from(value(at) == Some(*class))).collect()
            }),
        );
    }
    let rows = (0..side.len()).flat_map(|at| columns.iter().map(move |column| column[at]));
    Ok(Matrix::new(rows.collect(), columns.len()))
}

/// Folds the projection into a layer of weight (d, features) and bias (d), whose outputs at unit length are `vectors`
/// (rows, d), or (rows, d + 1) with an anchor.
fn fold(
    (vectors, concepts): (&Matrix, &[u32]),
    indicators: &Matrix,
    (weight, bias): (&Var, &Var),
) -> Result<()> {
    let dims = bias.as_tensor().dims1()?;
    let projection = projection((vectors, concepts), indicators, dims)?;
    let device = weight.device();
    let projection =
        Tensor::from_vec(projection, (dims, dims), device)?.to_dtype(weight.dtype())?;
    weight.set(&projection.matmul(weight.as_tensor())?)?;
    bias.set(&projection.matmul(&bias.as_tensor().unsqueeze(1)?)?.squeeze(1)?)?;
    Ok(())
}

/// (d, d), row by row: takes what goes with the indicators out of the first `dims` columns of unit `vectors`.
fn projection(
    (vectors, concepts): (&Matrix, &[u32]),
    indicators: &Matrix,
    dims: usize,
) -> Result<Vec<f32>> {
    let factors = centred(indicators, Some(concepts));
    // A factor that all rows of a concept agree in has nothing within concepts; within them what the concepts say is no part of it.
    let within = factors.values().iter().any(|value| value.abs() > 1e-6);
    let groups = within.then_some(concepts);
    let factors = if within { factors } else { centred(indicators, None) };
    let own = first_columns(vectors, dims);
    let total = centred(&own, None).doubles();
    let covariance = column_products((&total, dims), (&total, dims));
    let own = centred(&own, groups).doubles();
    let shared = column_products((&own, dims), (&factors.doubles(), factors.columns()));
    Ok(oblique(covariance, &shared, dims)?.values().to_vec())
}

/// `I - C (C' S^-1 C)^-1 C' S^-1` of S (d, d) and C (d, k).
fn oblique(covariance: Vec<f64>, c: &[f64], dims: usize) -> Result<Matrix> {
    let classes = c.len() / dims.max(1);
    let solve = |mut a: Vec<f64>, b: Vec<f64>, n: usize| {
        let mean = (0..n).map(|i| a[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| a[i * n + i] += RIDGE * mean);
        ridge::solve(a, b, n).ok_or_else(|| {
            Error::setting(
                "erase",
                "the vectors are not finite or all alike, so nothing can be taken out",
            )
        })
    };
    // S^-1 C, (d, k)
    let whitened = solve(covariance, c.to_vec(), dims)?;
    let gram = column_products((c, classes), (&whitened, classes));
    let transposed = (0..classes).flat_map(|i| whitened.iter().skip(i).step_by(classes).copied());
    let right = solve(gram, transposed.collect(), classes)?;
    let mut out = identity(dims);
    for (row, values) in out.values_mut().chunks_mut(dims).enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            let taken: f64 =
                (0..classes).map(|i| c[row * classes + i] * right[i * dims + column]).sum();
            *value -= taken as f32;
        }
    }
    Ok(out)
}

/// The rows less the mean of their group, or of all.
fn centred(rows: &Matrix, groups: Option<&[u32]>) -> Matrix {
    let group = |at: usize| groups.map_or(0, |groups| groups[at]);
    let mut sums: BTreeMap<u32, (usize, Vec<f64>)> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        let (count, sum) = sums.entry(group(at)).or_insert_with(|| (0, vec![0.0; rows.columns()]));
        *count += 1;
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let values = rows.iter().enumerate().flat_map(|(at, row)| {
        let (count, sum) = &sums[&group(at)];
        row.iter().zip(sum).map(move |(value, sum)| *value - (sum / *count as f64) as f32)
    });
    Matrix::new(values.collect(), rows.columns())
}

fn first_columns(rows: &Matrix, count: usize) -> Matrix {
    Matrix::new(rows.iter().flat_map(|row| row[..count].iter().copied()).collect(), count)
}

fn identity(dims: usize) -> Matrix {
    let mut out = Matrix::zeros(dims, dims);
    (0..dims).for_each(|i| out.values_mut()[i * dims + i] = 1.0);
    out
}

#[cfg(test)]
mod tests;
