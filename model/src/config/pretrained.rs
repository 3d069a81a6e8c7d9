//! Settings of the towers that checkpoints of others bring.

use serde::{Deserialize, Serialize};

use super::within;
use crate::error::{Error, Result};

/// The function between the two layers of a transformer's feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForward {
    /// x sigmoid(1.702 x), the approximation that CLIP was trained with.
    QuickGelu,
    /// x times the normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// The same by its approximation with a hyperbolic tangent.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// The blocks of a transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlocksConfig {
    /// Width of a token, 1 to 8192; a multiple of `heads`.
    pub width: usize,
    /// Width between the two layers of the feed-forward part, 1 to 32,768.
    pub intermediate: usize,
    /// How many blocks, 1 to 128.
    pub layers: usize,
    /// Attention heads, 1 to 256.
    pub heads: usize,
    /// Between the layers of the feed-forward part.
    pub activation: FeedForward,
    /// Added to the variance in layer normalisation; above 0, at most 0.1.
    pub epsilon: f64,
}

/// Settings of the image towers `clip_vit` and `siglip_vit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the square input in pixels, 1 to 1024; a multiple of `patch`.
    pub size: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// The transformer.
    pub blocks: BlocksConfig,
}

/// Settings of the `clip_text` tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipTextConfig {
    /// Rows of the token table. At most 2^24.
    pub vocabulary: usize,
    /// Longest text in tokens, start and end among them, 2 to 8192.
    pub positions: usize,
    /// Whose place gives the features: the first token with this id.
    pub end: EndOfText,
    /// The transformer.
    pub blocks: BlocksConfig,
}

/// Which token of a text gives its features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndOfText {
    /// The first one with this id.
    Id(u32),
    /// The first one with the largest id: how the first CLIP checkpoints found the end.
    Largest,
}

/// Settings of the `siglip_text` tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiglipTextConfig {
    /// Rows of the token table. At most 2^24.
    pub vocabulary: usize,
    /// Length in tokens to which every text is padded: the padding is read like a text, 1 to 8192.
    pub positions: usize,
    /// The id that pads.
    pub pad: u32,
    /// Width of the features, 1 to 8192.
    pub output: usize,
    /// The transformer.
    pub blocks: BlocksConfig,
}

/// How the tokens of a sentence become one row of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all tokens.
    Mean,
    /// The first token.
    First,
}

/// Settings of the `bert` tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertConfig {
    /// Rows of the token table. At most 2^24.
    pub vocabulary: usize,
    /// Rows of the table of positions, 1 to 16,384.
    pub positions: usize,
    /// The position of the first token: 0 for BERT, 2 for RoBERTa and XLM-RoBERTa.
    pub first_position: usize,
    /// Rows of the table of token types, 1 to 16; the first is used.
    pub types: usize,
    /// Tokens to features.
    pub pooling: Pooling,
    /// The transformer.
    pub blocks: BlocksConfig,
}

/// How deep a `resnet` tower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResnetDepth {
    /// Two basic blocks a stage.
    #[serde(rename = "18")]
    Eighteen,
    /// Bottlenecks: 3, 4, 6 and 3 of them.
    #[serde(rename = "50")]
    Fifty,
}

/// Settings of the `resnet` tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResnetConfig {
    /// Side of the square input in pixels, 32 to 1024.
    pub size: usize,
    /// Layers.
    pub depth: ResnetDepth,
    /// Channels of the first stage, 1 to 256; 64 in every published one.
    #[serde(default = "resnet_width")]
    pub width: usize,
}

fn resnet_width() -> usize {
    64
}

/// Settings of the `efficientnet_lite` tower: `EfficientNet-Lite0`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientnetLiteConfig {
    /// Side of the square input in pixels, 32 to 1024.
    pub size: usize,
}

impl BlocksConfig {
    /// `tower` is the key that they stand under.
    fn validate(&self, tower: &str) -> Result<()> {
        let key = |name: &str| format!("{tower}.blocks.{name}");
        within(&key("width"), self.width, 1, 8192)?;
        within(&key("intermediate"), self.intermediate, 1, 32_768)?;
        within(&key("layers"), self.layers, 1, 128)?;
        within(&key("heads"), self.heads, 1, 256)?;
        if !self.width.is_multiple_of(self.heads) {
            let message = format!("does not divide the width {}", self.width);
            return Err(Error::invalid(key("heads"), message));
        }
        if !(self.epsilon > 0.0 && self.epsilon <= 0.1) {
            let message = format!("{} is not above 0 and at most 0.1", self.epsilon);
            return Err(Error::invalid(key("epsilon"), message));
        }
        Ok(())
    }
}

impl VitConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("image_tower.size", self.size, 1, 1024)?;
        within("image_tower.patch", self.patch, 1, self.size)?;
        if !self.size.is_multiple_of(self.patch) {
            let message = format!("does not divide the size {}", self.size);
            return Err(Error::invalid("image_tower.patch", message));
        }
        self.blocks.validate("image_tower")
    }
}

impl ResnetConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("image_tower.size", self.size, 32, 1024)?;
        within("image_tower.width", self.width, 1, 256)
    }
}

impl ClipTextConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("text_tower.vocabulary", self.vocabulary, 1, 1 << 24)?;
        within("text_tower.positions", self.positions, 2, 8192)?;
        self.blocks.validate("text_tower")
    }
}

impl SiglipTextConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("text_tower.vocabulary", self.vocabulary, 1, 1 << 24)?;
        within("text_tower.positions", self.positions, 1, 8192)?;
        within("text_tower.output", self.output, 1, 8192)?;
        within("text_tower.pad", self.pad as usize, 0, self.vocabulary - 1)?;
        self.blocks.validate("text_tower")
    }
}

impl BertConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("text_tower.vocabulary", self.vocabulary, 1, 1 << 24)?;
        within("text_tower.positions", self.positions, 1, 16_384)?;
        within("text_tower.first_position", self.first_position, 0, self.positions - 1)?;
        within("text_tower.types", self.types, 1, 16)?;
        self.blocks.validate("text_tower")
    }
}

impl EfficientnetLiteConfig {
    pub(super) fn validate(&self) -> Result<()> {
        within("image_tower.size", self.size, 32, 1024)
    }
}
