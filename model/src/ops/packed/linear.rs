//! Rows times a matrix that was packed once.

use candle_core::{CpuStorage, Result, Shape, Tensor};

use super::math::Act;
use super::onto::{Forward, onto};
use super::panels::Panels;
use super::product::Product;
use super::tile::Rows;
use super::{Frozen, activate_composed, frozen, on_cpu};

/// act(x wᵀ + b + residual), for weights that no longer change.
#[derive(Debug)]
pub struct Linear {
    weights: Frozen<Packed>,
    inputs: usize,
    outputs: usize,
    act: Act,
}

#[derive(Debug)]
struct Packed {
    panels: Panels,
    act: Act,
}

impl Linear {
    /// Packs `weight` (O, I) with `bias` (O). A weight in f16 stays so in memory and is widened in
    /// the product, which then reads half as much: for a handful of rows, that is what it waits for.
    /// On other devices than the CPU both stay as they are.
    ///
    /// # Errors
    /// If the shapes do not fit or one is 0.
    pub fn packed(weight: &Tensor, bias: Option<&Tensor>, act: Act) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let fits = bias.is_none_or(|bias| bias.dims() == [outputs]);
        if inputs == 0 || outputs == 0 || !fits {
            candle_core::bail!(
                "linear: weight {:?} with bias {:?}",
                weight.dims(),
                bias.map(Tensor::dims)
            );
        }
        let weights = frozen(weight, bias, |weight, bias, half| {
            let panels = Panels::pack([outputs, inputs], half, bias, |o, i| weight[o * inputs + i]);
            Packed { panels, act }
        })?;
        Ok(Self { weights, inputs, outputs, act })
    }

    /// I, the width of what goes in.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// O, the width of what comes out.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes that the weights take on the CPU; 0 on other devices.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Frozen::Packed(packed) => packed.panels.bytes(),
            Frozen::Tensors { .. } => 0,
        }
    }

    /// (.., I) to (.., O).
    ///
    /// # Errors
    /// If the width differs, or on the CPU if `x` is not f32.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None)
    }

    /// (.., I) and a residual (.., O) to (.., O). The activation comes after the sum.
    ///
    /// # Errors
    /// As [`Self::forward`]; and if the residual's shape differs from the result's.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(x, Some(residual))
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let last = shape.last_mut().filter(|width| **width == self.inputs);
        let fits = last.map(|width| *width = self.outputs).is_some();
        if !fits || residual.is_some_and(|residual| residual.dims() != shape) {
            candle_core::bail!(
                "linear: {} to {} features given {:?} with residual {:?}",
                self.inputs,
                self.outputs,
                x.dims(),
                residual.map(Tensor::dims)
            );
        }
        let packed = match &self.weights {
            Frozen::Packed(packed) => packed,
            Frozen::Tensors { weight, bias } => {
                let x = x.flatten_to(x.rank() - 2)?;
                let mut y = crate::ops::linear(&x, weight, bias.as_ref())?.reshape(shape)?;
                if let Some(residual) = residual {
                    y = (y + residual)?;
                }
                return activate_composed(&y, self.act);
            }
        };
        on_cpu(x, "linear")?;
        onto(Run { packed: packed.clone(), shape: Shape::from(shape) }, x, residual)
    }
}

struct Run {
    packed: std::sync::Arc<Packed>,
    shape: Shape,
}

impl Forward for Run {
    const NAME: &'static str = "packed_linear";

    fn forward(&self, x: &[f32], residual: Option<&[f32]>) -> (CpuStorage, Shape) {
        let weights = &self.packed.panels;
        let rows = x.len() / weights.depth;
        let left = Rows { data: x, stride: weights.depth };
        let y = Product { left, rows, weights, residual, act: self.packed.act }.compute();
        (CpuStorage::F32(y), self.shape.clone())
    }
}
