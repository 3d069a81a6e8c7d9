//! The way back from codes, for objectives that reconstruct: pictures, and texts or what stands in their
//! place.

mod write;

use candle_core::Tensor;
use diptych_model::decoder::{PictureDecoder, PictureDecoderShape, TextDecoder, TextDecoderShape};
use diptych_model::{Codes, Params, ops};
use serde::Deserialize;

use super::vocabulary::{BEGIN, END, Vocabulary};
use super::{Context, losses};
use crate::error::{Error, Result};
use crate::loader::{Batch, PictureInputs, TextInputs};
pub use write::Writing;

/// Words of a text that are reconstructed, and that are written.
const MOST_WORDS: usize = 24;

/// The beginning of the names of all variables here. They outlive their stage in a checkpoint, so that a
/// trained run can be looked at.
pub(crate) const PREFIX: &str = "objective.decoder.";

/// Settings of the decoders, `objective.decoder` in a run file.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Channels of each layer of a picture's decoder, a multiple of 8.
    width: usize,
    /// What of the difference of two pixels is averaged.
    error: PixelError,
    /// Width of the state of a text's decoder, at least 1.
    text_width: usize,
    /// Words that it knows at most, at least 1: the most frequent ones.
    words: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { width: 32, error: PixelError::Squared, text_width: 128, words: 4_096 }
    }
}

/// What of the difference of two pixels is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PixelError {
    /// Its square.
    Squared,
    /// Its size.
    Absolute,
}

/// What a decoder reads of a shared code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SharedCode {
    /// Its direction, scaled to coordinates of unit variance: what is compared in search.
    Direction,
    /// The code as it is, the mean of a distribution.
    Mean,
}

/// Decoders of both sides.
#[derive(Debug)]
pub struct Decoders {
    image: PictureDecoder,
    other: Other,
    error: PixelError,
    reads: SharedCode,
}

/// The decoder of what is not a picture of the first kind.
#[derive(Debug)]
enum Other {
    Picture(PictureDecoder),
    Text(Box<TextDecoder>, Vocabulary),
}

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        let least = [("width", self.width, 8), ("text_width", self.text_width, 1)];
        for (name, value, least) in least.into_iter().chain([("words", self.words, 1)]) {
            if !(least..=1 << 16).contains(&value) {
                let message = format!("{value} is not between {least} and 65536");
                return Err(Error::setting(format!("objective.decoder.{name}"), message));
            }
        }
        Ok(())
    }
}

impl Decoders {
    pub(super) fn new(
        settings: Settings,
        reads: SharedCode,
        context: Context<'_>,
        params: &Params,
    ) -> Result<Self> {
        let Context { heads, corpus, image_size, .. } = context;
        let [exclusive_image, exclusive_text] = heads.exclusive_codes();
        let picture = |name: &str| {
            let (size, width) = (image_size, settings.width);
            let (shared, exclusive) = (heads.shared, exclusive_image);
            let shape = PictureDecoderShape { shared, exclusive, size, width };
            PictureDecoder::new(params, &format!("{PREFIX}{name}"), shape)
        };
        let other = if corpus.pairs_pictures() {
            Other::Picture(picture("counterpart")?)
        } else {
            let vocabulary = Vocabulary::of_corpus(corpus, settings.words);
            let shape = TextDecoderShape {
                shared: heads.shared,
                exclusive: exclusive_text,
                vocabulary: vocabulary.len(),
                width: settings.text_width,
            };
            let decoder = TextDecoder::new(params, &format!("{PREFIX}text"), shape)?;
            Other::Text(Box::new(decoder), vocabulary)
        };
        Ok(Self { image: picture("image")?, other, error: settings.error, reads })
    }

    /// Shared codes (B, S) as the decoders read them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn shared_code(&self, codes: &Codes) -> Result<Tensor> {
        Ok(match self.reads {
            SharedCode::Mean => codes.shared.clone(),
            SharedCode::Direction => {
                let dims = codes.shared.dim(1)? as f64;
                (ops::l2_normalize(&codes.shared)? * dims.sqrt())?
            }
        })
    }

    /// How far pictures made of shared (P, S) and exclusive codes (P, E) are from the P of the batch: the
    /// mean over pixels and colours, in the units that the tower reads.
    pub(super) fn picture_error(
        &self,
        (shared, exclusive): (&Tensor, &Tensor),
        batch: &Batch,
    ) -> Result<Tensor> {
        match &batch.picture_inputs {
            Some(PictureInputs::Pixels(pixels)) => {
                self.distance(&self.image.forward(shared, exclusive)?, pixels)
            }
            _ => Err(Error::setting("objective.kind", "reconstructs pictures, not their features")),
        }
    }

    /// How far texts made of shared (T, S) and exclusive codes (T, E) are from the T of the batch: the mean
    /// cross-entropy of a word, the end being one. Of pictures in their place as
    /// [`Decoders::picture_error`].
    pub(super) fn text_error(
        &self,
        (shared, exclusive): (&Tensor, &Tensor),
        batch: &Batch,
    ) -> Result<Tensor> {
        match (&self.other, &batch.text_inputs) {
            (Other::Picture(decoder), TextInputs::Pixels(pixels)) => {
                self.distance(&decoder.forward(shared, exclusive)?, pixels)
            }
            (Other::Text(decoder, vocabulary), _) if !batch.texts.is_empty() => {
                let (before, after) = shifted(vocabulary, &batch.texts);
                let device = decoder.device();
                let width = before.len() / batch.texts.len();
                let words = Tensor::from_vec(before, (batch.texts.len(), width), device)?;
                let logits = decoder.forward(shared, exclusive, &words)?;
                let logits = logits.reshape((batch.texts.len() * width, vocabulary.len()))?;
                let (rows, classes): (Vec<u32>, Vec<u32>) =
                    (0_u32..).zip(after).filter_map(|(row, word)| Some((row, word?))).unzip();
                let logits = logits.index_select(&Tensor::new(rows, device)?, 0)?;
                losses::cross_entropy(&logits, &classes)
            }
            _ => Err(Error::setting("objective.kind", "reconstructs texts, not their features")),
        }
    }

    /// The mean over all elements of the first of the wanted pictures; second views stay out.
    fn distance(&self, made: &Tensor, wanted: &Tensor) -> Result<Tensor> {
        let wanted = wanted.narrow(0, 0, made.dim(0)?)?.to_device(made.device())?;
        let apart = (made - wanted)?;
        Ok(match self.error {
            PixelError::Squared => apart.sqr()?.mean_all()?,
            PixelError::Absolute => apart.abs()?.mean_all()?,
        })
    }

    /// Pictures (B, 3, size, size), in the units that the tower reads.
    ///
    /// # Errors
    /// If a width does not fit.
    pub fn pictures(&self, shared: &Tensor, exclusive: &Tensor) -> Result<Tensor> {
        Ok(self.image.forward(shared, exclusive)?.detach())
    }

    /// Pictures of the second kind, where these stand in place of texts.
    ///
    /// # Errors
    /// If a width does not fit.
    pub fn counterparts(&self, shared: &Tensor, exclusive: &Tensor) -> Result<Option<Tensor>> {
        match &self.other {
            Other::Picture(decoder) => Ok(Some(decoder.forward(shared, exclusive)?.detach())),
            Other::Text(..) => Ok(None),
        }
    }
}

/// The words before each word and the words themselves, row by row of equal width; `None` behind the end.
fn shifted(vocabulary: &Vocabulary, texts: &[String]) -> (Vec<u32>, Vec<Option<u32>>) {
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| vocabulary.ids(text, MOST_WORDS)).collect();
    let width = ids.iter().map(Vec::len).max().unwrap_or(0) + 1;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for ids in &ids {
        before.push(BEGIN);
        before.extend(ids.iter().chain(std::iter::repeat(&END)).take(width - 1));
        after.extend(ids.iter().copied().map(Some));
        after.push(Some(END));
        after.resize(before.len(), None);
    }
    (before, after)
}

#[cfg(test)]
mod tests;
