//! Pictures and texts of a dataset as features of towers that do not change.

use std::ops::Range;

use candle_core::{Device, Tensor};
use diptych_model::bundle::Bundle;
use diptych_model::preprocess::{ImageLimits, TokenBatch, Tokens, decode};
use diptych_model::tower::ImageFeatures;
use diptych_model::{DualEncoder, FeatureWidths};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::backbone::{Backbone, Towers};
use super::cache::{Features, Wanted};
use crate::corpus::Corpus;
use crate::error::Result;
use crate::eval::encoded::{Encoded, Name, Side, exclusive_rows};
use crate::eval::matrix::Matrix;
use crate::preprocessing::Preprocessing;

/// Inputs that a tower sees at a time.
const BATCH: usize = 64;
/// Rows that heads see at a time.
const ROWS: usize = 4096;

/// A text of the dataset.
#[derive(Debug)]
pub(super) struct Text {
    /// The index of its concept.
    pub(super) concept: u32,
    language: String,
    text: String,
}

/// The features of a dataset, with what they are of.
#[derive(Debug)]
pub(super) struct Inputs {
    pictures: Features,
    texts: Features,
    /// One for each row of the texts' features: the names of each concept, or its keywords where it has none.
    pub(super) names: Vec<Text>,
    widths: FeatureWidths,
}

impl Inputs {
    /// Takes the features from the cache, and runs the towers for what is not there. `say` hears how far it is.
    ///
    /// # Errors
    /// If a tower cannot be loaded, or the disk refuses. An input that cannot be read is left out.
    pub(super) fn open(
        backbone: &Backbone,
        (corpus, preprocessing): (&Corpus, &Preprocessing),
        cache: &std::path::Path,
        say: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Self> {
        let names = names(corpus);
        let towers = backbone.load()?;
        let widths = towers.widths();
        let pictures = Wanted {
            folder: cache,
            key: key(backbone.image(), corpus),
            name: "pictures",
            rows: corpus.pictures.len(),
            width: widths.image_last + widths.image_early,
        };
        let pictures = Features::open(pictures, |range| {
            say(&format!("features of pictures: {} of {}", range.start, corpus.pictures.len()))?;
            pictures_of(&towers, (corpus, preprocessing), range, pictures.width)
        })?;
        let texts = Wanted {
            folder: cache,
            key: key(backbone.text(), corpus),
            name: "texts",
            rows: names.len(),
            width: widths.text,
        };
        let texts = Features::open(texts, |range| {
            say(&format!("features of texts: {} of {}", range.start, names.len()))?;
            texts_of(&towers, preprocessing, &names[range], texts.width)
        })?;
        for damaged in pictures.damaged.iter().chain(&texts.damaged) {
            say(&format!("{}: was damaged, made again", damaged.display()))?;
        }
        let unread = (0..corpus.pictures.len()).filter(|picture| !pictures.has(*picture));
        for picture in unread {
            say(&format!("picture `{}`: cannot be read, left out", corpus.pictures[picture].path))?;
        }
        Ok(Self { pictures, texts, names, widths })
    }

    pub(super) const fn widths(&self) -> FeatureWidths {
        self.widths
    }

    /// Rows that the towers ran for now.
    pub(super) const fn computed(&self) -> usize {
        self.pictures.computed + self.texts.computed
    }

    /// Whether the picture could be read.
    pub(super) fn has_picture(&self, picture: usize) -> bool {
        self.pictures.has(picture)
    }

    /// Whether the text could be read.
    pub(super) fn has_text(&self, text: usize) -> bool {
        self.texts.has(text)
    }

    /// The language of a text.
    pub(super) fn language(&self, text: usize) -> String {
        self.names[text].language.clone()
    }

    /// The features of pictures, side by side: (N, last + early).
    pub(super) fn pictures(&self, chosen: &[usize]) -> Result<Tensor> {
        rows(&self.pictures, chosen)
    }

    /// The features of texts: (N, D).
    pub(super) fn texts(&self, chosen: &[usize]) -> Result<Tensor> {
        rows(&self.texts, chosen)
    }

    /// The two parts of pictures' features.
    pub(super) fn parts(&self, features: &Tensor) -> Result<ImageFeatures> {
        let FeatureWidths { image_last, image_early, .. } = self.widths;
        Ok(ImageFeatures {
            last: features.narrow(1, 0, image_last)?.contiguous()?,
            early: features.narrow(1, image_last, image_early)?.contiguous()?,
        })
    }

    /// The vectors of the pictures and names of the concepts that `wanted` says.
    ///
    /// # Errors
    /// If features cannot be read.
    pub(super) fn encoded(
        &self,
        heads: &DualEncoder,
        corpus: &Corpus,
        wanted: &[bool],
    ) -> Result<Encoded> {
        let concept = |picture: usize| corpus.pictures[picture].concept;
        let pictures: Vec<usize> = (0..corpus.pictures.len())
            .filter(|picture| wanted[concept(*picture) as usize] && self.has_picture(*picture))
            .collect();
        let texts: Vec<usize> = (0..self.names.len())
            .filter(|text| wanted[self.names[*text].concept as usize] && self.has_text(*text))
            .collect();
        let of_pictures = |chunk: &[usize]| -> Result<diptych_model::Encoding> {
            Ok(heads.encode_image_features(&self.parts(&self.pictures(chunk)?)?)?)
        };
        let of_texts = |chunk: &[usize]| -> Result<diptych_model::Encoding> {
            Ok(heads.encode_text_features(&self.texts(chunk)?)?)
        };
        let mut encoded = Encoded {
            pictures: side(&pictures, of_pictures)?,
            names: side(&texts, of_texts)?,
            texts: Vec::new(),
        };
        encoded.pictures.concepts = pictures.iter().map(|picture| concept(*picture)).collect();
        encoded.pictures.rows = pictures;
        for text in texts {
            let Text { concept, language, text } = &self.names[text];
            let (text, language) = (text.clone(), language.clone());
            encoded.texts.push(Name { text, language, seen: true, picture: None });
            encoded.names.rows.push(encoded.names.concepts.len());
            encoded.names.concepts.push(*concept);
        }
        Ok(encoded)
    }
}

fn rows(features: &Features, chosen: &[usize]) -> Result<Tensor> {
    let shape = (chosen.len(), features.width());
    Ok(Tensor::from_vec(features.gather(chosen)?, shape, &Device::Cpu)?)
}

/// The vectors of chosen rows; what they are of is still to be said.
fn side(
    chosen: &[usize],
    encode: impl Fn(&[usize]) -> Result<diptych_model::Encoding>,
) -> Result<Side> {
    let (mut shared, mut exclusive) = (Vec::new(), Vec::new());
    let (mut wide, mut other) = (0, 0);
    for chunk in chosen.chunks(ROWS) {
        let vectors = encode(chunk)?;
        let (own, apart) = (Matrix::of(&vectors.shared)?, exclusive_rows(&vectors)?);
        (wide, other) = (own.columns(), apart.columns());
        shared.extend_from_slice(own.values());
        exclusive.extend_from_slice(apart.values());
    }
    let exclusive = match other {
        0 => Matrix::zeros(chosen.len(), 0),
        other => Matrix::new(exclusive, other),
    };
    Ok(Side { shared: Matrix::new(shared, wide), exclusive, ..Side::default() })
}

/// The names of each concept in all languages, or its keywords where it has none.
fn names(corpus: &Corpus) -> Vec<Text> {
    let mut texts = Vec::new();
    for (index, concept) in (0_u32..).zip(&corpus.concepts) {
        let named = concept.wordings.values().any(|wordings| !wordings.names.is_empty());
        for (language, wordings) in &concept.wordings {
            let own = if named { &wordings.names } else { &wordings.keywords };
            texts.extend(own.iter().map(|text| Text {
                concept: index,
                language: language.clone(),
                text: text.clone(),
            }));
        }
    }
    texts
}

/// SHA-256 over what features depend on: the checkpoint, and the data by the digests of its files.
fn key(checkpoint: &Bundle, corpus: &Corpus) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"diptych features 1\n");
    digest.update(checkpoint.embedding_digest());
    for file in &corpus.manifest.files {
        digest.update(format!("\n{} {} {}", file.path, file.rows, file.sha256));
    }
    digest.finalize().into()
}

/// Features of a range of pictures, NaN for those that cannot be read.
fn pictures_of(
    towers: &Towers,
    (corpus, preprocessing): (&Corpus, &Preprocessing),
    range: Range<usize>,
    width: usize,
) -> Result<Vec<f32>> {
    let image = &preprocessing.image;
    let side = image.size as usize;
    let mut features = Vec::with_capacity(range.len() * width);
    let all: Vec<usize> = range.collect();
    for batch in all.chunks(BATCH) {
        // A picture that cannot be decoded does not stop the others; a shard that cannot be read does.
        let files: Vec<Vec<u8>> =
            batch.iter().map(|picture| corpus.file(*picture)).collect::<Result<_>>()?;
        let pixels: Vec<Option<Vec<f32>>> = files
            .par_iter()
            .map(|file| image.apply(&decode(file, &ImageLimits::default()).ok()?).ok())
            .collect();
        let read: Vec<f32> = pixels.iter().flatten().flatten().copied().collect();
        let count = pixels.iter().flatten().count();
        let mut rows = Vec::new();
        if count > 0 {
            let seen = Tensor::from_vec(read, (count, 3, side, side), &Device::Cpu)?;
            let ImageFeatures { last, early } = towers.images(&seen)?;
            rows = Tensor::cat(&[&last, &early], 1)?.to_vec2::<f32>()?;
        }
        let mut rows = rows.into_iter();
        for pixels in pixels {
            let row = pixels.and_then(|_| rows.next());
            features.extend(row.unwrap_or_else(|| vec![f32::NAN; width]));
        }
    }
    Ok(features)
}

/// Features of texts, NaN for those that cannot be read. Texts of one length go together, since a short one
/// costs what the longest of its batch does.
fn texts_of(
    towers: &Towers,
    preprocessing: &Preprocessing,
    texts: &[Text],
    width: usize,
) -> Result<Vec<f32>> {
    let tokens: Vec<Option<Tokens>> =
        texts.par_iter().map(|text| preprocessing.text.tokenize(&text.text, true).ok()).collect();
    let length = |at: usize| tokens[at].as_ref().map_or(0, |tokens| tokens.ids.len());
    let mut order: Vec<usize> = (0..texts.len()).filter(|at| tokens[*at].is_some()).collect();
    order.sort_by_key(|at| length(*at));
    let mut features = vec![f32::NAN; texts.len() * width];
    for batch in order.chunks(BATCH) {
        let read: Vec<&Tokens> = batch.iter().filter_map(|at| tokens[*at].as_ref()).collect();
        let rows = towers.texts(&TokenBatch::collate(&read))?.to_vec2::<f32>()?;
        for (at, row) in batch.iter().zip(rows) {
            features[at * width..(at + 1) * width].copy_from_slice(&row);
        }
    }
    Ok(features)
}
