//! `clip_text`: the text transformer of CLIP (Radford et al. 2021, section 2.4), with the names of
//! Hugging Face's `CLIPTextModel`.

use candle_core::Tensor;

use super::layers::frozen::{LayerNorm, Table};
use super::transformer::{Blocks, PaddedIds};
use super::{Entry, TextTower};
use crate::config::{ClipTextConfig, EndOfText};
use crate::error::Result;
use crate::ops::packed::Mask;
use crate::params::Params;
use crate::preprocess::TokenBatch;

pub(super) const ENTRY: Entry = Entry {
    name: "clip_text",
    example: "kind = \"clip_text\"\nvocabulary = 32\npositions = 16\nend = \"largest\"\n[blocks]\n\
              width = 8\nintermediate = 16\nlayers = 2\nheads = 2\nactivation = \"quick_gelu\"\n\
              epsilon = 1e-5\n",
    frozen: true,
};

/// The tower. Each token sees those before it, so that what stands behind the end of a text changes
/// nothing; the features are those of the end.
#[derive(Debug)]
pub(super) struct ClipText {
    tokens: Table,
    positions: Table,
    blocks: Blocks,
    norm: LayerNorm,
    config: ClipTextConfig,
}

impl ClipText {
    pub(super) fn new(config: &ClipTextConfig, params: &Params, prefix: &str) -> Result<Self> {
        let ClipTextConfig { vocabulary, positions, ref blocks, .. } = *config;
        let name = |part: &str| format!("{prefix}.text_model.{part}");
        let table = |part: &str, rows| Table::new(params, &name(part), [rows, blocks.width]);
        let norm = name("final_layer_norm");
        Ok(Self {
            tokens: table("embeddings.token_embedding", vocabulary)?,
            positions: table("embeddings.position_embedding", positions)?,
            blocks: Blocks::new(blocks, params, &name("encoder.layers"))?,
            norm: LayerNorm::new(params, &norm, blocks.width, blocks.epsilon)?,
            config: config.clone(),
        })
    }

    /// The place of a text's end: the last token of one that has none.
    fn end(&self, ids: &[u32]) -> usize {
        let end = match self.config.end {
            EndOfText::Id(end) => Some(end),
            EndOfText::Largest => ids.iter().copied().max(),
        };
        let at = ids.iter().position(|id| Some(*id) == end);
        at.unwrap_or(ids.len().saturating_sub(1))
    }
}

impl TextTower for ClipText {
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let padded = PaddedIds::new(tokens, 0, (1, self.config.positions));
        let (rows, length) = (padded.rows(), padded.length);
        let x = self.tokens.rows(&padded.ids)?.reshape((rows, length, ()))?;
        let x = x.broadcast_add(&self.positions.range(0, length)?)?;
        let x = self.blocks.forward(x, Mask::Causal)?;
        let ends: Vec<u32> = (0..rows)
            .map(|row| {
                let ids = &padded.ids[row * length..][..padded.lengths[row]];
                (row * length + self.end(ids)) as u32
            })
            .collect();
        let ends = Tensor::from_vec(ends, rows, x.device())?;
        let x = x.reshape((rows * length, ()))?.index_select(&ends, 0)?;
        self.norm.forward(&x)
    }

    fn width(&self) -> usize {
        self.config.blocks.width
    }

    fn pads(&self) -> bool {
        true
    }
}
