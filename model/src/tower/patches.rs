//! Pictures as tokens: what both vision transformers begin with.

use candle_core::Tensor;

use crate::config::VitConfig;
use crate::error::Result;
use crate::ops::packed::{self, Act};
use crate::params::{Init, Params};

/// A convolution whose kernel and stride are a patch, which is a linear layer over its pixels.
#[derive(Debug)]
pub(super) struct Patches {
    layer: packed::Linear,
    patch: usize,
    across: usize,
}

impl Patches {
    /// With `bias` as SigLIP has it, without as CLIP does.
    pub(super) fn new(config: &VitConfig, params: &Params, name: &str, bias: bool) -> Result<Self> {
        let VitConfig { size, patch, ref blocks } = *config;
        let inputs = 3 * patch * patch;
        let init = Init::Kaiming { fan_in: inputs };
        let shape = [blocks.width, 3, patch, patch];
        let weight = params.get_as_stored(&format!("{name}.weight"), &shape, init)?;
        let weight = weight.reshape((blocks.width, inputs))?;
        let bias = bias
            .then(|| params.get(&format!("{name}.bias"), &[blocks.width], Init::Zeros))
            .transpose()?;
        let layer = packed::Linear::packed(&weight, bias.as_ref(), Act::Identity)?;
        Ok(Self { layer, patch, across: size / patch })
    }

    /// The number of patches of a picture.
    pub(super) fn count(&self) -> usize {
        self.across * self.across
    }

    /// (B, 3, size, size) to (B, patches, D), row by row.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, side, across) = (pixels.dim(0)?, self.patch, self.across);
        // Batch, colours, row of patches, row in the patch, column of patches, column in the patch.
        let cut = pixels.contiguous()?.reshape(vec![batch, 3, across, side, across, side])?;
        let patches = cut.permute(vec![0, 2, 4, 1, 3, 5])?.contiguous()?;
        let patches = patches.reshape((batch, across * across, 3 * side * side))?;
        Ok(self.layer.forward(&patches)?)
    }
}
