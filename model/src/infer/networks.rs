//! Preprocessing and networks together, before anything is said about a bundle.

use std::cell::OnceCell;
use std::ops::Range;
use std::time::Instant;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{PrepareTimes, PreparedImage, PreparedText, Vectors};
use crate::config::{Modality, ModelConfig};
use crate::dual_encoder::{DualEncoder, Encoding};
use crate::error::{Error, Result};
use crate::ops::packed::attentive;
use crate::params::Params;
use crate::preprocess::{
    ImageLimits, ImagePreprocessing, TextPreprocessor, TokenBatch, TokenizerConfig, decode,
};

/// Most texts in one pass. Longer batches are split, so that the memory of a call stays bounded.
const MAX_BATCH: usize = 64;
/// Rows of a product, which are the tokens of a group of texts, that are worth reading all weights for.
const GROUP_TOKENS: usize = 128;

/// How far the length of a vector may be from one.
const UNIT_TOLERANCE: f32 = 1e-3;

/// Everything between an input's bytes and its vectors.
#[derive(Debug)]
pub(crate) struct Networks {
    model: DualEncoder,
    image: Option<ImagePreprocessing>,
    text: Option<TextPreprocessor>,
}

impl Networks {
    /// Builds the networks; each weight must be used, and each must be there in its shape.
    /// `text` is the settings and the content of `tokenizer.json`.
    pub(crate) fn new(
        model: &ModelConfig,
        image: Option<ImagePreprocessing>,
        text: (Option<&TokenizerConfig>, Option<&[u8]>),
        params: &Params,
    ) -> Result<Self> {
        if let Some(image) = &image {
            image.validate()?;
        }
        let (settings, json) = text;
        let text = settings.map(|settings| TextPreprocessor::new(settings, json)).transpose()?;
        let model = DualEncoder::new(model, params)?;
        params.finish()?;
        Ok(Self { model, image, text })
    }

    pub(crate) fn has(&self, modality: Modality) -> bool {
        match modality {
            Modality::Image => self.image.is_some(),
            Modality::Text => self.text.is_some(),
        }
    }

    pub(crate) fn pads_texts(&self) -> bool {
        self.model.pads_texts()
    }

    pub(crate) fn image_preprocessing(&self) -> Option<&ImagePreprocessing> {
        self.image.as_ref()
    }

    pub(crate) fn tokenizer(&self) -> Option<&TokenizerConfig> {
        self.text.as_ref().map(TextPreprocessor::config)
    }

    /// What cosines are multiplied by: the exponential of the weight.
    pub(crate) fn logit_scale(&self) -> Result<f32> {
        Ok(self.model.logit_scale().to_scalar::<f32>()?.exp())
    }

    pub(crate) fn prepare_image(
        &self,
        bytes: &[u8],
        limits: &ImageLimits,
    ) -> Result<PreparedImage> {
        let preprocessing = self.image()?;
        let began = Instant::now();
        let picture = decode(bytes, limits)?;
        let decoded = began.elapsed();
        let square = preprocessing.to_square(&picture)?;
        let times = PrepareTimes { decode: decoded, resize: began.elapsed() - decoded };
        Ok(PreparedImage { square, dimensions: picture.dimensions(), times })
    }

    fn image(&self) -> Result<&ImagePreprocessing> {
        self.image.as_ref().ok_or(Error::Absent { part: "image tower" })
    }

    pub(crate) fn prepare_text(&self, text: &str, truncate: bool) -> Result<PreparedText> {
        let preprocessor = self.text.as_ref().ok_or(Error::Absent { part: "text tower" })?;
        Ok(PreparedText { tokens: preprocessor.tokenize(text, truncate)? })
    }

    pub(crate) fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Vectors>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let preprocessing = self.image()?;
        let side = preprocessing.size as usize;
        in_groups(images.len(), self.model.image_group(), |group| {
            let images = &images[group];
            let mut pixels = Vec::with_capacity(images.len() * 3 * side * side);
            images
                .iter()
                .for_each(|image| preprocessing.normalize_onto(&image.square, &mut pixels));
            let pixels = Tensor::from_vec(pixels, (images.len(), 3, side, side), &Device::Cpu)?;
            unrolled(&self.model.encode_images(&pixels)?)
        })
    }

    pub(crate) fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Vectors>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let pads = self.pads_texts();
        if pads {
            order.sort_by_key(|&text| texts[text].token_count());
        }
        let mut vectors: Vec<Option<Vectors>> = vec![None; texts.len()];
        for batch in batches(&order, |text| texts[text].token_count(), pads) {
            // Texts come by length: the last one has the most tokens.
            let longest = batch.last().map_or(1, |&text| texts[text].token_count().max(1));
            let group = if pads { GROUP_TOKENS.div_ceil(longest) } else { batch.len() };
            let encoded = in_groups(batch.len(), group, |group| {
                let tokens: Vec<_> = batch[group].iter().map(|&text| &texts[text].tokens).collect();
                unrolled(&self.model.encode_texts(&TokenBatch::collate(&tokens))?)
            })?;
            for (&text, encoded) in batch.iter().zip(encoded) {
                vectors[text] = Some(encoded);
            }
        }
        let lost = || Error::Internal { message: "a text has no vectors".to_owned() };
        vectors.into_iter().map(|vectors| vectors.ok_or_else(lost)).collect()
    }
}

/// The vectors of `count` inputs, computed by `each` at most `group` at a time. Groups lie side by side on
/// all threads; where there are fewer than threads, all are one and its layers are divided instead.
///
/// All of it runs on the pool's own threads: a thread from outside would hand over every layer and wait. Where the pool has one
/// thread, the caller's is as good, see [`alone`].
fn in_groups(
    count: usize,
    group: usize,
    each: impl Fn(Range<usize>) -> Result<Vec<Vectors>> + Sync,
) -> Result<Vec<Vectors>> {
    alone();
    rayon::scope(|_| {
        let (groups, threads) = (count.div_ceil(group.max(1)), rayon::current_num_threads());
        if groups < threads.max(2) {
            return attentive(|| each(0..count));
        }
        let part = |index| count * index / groups..count * (index + 1) / groups;
        let parts = (0..groups).into_par_iter().with_max_len(1).map(|index| each(part(index)));
        Ok(parts.collect::<Result<Vec<_>>>()?.concat())
    })
}

/// On one core makes the calling thread a pool of its own, for good. The global pool's only thread would be handed each batch, look for
/// more by yielding the core some thirty times, and do nothing meanwhile that the caller could not: a third of a short text's time.
fn alone() {
    thread_local! {
        static OWN: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
    }
    if rayon::current_thread_index().is_some() || rayon::current_num_threads() > 1 {
        return;
    }
    // A thread that cannot be one goes on handing over.
    let own = || ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok();
    OWN.with(|pool| {
        pool.get_or_init(own);
    });
}

/// Cuts `order` into passes of at most [`MAX_BATCH`]. Where `by_length`, texts come sorted, and one that is
/// more than a quarter and four tokens longer than the first of its pass begins the next one.
fn batches(order: &[usize], length: impl Fn(usize) -> usize, by_length: bool) -> Vec<&[usize]> {
    let mut rest = order;
    let mut batches = Vec::new();
    while let Some(&first) = rest.first() {
        let shortest = length(first);
        let alike = |text: &&usize| length(**text) <= shortest + shortest / 4 + 4;
        let alike = if by_length { rest.iter().take_while(alike).count() } else { rest.len() };
        let (batch, after) = rest.split_at(alike.min(MAX_BATCH));
        batches.push(batch);
        rest = after;
    }
    batches
}

/// The rows of an encoding, each checked to be a unit vector.
fn unrolled(encoding: &Encoding) -> Result<Vec<Vectors>> {
    let shared = encoding.shared.to_vec2::<f32>()?;
    let exclusive = encoding.exclusive.as_ref().map(Tensor::to_vec2::<f32>).transpose()?;
    if !shared.iter().chain(exclusive.iter().flatten()).all(|vector| is_unit(vector)) {
        let message = "the networks gave a vector that is not of unit length".to_owned();
        return Err(Error::Internal { message });
    }
    let exclusive = match exclusive {
        Some(rows) => rows.into_iter().map(Some).collect(),
        None => vec![None; shared.len()],
    };
    let pairs = shared.into_iter().zip(exclusive);
    Ok(pairs.map(|(shared, exclusive)| Vectors { shared, exclusive }).collect())
}

/// False for values that are not finite too.
fn is_unit(vector: &[f32]) -> bool {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    (norm - 1.0).abs() <= UNIT_TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::{MAX_BATCH, batches};

    #[test]
    fn passes_hold_texts_of_about_one_length_and_all_of_them() {
        let lengths: Vec<usize> = (1..200).collect();
        let order: Vec<usize> = (0..lengths.len()).collect();
        let passes = batches(&order, |text| lengths[text], true);
        assert_eq!(passes.concat(), order);
        for pass in passes {
            let (first, last) = (lengths[pass[0]], lengths[pass[pass.len() - 1]]);
            assert!(pass.len() <= MAX_BATCH && last <= first + first / 4 + 4);
        }
        let plain = batches(&order, |text| lengths[text], false);
        assert_eq!(plain.iter().map(|pass| pass.len()).max(), Some(MAX_BATCH));
        assert_eq!(plain.concat(), order);
    }
}
