//! Heads: features to what becomes unit vectors.

use candle_core::Tensor;

use crate::config::Projection;
use crate::error::{Error, Result};
use crate::params::Params;
use crate::tower::layers::{Linear, Norm};

/// Features to what shared vectors are made of: one linear layer, so that what it keeps is linear in the features
/// and a prefix of it is a head of its own; or the features themselves.
#[derive(Debug)]
pub(crate) struct SharedHead(Option<Linear>);

impl SharedHead {
    /// A head of `widths` [features, shared].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the features are the vectors and the widths differ.
    pub(crate) fn new(
        params: &Params,
        name: &str,
        widths: [usize; 2],
        projection: Projection,
    ) -> Result<Self> {
        let layer = match projection {
            Projection::Affine => Some(Linear::new(params, name, widths)?),
            Projection::Linear => Some(Linear::without_bias(params, name, widths)?),
            Projection::Identity if widths[0] == widths[1] => None,
            Projection::Identity => {
                let message = format!("must be {}, the width of the tower", widths[0]);
                return Err(Error::invalid("heads.shared", message));
            }
        };
        Ok(Self(layer))
    }

    /// (B, D) to (B, S), of any length.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Some(layer) => layer.forward(features),
            None => Ok(features.clone()),
        }
    }
}

/// Features to what exclusive vectors are made of: normalised, since early statistics and last features differ in
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

    /// (B, D) to (B, E), of any length.
    pub(crate) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let hidden = self.hidden.forward(&self.norm.layer(features)?)?.silu()?;
        self.output.forward(&hidden)
    }
}
