//! Convolution as matrix products over patches, forward and backward.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::matrix::{Matrix, product};
use super::real::{Real, elements, for_real, view};

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

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    out_channels: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

/// Elements of one patch buffer: half a megabyte of f32, which stays in the second-level cache.
const PATCH_ELEMENTS: usize = 128 * 1024;
/// Weight gradients are summed over this many runs of samples, then over the runs in order. It is
/// fixed, so that the sum does not depend on the number of threads.
const LANES: usize = 16;
/// A lane has at least about this many rows.
const LANE_ROWS: usize = 64;

impl Geometry {
    fn new(
        (batch, height, width, channels): (usize, usize, usize, usize),
        (out_channels, w_channels, kh, kw): (usize, usize, usize, usize),
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        let fits = kh <= height + 2 * padding && kw <= width + 2 * padding;
        let empty = [channels, out_channels, kh, kw, stride].contains(&0);
        if channels != w_channels || empty || !fits {
            candle_core::bail!(
                "conv2d: picture {height}x{width}x{channels}, kernel {kh}x{kw}x{w_channels}, \
                 stride {stride}, padding {padding} do not fit"
            );
        }
        let out_height = (height + 2 * padding - kh) / stride + 1;
        let out_width = (width + 2 * padding - kw) / stride + 1;
        let kernel = [kh, kw];
        Ok(Self {
            batch,
            height,
            width,
            channels,
            out_channels,
            kernel,
            stride,
            padding,
            out_height,
            out_width,
        })
    }

    /// A product of `rows` row vectors with a matrix, as a convolution of 1 x 1 pictures. The
    /// widths are not 0.
    pub(super) fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            batch: rows,
            height: 1,
            width: 1,
            channels: inputs,
            out_channels: outputs,
            kernel: [1, 1],
            stride: 1,
            padding: 0,
            out_height: 1,
            out_width: 1,
        }
    }

    /// Length of a patch: one row of the patch matrix.
    fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// Output positions of one sample.
    fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Whether the picture is its own patch matrix.
    fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == 0
    }

    /// Rows of the patch matrix that are handled at a time.
    fn chunk_rows(&self) -> usize {
        (PATCH_ELEMENTS / self.patch().max(1)).clamp(16, 4096)
    }

    /// Samples in each of at most [`LANES`] runs, with enough rows for an efficient product.
    fn lane_samples(&self) -> usize {
        self.batch.div_ceil(LANES).max(LANE_ROWS.div_ceil(self.positions()))
    }
}

/// (O, C, kh, kw) to (O, kh, kw, C), the order of a patch.
fn to_patch_order<T: Real>(g: &Geometry, w: &[T]) -> Vec<T> {
    let area = g.kernel[0] * g.kernel[1];
    let mut packed = vec![T::zero(); w.len()];
    for (to, from) in packed.chunks_exact_mut(g.patch()).zip(w.chunks_exact(g.patch())) {
        for channel in 0..g.channels {
            for tap in 0..area {
                to[tap * g.channels + channel] = from[channel * area + tap];
            }
        }
    }
    packed
}

/// (O, kh, kw, C) back to (O, C, kh, kw).
fn from_patch_order<T: Real>(g: &Geometry, packed: &[T]) -> Vec<T> {
    let area = g.kernel[0] * g.kernel[1];
    let mut w = vec![T::zero(); packed.len()];
    for (to, from) in w.chunks_exact_mut(g.patch()).zip(packed.chunks_exact(g.patch())) {
        for channel in 0..g.channels {
            for tap in 0..area {
                to[channel * area + tap] = from[tap * g.channels + channel];
            }
        }
    }
    w
}

/// One contiguous run that a patch and the picture share: where it starts in each, and its length.
struct Run {
    patch: usize,
    picture: usize,
    length: usize,
}

/// Calls `visit` for each run that the patch at output `position` (counted over the whole batch)
/// shares with the batch `x`. What no run covers is padding.
#[inline]
fn for_each_run(g: &Geometry, position: usize, mut visit: impl FnMut(Run)) {
    let (sample, within) = (position / g.positions(), position % g.positions());
    let top = within / g.out_width * g.stride;
    let left = within % g.out_width * g.stride;
    let first = g.padding.saturating_sub(left);
    let last = (g.width + g.padding).saturating_sub(left).min(g.kernel[1]);
    if first >= last {
        return;
    }
    for ky in 0..g.kernel[0] {
        let y = top + ky;
        if y < g.padding || y >= g.height + g.padding {
            continue;
        }
        let row = sample * g.height + (y - g.padding);
        visit(Run {
            patch: (ky * g.kernel[1] + first) * g.channels,
            picture: (row * g.width + left + first - g.padding) * g.channels,
            length: (last - first) * g.channels,
        });
    }
}

/// Writes the patches of the output positions from `start` on into `patches`.
fn gather<T: Real>(g: &Geometry, x: &[T], start: usize, patches: &mut [T]) {
    if g.padding > 0 {
        patches.fill(T::zero());
    }
    for (index, patch) in patches.chunks_exact_mut(g.patch()).enumerate() {
        for_each_run(g, start + index, |run| {
            let from = &x[run.picture..run.picture + run.length];
            patch[run.patch..run.patch + run.length].copy_from_slice(from);
        });
    }
}

/// Adds patches back to where [`gather`] took them from. `start` counts from `x`'s first sample.
fn scatter<T: Real>(g: &Geometry, patches: &[T], start: usize, x: &mut [T]) {
    for (index, patch) in patches.chunks_exact(g.patch()).enumerate() {
        for_each_run(g, start + index, |run| {
            let to = &mut x[run.picture..run.picture + run.length];
            for (to, from) in to.iter_mut().zip(&patch[run.patch..run.patch + run.length]) {
                *to += *from;
            }
        });
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
