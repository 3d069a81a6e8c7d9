//! `ngram_bag`: the sum of an embedding table's rows, normalised, beside one hidden layer.
//!
//! A bag of hashed character n-grams as in Bojanowski et al. 2017, "Enriching word vectors with
//! subword information", summed over the whole text.

use candle_core::{DType, Tensor};

use super::layers::{Linear, Norm};
use super::{Entry, TextTower};
use crate::config::NgramBagConfig;
use crate::error::Result;
use crate::ops;
use crate::params::{Init, Params};
use crate::preprocess::TokenBatch;

pub(super) const ENTRY: Entry = Entry {
    name: "ngram_bag",
    example: "kind = \"ngram_bag\"\nbuckets = 64\nwidth = 8\nhidden = 16\n",
};

/// The tower. Features are the normalised sum and the hidden layer side by side, so that a head
/// has a linear path to the table.
#[derive(Debug)]
pub(super) struct NgramBag {
    table: Tensor,
    norm: Norm,
    hidden: Linear,
    width: usize,
    compute_dtype: DType,
}

impl NgramBag {
    pub(super) fn new(config: &NgramBagConfig, params: &Params, prefix: &str) -> Result<Self> {
        let NgramBagConfig { buckets, width, hidden } = *config;
        // Only the direction of a sum matters, so the scale sets how fast rows turn while learning.
        let init = Init::Normal { std: 0.1 };
        Ok(Self {
            table: params.get(&format!("{prefix}.table.weight"), &[buckets, width], init)?,
            norm: Norm::new(params, &format!("{prefix}.norm"), width, 1)?,
            hidden: Linear::new(params, &format!("{prefix}.hidden"), [width, hidden])?,
            width: width + hidden,
            compute_dtype: params.compute_dtype(),
        })
    }
}

impl TextTower for NgramBag {
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let sums = ops::embedding_bag(&self.table, &tokens.ids, &tokens.offsets)?;
        // The sums are small beside the table, and normalised: they keep their precision.
        let direct = self.norm.layer(&sums)?;
        let hidden = ops::relu(&self.hidden.forward(&direct.to_dtype(self.compute_dtype)?)?)?;
        Ok(Tensor::cat(&[&direct, &ops::widen(&hidden)?], 1)?)
    }

    fn width(&self) -> usize {
        self.width
    }
}
