//! Two towers and their heads: pictures and texts to shared and exclusive vectors.

use candle_core::{Device, Tensor};

use crate::config::{FeatureSource, HeadsConfig, ImageTowerConfig, ModelConfig, TextTowerConfig};
use crate::error::{Error, Result};
use crate::head::{ExclusiveHead, SharedHead};
use crate::params::{Init, Params};
use crate::preprocess::TokenBatch;
use crate::tower::{self, ImageFeatures, ImageTower, TextTower};

/// The vectors of a batch.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// (B, S), unit rows: what both modalities say.
    pub shared: Tensor,
    /// (B, E), unit rows: what only this modality says. E differs between pictures and texts; a model
    /// without exclusive vectors for this modality has none.
    pub exclusive: Option<Tensor>,
}

impl Encoding {
    /// The exclusive vectors.
    ///
    /// # Errors
    /// [`Error::Absent`] from a model without them.
    pub fn exclusive(&self) -> Result<&Tensor> {
        self.exclusive.as_ref().ok_or(Error::Absent { part: "exclusive vectors" })
    }
}

/// An encoder pair, or one of its sides alone. Everything it computes is differentiable with respect to
/// the [`Params`] it was built from, when these are trainable and its towers are not frozen.
#[derive(Debug)]
pub struct DualEncoder {
    image: Option<ImageSide>,
    text: Option<TextSide>,
    logit_scale: Tensor,
}

#[derive(Debug)]
struct ImageSide {
    tower: Box<dyn ImageTower>,
    shared: SharedHead,
    exclusive: Option<ExclusiveHead>,
    exclusive_reads: Vec<FeatureSource>,
}

#[derive(Debug)]
struct TextSide {
    tower: Box<dyn TextTower>,
    shared: SharedHead,
    exclusive: Option<ExclusiveHead>,
}

impl DualEncoder {
    /// Builds both towers and all heads from `params`. Weights are named `image.tower.*`,
    /// `text.tower.*`, `image.shared.*`, `text.shared.*`, `image.exclusive.*`,
    /// `text.exclusive.*` and `logit_scale`. What the configuration lacks has none; a single side has no
    /// `logit_scale`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings out of range; what [`Params::get`] answers for a weight that does
    /// not fit.
    pub fn new(config: &ModelConfig, params: &Params) -> Result<Self> {
        config.validate()?;
        let heads = &config.heads;
        let image = config.image_tower.as_ref();
        let image = image.map(|tower| ImageSide::new(tower, heads, params)).transpose()?;
        let text = config.text_tower.as_ref();
        let text = text.map(|tower| TextSide::new(tower, heads, params)).transpose()?;
        let logit_scale = if image.is_some() && text.is_some() {
            params.get("logit_scale", &[], Init::Const((1.0_f64 / 0.07).ln()))?
        } else {
            Tensor::zeros((), params.dtype(), params.device())?
        };
        Ok(Self { image, text, logit_scale })
    }

    /// Vectors of pictures. `pixels` is (B, 3, size, size), preprocessed as the tower was trained. It
    /// may lie on any device; the vectors lie on the model's.
    ///
    /// # Errors
    /// [`Error::Absent`] without an image tower, [`Error::Tensor`] if the shape does not fit.
    pub fn encode_images(&self, pixels: &Tensor) -> Result<Encoding> {
        let side = self.image_side()?;
        let features = self.image_features(pixels)?;
        let shared = side.shared.forward(&features.last)?;
        let exclusive = side.exclusive.as_ref();
        let exclusive =
            exclusive.map(|head| head.forward(&features.select(&side.exclusive_reads)?));
        Ok(Encoding { shared, exclusive: exclusive.transpose()? })
    }

    /// Vectors of texts.
    ///
    /// # Errors
    /// [`Error::Absent`] without a text tower, [`Error::Tensor`] if an id is beyond its vocabulary.
    pub fn encode_texts(&self, tokens: &TokenBatch) -> Result<Encoding> {
        let side = self.text.as_ref().ok_or(Error::Absent { part: "text tower" })?;
        let features = side.tower.forward(tokens)?;
        let shared = side.shared.forward(&features)?;
        let exclusive = side.exclusive.as_ref().map(|head| head.forward(&features)).transpose()?;
        Ok(Encoding { shared, exclusive })
    }

    /// See [`TextTower::pads`]; false without a text tower.
    pub(crate) fn pads_texts(&self) -> bool {
        self.text.as_ref().is_some_and(|side| side.tower.pads())
    }

    /// What the image tower sees before the heads, for probes and for objectives of their own. Here
    /// pixels from the CPU come to the model's device, and nowhere else.
    ///
    /// # Errors
    /// As [`Self::encode_images`].
    pub fn image_features(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        self.image_side()?.tower.forward(&pixels.to_device(self.device())?)
    }

    fn image_side(&self) -> Result<&ImageSide> {
        self.image.as_ref().ok_or(Error::Absent { part: "image tower" })
    }

    /// The device that the weights lie on, and so all vectors.
    pub fn device(&self) -> &Device {
        self.logit_scale.device()
    }

    /// The natural logarithm of the factor on cosine similarities, a scalar. It starts at
    /// ln(1 / 0.07) (Radford et al. 2021, section 2.5); the objective keeps it at most ln 100. For a
    /// single side it is 0.
    pub fn logit_scale(&self) -> &Tensor {
        &self.logit_scale
    }
}

impl ImageSide {
    fn new(config: &ImageTowerConfig, heads: &HeadsConfig, params: &Params) -> Result<Self> {
        let tower = tower::image(config, params, "image.tower")?;
        let last = tower.last_width();
        let widths = heads.exclusive_reads.iter().map(|source| match source {
            FeatureSource::Last => last,
            FeatureSource::Early => tower.early_width(),
        });
        let widths = [widths.sum(), heads.exclusive_hidden, heads.exclusive_image];
        let shared = [last, heads.shared];
        Ok(Self {
            shared: SharedHead::new(params, "image.shared", shared, heads.projection)?,
            exclusive: exclusive_head(params, "image.exclusive", widths)?,
            exclusive_reads: heads.exclusive_reads.clone(),
            tower,
        })
    }
}

impl TextSide {
    fn new(config: &TextTowerConfig, heads: &HeadsConfig, params: &Params) -> Result<Self> {
        let tower = tower::text(config, params, "text.tower")?;
        let width = tower.width();
        let widths = [width, heads.exclusive_hidden, heads.exclusive_text];
        let shared = [width, heads.shared];
        Ok(Self {
            shared: SharedHead::new(params, "text.shared", shared, heads.projection)?,
            exclusive: exclusive_head(params, "text.exclusive", widths)?,
            tower,
        })
    }
}

/// No head where the last of the widths is 0.
fn exclusive_head(
    params: &Params,
    name: &str,
    widths: [usize; 3],
) -> Result<Option<ExclusiveHead>> {
    (widths[2] > 0).then(|| ExclusiveHead::new(params, name, widths)).transpose()
}

#[cfg(test)]
mod tests;
