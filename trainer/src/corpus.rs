//! A prepared dataset, opened: texts in memory by concept, pictures read and decoded as they are asked for.

mod hold_out;
mod pixels;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

pub use hold_out::{HoldOut, Withheld};
use pixels::Pixels;
pub use pixels::{Decoded, PictureMemory};

use crate::error::{Error, Result};
use crate::preprocessing::Preprocessing;
use crate::shards::{Dataset, ImageHead, Manifest, RowAt, Split, TextKind, TextRow};

/// The label column that says how a picture is drawn.
const STYLE: &str = "style";

/// One picture of the corpus. Its pixels are read when asked for, see [`Corpus::decoded`].
#[derive(Debug)]
pub struct Picture {
    /// The index of its concept in [`Corpus::concepts`].
    pub concept: u32,
    /// Its name in the dataset.
    pub path: String,
    /// Values in the order of the label columns of [`Corpus::manifest`].
    pub labels: Vec<Option<String>>,
    at: RowAt,
}

impl Picture {
    /// The row group that the picture's file lies in: pictures of one are read together.
    #[must_use]
    pub const fn row_group(&self) -> (u32, u32) {
        (self.at.shard, self.at.row_group)
    }
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
    /// What it is for.
    pub split: Split,
    /// Indices into [`Corpus::pictures`].
    pub pictures: Vec<usize>,
    /// Those of pictures that stand where texts do, in a dataset that pairs pictures.
    pub counterparts: Vec<usize>,
    /// What it is called, by language.
    pub wordings: BTreeMap<String, Wordings>,
}

/// A prepared dataset, opened.
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
    preprocessing: Arc<Preprocessing>,
    pixels: Pixels,
}

impl Corpus {
    /// What its pictures and texts are read through.
    #[must_use]
    pub fn preprocessing(&self) -> &Preprocessing {
        &self.preprocessing
    }

    /// Reads a prepared dataset: all texts, and of the pictures all but the pixels.
    ///
    /// A row that cannot be used is skipped and said so in [`Corpus::skipped`].
    ///
    /// # Errors
    /// If the folder is not a prepared dataset, or none of its pictures or texts can be used.
    pub fn open(
        folder: &Path,
        preprocessing: &Arc<Preprocessing>,
        memory: PictureMemory,
    ) -> Result<Self> {
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
        let heads: Vec<ImageHead> = keep_good(dataset.image_heads(), &mut skipped);
        let of_texts = texts.iter().map(|text| (text.group.as_str(), text.split));
        let of_heads = heads.iter().map(|head| (head.group.as_str(), head.split));
        let groups: BTreeMap<&str, Split> = of_texts.chain(of_heads).collect();
        let mut concepts: Vec<Concept> = groups
            .iter()
            .map(|(group, split)| Concept {
                group: (*group).to_owned(),
                split: *split,
                ..Concept::default()
            })
            .collect();
        let index: BTreeMap<String, usize> = groups
            .into_keys()
            .enumerate()
            .map(|(index, group)| (group.to_owned(), index))
            .collect();
        for text in texts {
            let wordings = concepts[index[&text.group]].wordings.entry(text.lang).or_default();
            match text.kind {
                TextKind::Name => wordings.names.push(text.text),
                TextKind::Keyword => wordings.keywords.push(text.text),
            }
        }
        let mut pictures = Vec::with_capacity(heads.len());
        let paired = dataset.manifest().paired.as_ref();
        let kind = paired.map(|paired| (dataset.label(&paired.label), &paired.counterpart));
        for ImageHead { path, group, labels, at, .. } in heads {
            let concept = index[&group];
            let label = |column: Option<usize>| labels.get(column?)?.as_ref();
            let stands_for_a_text = kind.is_some_and(|(column, own)| label(column) == Some(own));
            let of_kind = match stands_for_a_text {
                true => &mut concepts[concept].counterparts,
                false => &mut concepts[concept].pictures,
            };
            of_kind.push(pictures.len());
            pictures.push(Picture { concept: concept as u32, path, labels, at });
        }
        let unnamed = |c: &Concept| c.wordings.is_empty() && c.counterparts.is_empty();
        if pictures.is_empty() || concepts.iter().all(unnamed) {
            let first = skipped.first().map_or(String::new(), |why| format!(", the first: {why}"));
            let count = skipped.len();
            let message = format!("no picture or no text can be used; {count} rows skipped{first}");
            return Err(Error::data(folder, message));
        }
        let manifest = dataset.manifest().clone();
        let pixels = Pixels::new(dataset, Arc::clone(preprocessing), pictures.len(), memory);
        let preprocessing = Arc::clone(preprocessing);
        Ok(Self { concepts, pictures, manifest, skipped, preprocessing, pixels })
    }

    /// The file of a picture, as it lies in the dataset.
    ///
    /// # Errors
    /// If its shard cannot be read any more.
    pub fn file(&self, picture: usize) -> Result<Vec<u8>> {
        Ok(self.pixels.file(self.pictures[picture].at)?.data().to_vec())
    }

    /// A picture at the sizes that training draws from.
    ///
    /// # Errors
    /// If its file cannot be read or decoded, naming the picture.
    pub fn decoded(&self, picture: usize) -> Result<Arc<Decoded>> {
        let Picture { at, path, .. } = &self.pictures[picture];
        self.pixels.decoded(picture, *at, path)
    }

    /// A picture as serving feeds it to the tower: (3, size, size), normalised.
    ///
    /// # Errors
    /// As [`Corpus::decoded`].
    pub fn plain(&self, picture: usize) -> Result<Vec<f32>> {
        Ok(self.preprocessing.image.normalize(&self.decoded(picture)?.plain))
    }

    /// The place of a label column in [`Picture::labels`].
    #[must_use]
    pub fn label(&self, column: &str) -> Option<usize> {
        self.manifest.labels.iter().position(|name| name == column)
    }

    /// What all labelled pictures of a concept say in a label column; `None` where they differ or say
    /// nothing. Such a label holds for the concept's texts too.
    #[must_use]
    pub fn concept_label(&self, concept: u32, column: usize) -> Option<&str> {
        let pictures = &self.concepts[concept as usize].pictures;
        let mut values =
            pictures.iter().filter_map(|at| self.pictures[*at].labels[column].as_deref());
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    }

    /// Whether pictures are paired with pictures of a second kind, in place of texts.
    #[must_use]
    pub const fn pairs_pictures(&self) -> bool {
        self.manifest.paired.is_some()
    }

    /// Whether there is something to report on that training does not see.
    #[must_use]
    pub fn has(&self, split: Split) -> bool {
        self.concepts.iter().any(|concept| concept.split == split)
    }

    /// The index of a group, if the corpus has it.
    #[must_use]
    pub fn concept(&self, group: &str) -> Option<u32> {
        let found = self.concepts.binary_search_by(|concept| concept.group.as_str().cmp(group));
        found.ok().map(|index| index as u32)
    }

    /// The drawing style of a picture, where the dataset has a column `style`.
    #[must_use]
    pub fn style(&self, picture: usize) -> Option<&str> {
        self.pictures[picture].labels[self.label(STYLE)?].as_deref()
    }

    /// The drawing styles, in order.
    #[must_use]
    pub fn styles(&self) -> BTreeSet<&str> {
        (0..self.pictures.len()).filter_map(|picture| self.style(picture)).collect()
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
