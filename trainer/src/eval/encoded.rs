//! Vectors of pictures and names, made once and then asked in many ways.

use std::collections::BTreeSet;

use diptych_model::Encoding;
use rand::seq::SliceRandom;

use super::Subject;
use super::matrix::Matrix;
use crate::augment::generator;
use crate::corpus::{Corpus, Withheld};
use crate::encode;
use crate::error::Result;
use crate::shards::Split;

/// Most concepts of a split that probes and calibration look at: enough for figures to the third
/// digit, and bounded for any dataset.
const CONCEPTS: usize = 5_000;

/// Keeps generators of this draw apart from all others of the same seed.
const PURPOSE: u64 = 0x656e_636f_6465;

/// Which concepts are asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    #[default]
    All,
    /// Those of a split.
    Only(Split),
    /// The test split, or all where there is none: to report on.
    Report,
    /// The dev split, or all where there is none: to watch a run by.
    Watch,
}

impl Scope {
    /// The split that is meant; `None` for all.
    #[must_use]
    pub fn split(self, corpus: &Corpus) -> Option<Split> {
        match self {
            Self::All => None,
            Self::Only(split) => Some(split),
            Self::Report => corpus.has(Split::Test).then_some(Split::Test),
            Self::Watch => corpus.has(Split::Dev).then_some(Split::Dev),
        }
    }
}

/// Rows of one modality: vectors in both spaces, and the concept of each.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Unit vectors where pictures and texts meet: (rows, S).
    pub shared: Matrix,
    /// Unit vectors of what only this modality says: (rows, E). E is 0 where the model has none.
    pub exclusive: Matrix,
    /// The concept of each row, by its index in the corpus.
    pub concepts: Vec<u32>,
    /// What each row is: the picture's index in the corpus, or the name's in [`Encoded::texts`].
    pub rows: Vec<usize>,
}

/// A name and what is known of it.
#[derive(Debug, Clone)]
pub struct Name {
    /// The text.
    pub text: String,
    /// Its language.
    pub language: String,
    /// Whether training saw it.
    pub seen: bool,
    /// The picture that stands in place of a text, by its index in the corpus; its file's name is the
    /// text then, and its kind the language.
    pub picture: Option<usize>,
}

/// Vectors of pictures and names.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Pictures, in the order of the corpus.
    pub pictures: Side,
    /// Names, by concept, then by language.
    pub names: Side,
    /// The names themselves, see [`Side::rows`].
    pub texts: Vec<Name>,
}

impl Side {
    /// Rows with shared vectors alone.
    #[must_use]
    pub fn of_shared(shared: Matrix, concepts: Vec<u32>) -> Self {
        let rows = concepts.len();
        Self { shared, exclusive: Matrix::zeros(rows, 0), concepts, rows: (0..rows).collect() }
    }

    /// Chosen rows, in the order of the choice.
    #[must_use]
    pub fn select(&self, chosen: &[usize]) -> Self {
        Self {
            shared: self.shared.select(chosen),
            exclusive: self.exclusive.select(chosen),
            concepts: chosen.iter().map(|at| self.concepts[*at]).collect(),
            rows: chosen.iter().map(|at| self.rows[*at]).collect(),
        }
    }

    /// The rows that a condition on position holds for.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let chosen: Vec<usize> = (0..self.concepts.len()).filter(|at| keep(*at)).collect();
        self.select(&chosen)
    }

    /// How many rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.concepts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.concepts.is_empty()
    }
}

impl Encoded {
    /// Encodes the pictures and the names of the concepts that `wanted` says.
    ///
    /// # Errors
    /// If a picture or a text cannot be encoded.
    pub fn new(subject: &Subject<'_>, withheld: &Withheld, wanted: &[bool]) -> Result<Self> {
        let corpus = subject.corpus;
        let mut encoded = Self::default();
        let of_wanted = corpus.concepts.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        let mut rows: Vec<usize> =
            of_wanted.flat_map(|(concept, _)| &concept.pictures).copied().collect();
        rows.sort_unstable();
        if !rows.is_empty() {
            let size = subject.image_size;
            let vectors = encode::chosen_pictures(subject.encoder, corpus, &rows, size)?;
            encoded.pictures = Side {
                shared: Matrix::of(&vectors.shared)?,
                exclusive: exclusive_rows(&vectors)?,
                concepts: rows.iter().map(|at| corpus.pictures[*at].concept).collect(),
                rows,
            };
        }
        if let Some(paired) = &corpus.manifest.paired {
            encoded.add_counterparts(subject, &paired.counterpart, wanted)?;
            return Ok(encoded);
        }
        let mut concepts = Vec::new();
        for (index, concept) in (0_u32..).zip(&corpus.concepts) {
            if !wanted[index as usize] {
                continue;
            }
            for (language, wordings) in &concept.wordings {
                let seen = withheld.get(&index).is_none_or(|hidden| hidden != language);
                for text in &wordings.names {
                    let (text, language) = (text.clone(), language.clone());
                    encoded.texts.push(Name { text, language, seen, picture: None });
                    concepts.push(index);
                }
            }
        }
        if !concepts.is_empty() {
            let texts: Vec<&str> = encoded.texts.iter().map(|name| name.text.as_str()).collect();
            let vectors = encode::texts(subject.encoder, subject.preprocessing, &texts)?;
            encoded.names = Side {
                shared: Matrix::of(&vectors.shared)?,
                exclusive: exclusive_rows(&vectors)?,
                rows: (0..concepts.len()).collect(),
                concepts,
            };
        }
        Ok(encoded)
    }

    /// Pictures of the second kind as what stands in place of names.
    fn add_counterparts(
        &mut self,
        subject: &Subject<'_>,
        kind: &str,
        wanted: &[bool],
    ) -> Result<()> {
        let corpus = subject.corpus;
        let mut concepts = Vec::new();
        let mut pictures = Vec::new();
        for (index, concept) in
            (0_u32..).zip(&corpus.concepts).filter(|(at, _)| wanted[*at as usize])
        {
            for picture in concept.counterparts.iter().copied() {
                let text = corpus.pictures[picture].path.clone();
                let language = kind.to_owned();
                self.texts.push(Name { text, language, seen: true, picture: Some(picture) });
                concepts.push(index);
                pictures.push(picture);
            }
        }
        if !pictures.is_empty() {
            let size = subject.image_size;
            let vectors = encode::counterparts(subject.encoder, corpus, &pictures, size)?;
            self.names = Side {
                shared: Matrix::of(&vectors.shared)?,
                exclusive: exclusive_rows(&vectors)?,
                rows: (0..concepts.len()).collect(),
                concepts,
            };
        }
        Ok(())
    }

    /// The part whose concepts a condition holds for.
    #[must_use]
    pub fn of_concepts(&self, keep: impl Fn(u32) -> bool) -> (Side, Side) {
        let part = |side: &Side| side.filter(|at| keep(side.concepts[at]));
        (part(&self.pictures), part(&self.names))
    }

    /// The languages of the names, in order.
    #[must_use]
    pub fn languages(&self) -> BTreeSet<&str> {
        self.texts.iter().map(|name| name.language.as_str()).collect()
    }
}

/// The exclusive vectors of an encoding; rows of no columns from a model without any.
pub(crate) fn exclusive_rows(vectors: &Encoding) -> Result<Matrix> {
    match &vectors.exclusive {
        Some(rows) => Matrix::of(rows),
        None => Ok(Matrix::zeros(vectors.shared.dim(0)?, 0)),
    }
}

/// For each concept whether it belongs to a scope.
#[must_use]
pub fn in_scope(corpus: &Corpus, split: Option<Split>) -> Vec<bool> {
    let of = |concept: &crate::corpus::Concept| split.is_none_or(|split| concept.split == split);
    corpus.concepts.iter().map(of).collect()
}

/// Adds some concepts of every split, so that there is something to fit on and to score.
pub(crate) fn add_some_of_each_split(corpus: &Corpus, wanted: &mut [bool], seed: u64) {
    for (number, split) in (0..).zip(Split::ALL) {
        let mut of_split: Vec<usize> =
            (0..corpus.concepts.len()).filter(|at| corpus.concepts[*at].split == split).collect();
        of_split.shuffle(&mut generator(seed, &[PURPOSE, number]));
        of_split.iter().take(CONCEPTS).for_each(|at| wanted[*at] = true);
    }
}
