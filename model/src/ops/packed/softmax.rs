//! Softmax over the last dimension.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use pulp::{Arch, Simd, WithSimd};

use super::for_runs;
use super::math::exp;
use crate::ops::real::{Real, elements, for_real, native, view};

/// Elements that one task handles.
const RUN: usize = 16 * 1024;

/// exp(x) / sum exp(x) over the last dimension of `x`, with its gradient.
///
/// # Errors
/// If `x` is empty or not of a float type.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(1);
    if width == 0 {
        candle_core::bail!("softmax: {:?} has rows of nothing", x.dims());
    }
    if !native(x) {
        return composed(x);
    }
    x.contiguous()?.apply_op1(Softmax { width })
}

/// The same function from candle's operations.
pub(super) fn composed(x: &Tensor) -> Result<Tensor> {
    let e = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
}

/// e^(factor (x - max x)) in place; answers the sum. What is -inf becomes less than 1e-37.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, row: &mut [f32], factor: f32) -> f32 {
    let (vectors, rest) = S::as_mut_simd_f32s(row);
    let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
    for vector in vectors.iter() {
        largest = simd.max_f32s(largest, *vector);
    }
    let largest = rest.iter().fold(simd.reduce_max_f32s(largest), |a, b| a.max(*b));
    let (factor, offset) = (simd.splat_f32s(factor), simd.splat_f32s(-largest * factor));
    // Two sums, so that one addition need not wait for the one before.
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (index, vector) in vectors.iter_mut().enumerate() {
        *vector = exp(simd, simd.mul_add_e_f32s(*vector, factor, offset));
        sums[index % 2] = simd.add_f32s(sums[index % 2], *vector);
    }
    let mut sum = simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]));
    if !rest.is_empty() {
        let last = simd.mul_add_e_f32s(simd.partial_load_f32s(rest), factor, offset);
        let last = exp(simd, last);
        simd.partial_store_f32s(rest, last);
        sum += rest.iter().sum::<f32>();
    }
    sum
}

struct Rows<'a> {
    width: usize,
    y: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.y.chunks_exact_mut(self.width) {
            let inverse = 1.0 / exponentials(simd, row, 1.0);
            row.iter_mut().for_each(|y| *y *= inverse);
        }
    }
}

struct Softmax {
    width: usize,
}

impl Softmax {
    fn plain(&self, x: &[f64]) -> Vec<f64> {
        let mut y = x.to_vec();
        for row in y.chunks_exact_mut(self.width) {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|y| *y = (*y - largest).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|y| *y /= sum);
        }
        y
    }

    /// dx = y (dy - sum dy y).
    fn gradient<T: Real>(&self, y: &[T], dy: &[T]) -> Vec<T> {
        let mut dx = Vec::with_capacity(y.len());
        for (y, dy) in y.chunks_exact(self.width).zip(dy.chunks_exact(self.width)) {
            let mut sum = T::zero();
            for (y, dy) in y.iter().zip(dy) {
                sum += *y * *dy;
            }
            dx.extend(y.iter().zip(dy).map(|(y, dy)| *y * (*dy - sum)));
        }
        dx
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = if let CpuStorage::F64(_) = x {
            CpuStorage::F64(self.plain(elements(x, layout)?))
        } else {
            let mut y = elements::<f32>(x, layout)?.to_vec();
            let arch = Arch::new();
            let run = RUN.div_ceil(self.width) * self.width;
            for_runs(&mut y, run, |_, y| arch.dispatch(Rows { width: self.width, y }));
            CpuStorage::F32(y)
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(y.dtype(), "softmax", T => {
            let dx = self.gradient::<T>(&view(y)?, &view(&dy)?);
            Tensor::from_vec(dx, y.shape(), y.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::ops::gradcheck::{largest_error, values};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn equals_the_definition_and_has_its_gradient(
            rows in 1..5_usize, width in 1..70_usize, scale in 0.1..50.0_f64,
        ) {
            let x = (values(1, &[rows, width]).unwrap() * scale).unwrap();
            let expected = composed(&x).unwrap().to_vec2::<f64>().unwrap();
            let exact = softmax(&x).unwrap().to_vec2::<f64>().unwrap();
            let y = softmax(&x.to_dtype(DType::F32).unwrap()).unwrap().to_vec2::<f32>().unwrap();
            for (row, expected) in expected.iter().enumerate() {
                for (column, expected) in expected.iter().enumerate() {
                    prop_assert!((exact[row][column] - expected).abs() < 1e-12);
                    prop_assert!((f64::from(y[row][column]) - expected).abs() < 1e-5);
                }
            }
            let small = values(2, &[rows, width.min(9)]).unwrap();
            prop_assert!(largest_error(&[small], |t: &[Tensor]| softmax(&t[0])).unwrap() < 1e-8);
        }
    }
}
