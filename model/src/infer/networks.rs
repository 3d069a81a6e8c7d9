//! Preprocessing and networks together, before anything is said about a bundle.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::{PreparedImage, PreparedText, Vectors};
use crate::config::ModelConfig;
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
    image: ImagePreprocessing,
    text: TextPreprocessor,
}

impl Networks {
    /// Builds the networks; each weight must be used, and each must be there in its shape.
    /// `text` is the settings and the content of `tokenizer.json`.
    pub(crate) fn new(
        model: &ModelConfig,
        image: ImagePreprocessing,
        text: (&TokenizerConfig, Option<&[u8]>),
        weights: BTreeMap<String, Tensor>,
    ) -> Result<Self> {
        image.validate()?;
        let text = TextPreprocessor::new(text.0, text.1)?;
        let params = Params::from_tensors(weights, &Device::Cpu);
        let model = DualEncoder::new(model, &params)?;
        params.finish()?;
        Ok(Self { model, image, text })
    }

    pub(crate) fn image_preprocessing(&self) -> &ImagePreprocessing {
        &self.image
    }

    pub(crate) fn tokenizer(&self) -> &TokenizerConfig {
        self.text.config()
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
        let picture = decode(bytes, limits)?;
        Ok(PreparedImage { pixels: self.image.apply(&picture)?, dimensions: picture.dimensions() })
    }

    pub(crate) fn prepare_text(&self, text: &str, truncate: bool) -> Result<PreparedText> {
        Ok(PreparedText { tokens: self.text.tokenize(text, truncate)? })
    }

    pub(crate) fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Vectors>> {
        let side = self.image.size as usize;
        let mut vectors = Vec::with_capacity(images.len());
        for batch in images.chunks(MAX_BATCH) {
            let pixels: Vec<f32> =
                batch.iter().flat_map(|image| image.pixels.iter().copied()).collect();
            let pixels = Tensor::from_vec(pixels, (batch.len(), 3, side, side), &Device::Cpu)?;
            vectors.extend(unrolled(&self.model.encode_images(&pixels)?)?);
        }
        Ok(vectors)
    }

    pub(crate) fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Vectors>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(MAX_BATCH) {
            let tokens: Vec<_> = batch.iter().map(|text| &text.tokens).collect();
            vectors.extend(unrolled(&self.model.encode_texts(&TokenBatch::collate(&tokens))?)?);
        }
        Ok(vectors)
    }
}

/// The rows of an encoding, each checked to be a unit vector.
fn unrolled(encoding: &Encoding) -> Result<Vec<Vectors>> {
    let shared = encoding.shared.to_vec2::<f32>()?;
    let exclusive = encoding.exclusive.to_vec2::<f32>()?;
    if !shared.iter().chain(&exclusive).all(|vector| is_unit(vector)) {
        let message = "the networks gave a vector that is not of unit length".to_owned();
        return Err(Error::Internal { message });
    }
    let pairs = shared.into_iter().zip(exclusive);
    Ok(pairs.map(|(shared, exclusive)| Vectors { shared, exclusive }).collect())
}

/// False for values that are not finite too.
fn is_unit(vector: &[f32]) -> bool {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    (norm - 1.0).abs() <= UNIT_TOLERANCE
}
