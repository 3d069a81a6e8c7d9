//! Two towers and their heads: pictures and texts to shared and exclusive vectors.

use candle_core::{Device, Tensor};

use crate::config::{FeatureSource, HeadsConfig, ImageTowerConfig, ModelConfig};
use crate::error::{Error, Result};
use crate::head::{ExclusiveHead, SharedHead};
use crate::ops;
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

/// What the heads make of features, before it is brought to unit length: for objectives that need the
/// mean of a distribution.
#[derive(Clone, Debug)]
pub struct Codes {
    /// (B, S): its direction is the shared vector.
    pub shared: Tensor,
    /// (B, E), or (B, E - 1) where the model has an anchor, see [`HeadsConfig::exclusive_anchor`].
    pub exclusive: Option<Tensor>,
}

impl Codes {
    /// What becomes the exclusive vectors.
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
    /// Pictures of a second kind, in place of texts.
    counterpart: Option<ImageSide>,
    logit_scale: Tensor,
    exclusive_anchor: f64,
}

/// How wide the features of both towers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureWidths {
    /// Of [`ImageFeatures::last`].
    pub image_last: usize,
    /// Of [`ImageFeatures::early`].
    pub image_early: usize,
    /// Of the text tower's.
    pub text: usize,
    /// Those of them, the last ones, that exclusive vectors are made of; 0: all.
    pub text_own: usize,
    /// Of [`ImageFeatures::last`] of pictures of the second kind.
    pub counterpart: usize,
}

#[derive(Debug)]
struct ImageSide {
    /// None where features come from elsewhere.
    tower: Option<Box<dyn ImageTower>>,
    shared: SharedHead,
    exclusive: Option<ExclusiveHead>,
    exclusive_reads: Vec<FeatureSource>,
}

#[derive(Debug)]
struct TextSide {
    /// None where features come from elsewhere.
    tower: Option<Box<dyn TextTower>>,
    shared: SharedHead,
    exclusive: Option<ExclusiveHead>,
    /// The last of the tower's features, so many, are read by the exclusive head, and that reads no others; 0: both read all.
    own: usize,
}

impl DualEncoder {
    /// Builds both towers and all heads from `params`. Weights are named `image.tower.*`,
    /// `text.tower.*`, `image.shared.*`, `text.shared.*`, `image.exclusive.*`,
    /// `text.exclusive.*` and `logit_scale`; those of a second picture side begin with `counterpart.`
    /// in place of `text.`. What the configuration lacks has none; a single side has no
    /// `logit_scale`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings out of range; what [`Params::get`] answers for a weight that does
    /// not fit.
    pub fn new(config: &ModelConfig, params: &Params) -> Result<Self> {
        config.validate()?;
        let heads = &config.heads;
        let pictures = |config: &Option<ImageTowerConfig>, name: &str| {
            let side = config.as_ref().map(|config| {
                let tower = tower::image(config, params, &format!("{name}.tower"))?;
                let widths = (tower.last_width(), tower.early_width());
                ImageSide::new(Some(tower), (name, widths), heads, params)
            });
            side.transpose()
        };
        let image = pictures(&config.image_tower, "image")?;
        let counterpart = pictures(&config.counterpart_tower, "counterpart")?;
        let text = config.text_tower.as_ref();
        let text = text.map(|config| {
            let tower = tower::text(config, params, "text.tower")?;
            let widths = (tower.width(), tower.own_width());
            TextSide::new(Some(tower), widths, heads, params)
        });
        Self::of_sides((image, text.transpose()?, counterpart), heads, params)
    }

    /// The heads of an encoder pair alone, over features that were computed before: towers that do not
    /// change need not run again in each step. Weights are named as in [`DualEncoder::new`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the features are the shared vectors and the widths differ; what
    /// [`Params::get`] answers for a weight that does not fit.
    pub fn over_features(
        heads: &HeadsConfig,
        widths: FeatureWidths,
        params: &Params,
    ) -> Result<Self> {
        let image = (widths.image_last, widths.image_early);
        let image = ImageSide::new(None, ("image", image), heads, params)?;
        let text = TextSide::new(None, (widths.text, widths.text_own), heads, params)?;
        Self::of_sides((Some(image), Some(text), None), heads, params)
    }

    fn of_sides(
        (image, text, counterpart): (Option<ImageSide>, Option<TextSide>, Option<ImageSide>),
        heads: &HeadsConfig,
        params: &Params,
    ) -> Result<Self> {
        let logit_scale = if image.is_some() && (text.is_some() || counterpart.is_some()) {
            params.get("logit_scale", &[], Init::Const((1.0_f64 / 0.07).ln()))?
        } else {
            Tensor::zeros((), params.dtype(), params.device())?
        };
        let exclusive_anchor = heads.exclusive_anchor;
        Ok(Self { image, text, counterpart, logit_scale, exclusive_anchor })
    }

    /// Vectors of pictures. `pixels` is (B, 3, size, size), preprocessed as the tower was trained. It
    /// may lie on any device; the vectors lie on the model's.
    ///
    /// # Errors
    /// [`Error::Absent`] without an image tower, [`Error::Tensor`] if the shape does not fit.
    pub fn encode_images(&self, pixels: &Tensor) -> Result<Encoding> {
        self.encode_image_features(&self.image_features(pixels)?)
    }

    /// Vectors of pictures whose features are known.
    ///
    /// # Errors
    /// [`Error::Absent`] without an image side, [`Error::Tensor`] if a width does not fit.
    pub fn encode_image_features(&self, features: &ImageFeatures) -> Result<Encoding> {
        self.encoding(&self.image_codes(features)?)
    }

    /// What becomes the vectors of pictures.
    ///
    /// # Errors
    /// As [`Self::encode_image_features`].
    pub fn image_codes(&self, features: &ImageFeatures) -> Result<Codes> {
        self.image_side()?.codes(features)
    }

    /// Vectors of texts.
    ///
    /// # Errors
    /// [`Error::Absent`] without a text tower, [`Error::Tensor`] if an id is beyond its vocabulary.
    pub fn encode_texts(&self, tokens: &TokenBatch) -> Result<Encoding> {
        self.encode_text_features(&self.text_features(tokens)?)
    }

    /// Vectors of texts whose features (B, D) are known.
    ///
    /// # Errors
    /// [`Error::Absent`] without a text side, [`Error::Tensor`] if the width does not fit.
    pub fn encode_text_features(&self, features: &Tensor) -> Result<Encoding> {
        self.encoding(&self.text_codes(features)?)
    }

    /// What becomes the vectors of texts.
    ///
    /// # Errors
    /// As [`Self::encode_text_features`].
    pub fn text_codes(&self, features: &Tensor) -> Result<Codes> {
        let side = self.text_side()?;
        let (shared, exclusive) = side.divided(features)?;
        let exclusive = side.exclusive.as_ref().map(|head| head.forward(&exclusive)).transpose()?;
        Ok(Codes { shared: side.shared.forward(&shared)?, exclusive })
    }

    /// Vectors of pictures of the second kind, `pixels` as for [`Self::encode_images`].
    ///
    /// # Errors
    /// [`Error::Absent`] without a second picture side, [`Error::Tensor`] if the shape does not fit.
    pub fn encode_counterparts(&self, pixels: &Tensor) -> Result<Encoding> {
        self.encoding(&self.counterpart_codes(&self.counterpart_features(pixels)?)?)
    }

    /// What becomes the vectors of pictures of the second kind.
    ///
    /// # Errors
    /// As [`Self::encode_counterparts`].
    pub fn counterpart_codes(&self, features: &ImageFeatures) -> Result<Codes> {
        self.counterpart_side()?.codes(features)
    }

    /// Codes brought to unit length, the exclusive ones with the anchor behind them where the model has
    /// one.
    ///
    /// # Errors
    /// [`Error::Tensor`] if an operation fails.
    pub fn encoding(&self, codes: &Codes) -> Result<Encoding> {
        let unit = |exclusive: &Tensor| -> Result<Tensor> {
            if self.exclusive_anchor > 0.0 {
                let anchor = exclusive.narrow(1, 0, 1)?.zeros_like()?;
                let anchored = Tensor::cat(&[exclusive, &(anchor + self.exclusive_anchor)?], 1)?;
                return Ok(ops::l2_normalize(&anchored)?);
            }
            Ok(ops::l2_normalize(exclusive)?)
        };
        let exclusive = codes.exclusive.as_ref().map(unit).transpose()?;
        Ok(Encoding { shared: ops::l2_normalize(&codes.shared)?, exclusive })
    }

    /// See [`ImageTower::group`]; 1 without an image tower.
    pub(crate) fn image_group(&self) -> usize {
        let tower = self.image.as_ref().and_then(|side| side.tower.as_ref());
        tower.map_or(1, |tower| tower.group().max(1))
    }

    /// See [`TextTower::pads`]; false without a text tower.
    pub(crate) fn pads_texts(&self) -> bool {
        let tower = self.text.as_ref().and_then(|side| side.tower.as_ref());
        tower.is_some_and(|tower| tower.pads())
    }

    /// What the image tower sees before the heads, for probes and for objectives of their own. Here
    /// pixels from the CPU come to the model's device, and nowhere else.
    ///
    /// # Errors
    /// As [`Self::encode_images`].
    pub fn image_features(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        self.image_side()?.features(&pixels.to_device(self.device())?)
    }

    /// What the tower of the second picture side sees, as [`Self::image_features`].
    ///
    /// # Errors
    /// As [`Self::encode_counterparts`].
    pub fn counterpart_features(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        self.counterpart_side()?.features(&pixels.to_device(self.device())?)
    }

    /// What the text tower sees before the heads: (B, D).
    ///
    /// # Errors
    /// As [`Self::encode_texts`].
    pub fn text_features(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let tower = self.text_side()?.tower.as_ref();
        tower.ok_or(Error::Absent { part: "text tower" })?.forward(tokens)
    }

    /// How wide features are; those of a tower that is not there are 0.
    #[must_use]
    pub fn feature_widths(&self) -> FeatureWidths {
        let image = self.image.as_ref().and_then(|side| side.tower.as_ref());
        let text = self.text.as_ref().and_then(|side| side.tower.as_ref());
        let counterpart = self.counterpart.as_ref().and_then(|side| side.tower.as_ref());
        FeatureWidths {
            image_last: image.map_or(0, |tower| tower.last_width()),
            image_early: image.map_or(0, |tower| tower.early_width()),
            text: text.map_or(0, |tower| tower.width()),
            text_own: text.map_or(0, |tower| tower.own_width()),
            counterpart: counterpart.map_or(0, |tower| tower.last_width()),
        }
    }

    fn text_side(&self) -> Result<&TextSide> {
        self.text.as_ref().ok_or(Error::Absent { part: "text tower" })
    }

    fn image_side(&self) -> Result<&ImageSide> {
        self.image.as_ref().ok_or(Error::Absent { part: "image tower" })
    }

    fn counterpart_side(&self) -> Result<&ImageSide> {
        self.counterpart.as_ref().ok_or(Error::Absent { part: "counterpart tower" })
    }

    /// Whether pictures of a second kind stand where texts do.
    #[must_use]
    pub fn pairs_pictures(&self) -> bool {
        self.counterpart.is_some()
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
    fn new(
        tower: Option<Box<dyn ImageTower>>,
        (name, (last, early)): (&str, (usize, usize)),
        heads: &HeadsConfig,
        params: &Params,
    ) -> Result<Self> {
        let widths = heads.exclusive_reads.iter().map(|source| match source {
            FeatureSource::Last => last,
            FeatureSource::Early => early,
        });
        let widths = [widths.sum(), heads.exclusive_image];
        let shared = [last, heads.shared];
        Ok(Self {
            shared: SharedHead::new(params, &format!("{name}.shared"), shared, heads.projection)?,
            exclusive: exclusive_head(params, &format!("{name}.exclusive"), widths, heads)?,
            exclusive_reads: heads.exclusive_reads.clone(),
            tower,
        })
    }

    fn features(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        self.tower.as_ref().ok_or(Error::Absent { part: "image tower" })?.forward(pixels)
    }

    fn codes(&self, features: &ImageFeatures) -> Result<Codes> {
        let exclusive = self.exclusive.as_ref();
        let exclusive =
            exclusive.map(|head| head.forward(&features.select(&self.exclusive_reads)?));
        Ok(Codes {
            shared: self.shared.forward(&features.last)?,
            exclusive: exclusive.transpose()?,
        })
    }
}

impl TextSide {
    fn new(
        tower: Option<Box<dyn TextTower>>,
        (width, own): (usize, usize),
        heads: &HeadsConfig,
        params: &Params,
    ) -> Result<Self> {
        let shared = [width - own, heads.shared];
        let widths = [if own > 0 { own } else { width }, heads.exclusive_text];
        Ok(Self {
            shared: SharedHead::new(params, "text.shared", shared, heads.projection)?,
            exclusive: exclusive_head(params, "text.exclusive", widths, heads)?,
            tower,
            own,
        })
    }

    /// What the shared head reads of features (B, D), and what the exclusive one: the same, where none are its own.
    fn divided(&self, features: &Tensor) -> Result<(Tensor, Tensor)> {
        if self.own == 0 {
            return Ok((features.clone(), features.clone()));
        }
        // Features of another width are for the heads to refuse.
        let both = features.dim(1)?.saturating_sub(self.own);
        let shared = features.narrow(1, 0, both)?.contiguous()?;
        Ok((shared, features.narrow(1, both, self.own)?.contiguous()?))
    }
}

/// A head of widths [features, exclusive]; none where the latter is 0. An anchor takes one coordinate.
fn exclusive_head(
    params: &Params,
    name: &str,
    [features, exclusive]: [usize; 2],
    heads: &HeadsConfig,
) -> Result<Option<ExclusiveHead>> {
    let anchored = usize::from(heads.exclusive_anchor > 0.0);
    let widths = [features, heads.exclusive_hidden, exclusive.saturating_sub(anchored)];
    (exclusive > 0).then(|| ExclusiveHead::new(params, name, widths)).transpose()
}

#[cfg(test)]
mod tests;
