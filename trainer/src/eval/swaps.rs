//! Swaps: what is made of the shared code of one concept and the exclusive code of another.
//!
//! Its content should be the one's and its style the other's. Independent classifiers say so: small
//! networks on pixels or words, fitted on real items to train on, which know nothing of the model. What
//! they read of real items stands beside it. The shared code is that of the *other* side's item, as it
//! is in a search; the exclusive one is of the side that is made.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::SEED;
use super::items::{self, Item, Side, What};
use super::matrix::Matrix;
use super::probe::classifier::{self, Kind};
use super::probe::regressor;
use super::retrieval;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::generate::{Coded, Generator, normalised, visible};
use crate::objective::decoders::Writing;
use crate::shards::Split;

/// Most real items that a classifier is fitted on.
const FITTED: usize = 6_000;

/// Most swaps that are made of a side.
const SWAPS: usize = 2_000;

/// Columns that deviate less are not shown to classifiers: five levels of grey.
const LEAST: f32 = 0.02;

/// The swaps of one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Swaps {
    /// What was made: `image`, `text`, or `counterpart` for pictures that stand in place of texts.
    pub modality: String,
    /// How many were made.
    pub swaps: usize,
    /// The share of them whose own shared vector, once they are encoded, finds the concept of their shared
    /// code first among as many items of the other side.
    pub content_at_1: f64,
    /// What independent classifiers read, by factor.
    pub factors: Vec<Swapped>,
}

/// What an independent classifier reads of one factor: shares of right classes, or, of numbers, of the
/// variance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Swapped {
    /// A label column of the dataset, a factor that is a number, or `language`.
    pub factor: String,
    /// From real items: the most that can be expected.
    pub real: f64,
    /// From swaps, against the concept that gave the shared code.
    pub of_content: f64,
    /// From swaps, against the item that gave the exclusive code.
    pub of_style: f64,
}

/// Makes swaps of a split (all where it is `None`) on each side, and has them read.
///
/// # Errors
/// If an item cannot be read, encoded or decoded.
pub fn evaluate(generator: &Generator<'_>, split: Option<Split>) -> Result<Vec<Swaps>> {
    let corpus = &*generator.training().corpus;
    let asked = super::encoded::in_scope(corpus, split);
    let pairs = items::aligned(corpus, |concept| asked[concept], SWAPS, SEED);
    if pairs[0].len() < 2 {
        return Ok(Vec::new());
    }
    let sides = Side::both(corpus);
    let codes =
        [generator.code_items(sides[0], &pairs[0])?, generator.code_items(sides[1], &pairs[1])?];
    (0..2)
        .map(|own| {
            let swap = Swap { side: sides[own], items: &pairs[own] };
            swap.judged(generator, (&codes[1 - own], &codes[own]))
        })
        .collect()
}

/// The side that is made, and its real items.
struct Swap<'a> {
    side: Side,
    items: &'a [Item],
}

/// What classifiers see, and what is read by factor.
struct Seen<'a> {
    corpus: &'a Corpus,
    train: Vec<Item>,
    /// Of the items to fit on, of the real items, of the swaps.
    rows: [Matrix; 3],
}

impl Swap<'_> {
    /// Which item gives its exclusive code to each: the next one, so that none gives it to itself.
    fn givers(&self) -> Vec<usize> {
        (0..self.items.len()).map(|at| (at + 1) % self.items.len()).collect()
    }

    /// Makes the swaps of shared codes of the other side and own exclusive codes, and judges them.
    fn judged(&self, generator: &Generator<'_>, (other, own): (&Coded, &Coded)) -> Result<Swaps> {
        let corpus = &*generator.training().corpus;
        let givers = self.givers();
        let codes =
            Coded { shared: other.shared.clone(), exclusive: own.select(&givers)?.exclusive };
        let train = |concept: usize| corpus.concepts[concept].split == Split::Train;
        let train = items::thinned(items::all(corpus, self.side, train), FITTED, 1);
        let image = &generator.training().preprocessing.image;
        let counterparts = self.side == Side::Counterpart;
        let (rows, again) = if self.side == Side::Text {
            let decoders = generator.decoders()?;
            let made = decoders.texts(&codes.shared, &codes.exclusive, Writing::Greedy)?;
            let (Some(made), Some(vocabulary)) = (made, decoders.vocabulary()) else {
                return Ok(Swaps::default());
            };
            let seen = |texts: &[String]| items::words_seen(vocabulary, texts);
            let rows = [items::texts(&train), items::texts(self.items), made.clone()];
            // What was written may hold no word at all; a letter stands for it.
            let tokenizer = &generator.training().preprocessing.text;
            let readable = |text: String| match tokenizer.tokenize(&text, true) {
                Ok(_) => text,
                Err(_) => "a".to_owned(),
            };
            let readable: Vec<String> = made.into_iter().map(readable).collect();
            (rows.map(|texts| seen(&texts)), generator.code_texts(&readable)?)
        } else {
            let made = visible(&generator.pictures(&codes, counterparts)?, image)?;
            let pixels = normalised(&made, image)?;
            let again = match counterparts {
                true => generator.code_counterparts(&pixels)?,
                false => generator.code_pixels(&pixels)?,
            };
            let real = [items::pictures(corpus, &train)?, items::pictures(corpus, self.items)?];
            let [train, real] = real.map(|pictures| items::pixels_seen(&pictures));
            ([train, real, items::pixels_seen(&made)], again)
        };
        let unit = |codes: &Coded| -> Result<Matrix> {
            let mut rows = Matrix::of(&codes.shared)?;
            rows.normalise();
            Ok(rows)
        };
        let concepts: Vec<u32> = self.items.iter().map(|item| item.concept).collect();
        let found = retrieval::recall((&unit(&again)?, &concepts), (&unit(other)?, &concepts))?;
        let seen = Seen { corpus, train, rows: varying(rows) };
        Ok(Swaps {
            modality: self.side.as_str().to_owned(),
            swaps: self.items.len(),
            content_at_1: found.at_1,
            factors: seen.factors(self.items, &givers, self.side)?,
        })
    }
}

/// The columns that vary among the items to fit on. One that does not, such as a pixel that is always
/// black, tells nothing of real items, and the least of it in what is made would drown all else.
fn varying(rows: [Matrix; 3]) -> [Matrix; 3] {
    let moments = rows[0].moments();
    let kept: Vec<usize> = (0..moments.len()).filter(|at| moments[*at].1 > LEAST).collect();
    rows.map(|all| {
        let values = all.iter().flat_map(|row| kept.iter().map(|at| row[*at])).collect();
        Matrix::new(values, kept.len())
    })
}

impl Seen<'_> {
    /// Every factor that the items to fit on have two values of.
    fn factors(&self, items: &[Item], givers: &[usize], side: Side) -> Result<Vec<Swapped>> {
        let manifest = &self.corpus.manifest;
        let mut found = Vec::new();
        let kind = manifest.paired.as_ref().map(|paired| &paired.label);
        for (column, name) in manifest.labels.iter().enumerate() {
            if Some(name) != kind && !manifest.is_numeric(name) {
                let label = |item: &Item| item.label(self.corpus, column).map(str::to_owned);
                found.extend(self.class(name, label, (items, givers))?);
            }
        }
        if side == Side::Text {
            let language = |item: &Item| match &item.what {
                What::Text { language, .. } => Some(language.clone()),
                What::Picture(_) => None,
            };
            found.extend(self.class("language", language, (items, givers))?);
        }
        for (name, columns) in &manifest.numeric {
            let columns: Vec<usize> =
                columns.iter().filter_map(|column| self.corpus.label(column)).collect();
            found.extend(self.number(name, &columns, (items, givers))?);
        }
        Ok(found)
    }

    fn class(
        &self,
        name: &str,
        label: impl Fn(&Item) -> Option<String>,
        (items, givers): (&[Item], &[usize]),
    ) -> Result<Option<Swapped>> {
        let values: BTreeSet<String> = self.train.iter().filter_map(&label).collect();
        if values.len() < 2 {
            return Ok(None);
        }
        let classes: BTreeMap<String, u32> = values.into_iter().zip(0..).collect();
        let class = |item: &Item| label(item).and_then(|value| classes.get(&value).copied());
        let train: Vec<Option<u32>> = self.train.iter().map(class).collect();
        let own: Vec<Option<u32>> = items.iter().map(class).collect();
        let given: Vec<Option<u32>> = givers.iter().map(|at| own[*at]).collect();
        let known = |of: &[Option<u32>], rows: &Matrix| -> (Matrix, Vec<u32>) {
            let (at, classes): (Vec<usize>, Vec<u32>) =
                of.iter().enumerate().filter_map(|(at, class)| Some((at, (*class)?))).unzip();
            (rows.select(&at), classes)
        };
        let fitted = known(&train, &self.rows[0]);
        let read = |of: &[Option<u32>], rows: &Matrix| -> Result<f64> {
            let scored = known(of, rows);
            let fitted = classifier::Rows { inputs: &fitted.0, classes: &fitted.1 };
            let scored = classifier::Rows { inputs: &scored.0, classes: &scored.1 };
            classifier::accuracy(Kind::Mlp, fitted, scored, classes.len(), SEED)
        };
        Ok(Some(Swapped {
            factor: name.to_owned(),
            real: read(&own, &self.rows[1])?,
            of_content: read(&own, &self.rows[2])?,
            of_style: read(&given, &self.rows[2])?,
        }))
    }

    fn number(
        &self,
        name: &str,
        columns: &[usize],
        (items, givers): (&[Item], &[usize]),
    ) -> Result<Option<Swapped>> {
        let values = |items: &mut dyn Iterator<Item = &Item>| -> Option<Matrix> {
            let rows: Option<Vec<Vec<f32>>> =
                items.map(|item| item.numbers(self.corpus, columns)).collect();
            Some(Matrix::new(rows?.concat(), columns.len()))
        };
        let train = values(&mut self.train.iter());
        let (Some(train), Some(own)) = (train, values(&mut items.iter())) else {
            return Ok(None);
        };
        let given = own.select(givers);
        let read = |values: &Matrix, rows: &Matrix| {
            let fitted = regressor::Rows { inputs: &self.rows[0], values: &train };
            let scored = regressor::Rows { inputs: rows, values };
            regressor::determination(Kind::Mlp, fitted, scored, SEED)
        };
        Ok(Some(Swapped {
            factor: name.to_owned(),
            real: read(&own, &self.rows[1])?,
            of_content: read(&own, &self.rows[2])?,
            of_style: read(&given, &self.rows[2])?,
        }))
    }
}

#[cfg(test)]
mod tests;
