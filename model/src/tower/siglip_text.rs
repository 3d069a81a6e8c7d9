//! `siglip_text`: the text transformer of SigLIP (Zhai et al. 2023), with the names of Hugging Face's
//! `SiglipTextModel`.

use candle_core::Tensor;

use super::layers::frozen::{self, LayerNorm, Table};
use super::transformer::{Blocks, PaddedIds};
use super::{Entry, TextTower};
use crate::config::SiglipTextConfig;
use crate::error::Result;
use crate::ops::packed::{self, Act, Mask};
use crate::params::Params;
use crate::preprocess::TokenBatch;

pub(super) const ENTRY: Entry = Entry {
    name: "siglip_text",
    example: "kind = \"siglip_text\"\nvocabulary = 32\npositions = 16\npad = 1\noutput = 6\n[blocks]\n\
              width = 8\nintermediate = 16\nlayers = 2\nheads = 2\nactivation = \"gelu_tanh\"\n\
              epsilon = 1e-6\n",
    frozen: true,
};

/// The tower. It was trained on texts padded to one length whose padding it reads like words, and the
/// last of these tokens gives the features: so each text is padded to that length here, too.
#[derive(Debug)]
pub(super) struct SiglipText {
    tokens: Table,
    positions: Table,
    blocks: Blocks,
    norm: LayerNorm,
    head: packed::Linear,
    config: SiglipTextConfig,
}

impl SiglipText {
    pub(super) fn new(config: &SiglipTextConfig, params: &Params, prefix: &str) -> Result<Self> {
        let SiglipTextConfig { vocabulary, positions, output, ref blocks, .. } = *config;
        let name = |part: &str| format!("{prefix}.text_model.{part}");
        let table = |part: &str, rows| Table::new(params, &name(part), [rows, blocks.width]);
        let norm = name("final_layer_norm");
        Ok(Self {
            tokens: table("embeddings.token_embedding", vocabulary)?,
            positions: table("embeddings.position_embedding", positions)?,
            blocks: Blocks::new(blocks, params, &name("encoder.layers"))?,
            norm: LayerNorm::new(params, &norm, blocks.width, blocks.epsilon)?,
            head: frozen::linear(params, &name("head"), [blocks.width, output], Act::Identity)?,
            config: config.clone(),
        })
    }
}

impl TextTower for SiglipText {
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let length = self.config.positions;
        let padded = PaddedIds::new(tokens, self.config.pad, (length, length));
        let x = self.tokens.rows(&padded.ids)?.reshape((padded.rows(), length, ()))?;
        let x = x.broadcast_add(&self.positions.range(0, length)?)?;
        let x = self.blocks.forward(x, Mask::None)?;
        let last = x.narrow(1, length - 1, 1)?.squeeze(1)?.contiguous()?;
        Ok(self.head.forward(&self.norm.forward(&last)?)?)
    }

    fn width(&self) -> usize {
        self.config.output
    }
}
