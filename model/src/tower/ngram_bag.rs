//! `ngram_bag`: the rows of an embedding table summed by word, the words summed by weight, beside one
//! hidden layer.
//!
//! A word is the sum of its hashed character n-grams as in Bojanowski et al. 2017, "Enriching word
//! vectors with subword information". How much a word counts, a small network reads from that sum:
//! in "time for a coffee" one word names the thing, and in a plain sum it would drown.

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
    example: "kind = \"ngram_bag\"\nbuckets = 64\nwidth = 8\ngate = 4\nhidden = 16\n",
    frozen: false,
};

/// The tower. Features are the normalised sum and the hidden layer side by side, so that a head
/// has a linear path to the table; behind them the normalised sum of a second table, if there is one, for the
/// exclusive head.
#[derive(Debug)]
pub(super) struct NgramBag {
    table: Tensor,
    gate: Gate,
    norm: Norm,
    hidden: Linear,
    manner: Option<Manner>,
    width: usize,
    compute_dtype: DType,
}

impl NgramBag {
    pub(super) fn new(config: &NgramBagConfig, params: &Params, prefix: &str) -> Result<Self> {
        let NgramBagConfig { buckets, width, gate, hidden, manner } = *config;
        let own = || Manner::new(params, &format!("{prefix}.manner"), [buckets, manner]);
        // Only the direction of a sum matters, so the scale sets how fast rows turn while learning.
        let init = Init::Normal { std: 0.1 };
        Ok(Self {
            table: params.get(&format!("{prefix}.table.weight"), &[buckets, width], init)?,
            gate: Gate::new(params, &format!("{prefix}.gate"), [width, gate])?,
            norm: Norm::new(params, &format!("{prefix}.norm"), width, 1)?,
            hidden: Linear::new(params, &format!("{prefix}.hidden"), [width, hidden])?,
            manner: (manner > 0).then(own).transpose()?,
            width: width + hidden + manner,
            compute_dtype: params.compute_dtype(),
        })
    }
}

impl TextTower for NgramBag {
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let words = ops::embedding_bag(&self.table, &tokens.ids, &tokens.word_offsets)?;
        let weighted = words.broadcast_mul(&self.gate.forward(&words)?)?;
        let each: Vec<u32> = (0..tokens.words() as u32).collect();
        let sums = ops::embedding_bag(&weighted, &each, &tokens.text_offsets)?;
        // The sums are small beside the table, and normalised: they keep their precision.
        let direct = self.norm.layer(&sums)?;
        let hidden = ops::relu(&self.hidden.forward(&direct.to_dtype(self.compute_dtype)?)?)?;
        let mut features = vec![direct, ops::widen(&hidden)?];
        if let Some(manner) = &self.manner {
            features.push(manner.forward(tokens, &each)?);
        }
        Ok(Tensor::cat(&features, 1)?)
    }

    fn width(&self) -> usize {
        self.width
    }

    fn own_width(&self) -> usize {
        self.manner.as_ref().map_or(0, |manner| manner.width)
    }
}

/// Rows of the second table summed over the letters of a text; where the tokenizer gives none, over all its n-grams.
#[derive(Debug)]
struct Manner {
    table: Tensor,
    norm: Norm,
    width: usize,
}

impl Manner {
    fn new(params: &Params, name: &str, [buckets, width]: [usize; 2]) -> Result<Self> {
        // N-grams that training never saw are to add nothing beside those that it did.
        let init = Init::Normal { std: 1e-3 };
        Ok(Self {
            table: params.get(&format!("{name}.table.weight"), &[buckets, width], init)?,
            norm: Norm::new(params, &format!("{name}.norm"), width, 1)?,
            width,
        })
    }

    /// (B, width) of texts whose words are numbered by `each`.
    fn forward(&self, tokens: &TokenBatch, each: &[u32]) -> Result<Tensor> {
        let sums = if tokens.letters.is_empty() {
            let words = ops::embedding_bag(&self.table, &tokens.ids, &tokens.word_offsets)?;
            ops::embedding_bag(&words, each, &tokens.text_offsets)?
        } else {
            ops::embedding_bag(&self.table, &tokens.letters, &tokens.letter_offsets)?
        };
        self.norm.layer(&sums)
    }
}

/// Weights of words, (W, D) to (W, 1), each between 0 and 1.
///
/// The hidden layer reads the sums as they are: how long one is tells how well its n-grams agree,
/// and those of a word never seen do not.
#[derive(Debug)]
struct Gate {
    hidden: Linear,
    weight: Linear,
}

impl Gate {
    fn new(params: &Params, name: &str, [width, hidden]: [usize; 2]) -> Result<Self> {
        Ok(Self {
            hidden: Linear::new(params, &format!("{name}.hidden"), [width, hidden])?,
            weight: Linear::new(params, &format!("{name}.weight"), [hidden, 1])?,
        })
    }

    fn forward(&self, words: &Tensor) -> Result<Tensor> {
        let hidden = ops::relu(&self.hidden.forward(words)?)?;
        // The logistic function by its tangent form, whose gradient stays finite for any logit.
        let half = (self.weight.forward(&hidden)? * 0.5)?;
        Ok(((half.tanh()? + 1.0)? * 0.5)?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::preprocess::Tokens;

    #[test]
    fn the_second_table_reads_letters_where_there_are_any() {
        let config = NgramBagConfig { buckets: 16, width: 4, gate: 2, hidden: 3, manner: 5 };
        let tower = NgramBag::new(&config, &Params::seeded(1, &Device::Cpu), "tower").unwrap();
        let features = |ids: [u32; 2], letters: &[u32]| {
            let word_lengths = vec![2];
            let letters = letters.to_vec();
            let text = Tokens { ids: ids.to_vec(), word_lengths, letters, ..Tokens::default() };
            let features = tower.forward(&TokenBatch::collate(&[&text])).unwrap();
            let row = features.get(0).unwrap().to_vec1::<f32>().unwrap();
            let (words, manner) = row.split_at(7);
            (words.to_vec(), manner.to_vec())
        };
        let (plain, lettered) = (features([1, 2], &[]), features([1, 2], &[1, 2]));
        assert_eq!(plain, lettered, "the same ids");
        let others = features([3, 4], &[1, 2]);
        assert_ne!(others.0, plain.0);
        assert_eq!(others.1, plain.1, "words are not read");
        assert_ne!(features([1, 2], &[1, 5]).1, plain.1);
    }
}
