//! A prepared dataset in memory: pictures decoded and preprocessed, texts by concept.

mod hold_out;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use diptych_model::preprocess::{ImageLimits, decode};
use image::RgbImage;
use rayon::prelude::*;

pub use hold_out::{HoldOut, Withheld};

use crate::error::{Error, Result};
use crate::preprocessing::Preprocessing;
use crate::shards::{Dataset, ImageRow, Manifest, TextKind, TextRow};

/// Pictures decoded at a time: bounds the encoded bytes that are held beside the decoded ones.
const DECODED_AT_A_TIME: usize = 512;

/// A drawn view is sampled from a picture with this many pixels for each three of the tower's.
const DETAIL: u32 = 4;

/// One picture of the corpus.
#[derive(Debug)]
pub struct Picture {
    /// The index of its concept in [`Corpus::concepts`].
    pub concept: u32,
    /// Its drawing style, empty where the dataset does not say.
    pub style: String,
    /// The picture as serving feeds it to the tower: (3, size, size), normalised.
    pub plain: Vec<f32>,
    /// The picture with a third more pixels a side, for drawing other views of it.
    pub detailed: RgbImage,
}

/// What a concept is called in one language.
#[derive(Debug, Clone, Default)]
pub struct Wordings {
    /// Texts that say the whole concept.
    pub names: Vec<String>,
    /// Words that go with it.
    pub keywords: Vec<String>,
}

/// A group of the dataset: pictures and texts that belong together.
#[derive(Debug, Default)]
pub struct Concept {
    /// The group's name in the dataset.
    pub group: String,
    /// Indices into [`Corpus::pictures`].
    pub pictures: Vec<usize>,
    /// What it is called, by language.
    pub wordings: BTreeMap<String, Wordings>,
}

/// A prepared dataset in memory.
#[derive(Debug)]
pub struct Corpus {
    /// The groups, in order of their names.
    pub concepts: Vec<Concept>,
    /// The pictures, in the order of the dataset.
    pub pictures: Vec<Picture>,
    /// What the dataset says of itself.
    pub manifest: Manifest,
    /// Rows that could not be used, each with its file, row and reason.
    pub skipped: Vec<String>,
}

impl Corpus {
    /// Reads a prepared dataset and decodes its pictures, on all threads.
    ///
    /// A row that cannot be used is skipped and said so in [`Corpus::skipped`].
    ///
    /// # Errors
    /// If the folder is not a prepared dataset, or none of its pictures or texts can be used.
    pub fn open(folder: &Path, preprocessing: &Preprocessing) -> Result<Self> {
        let dataset = Dataset::open(folder)?;
        let mut skipped = Vec::new();
        let mut texts: Vec<TextRow> = keep_good(dataset.texts(), &mut skipped);
        texts.retain(|row| match preprocessing.text.tokenize(&row.text, true) {
            Ok(_) => true,
            Err(error) => {
                skipped.push(format!("{} text of {}: {error}", row.lang, row.group));
                false
            }
        });
        let images = decode_all(&dataset, preprocessing, &mut skipped);
        let groups: BTreeSet<&str> = texts
            .iter()
            .map(|text| text.group.as_str())
            .chain(images.iter().map(|(group, _)| group.as_str()))
            .collect();
        let index: BTreeMap<String, usize> = groups
            .into_iter()
            .enumerate()
            .map(|(index, group)| (group.to_owned(), index))
            .collect();
        let mut concepts: Vec<Concept> = index
            .keys()
            .map(|group| Concept { group: group.clone(), ..Concept::default() })
            .collect();
        for text in texts {
            let wordings = concepts[index[&text.group]].wordings.entry(text.lang).or_default();
            match text.kind {
                TextKind::Name => wordings.names.push(text.text),
                TextKind::Keyword => wordings.keywords.push(text.text),
            }
        }
        let mut pictures = Vec::with_capacity(images.len());
        for (group, mut picture) in images {
            let concept = index[&group];
            concepts[concept].pictures.push(pictures.len());
            picture.concept = concept as u32;
            pictures.push(picture);
        }
        if pictures.is_empty() || concepts.iter().all(|concept| concept.wordings.is_empty()) {
            let message =
                format!("no picture or no text can be used; {} rows skipped", skipped.len());
            return Err(Error::data(folder, message));
        }
        Ok(Self { concepts, pictures, manifest: dataset.manifest().clone(), skipped })
    }

    /// The index of a group, if the corpus has it.
    #[must_use]
    pub fn concept(&self, group: &str) -> Option<u32> {
        let found = self.concepts.binary_search_by(|concept| concept.group.as_str().cmp(group));
        found.ok().map(|index| index as u32)
    }

    /// The drawing styles, in order.
    #[must_use]
    pub fn styles(&self) -> BTreeSet<&str> {
        self.pictures.iter().map(|picture| picture.style.as_str()).collect()
    }

    /// The languages that a concept is named in, in order.
    #[must_use]
    pub fn languages(&self) -> BTreeSet<&str> {
        let languages = self.concepts.iter().flat_map(|concept| concept.wordings.keys());
        languages.map(String::as_str).collect()
    }
}

fn keep_good<R>(rows: impl Iterator<Item = Result<R>>, skipped: &mut Vec<String>) -> Vec<R> {
    rows.filter_map(|row| match row {
        Ok(row) => Some(row),
        Err(error) => {
            skipped.push(error.to_string());
            None
        }
    })
    .collect()
}

fn decode_all(
    dataset: &Dataset,
    preprocessing: &Preprocessing,
    skipped: &mut Vec<String>,
) -> Vec<(String, Picture)> {
    let style = dataset.label("style");
    let mut decoded = Vec::new();
    let mut rows = dataset.images().peekable();
    while rows.peek().is_some() {
        let chunk = keep_good(rows.by_ref().take(DECODED_AT_A_TIME), skipped);
        let pictures: Vec<_> =
            chunk.into_par_iter().map(|row| decode_row(row, style, preprocessing)).collect();
        for picture in pictures {
            match picture {
                Ok(picture) => decoded.push(picture),
                Err(reason) => skipped.push(reason),
            }
        }
    }
    decoded
}

fn decode_row(
    row: ImageRow,
    style: Option<usize>,
    preprocessing: &Preprocessing,
) -> std::result::Result<(String, Picture), String> {
    let named = |error: diptych_model::Error| format!("{}: {error}", row.path);
    let picture = decode(&row.bytes, &ImageLimits::default()).map_err(named)?;
    let style = style.and_then(|column| row.labels.get(column).cloned().flatten());
    let mut larger = preprocessing.image.clone();
    larger.size = larger.size * DETAIL / 3;
    let picture = Picture {
        concept: 0,
        style: style.unwrap_or_default(),
        plain: preprocessing.image.apply(&picture).map_err(named)?,
        detailed: larger.to_square(&picture).map_err(named)?,
    };
    Ok((row.group, picture))
}
