//! `clip_vit`: the vision transformer of CLIP (Radford et al. 2021, section 2.4), with the names of
//! Hugging Face's `CLIPVisionModel`.

use candle_core::Tensor;

use super::layers::frozen::{LayerNorm, Table};
use super::patches::Patches;
use super::transformer::Blocks;
use super::{Entry, ImageFeatures, ImageTower};
use crate::config::VitConfig;
use crate::error::Result;
use crate::params::{Init, Params};

pub(super) const ENTRY: Entry = Entry {
    name: "clip_vit",
    example: "kind = \"clip_vit\"\nsize = 8\npatch = 4\n[blocks]\nwidth = 8\nintermediate = 16\n\
              layers = 2\nheads = 2\nactivation = \"quick_gelu\"\nepsilon = 1e-5\n",
    frozen: true,
};

/// The tower. `last` is the class token behind the last block, normalised; `early` the mean of all
/// tokens behind the first quarter of the blocks.
#[derive(Debug)]
pub(super) struct ClipVit {
    class: Tensor,
    patches: Patches,
    positions: Table,
    first_norm: LayerNorm,
    blocks: Blocks,
    last_norm: LayerNorm,
    width: usize,
}

impl ClipVit {
    pub(super) fn new(config: &VitConfig, params: &Params, prefix: &str) -> Result<Self> {
        let width = config.blocks.width;
        let name = |part: &str| format!("{prefix}.vision_model.{part}");
        let norm = |part: &str| LayerNorm::new(params, &name(part), width, config.blocks.epsilon);
        let init = Init::Normal { std: 0.02 };
        let patches = Patches::new(config, params, &name("embeddings.patch_embedding"), false)?;
        let positions = [patches.count() + 1, width];
        Ok(Self {
            class: params.get(&name("embeddings.class_embedding"), &[width], init)?,
            positions: Table::new(params, &name("embeddings.position_embedding"), positions)?,
            patches,
            // The name is misspelt in every checkpoint.
            first_norm: norm("pre_layrnorm")?,
            blocks: Blocks::new(&config.blocks, params, &name("encoder.layers"))?,
            last_norm: norm("post_layernorm")?,
            width,
        })
    }
}

impl ImageTower for ClipVit {
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let patches = self.patches.forward(pixels)?;
        let batch = patches.dim(0)?;
        let class = self.class.reshape((1, 1, self.width))?.repeat((batch, 1, 1))?;
        let tokens = Tensor::cat(&[&class, &patches], 1)?;
        let positions = self.positions.range(0, self.patches.count() + 1)?;
        let tokens = self.first_norm.forward(&tokens.broadcast_add(&positions)?)?;
        let (tokens, early) = self.blocks.forward_with_early(tokens)?;
        let class = tokens.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?;
        Ok(ImageFeatures { last: self.last_norm.forward(&class)?, early })
    }

    fn last_width(&self) -> usize {
        self.width
    }

    fn early_width(&self) -> usize {
        self.width
    }
}
