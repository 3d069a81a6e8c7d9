//! Parts that the transformers share: attention, feed-forward part, blocks that normalise first.

use candle_core::Tensor;

use super::layers::frozen::{self, LayerNorm};
use crate::config::BlocksConfig;
use crate::error::Result;
use crate::ops::packed::{self, Act, Mask};
use crate::params::Params;
use crate::preprocess::TokenBatch;

/// Attention of tokens among themselves.
#[derive(Debug)]
pub(super) struct SelfAttention {
    /// Queries, keys and values side by side.
    inputs: packed::Linear,
    output: packed::Linear,
    width: usize,
    heads: usize,
}

impl SelfAttention {
    /// `names` are those of the query, key, value and output layers.
    pub(super) fn new(
        params: &Params,
        names: &[String; 4],
        (width, heads): (usize, usize),
    ) -> Result<Self> {
        let [inputs @ .., output] = names;
        Ok(Self {
            inputs: frozen::joined(params, inputs, width)?,
            output: frozen::linear(params, output, [width, width], Act::Identity)?,
            width,
            heads,
        })
    }

    /// What the tokens (B, T, D) say to each other, plus `onto`.
    pub(super) fn forward_onto(&self, x: &Tensor, onto: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
        let parts = self.inputs.forward(x)?;
        let part = |part: usize| parts.narrow(2, part * self.width, self.width);
        let mixed = packed::attention(&part(0)?, &part(1)?, &part(2)?, self.heads, mask)?;
        Ok(self.output.forward_onto(&mixed, onto)?)
    }
}

/// Two layers with a function between them.
#[derive(Debug)]
pub(super) struct Mlp {
    first: packed::Linear,
    second: packed::Linear,
}

impl Mlp {
    /// `names` are those of the two layers.
    pub(super) fn new(
        params: &Params,
        [first, second]: &[String; 2],
        config: &BlocksConfig,
    ) -> Result<Self> {
        let (width, intermediate) = (config.width, config.intermediate);
        let function = config.activation.into();
        Ok(Self {
            first: frozen::linear(params, first, [width, intermediate], function)?,
            second: frozen::linear(params, second, [intermediate, width], Act::Identity)?,
        })
    }

    /// (.., D) to (.., D), plus `onto`.
    pub(super) fn forward_onto(&self, x: &Tensor, onto: &Tensor) -> Result<Tensor> {
        Ok(self.second.forward_onto(&self.first.forward(x)?, onto)?)
    }
}

/// Blocks that normalise what they read and add to what they were given, as CLIP and SigLIP have them
/// in both towers: `{name}.{i}.layer_norm1`, `.self_attn.*`, `.layer_norm2`, `.mlp.*`.
#[derive(Debug)]
pub(super) struct Blocks(Vec<Block>);

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: SelfAttention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl Blocks {
    pub(super) fn new(config: &BlocksConfig, params: &Params, name: &str) -> Result<Self> {
        let blocks = (0..config.layers).map(|layer| {
            let part = |part: &str| format!("{name}.{layer}.{part}");
            let norm = |name: &str| LayerNorm::new(params, name, config.width, config.epsilon);
            let attention = ["q_proj", "k_proj", "v_proj", "out_proj"]
                .map(|name| part(&format!("self_attn.{name}")));
            let sizes = (config.width, config.heads);
            Ok(Block {
                attention_norm: norm(&part("layer_norm1"))?,
                attention: SelfAttention::new(params, &attention, sizes)?,
                mlp_norm: norm(&part("layer_norm2"))?,
                mlp: Mlp::new(params, &[part("mlp.fc1"), part("mlp.fc2")], config)?,
            })
        });
        Ok(Self(blocks.collect::<Result<_>>()?))
    }

    /// (B, T, D) to (B, T, D).
    pub(super) fn forward(&self, x: Tensor, mask: Mask<'_>) -> Result<Tensor> {
        self.0.iter().try_fold(x, |x, block| block.forward(&x, mask))
    }

    /// Beside the last tokens the mean (B, D) of those behind the first quarter of the blocks.
    pub(super) fn forward_with_early(&self, x: Tensor) -> Result<(Tensor, Tensor)> {
        let early = self.0.len().div_ceil(4);
        let run = |x: Tensor, blocks: &[Block]| {
            blocks.iter().try_fold(x, |x, block| block.forward(&x, Mask::None))
        };
        let x = run(x, &self.0[..early])?;
        let mean = x.mean(1)?;
        Ok((run(x, &self.0[early..])?, mean))
    }
}

impl Block {
    fn forward(&self, x: &Tensor, mask: Mask<'_>) -> Result<Tensor> {
        let x = self.attention.forward_onto(&self.attention_norm.forward(x)?, x, mask)?;
        self.mlp.forward_onto(&self.mlp_norm.forward(&x)?, &x)
    }
}

/// The ids of a batch as rows of one length.
#[derive(Debug)]
pub(super) struct PaddedIds {
    /// Row by row, `length` each.
    pub(super) ids: Vec<u32>,
    /// How many ids each row has of its own.
    pub(super) lengths: Vec<usize>,
    /// Of a row: that of the longest one.
    pub(super) length: usize,
}

impl PaddedIds {
    /// Puts `pad` behind the ids of each text until all are as long as the longest, and at least
    /// `least`. What is beyond `most` is cut: a tokenizer that keeps to the tower's limit gives no such.
    pub(super) fn new(tokens: &TokenBatch, pad: u32, (least, most): (usize, usize)) -> Self {
        let rows: Vec<&[u32]> = (0..tokens.len())
            .map(|text| {
                let ids = tokens.text(text);
                &ids[..ids.len().min(most)]
            })
            .collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let length = lengths.iter().copied().max().unwrap_or(0).max(least);
        let mut ids = Vec::with_capacity(length * rows.len());
        for row in rows {
            ids.extend_from_slice(row);
            ids.resize(ids.len() + length - row.len(), pad);
        }
        Self { ids, lengths, length }
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.lengths.len()
    }
}
