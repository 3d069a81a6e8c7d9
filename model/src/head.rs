//! Heads: features to unit vectors.

use candle_core::Tensor;

use crate::error::Result;
use crate::ops;
use crate::params::Params;
use crate::tower::layers::{Linear, Norm};

/// Features to shared vectors: one linear layer, so that what it keeps is linear in the features
/// and a prefix of it is a head of its own.
#[derive(Debug)]
pub(crate) struct SharedHead(Linear);

impl SharedHead {
    /// A head of `widths` [features, shared].
    pub(crate) fn new(params: &Params, name: &str, widths: [usize; 2]) -> Result<Self> {
        Linear::new(params, name, widths).map(Self)
    }

    /// (B, D) to (B, S), unit rows.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        Ok(ops::l2_normalize(&self.0.forward(features)?)?)
    }
}

/// Features to exclusive vectors: normalised, since early statistics and last features differ in
/// scale, then one hidden layer. Its SiLU is never zero for all units at once, as a ReLU can be,
/// and so no input's vector is zero.
#[derive(Debug)]
pub(crate) struct ExclusiveHead {
    norm: Norm,
    hidden: Linear,
    output: Linear,
}

impl ExclusiveHead {
    /// A head of `widths` [features, hidden, exclusive].
    pub(crate) fn new(params: &Params, name: &str, widths: [usize; 3]) -> Result<Self> {
        let [features, hidden, exclusive] = widths;
        Ok(Self {
            norm: Norm::new(params, &format!("{name}.norm"), features, 1)?,
            hidden: Linear::new(params, &format!("{name}.hidden"), [features, hidden])?,
            output: Linear::new(params, &format!("{name}.output"), [hidden, exclusive])?,
        })
    }

    /// (B, D) to (B, E), unit rows.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden.forward(&self.norm.layer(features)?)?.silu()?;
        Ok(ops::l2_normalize(&self.output.forward(&hidden)?)?)
    }
}
