//! Standard normal numbers for the draws of objectives: functions of the batch alone, so that a resumed
//! run draws the same.

use candle_core::{Device, Tensor};

use crate::augment::{self, generator};
use crate::error::Result;

/// Whose draws they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Pictures.
    Image,
    /// Texts, or what stands in their place.
    Text,
    /// Both together.
    Joint,
}

/// (rows, columns) numbers on `device`.
pub(crate) fn normal(
    seed: u64,
    side: Side,
    (rows, columns): (usize, usize),
    device: &Device,
) -> Result<Tensor> {
    let mut rng = generator(seed, &[side as u64]);
    let values: Vec<f32> = (0..rows * columns).map(|_| augment::normal(&mut rng)).collect();
    Ok(Tensor::from_vec(values, (rows, columns), device)?)
}
