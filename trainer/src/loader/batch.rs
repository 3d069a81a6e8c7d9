//! What one training step sees, and its way through the model.

use candle_core::Tensor;
use diptych_model::preprocess::TokenBatch;
use diptych_model::tower::ImageFeatures;
use diptych_model::{Codes, DualEncoder, Encoding};

use crate::error::{Error, Result};

/// Pictures as a model takes them.
#[derive(Debug)]
pub enum PictureInputs {
    /// (N, 3, size, size), for the tower.
    Pixels(Tensor),
    /// What a tower that does not change gave for them.
    Features(ImageFeatures),
}

/// Texts as a model takes them, or what stands in their place.
#[derive(Debug)]
pub enum TextInputs {
    /// Ids, for the tower.
    Tokens(TokenBatch),
    /// (N, D): what a tower that does not change gave for them.
    Features(Tensor),
    /// (N, 3, size, size): pictures of the second kind, in a dataset that pairs pictures.
    Pixels(Tensor),
}

/// What one training step sees. Views and wordings of the second kind follow the first ones, so that
/// each tower runs once.
#[derive(Debug)]
pub struct Batch {
    /// P pictures, then second views of the first P2 of them.
    pub picture_inputs: Option<PictureInputs>,
    /// Each of the P pictures as an index into the corpus's.
    pub pictures: Vec<usize>,
    /// The concept of each of the P pictures.
    pub picture_concepts: Vec<u32>,
    /// T texts, then second wordings of the first T2 of them. Those of a picture follow one another, as
    /// many for each. In a dataset that pairs pictures one counterpart of each picture, then second
    /// views of the first T2.
    pub text_inputs: TextInputs,
    /// The concept of each of the T texts.
    pub text_concepts: Vec<u32>,
    /// The language of each of the T texts.
    pub text_languages: Vec<String>,
    /// The T texts as they were drawn; none where they are no texts, or only their features are known.
    pub texts: Vec<String>,
    /// Decides what an objective draws for this batch.
    pub seed: u64,
    /// The number of the batch within its stage, from 0.
    pub number: u64,
    /// Names of the groups in the batch, for messages.
    pub groups: Vec<String>,
}

/// One side of a batch on its way to vectors.
#[derive(Debug)]
pub struct Reading {
    /// (N, D): the last features of the tower.
    pub features: Tensor,
    /// What becomes the vectors.
    pub codes: Codes,
}

impl Reading {
    /// The codes of the first `count` rows: those without second views.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn first(&self, count: usize) -> Result<Codes> {
        let first = |rows: &Tensor| rows.narrow(0, 0, count)?.contiguous();
        Ok(Codes {
            shared: first(&self.codes.shared)?,
            exclusive: self.codes.exclusive.as_ref().map(first).transpose()?,
        })
    }
}

impl Batch {
    /// For each of the P pictures the first of its texts, and for each of the T texts its picture.
    #[must_use]
    pub fn partners(&self) -> (Vec<u32>, Vec<u32>) {
        let each = (self.text_concepts.len() / self.picture_concepts.len().max(1)).max(1) as u32;
        let of_pictures = (0..self.picture_concepts.len() as u32).map(|at| at * each).collect();
        let of_texts = (0..self.text_concepts.len() as u32).map(|at| at / each).collect();
        (of_pictures, of_texts)
    }

    /// The vectors of the pictures, second views behind the first ones.
    ///
    /// # Errors
    /// If the batch has none, or they do not fit the model.
    pub fn encode_pictures(&self, encoder: &DualEncoder) -> Result<Encoding> {
        Ok(encoder.encoding(&self.read_pictures(encoder)?.codes)?)
    }

    /// The vectors of the texts, second wordings behind the first ones.
    ///
    /// # Errors
    /// If they do not fit the model.
    pub fn encode_texts(&self, encoder: &DualEncoder) -> Result<Encoding> {
        Ok(encoder.encoding(&self.read_texts(encoder)?.codes)?)
    }

    /// What the tower sees in the pictures, and what the heads make of it.
    ///
    /// # Errors
    /// As [`Batch::encode_pictures`].
    pub fn read_pictures(&self, encoder: &DualEncoder) -> Result<Reading> {
        let features = match &self.picture_inputs {
            Some(PictureInputs::Pixels(pixels)) => encoder.image_features(pixels)?,
            Some(PictureInputs::Features(known)) => known.clone(),
            None => return Err(Error::setting("batch.pictures", "missing")),
        };
        Ok(Reading { codes: encoder.image_codes(&features)?, features: features.last })
    }

    /// What the tower sees in the texts, or in the pictures in their place, and what the heads make of it.
    ///
    /// # Errors
    /// As [`Batch::encode_texts`].
    pub fn read_texts(&self, encoder: &DualEncoder) -> Result<Reading> {
        let features = match &self.text_inputs {
            TextInputs::Tokens(tokens) => encoder.text_features(tokens)?,
            TextInputs::Features(known) => known.clone(),
            TextInputs::Pixels(pixels) => {
                let features = encoder.counterpart_features(pixels)?;
                let codes = encoder.counterpart_codes(&features)?;
                return Ok(Reading { codes, features: features.last });
            }
        };
        Ok(Reading { codes: encoder.text_codes(&features)?, features })
    }
}
