//! The shape of an encoder pair, as it stands in a run file and in a bundle.

mod pretrained;

use serde::{Deserialize, Serialize};

pub use self::pretrained::{
    BertConfig, BlocksConfig, ClipTextConfig, EfficientnetLiteConfig, EndOfText, FeedForward,
    Pooling, ResnetConfig, ResnetDepth, SiglipTextConfig, VitConfig,
};
use crate::error::{Error, Result};

/// The two kinds of item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// A picture.
    Image,
    /// A text.
    Text,
}

/// The two kinds of vector that every item has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// What both modalities say: pictures and texts meet here.
    Shared,
    /// What only this picture, or only this wording, says. Never compared across modalities.
    Exclusive,
}

/// Everything that fixes names and shapes of a model's weights and how they are applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Pixels to features. A model of texts alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tower: Option<ImageTowerConfig>,
    /// Token ids to features. A model of pictures alone has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_tower: Option<TextTowerConfig>,
    /// Pixels to features of pictures of a second kind, which stand where texts do: a model of paired
    /// pictures has it in place of a text tower. It is trained and measured; bundles have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterpart_tower: Option<ImageTowerConfig>,
    /// Features to shared and exclusive vectors.
    pub heads: HeadsConfig,
}

/// An image tower: `kind` picks the variant, the other keys belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ImageTowerConfig {
    /// A small residual convolutional network.
    Conv(ConvConfig),
    /// The vision transformer of CLIP.
    ClipVit(VitConfig),
    /// The vision transformer of SigLIP.
    SiglipVit(VitConfig),
    /// `ResNet` as torchvision has it.
    Resnet(ResnetConfig),
    /// `EfficientNet-Lite0`.
    EfficientnetLite(EfficientnetLiteConfig),
}

/// A text tower: `kind` picks the variant, the other keys belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TextTowerConfig {
    /// An embedding table summed by word, and words by weight, under a small network.
    NgramBag(NgramBagConfig),
    /// The text transformer of CLIP.
    ClipText(ClipTextConfig),
    /// The text transformer of SigLIP.
    SiglipText(SiglipTextConfig),
    /// BERT and its kin as a sentence encoder.
    Bert(BertConfig),
}

/// Settings of the `conv` image tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvConfig {
    /// Side of the square input in pixels, 8 to 512.
    pub size: usize,
    /// Stride of the first convolution, 1 to 4.
    pub stem_stride: usize,
    /// Channels of each stage; every stage after the first halves the resolution.
    pub widths: Vec<usize>,
    /// Residual blocks in each stage, 1 to 16.
    pub blocks_per_stage: usize,
    /// Groups of every group normalisation; divides each width.
    pub groups: usize,
    /// How many stages, from the stem on, give the `early` statistics: 1 is the stem alone.
    pub early_stages: usize,
    /// Cells a side that the last stage is averaged over, 1 to 8; divides its side. With 1 the features say
    /// what is in a picture, with more also where: for pictures whose layout is what counts.
    #[serde(skip_serializing_if = "is_one")]
    pub cells: usize,
    /// Points along each colour at which `early` tells how much of a picture has that colour, 2 to 12; 0 for none. Who drew
    /// a picture shows in its palette.
    #[serde(skip_serializing_if = "absent")]
    pub palette: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_one(value: &usize) -> bool {
    *value == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
pub(crate) const fn absent(value: &usize) -> bool {
    *value == 0
}

impl Default for ConvConfig {
    fn default() -> Self {
        Self {
            size: 48,
            stem_stride: 2,
            widths: vec![24, 48, 96, 192],
            blocks_per_stage: 1,
            groups: 8,
            early_stages: 2,
            cells: 1,
            palette: 0,
        }
    }
}

/// Settings of the `ngram_bag` text tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NgramBagConfig {
    /// Rows of the embedding table: token ids are below it. At most 2^24.
    pub buckets: usize,
    /// Width of a row.
    pub width: usize,
    /// Width of the hidden layer that weighs words, 1 to 4096.
    pub gate: usize,
    /// Width of the hidden layer over the text. The heads read it beside the normalised sum of words.
    pub hidden: usize,
    /// Width of a second table that the exclusive head reads in place of the first, 1 to 4096: how a thing is said, as its language,
    /// stands in letters that the first table learns to overlook. 0 for none.
    #[serde(skip_serializing_if = "absent")]
    pub manner: usize,
}

impl Default for NgramBagConfig {
    fn default() -> Self {
        Self { buckets: 65_536, width: 96, gate: 64, hidden: 384, manner: 0 }
    }
}

/// Which of an image tower's features the exclusive head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSource {
    /// The pooled last layer: what the picture shows.
    Last,
    /// Statistics of the first stages: how it is drawn.
    Early,
}

/// How features become shared vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// A matrix and a bias.
    #[default]
    Affine,
    /// A matrix.
    Linear,
    /// They are the features: `heads.shared` is the width of the tower.
    Identity,
}

impl Projection {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Sizes of the vectors and of the networks that make them from features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadsConfig {
    /// Dimension of the shared vectors, 1 to 4096.
    pub shared: usize,
    /// How features become shared vectors, before these are brought to unit length.
    #[serde(skip_serializing_if = "Projection::is_default")]
    pub projection: Projection,
    /// Prefixes of the shared vector that are trained to work alone, rising, each below `shared`.
    pub matryoshka: Vec<usize>,
    /// Dimension of the exclusive vectors of pictures, at most 4096; 0 where there are none.
    pub exclusive_image: usize,
    /// Dimension of the exclusive vectors of texts, at most 4096; 0 where there are none.
    pub exclusive_text: usize,
    /// What the exclusive head of pictures reads; not empty, no repetition.
    pub exclusive_reads: Vec<FeatureSource>,
    /// Width of the hidden layer of the exclusive heads.
    pub exclusive_hidden: usize,
    /// A constant that stands as the last coordinate of an exclusive vector before it is brought to unit
    /// length, 0 to 100. With it the vector tells the length of what stands before it, which else is
    /// lost; 0: there is none.
    #[serde(skip_serializing_if = "is_zero")]
    pub exclusive_anchor: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(value: &f64) -> bool {
    value.abs() < f64::MIN_POSITIVE
}

impl Default for HeadsConfig {
    fn default() -> Self {
        Self {
            shared: 128,
            projection: Projection::default(),
            matryoshka: vec![32, 64],
            exclusive_image: 32,
            exclusive_text: 32,
            exclusive_reads: vec![FeatureSource::Last, FeatureSource::Early],
            exclusive_hidden: 128,
            exclusive_anchor: 0.0,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            image_tower: Some(ImageTowerConfig::Conv(ConvConfig::default())),
            text_tower: Some(TextTowerConfig::NgramBag(NgramBagConfig::default())),
            counterpart_tower: None,
            heads: HeadsConfig::default(),
        }
    }
}

/// Refuses `value` outside `low..=high`, naming `field`.
fn within(field: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{value} is not between {low} and {high}")))
}

impl ModelConfig {
    /// Checks every range that the field docs state, so that building a model fails on a named key
    /// and not in an allocation.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key's path.
    pub fn validate(&self) -> Result<()> {
        self.heads.validate()?;
        if self.image_tower.is_none() && self.text_tower.is_none() {
            return Err(Error::invalid("image_tower", "is absent, and so is the text tower"));
        }
        if self.counterpart_tower.is_some()
            && (self.image_tower.is_none() || self.text_tower.is_some())
        {
            let message = "stands beside an image tower, in place of a text tower";
            return Err(Error::invalid("counterpart_tower", message));
        }
        for tower in [&self.image_tower, &self.counterpart_tower].into_iter().flatten() {
            tower.validate()?;
        }
        match &self.text_tower {
            Some(TextTowerConfig::NgramBag(bag)) => bag.validate()?,
            Some(TextTowerConfig::ClipText(clip)) => clip.validate()?,
            Some(TextTowerConfig::SiglipText(siglip)) => siglip.validate()?,
            Some(TextTowerConfig::Bert(bert)) => bert.validate()?,
            None => {}
        }
        Ok(())
    }

    /// Checks, besides [`ModelConfig::validate`], that all of it can be trained: two towers are there and
    /// none is from a checkpoint of others, and there are exclusive vectors.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the key's path.
    pub fn validate_for_training(&self) -> Result<()> {
        self.validate()?;
        let trains = |tower: &ImageTowerConfig| matches!(tower, ImageTowerConfig::Conv(_));
        let image = self.image_tower.as_ref().map(trains);
        let text = self.text_tower.as_ref();
        let text = text.map(|tower| matches!(tower, TextTowerConfig::NgramBag(_)));
        let second = match self.counterpart_tower.as_ref().map(trains) {
            None => ("text_tower", text),
            counterpart => ("counterpart_tower", counterpart),
        };
        for (key, trains) in [("image_tower", image), second] {
            match trains {
                Some(true) => {}
                None => return Err(Error::invalid(key, "is required")),
                Some(false) => {
                    let message = "comes with a checkpoint and is not trained here";
                    return Err(Error::invalid(format!("{key}.kind"), message));
                }
            }
        }
        within("heads.exclusive_image", self.heads.exclusive_image, 1, 4096)?;
        within("heads.exclusive_text", self.heads.exclusive_text, 1, 4096)
    }

    /// Side of the square picture that the image tower takes, in pixels.
    ///
    /// # Errors
    /// [`Error::Absent`] for a model of texts alone.
    pub fn image_size(&self) -> Result<usize> {
        let tower = self.image_tower.as_ref();
        Ok(tower.ok_or(Error::Absent { part: "image tower" })?.size())
    }

    /// One more than the largest token id that the text tower takes.
    ///
    /// # Errors
    /// [`Error::Absent`] for a model of pictures alone.
    pub fn vocabulary(&self) -> Result<usize> {
        let tower = self.text_tower.as_ref();
        Ok(tower.ok_or(Error::Absent { part: "text tower" })?.vocabulary())
    }

    /// Whether inputs of this modality have a tower.
    #[must_use]
    pub fn has(&self, modality: Modality) -> bool {
        match modality {
            Modality::Image => self.image_tower.is_some(),
            Modality::Text => self.text_tower.is_some(),
        }
    }
}

impl ImageTowerConfig {
    /// Side of the square picture that the tower takes, in pixels.
    pub fn size(&self) -> usize {
        match self {
            Self::Conv(conv) => conv.size,
            Self::ClipVit(vit) | Self::SiglipVit(vit) => vit.size,
            Self::Resnet(resnet) => resnet.size,
            Self::EfficientnetLite(lite) => lite.size,
        }
    }

    fn validate(&self) -> Result<()> {
        match self {
            Self::Conv(conv) => conv.validate(),
            Self::ClipVit(vit) | Self::SiglipVit(vit) => vit.validate(),
            Self::Resnet(resnet) => resnet.validate(),
            Self::EfficientnetLite(lite) => lite.validate(),
        }
    }
}

impl TextTowerConfig {
    /// One more than the largest token id that the tower takes.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::NgramBag(bag) => bag.buckets,
            Self::ClipText(clip) => clip.vocabulary,
            Self::SiglipText(siglip) => siglip.vocabulary,
            Self::Bert(bert) => bert.vocabulary,
        }
    }

    /// Whether it has a table that reads letters, see [`TokenizerConfig::letters`](crate::preprocess::TokenizerConfig::letters).
    pub fn reads_letters(&self) -> bool {
        matches!(self, Self::NgramBag(bag) if bag.manner > 0)
    }
}

impl ConvConfig {
    fn validate(&self) -> Result<()> {
        within("image_tower.size", self.size, 8, 512)?;
        within("image_tower.stem_stride", self.stem_stride, 1, 4)?;
        within("image_tower.widths", self.widths.len(), 1, 8)?;
        within("image_tower.blocks_per_stage", self.blocks_per_stage, 1, 16)?;
        within("image_tower.groups", self.groups, 1, 1024)?;
        within("image_tower.early_stages", self.early_stages, 1, self.widths.len() + 1)?;
        within("image_tower.cells", self.cells, 1, 8)?;
        if self.palette > 0 {
            within("image_tower.palette", self.palette, 2, 12)?;
        }
        let halved = |side: usize, _| side.div_ceil(2);
        let side = (1..self.widths.len()).fold(self.size.div_ceil(self.stem_stride), halved);
        if !side.is_multiple_of(self.cells) {
            let message = format!("does not divide the last stage's side, {side}");
            return Err(Error::invalid("image_tower.cells", message));
        }
        for &width in &self.widths {
            within("image_tower.widths", width, 1, 4096)?;
            if !width.is_multiple_of(self.groups) {
                let message = format!("does not divide the width {width}");
                return Err(Error::invalid("image_tower.groups", message));
            }
        }
        Ok(())
    }
}

impl NgramBagConfig {
    fn validate(&self) -> Result<()> {
        within("text_tower.buckets", self.buckets, 1, 1 << 24)?;
        within("text_tower.width", self.width, 1, 4096)?;
        within("text_tower.gate", self.gate, 1, 4096)?;
        within("text_tower.hidden", self.hidden, 1, 16_384)?;
        within("text_tower.manner", self.manner, 0, 4096)
    }
}

impl HeadsConfig {
    /// Dimension of what becomes an exclusive vector of pictures, and of texts: one less than the vector's
    /// where there is an anchor.
    #[must_use]
    pub fn exclusive_codes(&self) -> [usize; 2] {
        let anchored = usize::from(self.exclusive_anchor > 0.0);
        [self.exclusive_image, self.exclusive_text].map(|dims| dims.saturating_sub(anchored))
    }

    fn validate(&self) -> Result<()> {
        within("heads.shared", self.shared, 1, 4096)?;
        within("heads.exclusive_image", self.exclusive_image, 0, 4096)?;
        within("heads.exclusive_text", self.exclusive_text, 0, 4096)?;
        within("heads.exclusive_hidden", self.exclusive_hidden, 1, 16_384)?;
        if !(0.0..=100.0).contains(&self.exclusive_anchor) {
            let message = format!("{} is not between 0 and 100", self.exclusive_anchor);
            return Err(Error::invalid("heads.exclusive_anchor", message));
        }
        let narrow = [self.exclusive_image, self.exclusive_text].contains(&1);
        if narrow && self.exclusive_anchor > 0.0 {
            let message = "takes one of the dimensions, so that none would be left";
            return Err(Error::invalid("heads.exclusive_anchor", message));
        }
        let rising = self.matryoshka.windows(2).all(|pair| pair[0] < pair[1]);
        let below = self.matryoshka.iter().all(|&prefix| 0 < prefix && prefix < self.shared);
        if !rising || !below {
            let message = format!("must rise and stay between 1 and {}", self.shared - 1);
            return Err(Error::invalid("heads.matryoshka", message));
        }
        match self.exclusive_reads.as_slice() {
            [_] => Ok(()),
            [first, second] if first != second => Ok(()),
            _ => {
                Err(Error::invalid("heads.exclusive_reads", "must name last, early or both, once"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
