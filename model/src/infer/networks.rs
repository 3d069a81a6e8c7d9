//! Preprocessing and networks together, before anything is said about a bundle.

use candle_core::{Device, Tensor};

use super::{PreparedImage, PreparedText, Vectors};
use crate::config::{Modality, ModelConfig};
use crate::dual_encoder::{DualEncoder, Encoding};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::preprocess::{
    ImageLimits, ImagePreprocessing, TextPreprocessor, TokenBatch, TokenizerConfig, decode,
};

/// Most inputs in one pass. Longer batches are split, so that the memory of a call stays bounded.
const MAX_BATCH: usize = 64;

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
        let picture = decode(bytes, limits)?;
        Ok(PreparedImage {
            pixels: preprocessing.apply(&picture)?,
            dimensions: picture.dimensions(),
        })
    }

    fn image(&self) -> Result<&ImagePreprocessing> {
        self.image.as_ref().ok_or(Error::Absent { part: "image tower" })
    }

    pub(crate) fn prepare_text(&self, text: &str, truncate: bool) -> Result<PreparedText> {
        let preprocessor = self.text.as_ref().ok_or(Error::Absent { part: "text tower" })?;
        Ok(PreparedText { tokens: preprocessor.tokenize(text, truncate)? })
    }

    pub(crate) fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Vectors>> {
        let mut vectors = Vec::with_capacity(images.len());
        for batch in images.chunks(MAX_BATCH) {
            let side = self.image()?.size as usize;
            let pixels: Vec<f32> =
                batch.iter().flat_map(|image| image.pixels.iter().copied()).collect();
            let pixels = Tensor::from_vec(pixels, (batch.len(), 3, side, side), &Device::Cpu)?;
            vectors.extend(unrolled(&self.model.encode_images(&pixels)?)?);
        }
        Ok(vectors)
    }

    pub(crate) fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Vectors>> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        if self.model.pads_texts() {
            order.sort_by_key(|&text| texts[text].token_count());
        }
        let mut vectors: Vec<Option<Vectors>> = vec![None; texts.len()];
        for batch in batches(&order, |text| texts[text].token_count(), self.model.pads_texts()) {
            let tokens: Vec<_> = batch.iter().map(|&text| &texts[text].tokens).collect();
            let encoding = self.model.encode_texts(&TokenBatch::collate(&tokens))?;
            for (&text, encoded) in batch.iter().zip(unrolled(&encoding)?) {
                vectors[text] = Some(encoded);
            }
        }
        let lost = || Error::Internal { message: "a text has no vectors".to_owned() };
        vectors.into_iter().map(|vectors| vectors.ok_or_else(lost)).collect()
    }
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
