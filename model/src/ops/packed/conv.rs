//! Convolution with weights that were packed once: a product whose rows are patches.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, Result, Shape, Tensor};

use super::direct::Direct;
use super::math::Act;
use super::onto::{Forward, onto};
use super::panels::{Aligned, Panels};
use super::product::{Product, Source};
use super::tile::Rows;
use super::window::{Walk, Window};
use super::winograd::{Transformed, Winograd};
use super::{Frozen, activate_composed, frozen, on_cpu};

/// act(convolution + b + residual) of pictures, channels last, for weights that no longer change.
#[derive(Debug)]
pub struct Conv {
    weights: Frozen<Weights>,
    /// [O, C, kh, kw].
    shape: [usize; 4],
    window: Window,
    act: Act,
}

/// As the shape of the kernel has them multiplied.
#[derive(Debug)]
enum Weights {
    /// By patches.
    Plain(Panels),
    /// By transformed tiles.
    Transformed(Transformed),
}

impl Conv {
    /// Packs `weight` (O, C, kh, kw) with `bias` (O), a folded batch norm included.
    ///
    /// # Errors
    /// If the shapes do not fit, or one or the stride is 0.
    pub fn packed(
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
        act: Act,
    ) -> Result<Self> {
        let (outputs, channels, height, width) = weight.dims4()?;
        let fits = bias.is_none_or(|bias| bias.dims() == [outputs]);
        let shape = [outputs, channels, height, width];
        if shape.contains(&0) || window.stride == 0 || !fits {
            candle_core::bail!(
                "conv: weight {shape:?} with bias {:?} and {window:?}",
                bias.map(Tensor::dims)
            );
        }
        let area = height * width;
        let weights = frozen(weight, bias, |weight, bias, half| {
            if !half && Transformed::suits(shape, window.stride) {
                return Weights::Transformed(Transformed::pack([outputs, channels], weight, bias));
            }
            // The depth runs as a patch does: rows, columns, channels.
            let panels = Panels::pack([outputs, area * channels], half, bias, |o, at| {
                weight[(o * channels + at % channels) * area + at / channels]
            });
            Weights::Plain(panels)
        })?;
        Ok(Self { weights, shape, window, act })
    }

    /// (B, H, W, C) to (B, H', W', O).
    ///
    /// # Errors
    /// If the channels differ or the kernel is larger than the padded picture; on the CPU if `x` is
    /// not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None)
    }

    /// (B, H, W, C) and a residual (B, H', W', O) to (B, H', W', O). The activation comes after the
    /// sum.
    ///
    /// # Errors
    /// As [`Self::forward`]; and if the residual's shape differs from the result's.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Some(residual))
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let [outputs, channels, height, width] = self.shape;
        let dims = x.dims4()?;
        let walk = Walk::new(dims, [height, width], self.window)?;
        let shape = [dims.0, walk.out_height, walk.out_width, outputs];
        if dims.3 != channels || residual.is_some_and(|residual| residual.dims() != shape) {
            candle_core::bail!(
                "conv: weight {:?} given {:?} with residual {:?}",
                self.shape,
                x.dims(),
                residual.map(Tensor::dims)
            );
        }
        let weights = match &self.weights {
            Frozen::Packed(weights) => weights.clone(),
            Frozen::Tensors { weight, bias } => {
                let mut y = composed(x, weight, bias.as_ref(), self.window, 1)?;
                if let Some(residual) = residual {
                    y = (y + residual)?;
                }
                return activate_composed(&y, self.act);
            }
        };
        on_cpu(x, "conv")?;
        onto(Run { weights, walk, act: self.act }, x, residual)
    }
}

/// The same function, without residual and activation, from candle's operations.
pub(super) fn composed(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    window: Window,
    groups: usize,
) -> Result<Tensor> {
    let [top, left, bottom, right] = window.padding;
    let x = x.pad_with_zeros(1, top, bottom)?.pad_with_zeros(2, left, right)?;
    let x = x.permute((0, 3, 1, 2))?.contiguous()?;
    let y = x.conv2d(&weight.to_dtype(x.dtype())?, 0, window.stride, 1, groups)?;
    let y = y.permute((0, 2, 3, 1))?.contiguous()?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(y.dtype())?),
        None => Ok(y),
    }
}

struct Run {
    weights: Arc<Weights>,
    walk: Walk,
    act: Act,
}

impl Forward for Run {
    const NAME: &'static str = "packed_conv";

    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> (CpuStorage, Shape) {
        let (walk, act) = (&self.walk, self.act);
        let (y, outputs) = match &*self.weights {
            Weights::Plain(weights) => (self.plain(weights, x, residual), weights.columns),
            Weights::Transformed(weights) => {
                (Winograd { walk, weights, residual, act }.compute(x), weights.outputs())
            }
        };
        let shape = (walk.batch, walk.out_height, walk.out_width, outputs);
        (CpuStorage::F32(y), Shape::from(shape))
    }
}

impl Run {
    fn plain(&self, weights: &Panels, x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let (walk, act) = (&self.walk, self.act);
        let rows = walk.batch * walk.positions();
        if walk.kernel == [1, 1] && walk.window == Window::padded(1, 0) {
            let left = Rows { data: x, stride: walk.channels };
            Product { left, rows, weights, residual, act }.compute()
        } else if Direct::suits(walk) {
            Direct { walk, weights, residual, act }.compute(x)
        } else {
            Product { left: Patches { walk, x }, rows, weights, residual, act }.compute()
        }
    }
}

/// The patches of a batch of pictures, row by row of a product's left factor.
struct Patches<'a> {
    walk: &'a Walk,
    x: &'a [f32],
}

impl Source for Patches<'_> {
    fn rows<'a>(
        &'a self,
        rows: Range<usize>,
        depth: Range<usize>,
        scratch: &'a mut Aligned,
    ) -> Rows<'a> {
        let stride = depth.len();
        let patches = scratch.resize(rows.len() * stride);
        for (index, patch) in rows.zip(patches.chunks_exact_mut(stride)) {
            self.gather(index, depth.clone(), patch);
        }
        Rows { data: patches, stride }
    }
}

impl Patches<'_> {
    /// The elements `depth` of one patch.
    #[inline(always)]
    fn gather(&self, index: usize, depth: Range<usize>, patch: &mut [f32]) {
        let walk = self.walk;
        let (sample, within) = (index / walk.positions(), index % walk.positions());
        let (row, column) = (within / walk.out_width, within % walk.out_width);
        let [top, left] = walk.corner(row, column);
        let (rows, columns) = (walk.rows(row), walk.columns(column));
        if rows.len() < walk.kernel[0] || columns.len() < walk.kernel[1] {
            patch.fill(0.0);
        }
        let line = walk.kernel[1] * walk.channels;
        for tap in rows {
            // A line of the kernel is one run in patch and picture.
            let from = (tap * line + columns.start * walk.channels).max(depth.start);
            let to = (tap * line + columns.end * walk.channels).min(depth.end);
            if from >= to {
                continue;
            }
            let y = sample * walk.height + top + tap - walk.window.padding[0];
            let first = (y * walk.width + left) * walk.channels + from
                - tap * line
                - walk.window.padding[1] * walk.channels;
            patch[from - depth.start..to - depth.start]
                .copy_from_slice(&self.x[first..first + to - from]);
        }
    }
}
