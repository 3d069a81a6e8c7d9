//! Convolution as matrix products over patches, forward and backward.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

pub(super) use self::patches::Geometry;
use self::patches::{from_patch_order, gather, scatter, to_patch_order};
use super::matrix::{Matrix, product};
use super::real::{Real, elements, for_real, native, view};

mod patches;

/// Two-dimensional cross-correlation of `x` (B, H, W, C), channels last, with `w` (O, C, kh, kw):
/// (B, H', W', O) with H' = (H + 2 padding - kh) / stride + 1, rounded down. No bias. In half
/// precision `w` is cast to the type of `x`.
///
/// # Errors
/// If the channels differ, the stride is 0, or the kernel is larger than the padded picture.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims4()?, w.dims4()?, stride, padding)?;
    if !native(x) {
        return composed(&geometry, x, &w.to_dtype(x.dtype())?);
    }
    x.contiguous()?.apply_op2(&w.contiguous()?, Conv2d(geometry))
}

/// The same function from candle's operations: its product over patches that are laid side by side,
/// tap by tap. Its convolution is of no use here: the gradient fails where a stride leaves different
/// remainders of height and width, and on the CPU it takes no bf16, in which this is tested.
fn composed(g: &Geometry, x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let rows = g.batch * g.positions();
    let patches = if g.pointwise() {
        x.contiguous()?
    } else {
        let x = framed(g, x)?;
        let [kh, kw] = g.kernel;
        let taps = (0..kh * kw).map(|tap| g.tap(&x, tap / kw, tap % kw));
        Tensor::cat(&taps.collect::<Result<Vec<_>>>()?, 3)?
    };
    let w = w.permute((0, 2, 3, 1))?.reshape((g.out_channels, g.patch()))?;
    let y = patches.reshape((rows, g.patch()))?.matmul(&w.t()?.contiguous()?)?;
    y.reshape((g.batch, g.out_height, g.out_width, g.out_channels))
}

/// `x` with zeros around it, so far that every tap finds a whole stride at each output position.
fn framed(g: &Geometry, x: &Tensor) -> Result<Tensor> {
    let mut x = x.clone();
    let sides = [(g.height, g.out_height), (g.width, g.out_width)];
    for (axis, (side, out)) in sides.into_iter().enumerate() {
        let reach = g.kernel[axis] - 1 + out * g.stride;
        let behind = g.padding.max(reach.saturating_sub(side + g.padding));
        x = x.pad_with_zeros(1 + axis, g.padding, behind)?;
    }
    Ok(x)
}

impl Geometry {
    /// What the kernel's element (`top`, `left`) meets at each output position: (B, H', W', C), from
    /// a picture that [`framed`] made.
    fn tap(&self, x: &Tensor, top: usize, left: usize) -> Result<Tensor> {
        let x = x.narrow(1, top, self.out_height * self.stride)?;
        let x = x.narrow(2, left, self.out_width * self.stride)?;
        if self.stride == 1 {
            return x.contiguous();
        }
        // Candle cannot narrow in steps; a stride as an axis of its own can be cut to its first.
        let x = x.reshape((self.batch, self.out_height, self.stride, x.dim(2)?, self.channels))?;
        let x = x.narrow(2, 0, 1)?.contiguous()?;
        let x =
            x.reshape((self.batch, self.out_height, self.out_width, self.stride, self.channels))?;
        x.narrow(3, 0, 1)?.squeeze(3)?.contiguous()
    }
}

/// y = patches(x) wᵀ, in chunks of rows. `w` is (O, C, kh, kw).
pub(super) fn forward<T: Real>(g: &Geometry, x: &[T], w: &[T]) -> Vec<T> {
    let w = to_patch_order(g, w);
    let weights = Matrix::rows(&w, g.patch()).transposed();
    let mut y = vec![T::zero(); g.batch * g.positions() * g.out_channels];
    let rows = g.chunk_rows();
    let chunks = y.par_chunks_mut((rows * g.out_channels).max(1)).enumerate();
    chunks.for_each_init(Vec::new, |patches, (index, y)| {
        let (start, count) = (index * rows, y.len() / g.out_channels);
        if g.pointwise() {
            let x = &x[start * g.channels..(start + count) * g.channels];
            product(y, false, Matrix::rows(x, g.channels), weights);
        } else {
            patches.resize(count * g.patch(), T::zero());
            gather(g, x, start, patches);
            product(y, false, Matrix::rows(patches, g.patch()), weights);
        }
    });
    y
}

/// Gradients of the input and of the weights from the gradient `dy` of the output:
/// dx = scatter(dy w), dw = dyᵀ patches(x). Without `want_dx` the former is empty.
pub(super) fn backward<T: Real>(
    g: &Geometry,
    [x, w, dy]: [&[T]; 3],
    want_dx: bool,
) -> (Vec<T>, Vec<T>) {
    let packed = to_patch_order(g, w);
    let samples = g.lane_samples();
    let sample = g.height * g.width * g.channels;
    let mut dx = vec![T::zero(); if want_dx { x.len() } else { 0 }];
    let (x_lane, y_lane) =
        ((samples * sample).max(1), (samples * g.positions() * g.out_channels).max(1));
    let lanes = x.par_chunks(x_lane).zip(dy.par_chunks(y_lane));
    let dw_lanes: Vec<Vec<T>> = if want_dx {
        lanes
            .zip(dx.par_chunks_mut(x_lane))
            .map(|((x, dy), dx)| lane(g, [x, &packed, dy], Some(dx)))
            .collect()
    } else {
        lanes.map(|(x, dy)| lane(g, [x, &packed, dy], None)).collect()
    };
    let mut dw = vec![T::zero(); w.len()];
    for lane in &dw_lanes {
        for (sum, part) in dw.iter_mut().zip(lane) {
            *sum += *part;
        }
    }
    (dx, from_patch_order(g, &dw))
}

/// One lane's weight gradient in patch order; adds its input gradient to `dx`.
fn lane<T: Real>(g: &Geometry, [x, w, dy]: [&[T]; 3], mut dx: Option<&mut [T]>) -> Vec<T> {
    let weights = Matrix::rows(w, g.patch());
    let mut dw = vec![T::zero(); w.len()];
    let rows = g.chunk_rows();
    let mut patches = Vec::new();
    for (index, dy) in dy.chunks(rows * g.out_channels).enumerate() {
        let (start, count) = (index * rows, dy.len() / g.out_channels);
        let dy = Matrix::rows(dy, g.out_channels);
        if g.pointwise() {
            let range = start * g.channels..(start + count) * g.channels;
            let x = Matrix::rows(&x[range.clone()], g.channels);
            product(&mut dw, true, dy.transposed(), x);
            if let Some(dx) = dx.as_deref_mut() {
                product(&mut dx[range], false, dy, weights);
            }
            continue;
        }
        patches.resize(count * g.patch(), T::zero());
        gather(g, x, start, &mut patches);
        product(&mut dw, true, dy.transposed(), Matrix::rows(&patches, g.patch()));
        if let Some(dx) = dx.as_deref_mut() {
            product(&mut patches, false, dy, weights);
            scatter(g, &patches, start, dx);
        }
    }
    dw
}

pub(super) struct Conv2d(pub(super) Geometry);

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        let shape = match x_layout.dims().len() {
            2 => Shape::from((g.batch, g.out_channels)),
            _ => Shape::from((g.batch, g.out_height, g.out_width, g.out_channels)),
        };
        for_real!(x.dtype(), "conv2d", T => {
            let y = forward::<T>(g, elements(x, x_layout)?, elements(w, w_layout)?);
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "conv2d", T => {
            let (dx, dw) = {
                let (x_view, w_view, dy) = (view::<T>(x)?, view::<T>(w)?, view::<T>(&dy)?);
                backward(&self.0, [&x_view, &w_view, &dy], x.track_op())
            };
            let dx = x.track_op().then(|| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
            Ok((dx, Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
        })
    }
}

#[cfg(test)]
mod tests;
