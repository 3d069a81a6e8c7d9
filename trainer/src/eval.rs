//! Retrieval figures of a model: the same code for every objective, for checkpoints and bundles.

pub mod phrases;
pub mod recall;
mod subject;
pub mod tables;
mod unseen;

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Tensor;

pub use phrases::Phrase;
pub use recall::Recall;
pub use subject::{Opened, Subject};
pub use tables::{Phrases, Tables};

use crate::corpus::Withheld;
use crate::encode;
use crate::error::Result;

/// Queries scored at a time: bounds the score matrix.
const QUERIES: usize = 512;

/// What to ask of a model.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// The names that training did not see. They are asked for apart from the others.
    pub withheld: Withheld,
    /// Phrases with the groups that each accepts.
    pub phrases: Vec<Phrase>,
    /// A folder of pictures in a style that training never saw, named by group.
    pub unseen_style: Option<PathBuf>,
    /// Whether to go through styles, and from pictures to texts, too.
    pub in_full: bool,
}

impl Questions {
    /// The few that are worth asking while training runs.
    #[must_use]
    pub fn quick(withheld: &Withheld) -> Self {
        Self { withheld: withheld.clone(), ..Self::default() }
    }
}

/// Queries or candidates: rows of unit vectors, each of a concept.
struct Rows {
    vectors: Tensor,
    concepts: Vec<u32>,
}

/// All names of one language: vectors, concepts, and whether training saw each.
struct Names {
    rows: Rows,
    seen: Vec<bool>,
}

/// Evaluates a model.
///
/// # Errors
/// If a picture or a text cannot be encoded, or a file of the questions not be read.
pub fn evaluate(subject: &Subject<'_>, questions: &Questions) -> Result<Tables> {
    let corpus = subject.corpus;
    let pictures = Rows {
        vectors: encode::pictures(subject.encoder, corpus, subject.image_size)?.shared,
        concepts: corpus.pictures.iter().map(|picture| picture.concept).collect(),
    };
    let names = names_by_language(subject, &questions.withheld)?;
    let mut tables = Tables {
        text_to_picture: by_language(subject, &names, &pictures, true)?,
        ..Tables::default()
    };
    if !questions.withheld.is_empty() {
        tables.withheld_names = Some(withheld_recall(subject, &names, &pictures)?);
    }
    if questions.in_full {
        for style in corpus.styles() {
            let of_style = |at: &usize| corpus.style(*at) == Some(style);
            let chosen: Vec<usize> = (0..corpus.pictures.len()).filter(of_style).collect();
            let table = by_language(subject, &names, &pictures.select(&chosen)?, true)?;
            tables.text_to_picture_by_style.insert(style.to_owned(), table);
        }
        tables.picture_to_text = pictures_to_names(subject, &pictures, &names)?;
    }
    if !questions.phrases.is_empty() {
        let found = phrases::evaluate(subject, questions, (&pictures.vectors, &pictures.concepts))?;
        tables.phrases = Some(found);
    }
    if let Some(folder) = &questions.unseen_style {
        let (vectors, concepts) = unseen::encode(subject, folder)?;
        tables.unseen_style = by_language(subject, &names, &Rows { vectors, concepts }, true)?;
    }
    Ok(tables)
}

/// The rsum.
///
/// # Errors
/// No.
pub fn dev_rsum(subject: &Subject<'_>) -> Result<f64> {
    let tables = evaluate(subject, &Questions::default())?;
    Ok(tables.mean_at_5())
}

/// Recall of the names that training saw (or of those it did not) against pictures.
fn by_language(
    subject: &Subject<'_>,
    names: &BTreeMap<String, Names>,
    pictures: &Rows,
    seen: bool,
) -> Result<BTreeMap<String, Recall>> {
    let mut table = BTreeMap::new();
    for (language, names) in names {
        let ranks = ranks_of(subject, &names.chosen(seen)?, pictures)?;
        table.insert(language.clone(), Recall::of(ranks));
    }
    Ok(table)
}

fn withheld_recall(
    subject: &Subject<'_>,
    names: &BTreeMap<String, Names>,
    pictures: &Rows,
) -> Result<Recall> {
    let mut ranks = Vec::new();
    for names in names.values() {
        let unseen = names.chosen(false)?;
        if !unseen.concepts.is_empty() {
            ranks.extend(ranks_of(subject, &unseen, pictures)?);
        }
    }
    Ok(Recall::of(ranks))
}

fn pictures_to_names(
    subject: &Subject<'_>,
    pictures: &Rows,
    names: &BTreeMap<String, Names>,
) -> Result<BTreeMap<String, Recall>> {
    let mut table = BTreeMap::new();
    for (language, names) in names {
        // A picture whose own name training did not see is asked for nowhere.
        let seen = |concept: u32| {
            names.rows.concepts.iter().zip(&names.seen).any(|(own, seen)| *own == concept && *seen)
        };
        let chosen: Vec<usize> =
            (0..pictures.concepts.len()).filter(|at| seen(pictures.concepts[*at])).collect();
        let ranks = ranks_of(subject, &pictures.select(&chosen)?, &names.rows)?;
        table.insert(language.clone(), Recall::of(ranks));
    }
    Ok(table)
}

fn names_by_language(
    subject: &Subject<'_>,
    withheld: &Withheld,
) -> Result<BTreeMap<String, Names>> {
    let mut table = BTreeMap::new();
    for language in subject.corpus.languages() {
        let mut texts = Vec::new();
        let mut concepts = Vec::new();
        let mut seen = Vec::new();
        for (index, concept) in (0_u32..).zip(&subject.corpus.concepts) {
            let names = concept.wordings.get(language).map_or(&[][..], |w| &w.names);
            for name in names {
                texts.push(name.as_str());
                concepts.push(index);
                seen.push(withheld.get(&index).is_none_or(|hidden| hidden != language));
            }
        }
        if !texts.is_empty() {
            let vectors = encode::texts(subject.encoder, subject.preprocessing, &texts)?.shared;
            let rows = Rows { vectors, concepts };
            table.insert(language.to_owned(), Names { rows, seen });
        }
    }
    Ok(table)
}

/// Ranks of the queries whose concept has a candidate.
fn ranks_of(subject: &Subject<'_>, queries: &Rows, candidates: &Rows) -> Result<Vec<f64>> {
    let right: Vec<&[u32]> = queries.concepts.iter().map(std::slice::from_ref).collect();
    let against = (&candidates.vectors, &candidates.concepts[..]);
    let ranks = rank(&queries.vectors, against, subject.corpus.concepts.len(), &right)?;
    Ok(ranks.into_iter().flatten().collect())
}

/// Ranks of queries (Q, S) among candidates (C, S) of given concepts, see [`recall::group_ranks`].
fn rank(
    queries: &Tensor,
    (candidates, concepts): (&Tensor, &[u32]),
    concept_count: usize,
    right: &[&[u32]],
) -> Result<Vec<Option<f64>>> {
    let mut ranks = Vec::with_capacity(right.len());
    if right.is_empty() || concepts.is_empty() {
        return Ok(vec![None; right.len()]);
    }
    let candidates = candidates.t()?.contiguous()?;
    for (at, right) in right.chunks(QUERIES).enumerate() {
        let queries = queries.narrow(0, at * QUERIES, right.len())?.contiguous()?;
        let scores = queries.matmul(&candidates)?.flatten_all()?.to_vec1::<f32>()?;
        ranks.extend(recall::group_ranks(&scores, concepts, concept_count, right));
    }
    Ok(ranks)
}

impl Rows {
    fn select(&self, chosen: &[usize]) -> Result<Self> {
        let rows: Vec<u32> = chosen.iter().map(|at| *at as u32).collect();
        let rows = Tensor::new(rows, self.vectors.device())?;
        Ok(Self {
            vectors: self.vectors.index_select(&rows, 0)?,
            concepts: chosen.iter().map(|at| self.concepts[*at]).collect(),
        })
    }
}

impl Names {
    fn chosen(&self, seen: bool) -> Result<Rows> {
        let all = self.seen.iter().enumerate();
        let chosen: Vec<usize> = all.filter(|(_, is)| **is == seen).map(|(at, _)| at).collect();
        self.rows.select(&chosen)
    }
}
