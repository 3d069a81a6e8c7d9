//! A linear layer that only an objective has.

use candle_core::Tensor;
use diptych_model::{Init, Params, ops};

use crate::error::Result;

/// x wᵀ + b.
#[derive(Debug)]
pub(super) struct Affine {
    weight: Tensor,
    bias: Tensor,
}

impl Affine {
    /// A layer of `widths` [inputs, outputs] whose variables are named `{name}.*`.
    pub(super) fn new(params: &Params, name: &str, widths: [usize; 2]) -> Result<Self> {
        Self::starting(params, name, widths, (Init::Kaiming { fan_in: widths[0] }, 0.0))
    }

    /// The same with weights and a bias that start otherwise.
    pub(super) fn starting(
        params: &Params,
        name: &str,
        [inputs, outputs]: [usize; 2],
        (weights, bias): (Init, f64),
    ) -> Result<Self> {
        Ok(Self {
            weight: params.get(&format!("{name}.weight"), &[outputs, inputs], weights)?,
            bias: params.get(&format!("{name}.bias"), &[outputs], Init::Const(bias))?,
        })
    }

    /// (N, I) to (N, O).
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, Some(&self.bias))?)
    }
}
