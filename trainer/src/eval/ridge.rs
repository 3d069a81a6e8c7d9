//! Ridge regression by its normal equations, and random features that make it nonlinear.

use rand::Rng;

use super::matrix::{Matrix, column_products};
use crate::augment::{generator, normal};
use crate::error::{Error, Result};

/// Most inputs: the equations are solved by elimination, which takes their cube.
const MOST: usize = 2_048;

/// A linear map from standardised inputs, with an intercept.
#[derive(Debug, Clone)]
pub struct Ridge {
    moments: Vec<(f32, f32)>,
    weights: Matrix,
    intercept: Vec<f64>,
}

impl Ridge {
    /// Minimises `|X W + b - Y|^2 + penalty * |W|^2` over X (n, d), each column standardised, and Y
    /// (n, m).
    ///
    /// # Errors
    /// If there are too many columns, other numbers of rows, or values that are not finite.
    pub fn fit(inputs: &Matrix, targets: &Matrix, penalty: f64) -> Result<Self> {
        let (dims, outputs) = (inputs.columns(), targets.columns());
        if dims > MOST || inputs.rows() != targets.rows() || penalty <= 0.0 {
            let message = format!("cannot be fitted from {dims} columns");
            return Err(Error::setting("ridge", message));
        }
        let moments = inputs.moments();
        let x = inputs.standardised(&moments);
        let intercept = targets.mean();
        let wide = x.doubles();
        let centred: Vec<f64> = targets
            .iter()
            .flat_map(|row| {
                row.iter().zip(&intercept).map(|(value, mean)| f64::from(*value) - mean)
            })
            .collect();
        let mut gram = column_products((&wide, dims), (&wide, dims));
        (0..dims).for_each(|i| gram[i * dims + i] += penalty);
        let right = column_products((&wide, dims), (&centred, outputs));
        let solved = solve(gram, right, dims).ok_or_else(|| {
            Error::setting("ridge", "the vectors are not finite, so nothing can be fitted")
        })?;
        let weights = Matrix::new(solved.into_iter().map(|v| v as f32).collect(), outputs);
        Ok(Self { moments, weights, intercept })
    }

    /// The map's values for inputs (n, d): (n, m).
    ///
    /// # Errors
    /// If the inputs have another number of columns.
    pub fn apply(&self, inputs: &Matrix) -> Result<Matrix> {
        let mut out = inputs.standardised(&self.moments).times(&self.weights)?;
        let width = self.intercept.len().max(1);
        for row in out.values_mut().chunks_mut(width) {
            for (value, add) in row.iter_mut().zip(&self.intercept) {
                *value += *add as f32;
            }
        }
        Ok(out)
    }
}

/// Solves `A X = B` for a symmetric positive definite A (n, n) and B (n, m), row by row, by Cholesky's
/// decomposition. `None` where A is not positive definite.
pub(crate) fn solve(mut a: Vec<f64>, mut b: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    let m = b.len() / n.max(1);
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| a[i * n + k] * a[j * n + k]).sum();
            let rest = a[i * n + j] - dot;
            a[i * n + j] = if i == j {
                // NaN is refused as well.
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / a[j * n + j]
            };
        }
    }
    let mut eliminate = |i: usize, j: usize, factor: f64| {
        for c in 0..m {
            let known = b[j * m + c];
            b[i * m + c] = if i == j { known / factor } else { b[i * m + c] - factor * known };
        }
    };
    for i in 0..n {
        (0..i).for_each(|j| eliminate(i, j, a[i * n + j]));
        eliminate(i, i, a[i * n + i]);
    }
    for i in (0..n).rev() {
        (i + 1..n).for_each(|j| eliminate(i, j, a[j * n + i]));
        eliminate(i, i, a[i * n + i]);
    }
    Some(b)
}

/// Random Fourier features (Rahimi and Recht, 2007) of a Gaussian kernel as wide as the standardised
/// data: a ridge on them is a smooth nonlinear map.
#[derive(Debug, Clone)]
pub struct RandomFeatures {
    moments: Vec<(f32, f32)>,
    frequencies: Matrix,
    phases: Vec<f32>,
}

impl RandomFeatures {
    /// `count` features for inputs like these (n, d).
    #[must_use]
    pub fn new(inputs: &Matrix, count: usize, seed: u64) -> Self {
        let dims = inputs.columns();
        let mut rng = generator(seed, &[0x0066_6561_7475_7265]);
        let width = (dims.max(1) as f32).sqrt();
        let values = (0..dims * count).map(|_| normal(&mut rng) / width).collect();
        let phases = (0..count).map(|_| rng.random::<f32>() * std::f32::consts::TAU).collect();
        Self { moments: inputs.moments(), frequencies: Matrix::new(values, count), phases }
    }

    /// The features of inputs (n, d): (n, count).
    ///
    /// # Errors
    /// If the inputs have another number of columns.
    pub fn apply(&self, inputs: &Matrix) -> Result<Matrix> {
        let mut out = inputs.standardised(&self.moments).times(&self.frequencies)?;
        for row in out.values_mut().chunks_mut(self.phases.len().max(1)) {
            for (value, phase) in row.iter_mut().zip(&self.phases) {
                *value = (*value + phase).cos();
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_one_computed_by_hand() {
        // x = 1, 2, 3 has mean 2 and deviation sqrt(2/3), so z = -a, 0, a with a^2 = 3/2.
        // y = 2, 4, 6, centred -2, 0, 2. Slope in z: (z.y)/(z.z + penalty) = 4a/(3 + 3) = 2a/3.
        // At x = 3: 4 + a 2a/3 = 4 + 1 = 5; at x = 2: 4.
        let x = Matrix::new(vec![1.0, 2.0, 3.0], 1);
        let y = Matrix::new(vec![2.0, 4.0, 6.0], 1);
        let fitted = Ridge::fit(&x, &y, 3.0).unwrap().apply(&x).unwrap();
        for (value, expected) in fitted.values().iter().zip([3.0, 4.0, 5.0]) {
            assert!((value - expected).abs() < 1e-6, "{value}");
        }
    }

    #[test]
    fn equations_are_solved() {
        // [[4, 2, 0], [2, 5, 1], [0, 1, 3]] times [[1, 0], [2, -1], [3, 4]].
        let a = vec![4.0, 2.0, 0.0, 2.0, 5.0, 1.0, 0.0, 1.0, 3.0];
        let b = vec![8.0, -2.0, 15.0, -1.0, 11.0, 11.0];
        let x = solve(a, b, 3).unwrap();
        for (value, expected) in x.iter().zip([1.0, 0.0, 2.0, -1.0, 3.0, 4.0]) {
            assert!((value - expected).abs() < 1e-12, "{value}");
        }
        assert!(solve(vec![1.0, 2.0, 2.0, 1.0], vec![1.0, 1.0], 2).is_none());
        assert!(solve(vec![f64::NAN], vec![1.0], 1).is_none());
    }

    #[test]
    fn a_linear_map_is_found_and_a_square_needs_the_features() {
        let mut rng = generator(3, &[]);
        let x = Matrix::new((0..2_000).map(|_| normal(&mut rng)).collect(), 2);
        let linear = |row: &[f32]| [2.0 * row[0] - row[1], row[1] + 0.5];
        let y = Matrix::new(x.iter().flat_map(linear).collect(), 2);
        let error = |fitted: &Matrix, y: &Matrix| -> f32 {
            let squares = fitted.values().iter().zip(y.values()).map(|(a, b)| (a - b).powi(2));
            squares.sum::<f32>() / y.values().len() as f32
        };
        let found = Ridge::fit(&x, &y, 1e-3).unwrap().apply(&x).unwrap();
        assert!(error(&found, &y) < 1e-6);
        let y = Matrix::new(x.iter().map(|row| row[0] * row[1]).collect(), 1);
        let found = Ridge::fit(&x, &y, 1e-3).unwrap().apply(&x).unwrap();
        assert!(error(&found, &y) > 0.8);
        let features = RandomFeatures::new(&x, 128, 1);
        let wide = features.apply(&x).unwrap();
        let found = Ridge::fit(&wide, &y, 1e-3).unwrap().apply(&wide).unwrap();
        assert!(error(&found, &y) < 0.1, "{}", error(&found, &y));
    }
}
