//! From positions to one vector: mean, deviation, maximum.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use pulp::Arch;
use rayon::prelude::*;

use super::real::{Real, elements, for_real, native, view, widen};

/// Added to the variance before its root: a flat channel has a finite gradient.
const VARIANCE_EPSILON: f64 = 1e-5;

/// The mean over positions of `x` (B, H, W, C): (B, C), in f32 if `x` is in half precision.
///
/// # Errors
/// If `x` has not four dimensions.
pub fn mean_pool(x: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    widen(x)?.reshape((batch, height * width, channels))?.mean(1)
}

/// Mean, standard deviation (its variance plus 1e-5) and maximum over positions of `x`
/// (B, H, W, C), side by side: (B, 3 C), in f32 if `x` is in half precision. The gradient of a
/// maximum goes to one position, on the CPU its first.
///
/// # Errors
/// If `x` has not four dimensions, or no positions.
pub fn pool_statistics(x: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    if height * width == 0 || channels == 0 {
        candle_core::bail!("pool_statistics: {:?} has no positions", x.dims());
    }
    if !native(x) {
        return composed(x);
    }
    x.contiguous()?.apply_op1(Statistics { positions: height * width, channels })
}

/// The same function from candle's operations. The maximum is gathered from where it is, since
/// candle's own gives its gradient to each of several that tie, and flat pictures are all ties.
fn composed(x: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let x = widen(x)?.reshape((batch, height * width, channels))?.contiguous()?;
    let mean = x.mean_keepdim(1)?;
    let variance = x.broadcast_sub(&mean)?.sqr()?.mean(1)?;
    let deviation = (variance + VARIANCE_EPSILON)?.sqrt()?;
    let maximum = x.gather(&x.detach().argmax_keepdim(1)?, 1)?.squeeze(1)?;
    Tensor::cat(&[&mean.squeeze(1)?, &deviation, &maximum], 1)
}

struct Statistics {
    positions: usize,
    channels: usize,
}

impl Statistics {
    fn forward<T: Real>(&self, x: &[T]) -> Vec<T> {
        let (sample, width) = (self.positions * self.channels, 3 * self.channels);
        let mut y = vec![T::zero(); x.len() / self.positions * 3];
        let arch = Arch::new();
        x.par_chunks(sample).zip(y.par_chunks_mut(width)).for_each(|(x, y)| {
            arch.dispatch(
                #[inline(always)]
                || self.sample(x, y),
            );
        });
        y
    }

    #[inline(always)]
    fn sample<T: Real>(&self, x: &[T], y: &mut [T]) {
        let count = T::from_f64(self.positions as f64);
        let (mean, rest) = y.split_at_mut(self.channels);
        let (deviation, maximum) = rest.split_at_mut(self.channels);
        maximum.copy_from_slice(&x[..self.channels]);
        for row in x.chunks_exact(self.channels) {
            for ((mean, maximum), x) in mean.iter_mut().zip(maximum.iter_mut()).zip(row) {
                *mean += *x;
                *maximum = if *x > *maximum { *x } else { *maximum };
            }
        }
        for mean in mean.iter_mut() {
            *mean /= count;
        }
        for row in x.chunks_exact(self.channels) {
            for ((deviation, mean), x) in deviation.iter_mut().zip(mean.iter()).zip(row) {
                *deviation += (*x - *mean) * (*x - *mean);
            }
        }
        for deviation in deviation {
            *deviation = (*deviation / count + T::from_f64(VARIANCE_EPSILON)).root();
        }
    }

    fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let (sample, width) = (self.positions * self.channels, 3 * self.channels);
        let mut dx = vec![T::zero(); x.len()];
        let inputs = (x.par_chunks(sample), y.par_chunks(width), dy.par_chunks(width));
        inputs
            .into_par_iter()
            .zip(dx.par_chunks_mut(sample))
            .for_each(|((x, y, dy), dx)| self.backward_sample([x, y, dy], dx));
        dx
    }

    fn backward_sample<T: Real>(&self, [x, y, dy]: [&[T]; 3], dx: &mut [T]) {
        let count = T::from_f64(self.positions as f64);
        let c = self.channels;
        let mut claimed = vec![false; c];
        for (x, dx) in x.chunks_exact(c).zip(dx.chunks_exact_mut(c)) {
            for channel in 0..c {
                let centred = x[channel] - y[channel];
                let along = dy[c + channel] * centred / y[c + channel];
                dx[channel] = (dy[channel] + along) / count;
                if !claimed[channel] && x[channel] >= y[2 * c + channel] {
                    claimed[channel] = true;
                    dx[channel] += dy[2 * c + channel];
                }
            }
        }
    }
}

impl CustomOp1 for Statistics {
    fn name(&self) -> &'static str {
        "pool_statistics"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let batch = layout.dims().first().copied().unwrap_or(0);
        for_real!(x.dtype(), "pool_statistics", T => {
            let y = self.forward::<T>(elements(x, layout)?);
            Ok((T::to_cpu_storage_owned(y), Shape::from((batch, 3 * self.channels))))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "pool_statistics", T => {
            let dx = self.backward::<T>(&view(x)?, &view(y)?, &view(&dy)?);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};
    use proptest::prelude::*;

    use super::{composed, mean_pool, pool_statistics};
    use crate::ops::gradcheck::{largest_error, values};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn equals_the_composition_and_has_its_gradient(
            shape in (1..4_usize, 1..5_usize, 1..5_usize, 1..4_usize),
        ) {
            let x = values(1, &[shape.0, shape.1, shape.2, shape.3]).unwrap();
            let difference = (pool_statistics(&x).unwrap() - composed(&x).unwrap()).unwrap();
            let difference = difference.abs().unwrap().max_all().unwrap();
            prop_assert!(difference.to_scalar::<f64>().unwrap() < 1e-12);
            let x = [x];
            prop_assert!(largest_error(&x, |t| pool_statistics(&t[0])).unwrap() < 1e-6);
            prop_assert!(largest_error(&x, |t| composed(&t[0])).unwrap() < 1e-6);
            prop_assert!(largest_error(&x, |t| mean_pool(&t[0])).unwrap() < 1e-8);
        }
    }

    #[test]
    fn a_flat_picture_gives_the_maximums_gradient_once() {
        let x = Tensor::ones((1, 2, 2, 1), DType::F32, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&x).unwrap();
        for pool in [pool_statistics, composed] {
            let y = pool(&x).unwrap();
            let gradients = y.sum_all().unwrap().backward().unwrap();
            let gradient = gradients.get(&x).unwrap().flatten_all().unwrap();
            // A quarter each from the mean, 1 to the first position from the maximum.
            assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.25, 0.25, 0.25, 0.25]);
        }
    }

    /// 2,304 positions: a sum in bf16 would stand still at 256.
    #[test]
    fn half_precision_is_pooled_in_f32() {
        let x = (values(2, &[2, 48, 48, 3]).unwrap() + 1.0).unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let half = x.to_dtype(dtype).unwrap();
            let exact = half.to_dtype(DType::F64).unwrap();
            for pool in [pool_statistics, mean_pool] {
                let pooled = pool(&half).unwrap();
                assert_eq!(pooled.dtype(), DType::F32);
                let expected = pool(&exact).unwrap();
                let difference = (pooled.to_dtype(DType::F64).unwrap() - expected).unwrap();
                let difference = difference.abs().unwrap().max_all().unwrap();
                assert!(difference.to_scalar::<f64>().unwrap() < 1e-5);
            }
        }
    }
}
