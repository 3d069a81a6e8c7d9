//! Normalisation over slices.

use pulp::Arch;
use rayon::prelude::*;

use super::Activation;
use crate::ops::real::Real;

/// Sizes of one normalisation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub(super) batch: usize,
    pub(super) positions: usize,
    pub(super) channels: usize,
    pub(super) groups: usize,
    pub(super) activation: Activation,
    /// Added to the variance before its root.
    pub(super) epsilon: f64,
}

/// Samples are handled in runs of about this many elements.
const RUN_ELEMENTS: usize = 16 * 1024;
/// Gradients of the affine part are summed over at most this many runs, then in order.
const LANES: usize = 16;

/// Mean and inverse deviation of each channel's group, in one sample.
struct Moments<T> {
    mean: Vec<T>,
    inverse: Vec<T>,
}

impl Norm {
    fn sample(&self) -> usize {
        self.positions * self.channels
    }

    /// Replaces per-channel sums by the mean over each channel's group.
    #[inline(always)]
    fn spread<T: Real>(&self, sums: &mut [T]) {
        let width = self.channels / self.groups;
        let count = T::from_f64((self.positions * width) as f64);
        for group in sums.chunks_exact_mut(width) {
            let mut total = T::zero();
            for sum in group.iter() {
                total += *sum;
            }
            group.fill(total / count);
        }
    }

    /// Two passes: squares of centred values do not cancel as a difference of squares would.
    #[inline(always)]
    fn moments<T: Real>(&self, x: &[T]) -> Moments<T> {
        let mut mean = vec![T::zero(); self.channels];
        for row in x.chunks_exact(self.channels) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += *value;
            }
        }
        self.spread(&mut mean);
        let mut inverse = vec![T::zero(); self.channels];
        for row in x.chunks_exact(self.channels) {
            for ((sum, value), mean) in inverse.iter_mut().zip(row).zip(&mean) {
                let centred = *value - *mean;
                *sum += centred * centred;
            }
        }
        self.spread(&mut inverse);
        for variance in &mut inverse {
            *variance = T::one() / (*variance + T::from_f64(self.epsilon)).root();
        }
        Moments { mean, inverse }
    }

    pub(super) fn forward<T: Real>(&self, x: &[T], affine: &[T], residual: Option<&[T]>) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let sample = self.sample().max(1);
        let run = (RUN_ELEMENTS / sample).max(1) * sample;
        let arch = Arch::new();
        y.par_chunks_mut(run).enumerate().for_each(|(index, y)| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for (inner, y) in y.chunks_exact_mut(sample).enumerate() {
                        let start = index * run + inner * sample;
                        let residual = residual.map(|residual| &residual[start..start + sample]);
                        self.forward_sample([&x[start..start + sample], affine], residual, y);
                    }
                },
            );
        });
        y
    }

    #[inline(always)]
    fn forward_sample<T: Real>(&self, [x, affine]: [&[T]; 2], residual: Option<&[T]>, y: &mut [T]) {
        let Moments { mean, inverse } = self.moments(x);
        let (scale, shift) = affine.split_at(self.channels);
        let factor: Vec<T> = scale.iter().zip(&inverse).map(|(s, i)| *s * *i).collect();
        let offset: Vec<T> =
            shift.iter().zip(&mean).zip(&factor).map(|((s, m), f)| *s - *m * *f).collect();
        for (y, x) in y.chunks_exact_mut(self.channels).zip(x.chunks_exact(self.channels)) {
            for (((y, x), factor), offset) in y.iter_mut().zip(x).zip(&factor).zip(&offset) {
                *y = *x * *factor + *offset;
            }
        }
        if let Some(residual) = residual {
            for (y, residual) in y.iter_mut().zip(residual) {
                *y += *residual;
            }
        }
        if self.activation == Activation::Relu {
            for y in y {
                *y = if *y > T::zero() { *y } else { T::zero() };
            }
        }
    }

    /// Gradients of `x` and of the affine part, from the gradient `dz` before the activation.
    pub(super) fn backward<T: Real>(&self, x: &[T], affine: &[T], dz: &[T]) -> (Vec<T>, Vec<T>) {
        let mut dx = vec![T::zero(); x.len()];
        let sample = self.sample().max(1);
        let lane = self.batch.div_ceil(LANES).max(1) * sample;
        let parts: Vec<Vec<T>> = (x.par_chunks(lane), dz.par_chunks(lane), dx.par_chunks_mut(lane))
            .into_par_iter()
            .map(|(x, dz, dx)| {
                let mut daffine = vec![T::zero(); affine.len()];
                let inputs = x.chunks_exact(sample).zip(dz.chunks_exact(sample));
                for ((x, dz), dx) in inputs.zip(dx.chunks_exact_mut(sample)) {
                    self.backward_sample([x, affine, dz], dx, &mut daffine);
                }
                daffine
            })
            .collect();
        let mut daffine = vec![T::zero(); affine.len()];
        for part in &parts {
            for (sum, part) in daffine.iter_mut().zip(part) {
                *sum += *part;
            }
        }
        (dx, daffine)
    }

    /// With n = (x - mean) inverse and g = dz scale, dx = inverse (g - mean(g) - n mean(g n)), the
    /// means over a group; written as one linear function of dz and x per channel.
    fn backward_sample<T: Real>(
        &self,
        [x, affine, dz]: [&[T]; 3],
        dx: &mut [T],
        daffine: &mut [T],
    ) {
        let Moments { mean, inverse } = self.moments(x);
        let scale = &affine[..self.channels];
        let mut sums = vec![T::zero(); self.channels];
        let mut products = vec![T::zero(); self.channels];
        for (x, dz) in x.chunks_exact(self.channels).zip(dz.chunks_exact(self.channels)) {
            for channel in 0..self.channels {
                sums[channel] += dz[channel];
                products[channel] += dz[channel] * (x[channel] - mean[channel]);
            }
        }
        let (dscale, dshift) = daffine.split_at_mut(self.channels);
        for channel in 0..self.channels {
            products[channel] *= inverse[channel];
            dscale[channel] += products[channel];
            dshift[channel] += sums[channel];
            products[channel] *= scale[channel];
            sums[channel] *= scale[channel];
        }
        self.spread(&mut sums);
        self.spread(&mut products);
        let along_dz: Vec<T> = scale.iter().zip(&inverse).map(|(s, i)| *s * *i).collect();
        let along_x: Vec<T> =
            products.iter().zip(&inverse).map(|(p, i)| T::zero() - *p * *i * *i).collect();
        let offset: Vec<T> = (0..self.channels)
            .map(|c| T::zero() - sums[c] * inverse[c] - along_x[c] * mean[c])
            .collect();
        let inputs = x.chunks_exact(self.channels).zip(dz.chunks_exact(self.channels));
        for ((x, dz), dx) in inputs.zip(dx.chunks_exact_mut(self.channels)) {
            for channel in 0..self.channels {
                dx[channel] = along_dz[channel] * dz[channel]
                    + along_x[channel] * x[channel]
                    + offset[channel];
            }
        }
    }
}
