//! Numeric gradients: the independent source that every operation and objective is tested against.

use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Half the distance between the two points of a central difference.
const STEP: f64 = 1e-5;

/// Compares the gradients of `function` at `inputs` with central differences, in f64 on the CPU.
/// A result that is no scalar is weighted with fixed pseudo-random numbers and summed first.
/// Answers the largest difference relative to 1 + |gradient|.
///
/// # Errors
/// What `function` answers; and if an input gets no gradient.
pub fn largest_error(
    inputs: &[Tensor],
    function: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<f64> {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|input| Var::from_tensor(&input.to_dtype(DType::F64)?.contiguous()?))
        .collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let gradients = weighted_sum(&function(&tensors)?)?.backward()?;
    let mut largest = 0.0_f64;
    for (index, var) in vars.iter().enumerate() {
        let Some(gradient) = gradients.get(var.as_tensor()) else {
            candle_core::bail!("input {index} gets no gradient");
        };
        let gradient = gradient.flatten_all()?.to_vec1::<f64>()?;
        let values = var.flatten_all()?.to_vec1::<f64>()?;
        for (element, analytic) in gradient.iter().enumerate() {
            let at = |offset: f64| -> Result<f64> {
                let mut moved = values.clone();
                moved[element] += offset;
                let mut tensors: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
                tensors[index] = Tensor::from_vec(moved, var.shape(), &Device::Cpu)?;
                weighted_sum(&function(&tensors)?)?.to_scalar::<f64>()
            };
            let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let error = (numeric - analytic).abs() / (1.0 + analytic.abs());
            // A NaN is never a small error.
            largest = if error.is_nan() { f64::INFINITY } else { largest.max(error) };
        }
    }
    Ok(largest)
}

/// Pseudo-random values between -1 and 1, in f64 on the CPU, fixed by `seed` and `shape`.
///
/// # Errors
/// If the tensor cannot be made.
pub fn values(seed: u64, shape: &[usize]) -> Result<Tensor> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let draw = |_| generator.next_u32() as f64 / u32::MAX as f64 * 2.0 - 1.0;
    Tensor::from_vec((0..count).map(draw).collect::<Vec<f64>>(), shape, &Device::Cpu)
}

fn weighted_sum(y: &Tensor) -> Result<Tensor> {
    let weights = values(77, y.dims())?.to_dtype(y.dtype())?;
    (y * weights)?.sum_all()
}
