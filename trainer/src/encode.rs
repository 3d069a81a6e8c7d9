//! Vectors of many pictures or texts, without gradients.

use candle_core::{Device, Tensor};
use diptych_model::preprocess::{TokenBatch, Tokens};
use diptych_model::{DualEncoder, Encoding};
use rayon::prelude::*;

use crate::corpus::Corpus;
use crate::error::Result;
use crate::preprocessing::Preprocessing;

/// Pictures encoded at a time.
const PICTURES: usize = 256;

/// Texts encoded at a time.
const TEXTS: usize = 1024;

/// Vectors of all pictures of a corpus, in its order, as serving would make them.
///
/// # Errors
/// If the corpus does not fit the tower.
pub fn pictures(encoder: &DualEncoder, corpus: &Corpus, size: usize) -> Result<Encoding> {
    let all: Vec<usize> = (0..corpus.pictures.len()).collect();
    chosen_pictures(encoder, corpus, &all, size)
}

/// Vectors of chosen pictures of a corpus, in the order of the choice, which is not empty.
///
/// # Errors
/// As [`pictures`].
pub fn chosen_pictures(
    encoder: &DualEncoder,
    corpus: &Corpus,
    chosen: &[usize],
    size: usize,
) -> Result<Encoding> {
    chosen_by(corpus, (chosen, size), |pixels| Ok(encoder.encode_images(pixels)?))
}

/// Vectors of chosen pictures that stand where texts do, as [`chosen_pictures`].
///
/// # Errors
/// As [`pictures`], and from a model without a second picture side.
pub fn counterparts(
    encoder: &DualEncoder,
    corpus: &Corpus,
    chosen: &[usize],
    size: usize,
) -> Result<Encoding> {
    chosen_by(corpus, (chosen, size), |pixels| Ok(encoder.encode_counterparts(pixels)?))
}

/// Vectors of chosen pictures by `encode`, so many at a time as fit.
fn chosen_by(
    corpus: &Corpus,
    (chosen, size): (&[usize], usize),
    encode: impl Fn(&Tensor) -> Result<Encoding>,
) -> Result<Encoding> {
    joined(chosen.chunks(PICTURES).map(|chunk| encode(&pixels(corpus, chunk, size)?)))
}

/// (N, 3, size, size): pictures of a corpus as serving would feed them to the tower.
///
/// # Errors
/// If a picture cannot be read.
pub fn pixels(corpus: &Corpus, pictures: &[usize], size: usize) -> Result<Tensor> {
    let plain: Vec<Vec<f32>> =
        pictures.par_iter().map(|picture| corpus.plain(*picture)).collect::<Result<_>>()?;
    Ok(Tensor::from_vec(plain.concat(), (pictures.len(), 3, size, size), &Device::Cpu)?)
}

/// Vectors of texts, in their order.
///
/// # Errors
/// If a text cannot be tokenized.
pub fn texts(
    encoder: &DualEncoder,
    preprocessing: &Preprocessing,
    texts: &[&str],
) -> Result<Encoding> {
    let tokens: Vec<Tokens> = texts
        .par_iter()
        .map(|text| Ok(preprocessing.text.tokenize(text, true)?))
        .collect::<Result<_>>()?;
    let encode = |chunk: &[Tokens]| {
        let batch = TokenBatch::collate(&chunk.iter().collect::<Vec<_>>());
        Ok(encoder.encode_texts(&batch)?)
    };
    joined(tokens.chunks(TEXTS).map(encode))
}

fn joined(parts: impl Iterator<Item = Result<Encoding>>) -> Result<Encoding> {
    let (mut shared, mut exclusive) = (Vec::new(), Vec::new());
    for part in parts {
        let part = part?;
        shared.push(part.shared.detach());
        exclusive.extend(part.exclusive.map(|rows| rows.detach()));
    }
    let exclusive = (!exclusive.is_empty()).then(|| Tensor::cat(&exclusive, 0)).transpose()?;
    Ok(Encoding { shared: Tensor::cat(&shared, 0)?, exclusive })
}
