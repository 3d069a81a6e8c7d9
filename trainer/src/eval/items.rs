//! Items of a dataset that something is made of, and what an independent classifier sees of such.

use std::collections::BTreeMap;

use image::RgbImage;
use image::imageops::{self, FilterType};
use rand::seq::{IndexedRandom, SliceRandom};

use crate::augment::generator;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::eval::SEED;
use crate::eval::matrix::Matrix;
use crate::objective::vocabulary::Vocabulary;

/// Keeps the draw of items apart from all others of the same seed.
const PURPOSE: u64 = 0x6974_656d;

/// Side of the pictures that classifiers see.
const SIDE: u32 = 16;

/// Words that classifiers see: the most frequent ones.
const WORDS: usize = 512;

/// One of the two sides of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Image,
    Text,
    /// Pictures that stand in place of texts.
    Counterpart,
}

impl Side {
    /// Both sides of a corpus.
    pub(crate) const fn both(corpus: &Corpus) -> [Self; 2] {
        [Self::Image, if corpus.pairs_pictures() { Self::Counterpart } else { Self::Text }]
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
            Self::Counterpart => "counterpart",
        }
    }
}

/// A picture or a text.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) concept: u32,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Its index in the corpus.
    Picture(usize),
    Text {
        text: String,
        language: String,
    },
}

/// All items of a side of the concepts for which `of` holds, in order.
pub(crate) fn all(corpus: &Corpus, side: Side, of: impl Fn(usize) -> bool) -> Vec<Item> {
    let concepts = (0_u32..).zip(&corpus.concepts).filter(|(at, _)| of(*at as usize));
    let picture = |concept: u32, at: &usize| Item { concept, what: What::Picture(*at) };
    let mut items = Vec::new();
    for (index, concept) in concepts {
        match side {
            Side::Image => items.extend(concept.pictures.iter().map(|at| picture(index, at))),
            Side::Counterpart => {
                items.extend(concept.counterparts.iter().map(|at| picture(index, at)));
            }
            Side::Text => {
                for (language, wordings) in &concept.wordings {
                    items.extend(wordings.names.iter().map(|text| Item {
                        concept: index,
                        what: What::Text { text: text.clone(), language: language.clone() },
                    }));
                }
            }
        }
    }
    items
}

/// Draws some items where there are too many.
pub(crate) fn thinned(mut items: Vec<Item>, most: usize, number: u64) -> Vec<Item> {
    if items.len() > most {
        items.shuffle(&mut generator(SEED, &[PURPOSE, number]));
        items.truncate(most);
    }
    items
}

/// One drawn item of each side for each of at most `most` concepts that have both, in the same order.
pub(crate) fn aligned(
    corpus: &Corpus,
    of: impl Fn(usize) -> bool,
    most: usize,
    seed: u64,
) -> [Vec<Item>; 2] {
    let mut rng = generator(seed, &[PURPOSE, u64::MAX]);
    let mut by_side = Side::both(corpus).map(|side| {
        let mut by_concept = BTreeMap::<u32, Vec<Item>>::new();
        for item in all(corpus, side, &of) {
            by_concept.entry(item.concept).or_default().push(item);
        }
        by_concept
    });
    let [images, others] = &mut by_side;
    images.retain(|concept, _| others.contains_key(concept));
    let mut concepts: Vec<u32> = images.keys().copied().collect();
    concepts.shuffle(&mut rng);
    concepts.truncate(most);
    by_side.map(|side| {
        let drawn = concepts.iter().filter_map(|concept| side[concept].choose(&mut rng).cloned());
        drawn.collect()
    })
}

impl Item {
    /// Its value in a label column; of a text what the concept's pictures agree in.
    pub(crate) fn label<'a>(&'a self, corpus: &'a Corpus, column: usize) -> Option<&'a str> {
        match &self.what {
            What::Picture(at) => corpus.pictures[*at].labels[column].as_deref(),
            What::Text { .. } => corpus.concept_label(self.concept, column),
        }
    }

    /// The coordinates of a factor that is a number; of a picture alone.
    pub(crate) fn numbers(&self, corpus: &Corpus, columns: &[usize]) -> Option<Vec<f32>> {
        let What::Picture(at) = &self.what else { return None };
        let labels = &corpus.pictures[*at].labels;
        columns.iter().map(|column| labels[*column].as_deref()?.parse().ok()).collect()
    }
}

/// What a classifier sees of some pictures: few pixels, and mean, deviation, least and largest value of each
/// colour.
pub(crate) fn pixels_seen(pictures: &[RgbImage]) -> Matrix {
    let mut values = Vec::new();
    for picture in pictures {
        let small = imageops::resize(picture, SIDE, SIDE, FilterType::Triangle);
        values.extend(small.as_raw().iter().map(|value| f32::from(*value) / 255.0));
        for colour in 0..3 {
            let all: Vec<f32> =
                picture.pixels().map(|pixel| f32::from(pixel.0[colour]) / 255.0).collect();
            let count = all.len().max(1) as f32;
            let mean = all.iter().sum::<f32>() / count;
            let spread = all.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
            let least = all.iter().copied().fold(f32::INFINITY, f32::min);
            let most = all.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            values.extend([mean, spread.sqrt(), least, most]);
        }
    }
    Matrix::new(values, (3 * SIDE * SIDE + 12) as usize)
}

/// What a classifier sees of some texts: which of the frequent words are in them.
pub(crate) fn words_seen(vocabulary: &Vocabulary, texts: &[String]) -> Matrix {
    let width = vocabulary.len().min(WORDS);
    let mut seen = Matrix::zeros(texts.len(), width);
    for (row, text) in texts.iter().enumerate() {
        for id in vocabulary.ids(text, usize::MAX) {
            if (id as usize) < width {
                seen.values_mut()[row * width + id as usize] = 1.0;
            }
        }
    }
    seen
}

/// The pictures among some items, as the tower reads them before they are normalised.
pub(crate) fn pictures(corpus: &Corpus, items: &[Item]) -> Result<Vec<RgbImage>> {
    let of = |item: &Item| match &item.what {
        What::Picture(at) => Some(corpus.decoded(*at).map(|decoded| decoded.plain.clone())),
        What::Text { .. } => None,
    };
    items.iter().filter_map(of).collect()
}

/// The texts among some items.
pub(crate) fn texts(items: &[Item]) -> Vec<String> {
    let of = |item: &Item| match &item.what {
        What::Text { text, .. } => Some(text.clone()),
        What::Picture(_) => None,
    };
    items.iter().filter_map(of).collect()
}
