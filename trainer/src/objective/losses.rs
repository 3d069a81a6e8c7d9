//! The losses that objectives are made of: functions of tensors, with no variables of their own.

mod gaussian;

use candle_core::{D, Tensor};

pub use gaussian::Gaussian;

use crate::error::Result;

/// Taken from a logit to remove it from a sum of exponentials: far below any logit in use, and
/// small enough that f32 keeps the logits apart.
const REMOVED: f64 = 1e4;

/// What is put under a root or a quotient that could be zero.
const TINY: f64 = 1e-12;

/// Which rows and columns of a matrix of logits belong together.
#[derive(Debug)]
pub struct Matches {
    /// (R, C): `-REMOVED` where row and column belong together, else 0.
    removal: Tensor,
    /// (R, C): weights of the positive pairs; each row's sum to 1 / (rows with a positive).
    weights: Tensor,
}

impl Matches {
    /// Rows and columns match when their groups are equal; for `logits`, whose type and device these
    /// get.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(rows: &[u32], columns: &[u32], logits: &Tensor) -> Result<Self> {
        let counts: Vec<usize> =
            rows.iter().map(|row| columns.iter().filter(|column| *column == row).count()).collect();
        let matched = counts.iter().filter(|count| **count > 0).count().max(1) as f64;
        let mut removal = Vec::with_capacity(rows.len() * columns.len());
        let mut weights = Vec::with_capacity(rows.len() * columns.len());
        for (row, count) in rows.iter().zip(counts) {
            for column in columns {
                let same = row == column;
                removal.push(if same { -REMOVED } else { 0.0 });
                weights.push(if same { 1.0 / (count as f64 * matched) } else { 0.0 });
            }
        }
        let matrix = |values: Vec<f64>| -> Result<Tensor> {
            let shape = (rows.len(), columns.len());
            Ok(Tensor::from_vec(values, shape, logits.device())?.to_dtype(logits.dtype())?)
        };
        Ok(Self { removal: matrix(removal)?, weights: matrix(weights)? })
    }
}

/// InfoNCE (van den Oord et al., 2018, eq. 4) with rows as queries, columns as candidates and any
/// number of positives a row.
///
/// Each positive is told from the row's negatives alone: the other positives of the row are neither
/// negatives nor competitors. A row's loss is the mean over its positives, the batch's the mean over
/// the rows that have one. `logits` is (R, C).
///
/// # Errors
/// If a tensor operation fails.
pub fn info_nce(logits: &Tensor, matches: &Matches) -> Result<Tensor> {
    let negatives = (logits + &matches.removal)?.log_sum_exp(D::Minus1)?.unsqueeze(1)?;
    // -log(e^p / (e^p + sum e^n)) = softplus(log sum e^n - p)
    let losses = softplus(&negatives.broadcast_sub(logits)?)?;
    Ok((losses * &matches.weights)?.sum_all()?)
}

/// The mean of [`info_nce`] in both directions. `logits` is (R, C).
///
/// # Errors
/// If a tensor operation fails.
pub fn symmetric_info_nce(logits: &Tensor, rows: &[u32], columns: &[u32]) -> Result<Tensor> {
    let forward = info_nce(logits, &Matches::new(rows, columns, logits)?)?;
    let transposed = logits.t()?.contiguous()?;
    let backward = info_nce(&transposed, &Matches::new(columns, rows, logits)?)?;
    Ok(((forward + backward)? * 0.5)?)
}

/// Cross-entropy of rows of logits against one class each. `logits` is (R, C).
///
/// # Errors
/// If a class is out of range or a tensor operation fails.
pub fn cross_entropy(logits: &Tensor, classes: &[u32]) -> Result<Tensor> {
    let classes = Tensor::from_slice(classes, (classes.len(), 1), logits.device())?;
    let chosen = logits.gather(&classes, 1)?.squeeze(1)?;
    Ok((logits.log_sum_exp(D::Minus1)? - chosen)?.mean_all()?)
}

/// Linear centred kernel alignment (Kornblith et al., 2019, eq. 3 and 4) of two sets of vectors of the
/// same rows: 0 when no coordinate of one is correlated with any of the other, 1 when they are the
/// same up to rotation and scale. `left` is (B, P), `right` (B, Q).
///
/// Used as the orthogonality loss between shared and exclusive vectors; gradients flow into both.
///
/// # Errors
/// If a tensor operation fails.
pub fn alignment(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let left = left.broadcast_sub(&left.mean_keepdim(0)?)?;
    let right = right.broadcast_sub(&right.mean_keepdim(0)?)?;
    let product = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        Ok(a.t()?.contiguous()?.matmul(b)?.sqr()?.sum_all()?)
    };
    let scale = (product(&left, &left)? * product(&right, &right)?)?;
    let scale = (scale + TINY * TINY)?.sqrt()?;
    Ok((product(&left, &right)? / (scale + TINY)?)?)
}

/// How much of one set of unit rows is found in another of the same rows: the Frobenius norm of the mean
/// of their outer products (Wang et al., 2024, appendix; there a sum over the rows). `left` is (B, P),
/// `right` (B, Q).
///
/// # Errors
/// If a tensor operation fails.
pub fn overlap(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let product = (left.t()?.contiguous()?.matmul(right)? / left.dim(0)? as f64)?;
    Ok((product.sqr()?.sum_all()? + TINY)?.sqrt()?)
}

/// How much unit rows point the same way: the squared length of their mean, about 0 when they are
/// spread out and 1 when they have collapsed. `vectors` is (B, D).
///
/// # Errors
/// If a tensor operation fails.
pub fn concentration(vectors: &Tensor) -> Result<Tensor> {
    Ok(vectors.mean(0)?.sqr()?.sum_all()?)
}

/// The sum of scalars, each times its weight; those of weight 0 take no part. There is at least one.
///
/// # Errors
/// If a tensor operation fails.
pub fn weighted(terms: &[(&Tensor, f64)]) -> Result<Tensor> {
    let mut total = terms[0].0.zeros_like()?;
    for (term, weight) in terms.iter().filter(|(_, weight)| *weight > 0.0) {
        total = (total + (*term * *weight)?)?;
    }
    Ok(total)
}

/// The first `dims` coordinates of unit rows, made unit rows again. `vectors` is (B, D).
///
/// # Errors
/// If a tensor operation fails.
pub fn prefix(vectors: &Tensor, dims: usize) -> Result<Tensor> {
    if vectors.dim(1)? == dims {
        return Ok(vectors.clone());
    }
    let cut = vectors.narrow(1, 0, dims)?.contiguous()?;
    let norm = (cut.sqr()?.sum_keepdim(1)? + TINY)?.sqrt()?;
    Ok(cut.broadcast_div(&norm)?)
}

/// log(1 + e^x) without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let tail = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((x.relu()? + tail)?)
}

#[cfg(test)]
mod tests;
