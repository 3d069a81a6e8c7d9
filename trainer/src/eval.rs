//! Figures of a model: the same code for every objective, for checkpoints and bundles.
//!
//! | module | what |
//! |---|---|
//! | [`encoded`] | the vectors that all figures are computed from |
//! | [`recall`], [`retrieval`] | ranks and recall, both ways, by language; modality gap |
//! | [`phrases`], `names`, `unseen` | tables with one hit for each concept, as the server searches |
//! | [`probe`] | what small classifiers read from shared and from exclusive vectors |
//! | [`swaps`] | what is made of one item's shared and another's exclusive code |
//! | [`exclusive`] | retrieval by exclusive vectors, as they are and mapped |
//! | [`calibration`] | scores to probabilities |
//! | [`tables`] | all of it, for people and for programs |
//! | [`html`] | all of it as a page with pictures |
//! | [`seeds`] | several runs, with mean and standard deviation |
//! | [`cli`] | the command line |

pub mod calibration;
pub mod cli;
pub mod division;
pub mod encoded;
pub mod exclusive;
pub mod html;
pub(crate) mod items;
pub mod matrix;
mod names;
pub mod phrases;
pub mod probe;
pub mod recall;
pub mod retrieval;
pub mod ridge;
pub mod seeds;
mod subject;
pub mod swaps;
pub mod tables;
#[cfg(test)]
mod tests;
mod unseen;

use std::path::PathBuf;

pub use encoded::{Encoded, Scope, Side};
pub use phrases::Phrase;
pub use recall::Recall;
pub use subject::{Opened, Subject};
pub use tables::{Phrases, Tables};

use crate::corpus::Withheld;
use crate::error::{Error, Result};
use crate::shards::Split;
use division::Division;
use names::Asked;

/// The seed of all draws of an evaluation, so that two models are asked the same.
pub(crate) const SEED: u64 = 20_261_125;

/// What to ask of a model.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Which concepts to ask about.
    pub scope: Scope,
    /// The names that training did not see. They are asked for apart from the others.
    pub withheld: Withheld,
    /// Phrases with the groups that each accepts.
    pub phrases: Vec<Phrase>,
    /// A folder of pictures in a style that training never saw, named by group.
    pub unseen_style: Option<PathBuf>,
    /// Whether to go through styles, and from pictures to texts, too.
    pub in_full: bool,
    /// Whether to ask what leaks: probes, and retrieval by exclusive vectors.
    pub leaks: bool,
    /// Whether to calibrate scores.
    pub calibration: bool,
}

impl Questions {
    /// The few that are worth asking while training runs.
    #[must_use]
    pub fn quick(withheld: &Withheld) -> Self {
        Self { scope: Scope::Watch, withheld: withheld.clone(), ..Self::default() }
    }

    /// All that need no file beside the data.
    #[must_use]
    pub fn all(withheld: &Withheld) -> Self {
        Self {
            scope: Scope::Report,
            withheld: withheld.clone(),
            in_full: true,
            leaks: true,
            calibration: true,
            ..Self::default()
        }
    }
}

/// Evaluates a model.
///
/// # Errors
/// If a picture or a text cannot be encoded, or a file of the questions not be read.
pub fn evaluate(subject: &Subject<'_>, questions: &Questions) -> Result<Tables> {
    Ok(examine(subject, questions)?.0)
}

/// Evaluates a model, and gives the vectors that the figures are of.
///
/// # Errors
/// As [`evaluate`].
pub fn examine(subject: &Subject<'_>, questions: &Questions) -> Result<(Tables, Encoded)> {
    let corpus = subject.corpus;
    let split = questions.scope.split(corpus);
    let asked = encoded::in_scope(corpus, split);
    if !asked.contains(&true) {
        let message = "the dataset has nothing in it; `all` asks about all that it has";
        return Err(Error::setting("split", message));
    }
    let mut wanted = asked.clone();
    if questions.leaks || questions.calibration {
        encoded::add_some_of_each_split(corpus, &mut wanted, SEED);
    }
    if !questions.phrases.is_empty() {
        // A phrase may ask for any of them.
        wanted.fill(true);
    }
    let encoded = Encoded::new(subject, &questions.withheld, &wanted)?;
    Ok((of_encoded(subject, questions, &encoded)?, encoded))
}

/// The tables of vectors that are there: of all concepts that `questions` ask about, and of some of each
/// split for leaks and calibration.
///
/// # Errors
/// As [`evaluate`].
pub(crate) fn of_encoded(
    subject: &Subject<'_>,
    questions: &Questions,
    encoded: &Encoded,
) -> Result<Tables> {
    let corpus = subject.corpus;
    let split = questions.scope.split(corpus);
    let asked = encoded::in_scope(corpus, split);
    let (pictures, names) = encoded.of_concepts(|concept| asked[concept as usize]);
    let about =
        Asked { encoded, names: &names, pictures: &pictures, concepts: corpus.concepts.len() };
    let mut tables = of_names(subject, questions, &about)?;
    tables.split = split.map_or("all", Split::as_str).to_owned();
    if questions.in_full {
        tables.retrieval = Some(retrieval::evaluate(encoded, &pictures, &names)?);
        tables.modality_gap = Some(retrieval::modality_gap(&pictures.shared, &names.shared));
    }
    if questions.leaks {
        let division = Division::of(corpus, split);
        tables.probes = probe::read(corpus, encoded, &division, &asked)?;
        tables.numbers = probe::read_numbers(corpus, encoded, &division)?;
        tables.exclusive_retrieval = exclusive::evaluate(encoded, &division)?;
    }
    if questions.calibration {
        tables.calibration = calibration::evaluate(corpus, encoded, split)?;
    }
    Ok(tables)
}

/// The tables with one hit for each concept.
fn of_names(subject: &Subject<'_>, questions: &Questions, about: &Asked<'_>) -> Result<Tables> {
    let (corpus, pictures) = (subject.corpus, about.pictures);
    let mut tables = Tables { text_to_picture: about.by_language(pictures)?, ..Tables::default() };
    if !questions.withheld.is_empty() {
        tables.withheld_names = Some(about.withheld()?);
    }
    if questions.in_full {
        for style in corpus.styles() {
            let drawn = pictures.filter(|at| corpus.style(pictures.rows[at]) == Some(style));
            let table = about.by_language(&drawn)?;
            tables.text_to_picture_by_style.insert(style.to_owned(), table);
        }
        tables.picture_to_text = about.pictures_to_names()?;
    }
    if !questions.phrases.is_empty() {
        let found = phrases::evaluate(subject, &questions.phrases, &about.encoded.pictures)?;
        tables.phrases = Some(found);
    }
    if let Some(folder) = &questions.unseen_style {
        tables.unseen_style = about.by_language(&unseen::encode(subject, folder)?)?;
    }
    Ok(tables)
}

/// The six recalls in percent, added, between the pictures and the names of the dev split: 0 to 600.
/// Cheap enough to ask while training runs, and what to stop by.
///
/// # Errors
/// If the dataset has no dev split, or something in it cannot be encoded.
pub fn dev_rsum(subject: &Subject<'_>) -> Result<f64> {
    let wanted = encoded::in_scope(subject.corpus, Some(Split::Dev));
    if !wanted.contains(&true) {
        let message = "the dataset has no dev split to measure on; prepare it with one";
        return Err(Error::setting("split", message));
    }
    let encoded = Encoded::new(subject, &Withheld::new(), &wanted)?;
    Ok(retrieval::directions(&encoded.names, &encoded.pictures)?.rsum)
}
