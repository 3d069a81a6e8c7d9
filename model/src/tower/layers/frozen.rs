//! Layers of transformers from checkpoints of others: weights that no longer change, packed once.

use candle_core::{DType, Tensor};

use crate::config::FeedForward;
use crate::error::Result;
use crate::ops::packed::{self, Act};
use crate::params::{Init, Params};

/// What follows the first layer of a feed-forward part.
impl From<FeedForward> for Act {
    fn from(function: FeedForward) -> Self {
        match function {
            FeedForward::QuickGelu => Self::QuickGelu,
            FeedForward::Gelu => Self::Gelu,
            FeedForward::GeluTanh => Self::GeluTanh,
            FeedForward::Relu => Self::Relu,
        }
    }
}

/// act(x wᵀ + b) by the weights `{name}.weight` and `{name}.bias`.
pub(crate) fn linear(
    params: &Params,
    name: &str,
    [inputs, outputs]: [usize; 2],
    act: Act,
) -> Result<packed::Linear> {
    let init = Init::Kaiming { fan_in: inputs };
    let weight = params.get_as_stored(&format!("{name}.weight"), &[outputs, inputs], init)?;
    let bias = params.get(&format!("{name}.bias"), &[outputs], Init::Zeros)?;
    Ok(packed::Linear::packed(&weight, Some(&bias), act)?)
}

/// Layers of the same input as one product: `names` one after the other, each `width` to `width`.
pub(crate) fn joined(params: &Params, names: &[String], width: usize) -> Result<packed::Linear> {
    let init = Init::Kaiming { fan_in: width };
    let weight =
        |name: &String| params.get_as_stored(&format!("{name}.weight"), &[width, width], init);
    let bias = |name: &String| params.get(&format!("{name}.bias"), &[width], Init::Zeros);
    let weights = names.iter().map(weight).collect::<Result<Vec<_>>>()?;
    let biases = names.iter().map(bias).collect::<Result<Vec<_>>>()?;
    let (weight, bias) = (Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?);
    Ok(packed::Linear::packed(&weight, Some(&bias), Act::Identity)?)
}

/// Layer normalisation with an epsilon of its own, over the last axis.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    scale: Tensor,
    shift: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(params: &Params, name: &str, width: usize, epsilon: f64) -> Result<Self> {
        let part = |part: &str, init| params.get(&format!("{name}.{part}"), &[width], init);
        let (scale, shift) = (part("weight", Init::Ones)?, part("bias", Init::Zeros)?);
        Ok(Self { scale: scale.detach(), shift: shift.detach(), epsilon })
    }

    /// (.., D) to (.., D).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(packed::normalize(x, &self.scale, &self.shift, self.epsilon)?)
    }
}

/// A table with a row for each id; in half precision where it is stored so.
#[derive(Debug)]
pub(crate) struct Table(Tensor);

impl Table {
    pub(crate) fn new(params: &Params, name: &str, [rows, width]: [usize; 2]) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        let table = params.get_as_stored(&format!("{name}.weight"), &[rows, width], init)?;
        Ok(Self(table.detach()))
    }

    /// The rows of `ids`: (N, D).
    pub(crate) fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::from_slice(ids, ids.len(), self.0.device())?;
        Ok(self.0.index_select(&ids, 0)?.to_dtype(DType::F32)?)
    }

    /// `count` rows from `first` on: (`count`, D).
    pub(crate) fn range(&self, first: usize, count: usize) -> Result<Tensor> {
        Ok(self.0.narrow(0, first, count)?.to_dtype(DType::F32)?)
    }
}
