//! Towers: pictures or token ids to features. One file per network, one row per tower.
//!
//! A new tower is a file, a variant of its config enum, an arm in [`image()`] or [`text()`], and a row
//! in [`IMAGE_TOWERS`] or [`TEXT_TOWERS`]; the contract test runs over the rows.

use std::fmt::Debug;

use candle_core::Tensor;

use crate::config::{FeatureSource, ImageTowerConfig, TextTowerConfig};
use crate::error::Result;
use crate::params::Params;
use crate::preprocess::TokenBatch;

mod bert;
mod clip_text;
mod clip_vit;
mod conv;
mod efficientnet_lite;
pub(crate) mod layers;
mod ngram_bag;
mod patches;
mod resnet;
mod siglip_text;
mod siglip_vit;
mod transformer;

#[cfg(test)]
mod tests;

/// What an image tower sees in a batch of pictures.
#[derive(Clone, Debug)]
pub struct ImageFeatures {
    /// (B, D): the pooled last layer, what the pictures show.
    pub last: Tensor,
    /// (B, E): statistics of the first stages, how they are drawn.
    pub early: Tensor,
}

/// Pixels to features.
pub trait ImageTower: Debug + Send + Sync {
    /// Features of `pixels` (B, 3, size, size), on the device and in the type of the weights, however
    /// the tower computes inside. A row depends on its own picture alone.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the shape does not fit.
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures>;

    /// D, the width of [`ImageFeatures::last`].
    fn last_width(&self) -> usize;

    /// E, the width of [`ImageFeatures::early`].
    fn early_width(&self) -> usize;

    /// Pictures that are computed together where there are many: few, so that what lies between two
    /// layers fits a cache, but enough for the weights that are read for them.
    fn group(&self) -> usize {
        1
    }
}

/// Token ids to features.
pub trait TextTower: Debug + Send + Sync {
    /// Features (B, D) of a batch, on the device and in the type of the weights. A row depends on its
    /// own text alone.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if an id is beyond the vocabulary.
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor>;

    /// D, the width of the features.
    fn width(&self) -> usize;

    /// How many of them, the last ones, are what exclusive vectors are made of; 0: all, as shared ones are.
    fn own_width(&self) -> usize {
        0
    }

    /// Whether every text of a batch costs what the longest one does, so that it is worth while to put
    /// texts of one length together.
    fn pads(&self) -> bool {
        false
    }
}

/// A row of a table of towers: what to write in a configuration to get it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its `kind`.
    pub name: &'static str,
    /// A small valid configuration, as TOML.
    pub example: &'static str,
    /// Whether it comes from a checkpoint and is served and read, but not trained here: it computes in
    /// the type of its weights, and no gradient reaches them.
    pub frozen: bool,
}

/// Every image tower.
pub const IMAGE_TOWERS: &[Entry] =
    &[conv::ENTRY, clip_vit::ENTRY, siglip_vit::ENTRY, resnet::ENTRY, efficientnet_lite::ENTRY];

/// Every text tower.
pub const TEXT_TOWERS: &[Entry] =
    &[ngram_bag::ENTRY, clip_text::ENTRY, siglip_text::ENTRY, bert::ENTRY];

/// Builds the image tower that `config` describes; its weights are named `{prefix}.*`.
///
/// # Errors
/// What [`Params::get`] answers for a weight that does not fit.
pub fn image(
    config: &ImageTowerConfig,
    params: &Params,
    prefix: &str,
) -> Result<Box<dyn ImageTower>> {
    Ok(match config {
        ImageTowerConfig::Conv(config) => Box::new(conv::Conv::new(config, params, prefix)?),
        ImageTowerConfig::ClipVit(config) => {
            Box::new(clip_vit::ClipVit::new(config, params, prefix)?)
        }
        ImageTowerConfig::SiglipVit(config) => {
            Box::new(siglip_vit::SiglipVit::new(config, params, prefix)?)
        }
        ImageTowerConfig::Resnet(config) => Box::new(resnet::Resnet::new(config, params, prefix)?),
        ImageTowerConfig::EfficientnetLite(config) => {
            Box::new(efficientnet_lite::EfficientnetLite::new(config, params, prefix)?)
        }
    })
}

/// Builds the text tower that `config` describes; its weights are named `{prefix}.*`.
///
/// # Errors
/// What [`Params::get`] answers for a weight that does not fit.
pub fn text(config: &TextTowerConfig, params: &Params, prefix: &str) -> Result<Box<dyn TextTower>> {
    Ok(match config {
        TextTowerConfig::NgramBag(config) => {
            Box::new(ngram_bag::NgramBag::new(config, params, prefix)?)
        }
        TextTowerConfig::ClipText(config) => {
            Box::new(clip_text::ClipText::new(config, params, prefix)?)
        }
        TextTowerConfig::SiglipText(config) => {
            Box::new(siglip_text::SiglipText::new(config, params, prefix)?)
        }
        TextTowerConfig::Bert(config) => Box::new(bert::Bert::new(config, params, prefix)?),
    })
}

impl ImageFeatures {
    /// The features that `sources` name, side by side.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if `sources` is empty.
    pub fn select(&self, sources: &[FeatureSource]) -> Result<Tensor> {
        let parts: Vec<&Tensor> = sources
            .iter()
            .map(|source| match source {
                FeatureSource::Last => &self.last,
                FeatureSource::Early => &self.early,
            })
            .collect();
        Ok(Tensor::cat(&parts, 1)?)
    }
}
