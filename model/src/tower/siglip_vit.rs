//! `siglip_vit`: the vision transformer of SigLIP (Zhai et al. 2023), whose features a learned query
//! gathers from the patches ("MAP head", Zhai et al. 2022). With the names of Hugging Face's
//! `SiglipVisionModel`.

use candle_core::Tensor;

use super::layers::frozen::{self, LayerNorm, Table};
use super::patches::Patches;
use super::transformer::{Blocks, Mlp};
use super::{Entry, ImageFeatures, ImageTower};
use crate::config::{BlocksConfig, VitConfig};
use crate::error::Result;
use crate::ops::packed::{self, Act, Mask};
use crate::params::{Init, Params};

pub(super) const ENTRY: Entry = Entry {
    name: "siglip_vit",
    example: "kind = \"siglip_vit\"\nsize = 8\npatch = 4\n[blocks]\nwidth = 8\nintermediate = 16\n\
              layers = 2\nheads = 2\nactivation = \"gelu_tanh\"\nepsilon = 1e-6\n",
    frozen: true,
};

/// The tower. `last` is what the query gathers; `early` the mean of all patches behind the first quarter
/// of the blocks.
#[derive(Debug)]
pub(super) struct SiglipVit {
    patches: Patches,
    positions: Table,
    blocks: Blocks,
    norm: LayerNorm,
    gather: Gather,
    width: usize,
}

impl SiglipVit {
    pub(super) fn new(config: &VitConfig, params: &Params, prefix: &str) -> Result<Self> {
        let BlocksConfig { width, epsilon, .. } = config.blocks;
        let name = |part: &str| format!("{prefix}.vision_model.{part}");
        let patches = Patches::new(config, params, &name("embeddings.patch_embedding"), true)?;
        let positions = [patches.count(), width];
        Ok(Self {
            positions: Table::new(params, &name("embeddings.position_embedding"), positions)?,
            patches,
            blocks: Blocks::new(&config.blocks, params, &name("encoder.layers"))?,
            norm: LayerNorm::new(params, &name("post_layernorm"), width, epsilon)?,
            gather: Gather::new(&config.blocks, params, &name("head"))?,
            width,
        })
    }
}

impl ImageTower for SiglipVit {
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let patches = self.patches.forward(pixels)?;
        let positions = self.positions.range(0, self.patches.count())?;
        let (tokens, early) = self.blocks.forward_with_early(patches.broadcast_add(&positions)?)?;
        Ok(ImageFeatures { last: self.gather.forward(&self.norm.forward(&tokens)?)?, early })
    }

    fn last_width(&self) -> usize {
        self.width
    }

    fn early_width(&self) -> usize {
        self.width
    }
}

/// Attention of one learned query over all tokens, then a feed-forward part around which it goes on.
#[derive(Debug)]
struct Gather {
    probe: Tensor,
    /// The queries' third of a weight that `torch.nn.MultiheadAttention` has for all.
    query: packed::Linear,
    /// Keys and values side by side: the rest of it.
    inputs: packed::Linear,
    output: packed::Linear,
    norm: LayerNorm,
    mlp: Mlp,
    heads: usize,
}

impl Gather {
    fn new(config: &BlocksConfig, params: &Params, name: &str) -> Result<Self> {
        let BlocksConfig { width, heads, epsilon, .. } = *config;
        let init = Init::Kaiming { fan_in: width };
        let weight = params.get_as_stored(
            &format!("{name}.attention.in_proj_weight"),
            &[3 * width, width],
            init,
        )?;
        let bias = params.get(&format!("{name}.attention.in_proj_bias"), &[3 * width], init)?;
        let part = |first: usize, count: usize| {
            let weight = weight.narrow(0, first * width, count * width)?.contiguous()?;
            let bias = bias.narrow(0, first * width, count * width)?.contiguous()?;
            packed::Linear::packed(&weight, Some(&bias), Act::Identity)
        };
        let output = format!("{name}.attention.out_proj");
        let mlp = ["fc1", "fc2"].map(|layer| format!("{name}.mlp.{layer}"));
        let probe = Init::Normal { std: 1.0 };
        Ok(Self {
            probe: params.get(&format!("{name}.probe"), &[1, 1, width], probe)?,
            query: part(0, 1)?,
            inputs: part(1, 2)?,
            output: frozen::linear(params, &output, [width, width], Act::Identity)?,
            norm: LayerNorm::new(params, &format!("{name}.layernorm"), width, epsilon)?,
            mlp: Mlp::new(params, &mlp, config)?,
            heads,
        })
    }

    /// (B, T, D) to (B, D).
    fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let probe = self.probe.repeat((tokens.dim(0)?, 1, 1))?.contiguous()?;
        let (query, both) = (self.query.forward(&probe)?, self.inputs.forward(tokens)?);
        let width = self.query.outputs();
        let (key, value) = (both.narrow(2, 0, width)?, both.narrow(2, width, width)?);
        let gathered = packed::attention(&query, &key, &value, self.heads, Mask::None)?;
        let x = self.output.forward(&gathered)?;
        Ok(self.mlp.forward_onto(&self.norm.forward(&x)?, &x)?.squeeze(1)?)
    }
}
