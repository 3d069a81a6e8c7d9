//! Convolution as matrix products over patches, forward and backward.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

pub(super) use self::patches::Geometry;
use self::patches::{from_patch_order, gather, scatter, to_patch_order};
use super::matrix::{Matrix, product};
use super::real::{Real, elements, for_real, view};

mod patches;

/// Two-dimensional cross-correlation of `x` (B, H, W, C), channels last, with `w` (O, C, kh, kw):
/// (B, H', W', O) with H' = (H + 2 padding - kh) / stride + 1, rounded down. No bias.
///
/// # Errors
/// If the channels differ, the stride is 0, or the kernel is larger than the padded picture.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let geometry = Geometry::new(x.dims4()?, w.dims4()?, stride, padding)?;
    if !x.device().is_cpu() {
        return composed(x, w, stride, padding);
    }
    x.contiguous()?.apply_op2(&w.contiguous()?, Conv2d(geometry))
}

/// The same function from candle's operations, for devices without one of ours.
fn composed(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    x.conv2d(w, padding, stride, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
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
