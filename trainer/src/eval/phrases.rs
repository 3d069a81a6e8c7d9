//! Phrases as people say them, each with the concepts that would be a right answer.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoded::Side;
use super::matrix::Matrix;
use super::names::rank;
use super::{Phrases, Recall, Subject};
use crate::encode;
use crate::error::{Error, Result};

/// A phrase and the groups that would be a right answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phrase {
    /// What someone might type.
    pub phrase: String,
    /// Groups of the dataset, at least one.
    pub accept: Vec<String>,
}

/// Reads phrases, one JSON object a line; empty lines are skipped.
///
/// # Errors
/// Naming the line that is no such object.
pub fn read(path: &Path) -> Result<Vec<Phrase>> {
    let file = std::fs::File::open(path).map_err(|source| Error::io(path, source))?;
    let mut phrases = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(|source| Error::io(path, source))?;
        if line.trim().is_empty() {
            continue;
        }
        let phrase: Phrase = serde_json::from_str(&line)
            .map_err(|error| Error::data(path, format!("line {number}: {error}")))?;
        phrases.push(phrase);
    }
    Ok(phrases)
}

pub(super) fn evaluate(
    subject: &Subject<'_>,
    phrases: &[Phrase],
    pictures: &Side,
) -> Result<Phrases> {
    let texts: Vec<&str> = phrases.iter().map(|phrase| phrase.phrase.as_str()).collect();
    let vectors = encode::texts(subject.encoder, subject.preprocessing, &texts)?.shared;
    let vectors = Matrix::of(&vectors)?;
    let corpus = subject.corpus;
    let accepted: Vec<Vec<u32>> = phrases
        .iter()
        .map(|phrase| phrase.accept.iter().filter_map(|group| corpus.concept(group)).collect())
        .collect();
    let right: Vec<&[u32]> = accepted.iter().map(Vec::as_slice).collect();
    let ranks =
        rank(&vectors, (&pictures.shared, &pictures.concepts), corpus.concepts.len(), &right)?;
    // A phrase none of whose groups has a picture is a miss, not a gap.
    let ranks: Vec<f64> = ranks.into_iter().map(|rank| rank.unwrap_or(f64::INFINITY)).collect();
    let missed = (0..phrases.len()).filter(|at| ranks[*at] > 5.0);
    Ok(Phrases {
        missed: missed.map(|at| phrases[at].phrase.clone()).collect(),
        recall: Recall::of(ranks),
    })
}
