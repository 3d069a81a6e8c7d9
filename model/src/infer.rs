//! From bytes to vectors: the only door that serving uses.
//!
//! An [`Encoder`] is made from a verified [`Bundle`] and is shared between threads. Preparing
//! (decoding, tokenizing) and encoding are separate, so that a caller can prepare each request on
//! its own and encode many in one batch. The vectors of an input do not depend on the rest of its
//! batch, but for float rounding.

mod networks;
#[cfg(test)]
mod tests;

use candle_core::Device;
use std::time::Duration;

pub(crate) use self::networks::Networks;
use crate::bundle::{Bundle, SpaceInfo, Spaces};
use crate::config::{Modality, Space};
use crate::error::Result;
use crate::preprocess::image::RgbImage;
use crate::preprocess::{ImageLimits, ImagePreprocessing, TokenizerConfig, Tokens};

/// The two vectors of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// What both modalities say. Unit length.
    pub shared: Vec<f32>,
    /// What only this picture, or only this wording, says. Unit length. `None` from a bundle that does not
    /// tell it apart.
    pub exclusive: Option<Vec<f32>>,
}

/// A picture, decoded and fitted: what the image tower reads.
#[derive(Clone, Debug)]
pub struct PreparedImage {
    /// As large as the tower reads it. Normalised with its batch: until then it takes a quarter of the memory.
    square: RgbImage,
    dimensions: (u32, u32),
    times: PrepareTimes,
}

/// What it took to prepare a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrepareTimes {
    /// The file to pixels, upright.
    pub decode: Duration,
    /// Pixels to what the tower reads.
    pub resize: Duration,
}

impl PreparedImage {
    /// Width and height of the picture as it came, upright, in pixels.
    #[must_use]
    pub fn dimensions(&self) -> (u32, u32) {
        self.dimensions
    }

    /// What it took to prepare it.
    #[must_use]
    pub fn times(&self) -> PrepareTimes {
        self.times
    }
}

/// A text as ids: what the text tower reads.
#[derive(Clone, Debug)]
pub struct PreparedText {
    tokens: Tokens,
}

impl PreparedText {
    /// Whether the text was cut to the tower's limits.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.tokens.truncated
    }

    /// How many bytes of the text, from its start, the vectors stand for.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.tokens.used_bytes
    }

    /// The number of token ids: what encoding this text costs.
    #[must_use]
    pub fn token_count(&self) -> usize {
        self.tokens.ids.len()
    }
}

/// A bundle ready to encode: weights checked, golden vectors reproduced where it has some. A bundle of
/// texts alone has no image side and the reverse: what needs the other answers [`Absent`](crate::Error::Absent). `Send` and
/// `Sync`.
///
/// ```
/// use diptych_model::infer::Encoder;
/// # fn main() -> diptych_model::Result<()> {
/// let bundle = diptych_model::testing::tiny_bundle(7)?;
/// let encoder = Encoder::open(&bundle)?;
/// let text = encoder.prepare_text("a red heart", false)?;
/// let vectors = encoder.encode_texts(&[text])?;
/// assert_eq!(vectors[0].shared.len(), encoder.spaces().shared.dims);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Encoder {
    networks: Networks,
    name: String,
    domain: String,
    spaces: Spaces,
    logit: (f32, f32),
    embedding_digest: String,
    bundle_digest: String,
    proved: bool,
    weight_bytes: u64,
}

impl Encoder {
    /// Builds the networks from a bundle's weights, checking the name, shape and finiteness of
    /// each, then embeds the golden inputs and compares. The bundle itself is not needed after.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) naming the file, weight or golden input that does
    /// not fit.
    pub fn open(bundle: &Bundle) -> Result<Self> {
        let manifest = bundle.manifest();
        let (networks, weight_bytes) = {
            let params = bundle.params(&Device::Cpu);
            let text = (manifest.text.as_ref(), bundle.tokenizer_json());
            let networks = Networks::new(&manifest.model, manifest.image.clone(), text, &params)?;
            (networks, params.given_bytes())
        };
        if let Some(golden) = bundle.golden()? {
            golden.check(&networks)?;
        }
        Ok(Self {
            networks,
            name: manifest.name.clone(),
            domain: manifest.domain.clone(),
            spaces: manifest.spaces.clone(),
            logit: (manifest.logit_scale, manifest.logit_bias),
            embedding_digest: bundle.embedding_digest().to_owned(),
            bundle_digest: bundle.bundle_digest().to_owned(),
            proved: bundle.has_golden(),
            weight_bytes,
        })
    }

    /// Decodes a picture file and fits it to the image tower.
    ///
    /// # Errors
    /// As [`decode`](crate::preprocess::decode).
    pub fn prepare_image(&self, bytes: &[u8], limits: &ImageLimits) -> Result<PreparedImage> {
        self.networks.prepare_image(bytes, limits)
    }

    /// Turns a text into ids; with `truncate`, one that is too long is cut.
    ///
    /// # Errors
    /// As [`TextPreprocessor::tokenize`](crate::preprocess::TextPreprocessor::tokenize).
    pub fn prepare_text(&self, text: &str, truncate: bool) -> Result<PreparedText> {
        self.networks.prepare_text(text, truncate)
    }

    /// The vectors of pictures, in their order. Any number, none included.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::Error::Internal) or [`Error::Tensor`](crate::Error::Tensor) when
    /// the networks fail: no input that was prepared should bring that about.
    pub fn encode_images(&self, images: &[PreparedImage]) -> Result<Vec<Vectors>> {
        self.networks.encode_images(images)
    }

    /// The vectors of texts, in their order. Any number, none included.
    ///
    /// # Errors
    /// As [`Encoder::encode_images`].
    pub fn encode_texts(&self, texts: &[PreparedText]) -> Result<Vec<Vectors>> {
        self.networks.encode_texts(texts)
    }

    /// The bundle's short name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the encoders know, in words.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Dimensions and prefixes of each space.
    #[must_use]
    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// The space in which the `space` vectors of a modality live, where the bundle has it.
    #[must_use]
    pub fn space(&self, modality: Modality, space: Space) -> Option<&SpaceInfo> {
        self.spaces.get(modality, space)
    }

    /// Whether it encodes inputs of this modality.
    #[must_use]
    pub fn has(&self, modality: Modality) -> bool {
        self.networks.has(modality)
    }

    /// Whether texts of a pass are padded to the longest of them, so that passes of one length cost less.
    #[must_use]
    pub fn pads_texts(&self) -> bool {
        self.networks.pads_texts()
    }

    /// Whether the bundle had golden inputs and gave their vectors. A checkpoint of others has none.
    #[must_use]
    pub fn proved(&self) -> bool {
        self.proved
    }

    /// Bytes of the weights in memory, as they were read; layouts of frozen towers may round them up.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// What a cosine of shared vectors is multiplied by to give a logit.
    #[must_use]
    pub fn logit_scale(&self) -> f32 {
        self.logit.0
    }

    /// What is added to the scaled cosine.
    #[must_use]
    pub fn logit_bias(&self) -> f32 {
        self.logit.1
    }

    /// See [`Bundle::embedding_digest`].
    #[must_use]
    pub fn embedding_digest(&self) -> &str {
        &self.embedding_digest
    }

    /// See [`Bundle::bundle_digest`].
    #[must_use]
    pub fn bundle_digest(&self) -> &str {
        &self.bundle_digest
    }

    /// How pictures are fitted, where they are encoded.
    #[must_use]
    pub fn image_preprocessing(&self) -> Option<&ImagePreprocessing> {
        self.networks.image_preprocessing()
    }

    /// How texts become ids, with their limits, where they are encoded.
    #[must_use]
    pub fn tokenizer(&self) -> Option<&TokenizerConfig> {
        self.networks.tokenizer()
    }
}
