//! Rows of numbers, and products of them.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// Rows of f32 values, one after the other: (rows, columns).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// Whole rows of `columns` values; a rest is left out.
    #[must_use]
    pub fn new(mut values: Vec<f32>, columns: usize) -> Self {
        let rows = values.len().checked_div(columns).unwrap_or(0);
        values.truncate(rows * columns);
        Self { values, rows, columns }
    }

    /// Zeros.
    #[must_use]
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { values: vec![0.0; rows * columns], rows, columns }
    }

    /// The values of a tensor (rows, columns).
    ///
    /// # Errors
    /// If it has another number of dimensions or is not of f32.
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let (rows, columns) = tensor.dims2()?;
        Ok(Self { values: tensor.flatten_all()?.to_vec1()?, rows, columns })
    }

    /// How many rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// All values, row by row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row by row, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One row.
    #[must_use]
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.columns..(at + 1) * self.columns]
    }

    /// The rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        (0..self.rows).map(|at| self.row(at))
    }

    /// Chosen rows, in the order of the choice.
    #[must_use]
    pub fn select(&self, chosen: &[usize]) -> Self {
        let values = chosen.iter().flat_map(|at| self.row(*at)).copied().collect();
        Self { values, rows: chosen.len(), columns: self.columns }
    }

    /// (rows, columns) x (columns, n) -> (rows, n).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn times(&self, other: &Self) -> Result<Self> {
        Self::of(&self.tensor()?.matmul(&other.tensor()?)?)
    }

    /// With the transpose of the other: (rows, columns) x (n, columns) -> (rows, n).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn times_transposed(&self, other: &Self) -> Result<Self> {
        Self::of(&self.tensor()?.matmul(&other.tensor()?.t()?)?)
    }

    /// Of the transpose with the other: (rows, columns) and (rows, n) -> (columns, n).
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn transposed_times(&self, other: &Self) -> Result<Self> {
        Self::of(&self.tensor()?.t()?.matmul(&other.tensor()?)?)
    }

    /// Brings every row to unit length; rows of zeros stay.
    pub fn normalise(&mut self) {
        for row in self.values.chunks_mut(self.columns.max(1)) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        }
    }

    /// The mean of the rows; zeros where there are none.
    #[must_use]
    pub fn mean(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.columns];
        for row in self.iter() {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
        sums.iter().map(|sum| sum / self.rows.max(1) as f64).collect()
    }

    /// Mean and standard deviation of each column, the latter at least a small positive number.
    #[must_use]
    pub fn moments(&self) -> Vec<(f32, f32)> {
        let means = self.mean();
        let mut squares = vec![0.0; self.columns];
        for row in self.iter() {
            for ((square, value), mean) in squares.iter_mut().zip(row).zip(&means) {
                *square += (f64::from(*value) - mean).powi(2);
            }
        }
        let deviation = |square: &f64| (square / self.rows.max(1) as f64).sqrt().max(1e-6);
        means.iter().zip(&squares).map(|(m, s)| (*m as f32, deviation(s) as f32)).collect()
    }

    /// Each column less its mean, over its standard deviation, as `moments` says.
    #[must_use]
    pub fn standardised(&self, moments: &[(f32, f32)]) -> Self {
        let mut out = self.clone();
        for row in out.values.chunks_mut(self.columns.max(1)) {
            for (value, (mean, deviation)) in row.iter_mut().zip(moments) {
                *value = (*value - mean) / deviation;
            }
        }
        out
    }

    /// All values in double precision.
    #[must_use]
    pub fn doubles(&self) -> Vec<f64> {
        self.values.iter().map(|value| f64::from(*value)).collect()
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.values, (self.rows, self.columns), &Device::Cpu)?)
    }
}

/// `A' B` of A (n, d) and B (n, k), both row by row: (d, k). In double precision, unlike [`Matrix::transposed_times`]: what little is left
/// of a direction may be what is inverted next.
#[must_use]
pub fn column_products((a, d): (&[f64], usize), (b, k): (&[f64], usize)) -> Vec<f64> {
    let row = |column: usize| {
        let mut sums = vec![0.0; k];
        for (left, right) in a.chunks(d.max(1)).zip(b.chunks(k.max(1))) {
            for (sum, value) in sums.iter_mut().zip(right) {
                *sum += left[column] * value;
            }
        }
        sums
    };
    (0..d).into_par_iter().flat_map_iter(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        let a = Matrix::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        let b = Matrix::new(vec![1.0, 0.0, 2.0, 1.0, 0.0, 3.0], 2);
        assert_eq!(a.times(&b).unwrap().values(), [5.0, 11.0, 14.0, 23.0]);
        let c = Matrix::new(vec![1.0, 2.0, 0.0, 0.0, 1.0, 3.0], 3);
        assert_eq!(a.times_transposed(&c).unwrap().values(), [5.0, 11.0, 14.0, 23.0]);
        // The transpose of a is [[1, 4], [2, 5], [3, 6]].
        let d = Matrix::new(vec![1.0, -1.0], 1);
        assert_eq!(a.transposed_times(&d).unwrap().values(), [-3.0, -3.0, -3.0]);
        let (a, d) = ((&*a.doubles(), 3), (&*d.doubles(), 1));
        assert_eq!(column_products(a, d), [-3.0, -3.0, -3.0]);
    }

    #[test]
    fn standardised_columns_have_mean_0_and_deviation_1() {
        let a = Matrix::new(vec![1.0, 7.0, 3.0, 7.0], 2);
        assert_eq!(a.standardised(&a.moments()).values(), [-1.0, 0.0, 1.0, 0.0]);
    }
}
