//! Group and layer normalisation, with the residual sum and the ReLU that follow fused in.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::real::{Real, elements, for_real, view};

/// Added to the variance before its root.
pub const NORM_EPSILON: f64 = 1e-5;

/// What follows a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// max(0, y), with gradient 0 at 0.
    Relu,
}

/// Group normalisation (Wu and He 2018, eq. 1-7) of `x` (B, H, W, C) over positions and over the
/// channels of each of `groups` groups, times `affine`'s first row plus its second, (2, C); then
/// plus `residual` if given, of `x`'s shape; then `activation`. Same shape as `x`.
///
/// # Errors
/// If the shapes do not fit, or `groups` does not divide C.
pub fn group_norm(
    x: &Tensor,
    affine: &Tensor,
    groups: usize,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let fits = residual.is_none_or(|residual| residual.dims() == x.dims());
    if groups == 0 || !channels.is_multiple_of(groups) || affine.dims() != [2, channels] || !fits {
        candle_core::bail!(
            "group_norm: {:?} in {groups} groups with affine {:?} and residual {:?}",
            x.dims(),
            affine.dims(),
            residual.map(Tensor::dims)
        );
    }
    if !x.device().is_cpu() {
        return composed(x, affine, groups, residual, activation);
    }
    let op = Norm { batch, positions: height * width, channels, groups, activation };
    let (x, affine) = (x.contiguous()?, affine.contiguous()?);
    match residual {
        Some(residual) => x.apply_op3(&affine, &residual.contiguous()?, op),
        None => x.apply_op2(&affine, op),
    }
}

/// Layer normalisation (Ba et al. 2016) of the rows of `x` (N, D), times `affine`'s first row plus
/// its second, (2, D).
///
/// # Errors
/// If the shapes do not fit.
pub fn layer_norm(x: &Tensor, affine: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let x = x.reshape((rows, 1, 1, width))?;
    group_norm(&x, affine, 1, None, Activation::Identity)?.reshape((rows, width))
}

/// The same function from candle's operations, for devices without one of ours.
fn composed(
    x: &Tensor,
    affine: &Tensor,
    groups: usize,
    residual: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let grouped = x.reshape((batch, height * width, groups, channels / groups))?;
    let mean = grouped.mean_keepdim((1, 3))?;
    let centred = grouped.broadcast_sub(&mean)?;
    let deviation = (centred.sqr()?.mean_keepdim((1, 3))? + NORM_EPSILON)?.sqrt()?;
    let mut y = centred.broadcast_div(&deviation)?.reshape(x.shape())?;
    y = y.broadcast_mul(&affine.get(0)?)?.broadcast_add(&affine.get(1)?)?;
    if let Some(residual) = residual {
        y = (y + residual)?;
    }
    match activation {
        Activation::Identity => Ok(y),
        Activation::Relu => super::relu(&y),
    }
}

/// Sizes of one normalisation.
#[derive(Clone, Copy, Debug)]
struct Norm {
    batch: usize,
    positions: usize,
    channels: usize,
    groups: usize,
    activation: Activation,
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
            *variance = T::one() / (*variance + T::from_f64(NORM_EPSILON)).root();
        }
        Moments { mean, inverse }
    }

    fn forward<T: Real>(&self, x: &[T], affine: &[T], residual: Option<&[T]>) -> Vec<T> {
        let mut y = vec![T::zero(); x.len()];
        let sample = self.sample().max(1);
        let run = (RUN_ELEMENTS / sample).max(1) * sample;
        y.par_chunks_mut(run).enumerate().for_each(|(index, y)| {
            for (inner, y) in y.chunks_exact_mut(sample).enumerate() {
                let start = index * run + inner * sample;
                let residual = residual.map(|residual| &residual[start..start + sample]);
                self.forward_sample([&x[start..start + sample], affine], residual, y);
            }
        });
        y
    }

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
    fn backward<T: Real>(&self, x: &[T], affine: &[T], dz: &[T]) -> (Vec<T>, Vec<T>) {
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

    /// The output gradient where the activation let the value through.
    fn before_activation<T: Real>(&self, y: &[T], dy: &[T]) -> Vec<T> {
        match self.activation {
            Activation::Identity => dy.to_vec(),
            Activation::Relu => super::activation::gate(y, dy),
        }
    }

    /// Gradients of x, of the affine part and of the residual.
    fn gradients(
        &self,
        x: &Tensor,
        affine: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "group_norm", T => {
            let (dx, daffine, dz) = {
                let dz = self.before_activation::<T>(&view(y)?, &view(&dy)?);
                let (dx, daffine) = self.backward(&view(x)?, &view(affine)?, &dz);
                (dx, daffine, dz)
            };
            Ok([
                Tensor::from_vec(dx, x.shape(), x.device())?,
                Tensor::from_vec(daffine, affine.shape(), x.device())?,
                Tensor::from_vec(dz, x.shape(), x.device())?,
            ])
        })
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_real!(x.dtype(), "group_norm", T => {
            let x = elements::<T>(x, x_layout)?;
            let y = self.forward(x, elements(affine, affine_layout)?, None);
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, daffine, _] = self.gradients(x, affine, y, dy)?;
        Ok((Some(dx), Some(daffine)))
    }
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "group_norm_residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_real!(x.dtype(), "group_norm", T => {
            let x = elements::<T>(x, x_layout)?;
            let residual = elements(residual, residual_layout)?;
            let y = self.forward(x, elements(affine, affine_layout)?, Some(residual));
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        _residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, daffine, dresidual] = self.gradients(x, affine, y, dy)?;
        Ok((Some(dx), Some(daffine), Some(dresidual)))
    }
}

#[cfg(test)]
mod tests;
