//! Texts out of codes: greedily, by draws, or by a beam.

use candle_core::Tensor;
use diptych_model::decoder::{TextDecoder, TextState};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;

use super::{Decoders, MOST_WORDS, Other};
use crate::augment::generator;
use crate::error::Result;
use crate::objective::vocabulary::{BEGIN, END, Vocabulary};

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Writing {
    /// The likeliest word each time.
    Greedy,
    /// Each word drawn by its probability.
    Sampled {
        /// Divides the logits, above 0.
        temperature: f64,
        /// Of the draws.
        seed: u64,
    },
    /// The likeliest of the texts that a beam of this width, at least 1, comes to, by the mean
    /// log-probability of a word.
    Beam {
        /// Texts that are kept at each word.
        width: usize,
    },
}

impl Decoders {
    /// Texts of shared (B, S) and exclusive codes (B, E), where the other side has texts.
    ///
    /// # Errors
    /// If a width does not fit.
    pub fn texts(
        &self,
        shared: &Tensor,
        exclusive: &Tensor,
        writing: Writing,
    ) -> Result<Option<Vec<String>>> {
        let Other::Text(decoder, vocabulary) = &self.other else { return Ok(None) };
        let state = decoder.begin(shared, exclusive)?;
        let count = shared.dim(0)?;
        let ids = match writing {
            Writing::Beam { width } => (0..count as u32)
                .map(|row| beam(decoder, state.select(&[row])?, width.max(1)))
                .collect::<Result<Vec<_>>>()?,
            _ => one_by_one(decoder, state, count, writing)?,
        };
        Ok(Some(ids.iter().map(|ids| vocabulary.text(ids)).collect()))
    }

    /// The words that texts are written with, where the other side has texts.
    #[must_use]
    pub(crate) fn vocabulary(&self) -> Option<&Vocabulary> {
        match &self.other {
            Other::Text(_, vocabulary) => Some(vocabulary),
            Other::Picture(_) => None,
        }
    }
}

/// All texts at once, a word each time.
fn one_by_one(
    decoder: &TextDecoder,
    mut state: TextState,
    count: usize,
    writing: Writing,
) -> Result<Vec<Vec<u32>>> {
    let mut texts: Vec<Vec<u32>> = vec![Vec::new(); count];
    let mut words = vec![BEGIN; count];
    for at in 0..MOST_WORDS {
        let logits;
        (state, logits) = decoder.step(&state, &Tensor::new(&words[..], decoder.device())?)?;
        let logits = logits.to_vec2::<f32>()?;
        for (row, logits) in logits.iter().enumerate() {
            let word = match writing {
                Writing::Sampled { temperature, seed } => {
                    drawn(logits, temperature, &[seed, row as u64, at as u64])
                }
                Writing::Greedy | Writing::Beam { .. } => likeliest(logits),
            };
            words[row] = if words[row] == END { END } else { word };
            texts[row].push(words[row]);
        }
        if words.iter().all(|word| *word == END) {
            break;
        }
    }
    Ok(texts)
}

/// The likeliest of some texts that one state leads to.
fn beam(decoder: &TextDecoder, state: TextState, width: usize) -> Result<Vec<u32>> {
    let mut open: Vec<(Vec<u32>, f64)> = vec![(vec![BEGIN], 0.0)];
    let mut ended: Vec<(Vec<u32>, f64)> = Vec::new();
    let mut states = state;
    for _ in 0..MOST_WORDS {
        let last: Vec<u32> = open.iter().filter_map(|(ids, _)| ids.last().copied()).collect();
        let logits;
        (states, logits) = decoder.step(&states, &Tensor::new(&last[..], decoder.device())?)?;
        let mut next: Vec<(u32, u32, f64)> = Vec::new();
        for ((row, (_, score)), logits) in (0_u32..).zip(&open).zip(logits.to_vec2::<f32>()?) {
            let total = log_sum_exp(&logits);
            let scored =
                (0_u32..).zip(&logits).map(|(w, l)| (row, w, score + f64::from(*l) - total));
            next.extend(scored);
        }
        next.sort_by(|a, b| b.2.total_cmp(&a.2));
        next.truncate(width);
        let grown = |(row, word, _): &(u32, u32, f64)| {
            let mut ids = open[*row as usize].0.clone();
            ids.push(*word);
            ids
        };
        let (done, kept): (Vec<_>, Vec<_>) =
            next.into_iter().partition(|(_, word, _)| *word == END);
        ended.extend(done.iter().map(|found| (grown(found), found.2)));
        let rows: Vec<u32> = kept.iter().map(|(row, ..)| *row).collect();
        open = kept.iter().map(|found| (grown(found), found.2)).collect();
        if open.is_empty() || ended.len() >= width {
            break;
        }
        states = states.select(&rows)?;
    }
    if ended.is_empty() {
        ended = open;
    }
    let mean = |(ids, score): &(Vec<u32>, f64)| score / (ids.len() - 1).max(1) as f64;
    let best = ended.iter().max_by(|a, b| mean(a).total_cmp(&mean(b)));
    Ok(best.map(|(ids, _)| ids.clone()).unwrap_or_default())
}

/// The first of the words with the highest logit.
fn likeliest(logits: &[f32]) -> u32 {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0) as u32
}

fn drawn(logits: &[f32], temperature: f64, coordinates: &[u64; 3]) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| (f64::from(logit - most) / temperature.max(1e-3)).exp();
    match WeightedIndex::new(logits.iter().map(weight)) {
        Ok(words) => words.sample(&mut generator(coordinates[0], &coordinates[1..])) as u32,
        // Only logits that are not finite have no weights.
        Err(_) => END,
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
    f64::from(most) + sum.ln()
}
