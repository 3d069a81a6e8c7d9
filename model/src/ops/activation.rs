//! The rectifier.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::real::{Real, elements, for_real, native, view};

/// max(0, x). Its gradient is 0 at 0, where candle's own answers 1.
///
/// # Errors
/// If `x` is not of a float type.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !native(x) {
        return composed(x);
    }
    x.contiguous()?.apply_op1(Relu)
}

/// The same function from candle's operations. Zeros are made on the device; a number to compare with
/// would be sent there each time.
fn composed(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.gt(&zeros)?.where_cond(x, &zeros)
}

/// Elements that one task handles.
const RUN: usize = 16 * 1024;

/// `dy` where `y` is positive, else 0.
pub(super) fn gate<T: Real>(y: &[T], dy: &[T]) -> Vec<T> {
    let mut dx = vec![T::zero(); dy.len()];
    let runs = (dx.par_chunks_mut(RUN), y.par_chunks(RUN), dy.par_chunks(RUN));
    runs.into_par_iter().for_each(|(dx, y, dy)| {
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = if *y > T::zero() { *dy } else { T::zero() };
        }
    });
    dx
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_real!(x.dtype(), "relu", T => {
            let x = elements::<T>(x, layout)?;
            // Where x is positive, x itself: the gradient's rule with dy = x.
            Ok((T::to_cpu_storage_owned(gate(x, x)), layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(y.dtype(), "relu", T => {
            let dx = gate::<T>(&view(y)?, &view(&dy)?);
            Tensor::from_vec(dx, y.shape(), y.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::{composed, relu};
    use crate::ops::gradcheck::{largest_error, values};

    #[test]
    fn passes_positive_values_and_their_gradient() {
        for relu in [relu, composed] {
            let x = Var::new(&[-1.0_f64, 0.0, -0.0, 2.0], &Device::Cpu).unwrap();
            let y = relu(&x).unwrap();
            assert_eq!(y.to_vec1::<f64>().unwrap(), [0.0, 0.0, 0.0, 2.0]);
            let gradients = y.sum_all().unwrap().backward().unwrap();
            assert_eq!(gradients.get(&x).unwrap().to_vec1::<f64>().unwrap(), [0.0, 0.0, 0.0, 1.0]);
        }
    }

    #[test]
    fn gradients_equal_differences() {
        let error = largest_error(&[values(1, &[3, 50]).unwrap()], |t: &[Tensor]| relu(&t[0]));
        assert!(error.unwrap() < 1e-8);
    }
}
