//! What a probe is asked to read: rows to fit on, rows to score, and their classes.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::{IndexedRandom, SliceRandom};

use crate::augment::generator;
use crate::corpus::Corpus;
use crate::eval::SEED;
use crate::eval::division::{Division, Rule};
use crate::eval::encoded::{Encoded, Side};
use crate::eval::matrix::Matrix;

/// Most rows that a probe is fitted on, and most that it is scored on.
const ROWS: usize = 5_000;

/// Most concepts that are told apart: a probe with an output for each of thousands takes long and
/// says no more.
const CONCEPTS: usize = 256;

/// The word for the factor that is the concept itself.
pub(super) const CONCEPT: &str = "concept";

/// The word for the factor that is the language of a name.
pub(super) const LANGUAGE: &str = "language";

/// Rows of a side by what a probe is to read from them.
pub(super) struct Factor {
    pub(super) name: String,
    pub(super) rule: Rule,
    pub(super) fitted: Vec<usize>,
    pub(super) scored: Vec<usize>,
    /// The class of each row of the side, below `count`; meaningless for rows in neither list.
    pub(super) classes: Vec<u32>,
    pub(super) count: usize,
}

/// A row as factors see it.
struct Row<'a> {
    concept: u32,
    /// The style of a picture, the language of a name.
    variant: Option<&'a str>,
}

/// The factors of pictures: each label column, and the concept.
pub(super) fn of_pictures(
    corpus: &Corpus,
    pictures: &Side,
    division: &Division,
    asked: &[bool],
) -> Vec<Factor> {
    let common = drawn_in_all_styles(corpus);
    let rows: Vec<Row<'_>> = (0..pictures.len())
        .map(|at| Row { concept: pictures.concepts[at], variant: corpus.style(pictures.rows[at]) })
        .collect();
    let mut factors = Vec::new();
    for (column, name) in classes(corpus) {
        let label = |at: usize| corpus.pictures[pictures.rows[at]].labels[column].as_deref();
        factors.extend(divided(name, &rows, label, (division, &common)));
    }
    factors.extend(left_out(&rows, &common, asked));
    factors
}

/// The factors of names: each label column that a concept's pictures agree in, language, concept. Of
/// pictures that stand in place of names their own labels.
pub(super) fn of_names(
    corpus: &Corpus,
    encoded: &Encoded,
    division: &Division,
    asked: &[bool],
) -> Vec<Factor> {
    let common = drawn_in_all_styles(corpus);
    let names = &encoded.names;
    let language = |at: usize| Some(encoded.texts[names.rows[at]].language.as_str());
    let rows: Vec<Row<'_>> = (0..names.len())
        .map(|at| Row { concept: names.concepts[at], variant: language(at) })
        .collect();
    let mut factors = Vec::new();
    for (column, name) in classes(corpus) {
        let picture = |at: usize| encoded.texts[names.rows[at]].picture;
        if corpus.pairs_pictures() {
            let label = |at: usize| corpus.pictures[picture(at)?].labels[column].as_deref();
            factors.extend(divided(name, &rows, label, (division, &common)));
            continue;
        }
        let labels: BTreeMap<u32, Option<&str>> = names
            .concepts
            .iter()
            .map(|concept| (*concept, corpus.concept_label(*concept, column)))
            .collect();
        factors.extend(divided(name, &rows, |at| labels[&rows[at].concept], (division, &common)));
    }
    factors.extend(divided(LANGUAGE, &rows, language, (division, &common)));
    factors.extend(left_out(&rows, &common, asked));
    factors
}

/// The label columns that hold classes, but for the one that tells the two pictures of a pair apart.
fn classes(corpus: &Corpus) -> impl Iterator<Item = (usize, &str)> {
    let manifest = &corpus.manifest;
    let kind = manifest.paired.as_ref().map(|paired| paired.label.as_str());
    let columns = manifest.labels.iter().map(String::as_str).enumerate();
    columns.filter(move |(_, name)| Some(*name) != kind && !manifest.is_numeric(name))
}

/// Rows of a side by a number that is to be read from them.
pub(super) struct NumberFactor {
    pub(super) name: String,
    pub(super) rule: Rule,
    pub(super) fitted: Vec<usize>,
    pub(super) scored: Vec<usize>,
    /// The coordinates of each row of the side; zeros for rows in neither list.
    pub(super) values: Matrix,
}

/// The factors of pictures that are numbers. `pictures` has that of each row of the side.
pub(super) fn numbers(
    corpus: &Corpus,
    pictures: &[usize],
    side: &Side,
    division: &Division,
) -> Vec<NumberFactor> {
    let mut factors = Vec::new();
    for (name, columns) in &corpus.manifest.numeric {
        let columns: Vec<usize> = columns.iter().filter_map(|name| corpus.label(name)).collect();
        let number = |at: usize, column: &usize| -> Option<f32> {
            let value = corpus.pictures[pictures[at]].labels[*column].as_deref()?.parse().ok()?;
            f32::is_finite(value).then_some(value)
        };
        let row = |at: usize| -> Option<Vec<f32>> {
            columns.iter().map(|column| number(at, column)).collect()
        };
        let rows: Vec<Option<Vec<f32>>> = (0..pictures.len()).map(row).collect();
        let of = |concepts: &[bool], number: u64| -> Vec<usize> {
            let usable = |at: &usize| concepts[side.concepts[*at] as usize] && rows[*at].is_some();
            let mut of: Vec<usize> = (0..rows.len()).filter(usable).collect();
            thin(&mut of, number);
            of
        };
        let (fitted, scored) = (of(&division.fitted, 1), of(&division.scored, 2));
        let width = columns.len();
        let values = rows.iter().flat_map(|row| row.clone().unwrap_or_else(|| vec![0.0; width]));
        let values = Matrix::new(values.collect(), width);
        let (name, rule) = (name.clone(), division.rule);
        if !fitted.is_empty() && !scored.is_empty() && width > 0 {
            factors.push(NumberFactor { name, rule, fitted, scored, values });
        }
    }
    factors
}

/// For each concept whether it has a picture in every style; all where there are no styles, or none
/// has.
///
/// Else a style could be told from what is drawn: flags are mostly of one style.
fn drawn_in_all_styles(corpus: &Corpus) -> Vec<bool> {
    let styles = corpus.styles();
    let complete = |concept: &crate::corpus::Concept| {
        let own: BTreeSet<&str> =
            concept.pictures.iter().filter_map(|at| corpus.style(*at)).collect();
        own.len() == styles.len()
    };
    let common: Vec<bool> = corpus.concepts.iter().map(complete).collect();
    if common.contains(&true) { common } else { vec![true; common.len()] }
}

/// A factor fitted on some concepts and scored on others; `None` where there is nothing to tell apart.
fn divided<'a>(
    name: &str,
    rows: &[Row<'_>],
    label: impl Fn(usize) -> Option<&'a str>,
    (division, common): (&Division, &[bool]),
) -> Option<Factor> {
    let of = |concepts: &[bool]| -> Vec<usize> {
        let usable = |at: &usize| {
            let concept = rows[*at].concept as usize;
            concepts[concept] && common[concept] && label(*at).is_some()
        };
        (0..rows.len()).filter(usable).collect()
    };
    let (mut fitted, mut scored) = (of(&division.fitted), of(&division.scored));
    let values: BTreeSet<&str> = fitted.iter().filter_map(|at| label(*at)).collect();
    let index: BTreeMap<&str, u32> = values.into_iter().zip(0..).collect();
    let class = |at: usize| label(at).and_then(|value| index.get(value).copied());
    // What the fitted rows do not show cannot be read.
    scored.retain(|at| class(*at).is_some());
    thin(&mut fitted, 1);
    thin(&mut scored, 2);
    let classes = (0..rows.len()).map(|at| class(at).unwrap_or(0)).collect();
    let (name, rule, count) = (name.to_owned(), division.rule, index.len());
    (count > 1 && !scored.is_empty()).then_some(Factor {
        name,
        rule,
        fitted,
        scored,
        classes,
        count,
    })
}

/// The concept itself: of each, one style or language (or else one row) is left out and scored.
fn left_out(rows: &[Row<'_>], common: &[bool], asked: &[bool]) -> Option<Factor> {
    let mut by_concept = BTreeMap::<u32, Vec<usize>>::new();
    for (at, row) in rows.iter().enumerate() {
        if common[row.concept as usize] && asked[row.concept as usize] {
            by_concept.entry(row.concept).or_default().push(at);
        }
    }
    let mut concepts: Vec<(u32, Vec<usize>)> =
        by_concept.into_iter().filter(|(_, own)| own.len() > 1).collect();
    let mut rng = generator(SEED, &[3]);
    concepts.shuffle(&mut rng);
    concepts.truncate(CONCEPTS);
    let (mut fitted, mut scored) = (Vec::new(), Vec::new());
    let mut classes = vec![0; rows.len()];
    for (class, (_, own)) in (0_u32..).zip(&concepts) {
        let variants: BTreeSet<&str> = own.iter().filter_map(|at| rows[*at].variant).collect();
        let variants: Vec<&str> = variants.into_iter().collect();
        let row = own.choose(&mut rng).copied();
        let variant = variants.choose(&mut rng).copied().filter(|_| variants.len() > 1);
        for at in own {
            classes[*at] = class;
            let out = match variant {
                Some(variant) => rows[*at].variant == Some(variant),
                None => Some(*at) == row,
            };
            if out { scored.push(*at) } else { fitted.push(*at) }
        }
    }
    let (name, rule, count) = (CONCEPT.to_owned(), Rule::LeftOut, concepts.len());
    (count > 1).then_some(Factor { name, rule, fitted, scored, classes, count })
}

/// Draws some rows where there are too many.
fn thin(rows: &mut Vec<usize>, number: u64) {
    if rows.len() > ROWS {
        rows.shuffle(&mut generator(SEED, &[number]));
        rows.truncate(ROWS);
        rows.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLES: [&str; 3] = ["a", "b", "c"];

    fn rows() -> Vec<Row<'static>> {
        let row = |at: usize| Row { concept: at as u32 / 3, variant: Some(STYLES[at % 3]) };
        (0..60).map(row).collect()
    }

    #[test]
    fn concepts_of_fitted_and_scored_rows_do_not_meet() {
        let rows = rows();
        let division = Division::drawn(&[true; 20], 0.2, 0);
        let label = |at: usize| rows[at].variant;
        let found = divided("style", &rows, label, (&division, &[true; 20])).unwrap();
        assert_eq!((found.fitted.len(), found.scored.len(), found.count), (48, 12, 3));
        let concepts =
            |of: &[usize]| -> BTreeSet<u32> { of.iter().map(|at| rows[*at].concept).collect() };
        assert!(concepts(&found.fitted).is_disjoint(&concepts(&found.scored)));
        // One value alone is nothing to read.
        assert!(divided("one", &rows, |_| Some("x"), (&division, &[true; 20])).is_none());
    }

    #[test]
    fn of_each_concept_one_style_is_scored_and_the_others_are_fitted_on() {
        let rows = rows();
        let mut asked = [true; 20];
        asked[7] = false;
        let found = left_out(&rows, &[true; 20], &asked).unwrap();
        assert_eq!((found.fitted.len(), found.scored.len(), found.count), (38, 19, 19));
        let scored: BTreeSet<u32> = found.scored.iter().map(|at| found.classes[*at]).collect();
        assert_eq!(scored.len(), 19);
        assert!(found.scored.iter().all(|at| rows[*at].concept != 7));
        assert!(found.scored.iter().all(|at| !found.fitted.contains(at)));
    }
}
