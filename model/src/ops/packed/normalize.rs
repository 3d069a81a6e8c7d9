//! Layer normalisation of rows.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use pulp::{Arch, Simd, WithSimd};

use super::for_runs;
use crate::ops::norm::{plain_rows, rows_gradients};
use crate::ops::real::{elements, native, widen};

/// Elements that one task handles.
const RUN: usize = 16 * 1024;

/// Layer normalisation (Ba et al. 2016) over the last dimension of `x` (.., D), times `scale` (D)
/// plus `shift` (D), with its gradients. `epsilon` is added to the variance before its root: 1e-5 in
/// CLIP, 1e-6 in SigLIP and ViT, 1e-12 in BERT.
///
/// # Errors
/// If the shapes do not fit, or the types differ.
pub fn normalize(x: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<Tensor> {
    let width = x.dims().last().copied().unwrap_or(0);
    if width == 0 || scale.dims() != [width] || shift.dims() != [width] {
        candle_core::bail!(
            "normalize: {:?} with scale {:?} and shift {:?}",
            x.dims(),
            scale.dims(),
            shift.dims()
        );
    }
    if !native(x) {
        return composed(x, [scale, shift], epsilon);
    }
    let op = Normalize { width, epsilon };
    x.contiguous()?.apply_op3(&scale.contiguous()?, &shift.contiguous()?, op)
}

/// The same function from candle's operations.
fn composed(x: &Tensor, [scale, shift]: [&Tensor; 2], epsilon: f64) -> Result<Tensor> {
    let wide = widen(x)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    let y = centred.broadcast_div(&deviation)?;
    y.broadcast_mul(&widen(scale)?)?.broadcast_add(&widen(shift)?)?.to_dtype(x.dtype())
}

#[derive(Clone, Copy)]
struct Normalize {
    width: usize,
    epsilon: f64,
}

struct Run<'a> {
    op: Normalize,
    scale: &'a [f32],
    shift: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.y.chunks_exact_mut(self.op.width) {
            self.op.row(simd, row, [self.scale, self.shift]);
        }
    }
}

impl Normalize {
    /// Two passes: squares of centred values do not cancel as a difference of squares would.
    #[inline(always)]
    fn row<S: Simd>(self, simd: S, row: &mut [f32], [scale, shift]: [&[f32]; 2]) {
        let count = self.width as f32;
        // Inlined by force: a call out of line would lose the instructions.
        let mean = sum(
            simd,
            row,
            #[inline(always)]
            |x| x,
            |x| x,
        ) / count;
        let centre = simd.splat_f32s(mean);
        let variance = sum(
            simd,
            row,
            #[inline(always)]
            |x| {
                let centred = simd.sub_f32s(x, centre);
                simd.mul_f32s(centred, centred)
            },
            |x| (x - mean) * (x - mean),
        ) / count;
        let inverse = 1.0 / (variance + self.epsilon as f32).sqrt();
        let factor = simd.splat_f32s(inverse);
        let (vectors, rest) = S::as_mut_simd_f32s(row);
        let (scales, scale_rest) = S::as_simd_f32s(scale);
        let (shifts, shift_rest) = S::as_simd_f32s(shift);
        for ((x, scale), shift) in vectors.iter_mut().zip(scales).zip(shifts) {
            let normal = simd.mul_f32s(simd.sub_f32s(*x, centre), factor);
            *x = simd.mul_add_e_f32s(normal, *scale, *shift);
        }
        for ((x, scale), shift) in rest.iter_mut().zip(scale_rest).zip(shift_rest) {
            *x = (*x - mean) * inverse * scale + shift;
        }
    }
}

/// Sum of a function over a row, in an order that depends on the processor only.
#[inline(always)]
fn sum<S: Simd>(
    simd: S,
    row: &[f32],
    of_vector: impl Fn(S::f32s) -> S::f32s,
    of_one: impl Fn(f32) -> f32,
) -> f32 {
    let (vectors, rest) = S::as_simd_f32s(row);
    let (fours, ones) = vectors.as_chunks::<4>();
    let mut sums = [simd.splat_f32s(0.0); 4];
    for four in fours {
        for (sum, x) in sums.iter_mut().zip(four) {
            *sum = simd.add_f32s(*sum, of_vector(*x));
        }
    }
    for one in ones {
        sums[0] = simd.add_f32s(sums[0], of_vector(*one));
    }
    let low = simd.add_f32s(sums[0], sums[1]);
    let high = simd.add_f32s(sums[2], sums[3]);
    let total = simd.reduce_sum_f32s(simd.add_f32s(low, high));
    rest.iter().fold(total, |total, x| total + of_one(*x))
}

impl CustomOp3 for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = if let CpuStorage::F64(_) = x {
            let scale = elements::<f64>(scale, scale_layout)?;
            let affine = [scale, elements(shift, shift_layout)?].concat();
            CpuStorage::F64(plain_rows(elements(x, layout)?, &affine, self.epsilon))
        } else {
            let mut y = elements::<f32>(x, layout)?.to_vec();
            let scale = elements::<f32>(scale, scale_layout)?;
            let shift = elements::<f32>(shift, shift_layout)?;
            let arch = Arch::new();
            let run = RUN.div_ceil(self.width) * self.width;
            for_runs(&mut y, run, |_, y| arch.dispatch(Run { op: *self, scale, shift, y }));
            CpuStorage::F32(y)
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let affine = Tensor::stack(&[scale, shift], 0)?.detach();
        let [dx, daffine] = rows_gradients(x, &affine, &dy.contiguous()?, self.epsilon)?;
        Ok((Some(dx), Some(daffine.get(0)?), Some(daffine.get(1)?)))
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
        fn equals_the_definition_and_has_its_gradients(
            rows in 1..5_usize, width in 2..150_usize, offset in -20.0..20.0_f64,
        ) {
            let x = (values(1, &[rows, width]).unwrap() + offset).unwrap();
            let (scale, shift) = (values(2, &[width]).unwrap(), values(3, &[width]).unwrap());
            let expected = composed(&x, [&scale, &shift], 1e-6).unwrap().to_vec2::<f64>().unwrap();
            let exact = normalize(&x, &scale, &shift, 1e-6).unwrap().to_vec2::<f64>().unwrap();
            let [x, scale, shift] = [x, scale, shift].map(|t| t.to_dtype(DType::F32).unwrap());
            let y = normalize(&x, &scale, &shift, 1e-6).unwrap().to_vec2::<f32>().unwrap();
            for (row, expected) in expected.iter().enumerate() {
                for (column, expected) in expected.iter().enumerate() {
                    prop_assert!((exact[row][column] - expected).abs() < 1e-9);
                    prop_assert!((f64::from(y[row][column]) - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn gradients_equal_differences() {
        let inputs = [values(1, &[3, 7]), values(2, &[7]), values(3, &[7])].map(|t| t.unwrap());
        let layer = |t: &[Tensor]| normalize(&t[0], &t[1], &t[2], 1e-3);
        assert!(largest_error(&inputs, layer).unwrap() < 1e-7);
    }

    #[test]
    fn refuses_a_scale_of_another_width() {
        let x = values(1, &[2, 4]).unwrap();
        let scale = values(2, &[3]).unwrap();
        assert!(normalize(&x, &scale, &scale, 1e-5).is_err());
    }
}
