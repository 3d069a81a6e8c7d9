//! Depthwise convolution: every channel with a kernel of its own, directly over the picture.

#![expect(unsafe_code, reason = "tasks write disjoint rows, and taps are read without checks each")]

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::composed;
use super::math::{Act, activate};
use super::product::cut;
use super::tile::{Target, load};
use super::window::{Walk, Window};
use super::{Frozen, activate_composed, frozen, no_gradient, on_cpu};
use crate::ops::real::elements;

/// Channels are padded to this many, so that the kernel and bias of any vector can be read whole.
const LANES: usize = 16;

/// act(depthwise convolution + b) of pictures, channels last, for weights that no longer change.
#[derive(Debug)]
pub struct Depthwise {
    weights: Frozen<Kernels>,
    /// [C, kh, kw].
    shape: [usize; 3],
    window: Window,
    act: Act,
}

/// Kernels by taps, (kh kw, C padded), and the padded bias.
#[derive(Debug)]
struct Kernels {
    taps: Vec<f32>,
    bias: Vec<f32>,
}

impl Depthwise {
    /// Packs `weight` (C, 1, kh, kw) with `bias` (C), a folded batch norm included.
    ///
    /// # Errors
    /// If the shapes do not fit, or one or the stride is 0.
    pub fn packed(
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
        act: Act,
    ) -> Result<Self> {
        let (channels, one, height, width) = weight.dims4()?;
        let fits = bias.is_none_or(|bias| bias.dims() == [channels]);
        let shape = [channels, height, width];
        if shape.contains(&0) || one != 1 || window.stride == 0 || !fits {
            candle_core::bail!(
                "depthwise: weight {:?} with bias {:?} and {window:?}",
                weight.dims(),
                bias.map(Tensor::dims)
            );
        }
        let (area, padded) = (height * width, channels.next_multiple_of(LANES));
        let weights = frozen(weight, bias, |weight, bias, _| {
            let mut taps = vec![0.0; area * padded];
            for (channel, kernel) in weight.chunks_exact(area).enumerate() {
                for (tap, value) in kernel.iter().enumerate() {
                    taps[tap * padded + channel] = *value;
                }
            }
            let mut bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
            bias.resize(padded, 0.0);
            Kernels { taps, bias }
        })?;
        Ok(Self { weights, shape, window, act })
    }

    /// (B, H, W, C) to (B, H', W', C).
    ///
    /// # Errors
    /// If the channels differ or the kernel is larger than the padded picture; on the CPU if `x` is
    /// not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [channels, height, width] = self.shape;
        let dims = x.dims4()?;
        if dims.3 != channels {
            candle_core::bail!("depthwise: {channels} channels given {:?}", x.dims());
        }
        let walk = Walk::new(dims, [height, width], self.window)?;
        match &self.weights {
            Frozen::Packed(weights) => {
                on_cpu(x, "depthwise")?;
                x.contiguous()?.apply_op1(Run { weights: weights.clone(), walk, act: self.act })
            }
            Frozen::Tensors { weight, bias } => {
                let y = composed(x, weight, bias.as_ref(), self.window, channels)?;
                activate_composed(&y, self.act)
            }
        }
    }
}

struct Run {
    weights: Arc<Kernels>,
    walk: Walk,
    act: Act,
}

/// Multiply-adds that are worth a task: ten microseconds or so.
const TASK: usize = 1 << 18;

impl CustomOp1 for Run {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let walk = &self.walk;
        let x = elements::<f32>(x, layout)?;
        let line = walk.out_width * walk.channels;
        let lines = walk.batch * walk.out_height;
        let arch = Arch::new();
        let y = Target::fill(lines * line, line, |target| {
            let run = |[lines, channels]: [Range<usize>; 2]| {
                arch.dispatch(Lines { run: self, x, target, lines, channels });
            };
            let threads = rayon::current_num_threads();
            let work = lines * line * walk.kernel[0] * walk.kernel[1];
            let wanted = (work / TASK).clamp(1, 2 * threads);
            if threads == 1 || wanted == 1 {
                run([0..lines, 0..walk.channels]);
                return;
            }
            // A product that comes before or after is cut alike, at its larger side, so that a thread
            // mostly reads what it wrote.
            let tasks = wanted.next_multiple_of(threads);
            let vectors = walk.channels.div_ceil(LANES);
            let across = walk.channels > lines * walk.out_width;
            let part = |task: usize| {
                if !across {
                    return [cut(lines, tasks, task), 0..walk.channels];
                }
                let Range { start, end } = cut(vectors, tasks, task);
                [0..lines, start * LANES..(end * LANES).min(walk.channels)]
            };
            (0..tasks).into_par_iter().with_max_len(1).for_each(|task| run(part(task)));
        });
        let shape = (walk.batch, walk.out_height, walk.out_width, walk.channels);
        Ok((CpuStorage::F32(y), Shape::from(shape)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        no_gradient("depthwise")
    }
}

/// Some channels, whole vectors but for the last ones, of some of the output's lines, counted over the
/// whole batch.
struct Lines<'a> {
    run: &'a Run,
    x: &'a [f32],
    target: Target,
    lines: Range<usize>,
    channels: Range<usize>,
}

impl WithSimd for Lines<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let walk = &self.run.walk;
        match (walk.kernel, walk.window.stride) {
            ([3, 3], 1) => self.each::<S, 3, 1>(simd),
            ([3, 3], 2) => self.each::<S, 3, 2>(simd),
            ([5, 5], 1) => self.each::<S, 5, 1>(simd),
            ([5, 5], 2) => self.each::<S, 5, 2>(simd),
            _ => self.each::<S, 0, 0>(simd),
        }
    }
}

impl Lines<'_> {
    /// `KERNEL` 0 is any kernel, pixel by pixel.
    #[inline(always)]
    fn each<S: Simd, const KERNEL: usize, const STRIDE: usize>(&self, simd: S) {
        let walk = &self.run.walk;
        let whole = |column: &usize| walk.columns(*column).len() == walk.kernel[1];
        let first = (0..walk.out_width).find(whole).unwrap_or(walk.out_width);
        let last = (first..walk.out_width).find(|x| !whole(x)).unwrap_or(walk.out_width);
        for line in self.lines.clone() {
            let (sample, row) = (line / walk.out_height, line % walk.out_height);
            let mut at = At { line, sample, row, channel: self.channels.start };
            while at.channel < self.channels.end {
                let full = at.channel + S::F32_LANES <= walk.channels;
                let mut column = 0;
                while column < walk.out_width {
                    let inner = KERNEL > 0 && full && column >= first;
                    // As many pixels as are left before the right edge, down to one.
                    let count = match last.saturating_sub(column) {
                        4.. if inner => 4,
                        2.. if inner => 2,
                        1 if inner => 1,
                        _ => 0,
                    };
                    match count {
                        4 => self.pixels::<S, KERNEL, STRIDE, 4>(simd, at, column),
                        2 => self.pixels::<S, KERNEL, STRIDE, 2>(simd, at, column),
                        1 => self.pixels::<S, KERNEL, STRIDE, 1>(simd, at, column),
                        _ if full => self.edge(simd, at, column),
                        _ => self.rest(simd, at, column),
                    }
                    column += count.max(1);
                }
                at.channel += S::F32_LANES;
            }
        }
    }

    /// Some pixels side by side, whose windows meet the picture in all columns: the same vector of
    /// channels of each.
    #[inline(always)]
    fn pixels<S: Simd, const KERNEL: usize, const STRIDE: usize, const PIXELS: usize>(
        &self,
        simd: S,
        at: At,
        column: usize,
    ) {
        let walk = &self.run.walk;
        let Kernels { taps, bias } = &*self.run.weights;
        let padded = bias.len();
        let mut sums = [self.bias(simd, at.channel); PIXELS];
        let corner = column * STRIDE - walk.window.padding[1];
        for tap_row in walk.rows(at.row) {
            let y = at.row * STRIDE + tap_row - walk.window.padding[0];
            let start = ((at.sample * walk.height + y) * walk.width + corner) * walk.channels;
            let reach = (PIXELS - 1) * STRIDE + KERNEL;
            let x = &self.x[start + at.channel..][..(reach - 1) * walk.channels + S::F32_LANES];
            let taps = &taps[tap_row * KERNEL * padded + at.channel..];
            let taps = &taps[..(KERNEL - 1) * padded + S::F32_LANES];
            for tap in 0..KERNEL {
                // SAFETY: a vector at tap * padded lies inside by the length above.
                let weight = unsafe { load::<S>(taps.as_ptr().wrapping_add(tap * padded)) };
                for (pixel, sum) in sums.iter_mut().enumerate() {
                    let pixel = (pixel * STRIDE + tap) * walk.channels;
                    // SAFETY: the farthest pixel is `reach - 1`, whose vector lies inside.
                    let x = unsafe { load::<S>(x.as_ptr().wrapping_add(pixel)) };
                    *sum = simd.mul_add_e_f32s(x, weight, *sum);
                }
            }
        }
        for (pixel, sum) in sums.into_iter().enumerate() {
            self.put(simd, at, [column + pixel, S::F32_LANES], sum);
        }
    }

    /// A pixel whose window may reach beyond the picture.
    #[inline(always)]
    fn edge<S: Simd>(&self, simd: S, at: At, column: usize) {
        let walk = &self.run.walk;
        let Kernels { taps, bias } = &*self.run.weights;
        let mut sum = self.bias(simd, at.channel);
        let columns = walk.columns(column);
        let [top, left] = walk.corner(at.row, column);
        let rows = if columns.is_empty() { 0..0 } else { walk.rows(at.row) };
        for tap_row in rows {
            let y = at.sample * walk.height + top + tap_row - walk.window.padding[0];
            let first = y * walk.width + left + columns.start - walk.window.padding[1];
            let x = &self.x[first * walk.channels + at.channel..];
            let x = &x[..(columns.len() - 1) * walk.channels + S::F32_LANES];
            let first = (tap_row * walk.kernel[1] + columns.start) * bias.len() + at.channel;
            let taps = &taps[first..][..(columns.len() - 1) * bias.len() + S::F32_LANES];
            for tap in 0..columns.len() {
                // SAFETY: the last tap's vector ends both slices.
                let weight = unsafe { load::<S>(taps.as_ptr().wrapping_add(tap * bias.len())) };
                // SAFETY: as above.
                let x = unsafe { load::<S>(x.as_ptr().wrapping_add(tap * walk.channels)) };
                sum = simd.mul_add_e_f32s(x, weight, sum);
            }
        }
        self.put(simd, at, [column, S::F32_LANES], sum);
    }

    /// A pixel's last channels, fewer than a vector.
    #[inline(always)]
    fn rest<S: Simd>(&self, simd: S, at: At, column: usize) {
        let walk = &self.run.walk;
        let Kernels { taps, bias } = &*self.run.weights;
        let count = walk.channels - at.channel;
        let mut sum = self.bias(simd, at.channel);
        let [top, left] = walk.corner(at.row, column);
        for tap_row in walk.rows(at.row) {
            let y = at.sample * walk.height + top + tap_row - walk.window.padding[0];
            for tap_column in walk.columns(column) {
                let x = y * walk.width + left + tap_column - walk.window.padding[1];
                let x = simd.partial_load_f32s(&self.x[x * walk.channels + at.channel..][..count]);
                let tap = (tap_row * walk.kernel[1] + tap_column) * bias.len() + at.channel;
                let weight = simd.partial_load_f32s(&taps[tap..tap + S::F32_LANES]);
                sum = simd.mul_add_e_f32s(x, weight, sum);
            }
        }
        self.put(simd, at, [column, count], sum);
    }

    #[inline(always)]
    fn bias<S: Simd>(&self, simd: S, channel: usize) -> S::f32s {
        simd.partial_load_f32s(&self.run.weights.bias[channel..channel + S::F32_LANES])
    }

    /// Writes a sum, activated, to the first `count` channels of a vector or all of it.
    #[inline(always)]
    fn put<S: Simd>(&self, simd: S, at: At, [column, count]: [usize; 2], sum: S::f32s) {
        let first = column * self.run.walk.channels + at.channel;
        // SAFETY: these channels of a line belong to one task.
        let y = unsafe { self.target.part(at.line, first, count) };
        let sum = activate(simd, self.run.act, sum);
        match S::as_mut_simd_f32s(y) {
            ([whole], _) => *whole = sum,
            (_, part) => simd.partial_store_f32s(part, sum),
        }
    }
}

/// A vector of channels of an output line, which is row `row` of picture `sample`.
#[derive(Clone, Copy)]
struct At {
    line: usize,
    sample: usize,
    row: usize,
    channel: usize,
}
