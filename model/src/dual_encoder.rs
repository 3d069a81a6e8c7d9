//! Two towers and their heads: pictures and texts to shared and exclusive vectors.

use candle_core::{Device, Tensor};

use crate::config::{FeatureSource, ModelConfig};
use crate::error::Result;
use crate::head::{ExclusiveHead, SharedHead};
use crate::params::{Init, Params};
use crate::preprocess::TokenBatch;
use crate::tower::{self, ImageFeatures, ImageTower, TextTower};

/// The vectors of a batch.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// (B, S), unit rows: what both modalities say.
    pub shared: Tensor,
    /// (B, E), unit rows: what only this modality says. E differs between pictures and texts.
    pub exclusive: Tensor,
}

/// An encoder pair. Everything it computes is differentiable with respect to the [`Params`] it was
/// built from, when these are trainable.
#[derive(Debug)]
pub struct DualEncoder {
    image_tower: Box<dyn ImageTower>,
    text_tower: Box<dyn TextTower>,
    image_shared: SharedHead,
    text_shared: SharedHead,
    image_exclusive: ExclusiveHead,
    text_exclusive: ExclusiveHead,
    exclusive_reads: Vec<FeatureSource>,
    logit_scale: Tensor,
}

impl DualEncoder {
    /// Builds both towers and all heads from `params`. Weights are named `image.tower.*`,
    /// `text.tower.*`, `image.shared.*`, `text.shared.*`, `image.exclusive.*`,
    /// `text.exclusive.*` and `logit_scale`.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for settings out of range; what [`Params::get`]
    /// answers for a weight that does not fit.
    pub fn new(config: &ModelConfig, params: &Params) -> Result<Self> {
        config.validate()?;
        let heads = &config.heads;
        let image_tower = tower::image(&config.image_tower, params, "image.tower")?;
        let text_tower = tower::text(&config.text_tower, params, "text.tower")?;
        let (last, text) = (image_tower.last_width(), text_tower.width());
        let exclusive = heads.exclusive_reads.iter().map(|source| match source {
            FeatureSource::Last => last,
            FeatureSource::Early => image_tower.early_width(),
        });
        let (exclusive, hidden) = (exclusive.sum(), heads.exclusive_hidden);
        let image_widths = [exclusive, hidden, heads.exclusive_image];
        let text_widths = [text, hidden, heads.exclusive_text];
        Ok(Self {
            image_shared: SharedHead::new(params, "image.shared", [last, heads.shared])?,
            text_shared: SharedHead::new(params, "text.shared", [text, heads.shared])?,
            image_exclusive: ExclusiveHead::new(params, "image.exclusive", image_widths)?,
            text_exclusive: ExclusiveHead::new(params, "text.exclusive", text_widths)?,
            exclusive_reads: heads.exclusive_reads.clone(),
            logit_scale: params.get("logit_scale", &[], Init::Const((1.0_f64 / 0.07).ln()))?,
            image_tower,
            text_tower,
        })
    }

    /// Vectors of pictures. `pixels` is (B, 3, size, size), preprocessed as the tower was trained. It
    /// may lie on any device; the vectors lie on the model's.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape does not fit.
    pub fn encode_images(&self, pixels: &Tensor) -> Result<Encoding> {
        let features = self.image_features(pixels)?;
        let shared = self.image_shared.forward(&features.last)?;
        let selected = features.select(&self.exclusive_reads)?;
        Ok(Encoding { shared, exclusive: self.image_exclusive.forward(&selected)? })
    }

    /// Vectors of texts.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if an id is beyond the tower's vocabulary.
    pub fn encode_texts(&self, tokens: &TokenBatch) -> Result<Encoding> {
        let features = self.text_tower.forward(tokens)?;
        let shared = self.text_shared.forward(&features)?;
        Ok(Encoding { shared, exclusive: self.text_exclusive.forward(&features)? })
    }

    /// What the image tower sees before the heads, for probes and for objectives of their own. Here
    /// pixels from the CPU come to the model's device, and nowhere else.
    ///
    /// # Errors
    /// As [`Self::encode_images`].
    pub fn image_features(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        self.image_tower.forward(&pixels.to_device(self.device())?)
    }

    /// The device that the weights lie on, and so all vectors.
    pub fn device(&self) -> &Device {
        self.logit_scale.device()
    }

    /// The natural logarithm of the factor on cosine similarities, a scalar. It starts at
    /// ln(1 / 0.07) (Radford et al. 2021, section 2.5); the objective keeps it at most ln 100.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }
}

#[cfg(test)]
mod tests;
