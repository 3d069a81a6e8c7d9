//! The checkpoints that heads stand on: what their towers give, and what they have of shared vectors.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use diptych_model::bundle::{Bundle, WeightType};
use diptych_model::config::Projection;
use diptych_model::preprocess::TokenBatch;
use diptych_model::tower::ImageFeatures;
use diptych_model::{DualEncoder, FeatureWidths, HeadsConfig, Modality, ModelConfig, Params};

use super::settings::HeadsSettings;
use crate::error::{Error, Result};
use crate::preprocessing::{Preprocessing, PreprocessingConfig};

/// One checkpoint of both modalities, or two of one each.
#[derive(Debug)]
pub(super) struct Backbone {
    image: Bundle,
    /// None where it is the same checkpoint.
    text: Option<Bundle>,
}

/// The towers, loaded.
#[derive(Debug)]
pub(super) struct Towers {
    image: DualEncoder,
    text: Option<DualEncoder>,
}

impl Backbone {
    /// Opens the checkpoint of pictures, or of both, and that of texts where it is another.
    ///
    /// # Errors
    /// If one cannot be read, or lacks a modality; then what to do.
    pub(super) fn open(checkpoint: &Path, text_checkpoint: Option<&Path>) -> Result<Self> {
        let image = Bundle::open(checkpoint)?;
        let text = text_checkpoint.map(Bundle::open).transpose()?;
        let lacks = |bundle: &Bundle, modality| !bundle.manifest().model.has(modality);
        if lacks(&image, Modality::Image) {
            let message = "sees no pictures: name one that does, and this one as --text-checkpoint";
            return Err(Error::setting("--checkpoint", message));
        }
        match &text {
            None if lacks(&image, Modality::Text) => {
                let message = "reads no texts: add --text-checkpoint with one that does";
                Err(Error::setting("--checkpoint", message))
            }
            Some(text) if lacks(text, Modality::Text) => {
                Err(Error::setting("--text-checkpoint", "reads no texts: name one that does"))
            }
            _ => Ok(Self { image, text }),
        }
    }

    pub(super) fn image(&self) -> &Bundle {
        &self.image
    }

    pub(super) fn text(&self) -> &Bundle {
        self.text.as_ref().unwrap_or(&self.image)
    }

    /// Whether pictures and texts have shared vectors already.
    pub(super) fn has_shared(&self) -> bool {
        self.text.is_none()
    }

    /// From bytes to what the towers read.
    pub(super) fn preprocessing(&self) -> Result<Preprocessing> {
        let config = PreprocessingConfig {
            image: self.image.manifest().image()?.clone(),
            text: self.text().manifest().text()?.clone(),
        };
        Preprocessing::with_tokenizer(&config, self.text().tokenizer_json())
    }

    /// Loads the towers, with the heads that they came with.
    pub(super) fn load(&self) -> Result<Towers> {
        let loaded = |bundle: &Bundle| -> Result<DualEncoder> {
            let params = bundle.params(&Device::Cpu);
            let encoder = DualEncoder::new(&bundle.manifest().model, &params)?;
            params.finish()?;
            Ok(encoder)
        };
        Ok(Towers {
            image: loaded(&self.image)?,
            text: self.text.as_ref().map(loaded).transpose()?,
        })
    }

    /// The heads to train: an affine map to shared vectors, and exclusive ones.
    pub(super) fn heads(&self, settings: &HeadsSettings) -> HeadsConfig {
        let own = &self.image.manifest().model.heads;
        let (shared, matryoshka) = match settings.shared {
            Some(shared) if !self.has_shared() => (shared, Vec::new()),
            _ => (own.shared, own.matryoshka.clone()),
        };
        HeadsConfig {
            shared,
            matryoshka,
            projection: Projection::Affine,
            exclusive_image: settings.exclusive_image,
            exclusive_text: settings.exclusive_text,
            exclusive_hidden: settings.exclusive_hidden,
            exclusive_reads: settings.exclusive_reads.clone(),
            exclusive_anchor: 0.0,
        }
    }

    /// The whole model with these heads; with `own_projection`, with the checkpoint's way to shared vectors.
    pub(super) fn model(&self, mut heads: HeadsConfig, own_projection: bool) -> ModelConfig {
        let image = &self.image.manifest().model;
        if own_projection {
            heads.projection = image.heads.projection;
        }
        ModelConfig {
            image_tower: image.image_tower.clone(),
            text_tower: self.text().manifest().model.text_tower.clone(),
            counterpart_tower: None,
            heads,
        }
    }

    /// Sets fresh heads to give the checkpoint's own shared vectors: its projections and their biases, the
    /// identity and zeros where it has none.
    pub(super) fn begin(&self, params: &Params) -> Result<()> {
        /// A checkpoint's scale may stand at the bound, where no gradient reaches it.
        const LARGEST: f32 = 99.0;
        let stored = self.image.params(&Device::Cpu);
        let heads = &self.image.manifest().model.heads;
        for (name, var) in params.vars() {
            let own = match (name.as_str(), heads.projection) {
                ("logit_scale", _) => {
                    let scale = self.image.manifest().logit_scale.min(LARGEST).ln();
                    Tensor::new(scale, &Device::Cpu)?
                }
                ("image.shared.weight" | "text.shared.weight", Projection::Identity) => {
                    Tensor::eye(heads.shared, DType::F32, &Device::Cpu)?
                }
                ("image.shared.bias" | "text.shared.bias", projection)
                    if projection != Projection::Affine =>
                {
                    var.as_tensor().zeros_like()?
                }
                (name, _) if name.contains(".shared.") => {
                    stored.get(name, var.dims(), diptych_model::Init::Zeros)?
                }
                _ => continue,
            };
            var.set(&own)?;
        }
        Ok(())
    }

    /// The weights of both towers; with `own_projection`, those that make the checkpoint's shared vectors too.
    pub(super) fn weights(&self, own_projection: bool) -> Result<BTreeMap<String, Tensor>> {
        let part = |bundle: &Bundle, prefixes: &[&str]| -> Result<BTreeMap<String, Tensor>> {
            let mut weights = bundle.weights()?;
            weights.retain(|name, _| prefixes.iter().any(|prefix| name.starts_with(prefix)));
            Ok(weights)
        };
        let own: &[&str] = match own_projection {
            true => {
                &["image.tower.", "text.tower.", "image.shared.", "text.shared.", "logit_scale"]
            }
            false => &["image.tower.", "text.tower."],
        };
        let mut weights = part(&self.image, own)?;
        if let Some(text) = &self.text {
            weights.retain(|name, _| name.starts_with("image.tower."));
            weights.extend(part(text, &["text.tower."])?);
        }
        Ok(weights)
    }

    /// How the weights are stored in the bundle: as they came, so that the towers lose nothing.
    pub(super) fn weight_type(&self) -> WeightType {
        let halves = |bundle: &Bundle| bundle.weight_type() == WeightType::F16;
        if halves(&self.image) && halves(self.text()) { WeightType::F16 } else { WeightType::F32 }
    }
}

impl Towers {
    pub(super) fn widths(&self) -> FeatureWidths {
        let image = self.image.feature_widths();
        let text = self.text.as_ref().unwrap_or(&self.image).feature_widths();
        FeatureWidths { text: text.text, text_own: text.text_own, ..image }
    }

    /// Of `pixels` (B, 3, size, size).
    pub(super) fn images(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let ImageFeatures { last, early } = self.image.image_features(pixels)?;
        Ok(ImageFeatures { last: last.detach(), early: early.detach() })
    }

    /// (B, D).
    pub(super) fn texts(&self, tokens: &TokenBatch) -> Result<Tensor> {
        let encoder = self.text.as_ref().unwrap_or(&self.image);
        Ok(encoder.text_features(tokens)?.detach())
    }
}
