//! Patches: the rows of the matrix that turns a convolution into a product.

use std::borrow::Cow;

use candle_core::Result;

use crate::ops::real::Real;

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Geometry {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) out_channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

/// Elements of one patch buffer: half a megabyte of f32, which stays in the second-level cache.
const PATCH_ELEMENTS: usize = 128 * 1024;
/// Weight gradients are summed over this many runs of samples, then over the runs in order. It is
/// fixed, so that the sum does not depend on the number of threads.
const LANES: usize = 16;
/// A lane has at least about this many rows.
const LANE_ROWS: usize = 64;

impl Geometry {
    pub(super) fn new(
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
    pub(in crate::ops) fn linear(rows: usize, inputs: usize, outputs: usize) -> Self {
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
    pub(super) fn patch(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.channels
    }

    /// Output positions of one sample.
    pub(super) fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Whether the picture is its own patch matrix.
    pub(super) fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == 0
    }

    /// Rows of the patch matrix that are handled at a time.
    pub(super) fn chunk_rows(&self) -> usize {
        (PATCH_ELEMENTS / self.patch().max(1)).clamp(16, 4096)
    }

    /// Samples in each of at most [`LANES`] runs, with enough rows for an efficient product.
    pub(super) fn lane_samples(&self) -> usize {
        self.batch.div_ceil(LANES).max(LANE_ROWS.div_ceil(self.positions()))
    }
}

/// (O, C, kh, kw) to (O, kh, kw, C), the order of a patch; the same where the kernel is 1 x 1.
pub(super) fn to_patch_order<'a, T: Real>(g: &Geometry, w: &'a [T]) -> Cow<'a, [T]> {
    let area = g.kernel[0] * g.kernel[1];
    if area == 1 {
        return Cow::Borrowed(w);
    }
    let mut packed = vec![T::zero(); w.len()];
    for (to, from) in packed.chunks_exact_mut(g.patch()).zip(w.chunks_exact(g.patch())) {
        for channel in 0..g.channels {
            for tap in 0..area {
                to[tap * g.channels + channel] = from[channel * area + tap];
            }
        }
    }
    Cow::Owned(packed)
}

/// (O, kh, kw, C) back to (O, C, kh, kw).
pub(super) fn from_patch_order<T: Real>(g: &Geometry, packed: &[T]) -> Vec<T> {
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
pub(super) fn gather<T: Real>(g: &Geometry, x: &[T], start: usize, patches: &mut [T]) {
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
pub(super) fn scatter<T: Real>(g: &Geometry, patches: &[T], start: usize, x: &mut [T]) {
    for (index, patch) in patches.chunks_exact(g.patch()).enumerate() {
        for_each_run(g, start + index, |run| {
            let to = &mut x[run.picture..run.picture + run.length];
            for (to, from) in to.iter_mut().zip(&patch[run.patch..run.patch + run.length]) {
                *to += *from;
            }
        });
    }
}
