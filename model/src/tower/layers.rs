//! The layers that towers and heads are built from: a weight or two and the operation on them.
//!
//! Layers keep the tensors that share their storage with the trained variables and compute
//! everything else in `forward`, so that they follow each optimizer step. A convolution whose weight
//! is fixed packs it when it is built.

pub(crate) mod folded;
pub(crate) mod frozen;

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::packed::{self, Act, Window};
use crate::ops::{self, Activation};
use crate::params::{Init, Params};

/// x wᵀ + b.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer of `widths` [inputs, outputs].
    pub(crate) fn new(params: &Params, name: &str, widths: [usize; 2]) -> Result<Self> {
        Self::with_init(params, name, widths, Init::Kaiming { fan_in: widths[0] })
    }

    /// The same with weights that start otherwise.
    pub(crate) fn with_init(
        params: &Params,
        name: &str,
        [inputs, outputs]: [usize; 2],
        init: Init,
    ) -> Result<Self> {
        Ok(Self {
            weight: params.get(&format!("{name}.weight"), &[outputs, inputs], init)?,
            bias: Some(params.get(&format!("{name}.bias"), &[outputs], Init::Zeros)?),
        })
    }

    /// The same without a bias.
    pub(crate) fn without_bias(
        params: &Params,
        name: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Self> {
        let init = Init::Kaiming { fan_in: inputs };
        let weight = params.get(&format!("{name}.weight"), &[outputs, inputs], init)?;
        Ok(Self { weight, bias: None })
    }

    /// (N, I) to (N, O).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::linear(x, &self.weight, self.bias.as_ref())?)
    }
}

/// A normalisation with its scale and shift.
#[derive(Debug)]
pub(crate) struct Norm {
    scale: Tensor,
    shift: Tensor,
    groups: usize,
}

impl Norm {
    /// Over `channels` in `groups`; 1 group for [`Self::layer`].
    pub(crate) fn new(params: &Params, name: &str, channels: usize, groups: usize) -> Result<Self> {
        Ok(Self {
            scale: params.get(&format!("{name}.weight"), &[channels], Init::Ones)?,
            shift: params.get(&format!("{name}.bias"), &[channels], Init::Zeros)?,
            groups,
        })
    }

    fn affine(&self) -> Result<Tensor> {
        Ok(Tensor::stack(&[&self.scale, &self.shift], 0)?)
    }

    /// Group normalisation of (B, H, W, C).
    pub(crate) fn group(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        Ok(ops::group_norm(x, &self.affine()?, self.groups, None, activation)?)
    }

    /// Group normalisation of (B, H, W, C), plus `residual`, then ReLU.
    pub(crate) fn group_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let affine = self.affine()?;
        Ok(ops::group_norm(x, &affine, self.groups, Some(residual), Activation::Relu)?)
    }

    /// Layer normalisation of (N, D).
    pub(crate) fn layer(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::layer_norm(x, &self.affine()?)?)
    }
}

/// A convolution with a square kernel, without bias, padded so that stride 1 keeps the size.
#[derive(Debug)]
pub(crate) enum Conv {
    /// By a weight that is trained or computes in another type.
    Plain { weight: Tensor, stride: usize, padding: usize },
    /// By a weight that is served.
    Packed(packed::Conv),
}

/// Sizes of a [`Conv`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Odd.
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl Conv {
    pub(crate) fn new(params: &Params, name: &str, shape: ConvShape) -> Result<Self> {
        let ConvShape { inputs, outputs, kernel, stride } = shape;
        let init = Init::Kaiming { fan_in: inputs * kernel * kernel };
        let dims = [outputs, inputs, kernel, kernel];
        let weight = params.get(&format!("{name}.weight"), &dims, init)?;
        let padding = kernel / 2;
        if params.fixed() {
            let window = Window::padded(stride, padding);
            return Ok(Self::Packed(packed::Conv::packed(&weight, None, window, Act::Identity)?));
        }
        Ok(Self::Plain { weight, stride, padding })
    }

    /// (B, H, W, C) to (B, H', W', O).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Plain { weight, stride, padding } => ops::conv2d(x, weight, *stride, *padding)?,
            Self::Packed(conv) => conv.forward(x)?,
        })
    }
}
