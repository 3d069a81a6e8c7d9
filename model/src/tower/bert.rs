//! `bert`: BERT (Devlin et al. 2019) and its kin as a sentence encoder (Reimers and Gurevych 2019), with
//! the names of Hugging Face's `BertModel`.

use candle_core::Tensor;

use super::layers::frozen::{LayerNorm, Table};
use super::transformer::{Mlp, PaddedIds, SelfAttention};
use super::{Entry, TextTower};
use crate::config::{BertConfig, BlocksConfig, Pooling};
use crate::error::Result;
use crate::ops::packed::Mask;
use crate::params::Params;
use crate::preprocess::TokenBatch;

pub(super) const ENTRY: Entry = Entry {
    name: "bert",
    example: "kind = \"bert\"\nvocabulary = 32\npositions = 18\nfirst_position = 2\ntypes = 2\n\
              pooling = \"mean\"\n[blocks]\nwidth = 8\nintermediate = 16\nlayers = 2\nheads = 2\n\
              activation = \"gelu\"\nepsilon = 1e-12\n",
    frozen: true,
};

/// The tower. Padding is seen by no token and not pooled.
#[derive(Debug)]
pub(super) struct Bert {
    tokens: Table,
    positions: Table,
    types: Table,
    norm: LayerNorm,
    blocks: Vec<Block>,
    config: BertConfig,
}

/// A block that normalises after each addition.
#[derive(Debug)]
struct Block {
    attention: SelfAttention,
    attention_norm: LayerNorm,
    mlp: Mlp,
    mlp_norm: LayerNorm,
}

impl Bert {
    pub(super) fn new(config: &BertConfig, params: &Params, prefix: &str) -> Result<Self> {
        let BlocksConfig { width, epsilon, layers, .. } = config.blocks;
        let table = |part: &str, rows| {
            Table::new(params, &format!("{prefix}.embeddings.{part}"), [rows, width])
        };
        let blocks = (0..layers)
            .map(|layer| Block::new(config, params, &format!("{prefix}.encoder.layer.{layer}")));
        let norm = format!("{prefix}.embeddings.LayerNorm");
        Ok(Self {
            tokens: table("word_embeddings", config.vocabulary)?,
            positions: table("position_embeddings", config.positions)?,
            types: table("token_type_embeddings", config.types)?,
            norm: LayerNorm::new(params, &norm, width, epsilon)?,
            blocks: blocks.collect::<Result<_>>()?,
            config: config.clone(),
        })
    }
}

impl Block {
    fn new(config: &BertConfig, params: &Params, name: &str) -> Result<Self> {
        let BlocksConfig { width, heads, epsilon, .. } = config.blocks;
        let part = |part: &str| format!("{name}.{part}");
        let norm = |name: &str| LayerNorm::new(params, name, width, epsilon);
        let attention = ["self.query", "self.key", "self.value", "output.dense"]
            .map(|layer| part(&format!("attention.{layer}")));
        let mlp = [part("intermediate.dense"), part("output.dense")];
        Ok(Self {
            attention: SelfAttention::new(params, &attention, (width, heads))?,
            attention_norm: norm(&part("attention.output.LayerNorm"))?,
            mlp: Mlp::new(params, &mlp, &config.blocks)?,
            mlp_norm: norm(&part("output.LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
        let x = self.attention_norm.forward(&self.attention.forward_onto(x, x, mask)?)?;
        self.mlp_norm.forward(&self.mlp.forward_onto(&x, &x)?)
    }
}

impl TextTower for Bert {
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let first = self.config.first_position;
        let padded = PaddedIds::new(tokens, 0, (1, self.config.positions - first));
        let (rows, length) = (padded.rows(), padded.length);
        let fixed = self.positions.range(first, length)?.broadcast_add(&self.types.range(0, 1)?)?;
        let x = self.tokens.rows(&padded.ids)?.reshape((rows, length, ()))?;
        let x = self.norm.forward(&x.broadcast_add(&fixed)?)?;
        let mask = Mask::Lengths(&padded.lengths);
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x, mask))?;
        match self.config.pooling {
            Pooling::First => Ok(x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?),
            Pooling::Mean => {
                let weight = |&own: &usize| {
                    let share = 1.0 / own.max(1) as f32;
                    (0..length).map(move |at| if at < own { share } else { 0.0 })
                };
                let weights: Vec<f32> = padded.lengths.iter().flat_map(weight).collect();
                let weights = Tensor::from_vec(weights, (rows, length, 1), x.device())?;
                Ok(x.broadcast_mul(&weights.to_dtype(x.dtype())?)?.sum(1)?)
            }
        }
    }

    fn width(&self) -> usize {
        self.config.blocks.width
    }

    fn pads(&self) -> bool {
        true
    }
}
