//! Names against pictures with one hit for each concept, as the server searches.

use std::collections::BTreeMap;

use super::encoded::{Encoded, Side};
use super::matrix::Matrix;
use super::recall::{self, Recall};
use super::retrieval::for_scores;
use crate::error::Result;

/// What is asked of what.
pub(super) struct Asked<'a> {
    pub(super) encoded: &'a Encoded,
    pub(super) names: &'a Side,
    pub(super) pictures: &'a Side,
    /// Concepts of the corpus.
    pub(super) concepts: usize,
}

impl Asked<'_> {
    /// Names of a language that training saw, or did not.
    fn of(&self, language: &str, seen: bool) -> Side {
        self.names.filter(|at| {
            let name = &self.encoded.texts[self.names.rows[at]];
            name.language == language && name.seen == seen
        })
    }

    /// Recall of the names that training saw against pictures, by language.
    pub(super) fn by_language(&self, pictures: &Side) -> Result<BTreeMap<String, Recall>> {
        let mut table = BTreeMap::new();
        for language in self.languages() {
            let ranks = self.ranks(&self.of(language, true), pictures)?;
            table.insert(language.to_owned(), Recall::of(ranks));
        }
        Ok(table)
    }

    /// Recall of the names that training did not see, all languages together.
    pub(super) fn withheld(&self) -> Result<Recall> {
        let unseen = self.names.filter(|at| !self.encoded.texts[self.names.rows[at]].seen);
        Ok(Recall::of(self.ranks(&unseen, self.pictures)?))
    }

    /// Recall of pictures against the names of one language, by language.
    pub(super) fn pictures_to_names(&self) -> Result<BTreeMap<String, Recall>> {
        let mut table = BTreeMap::new();
        for language in self.languages() {
            // A picture whose own name training did not see is asked for nowhere.
            let mut seen = vec![false; self.concepts];
            let own = self.of(language, true);
            own.concepts.iter().for_each(|concept| seen[*concept as usize] = true);
            let chosen = self.pictures.filter(|at| seen[self.pictures.concepts[at] as usize]);
            let all = self
                .names
                .filter(|at| self.encoded.texts[self.names.rows[at]].language == language);
            table.insert(language.to_owned(), Recall::of(self.ranks(&chosen, &all)?));
        }
        Ok(table)
    }

    /// The languages that the names are in.
    fn languages(&self) -> Vec<&str> {
        let mut languages: Vec<&str> =
            self.names.rows.iter().map(|row| &*self.encoded.texts[*row].language).collect();
        languages.sort_unstable();
        languages.dedup();
        languages
    }

    /// Ranks of the queries whose concept has a candidate.
    fn ranks(&self, queries: &Side, candidates: &Side) -> Result<Vec<f64>> {
        let right: Vec<&[u32]> = queries.concepts.iter().map(std::slice::from_ref).collect();
        let against = (&candidates.shared, &candidates.concepts[..]);
        let ranks = rank(&queries.shared, against, self.concepts, &right)?;
        Ok(ranks.into_iter().flatten().collect())
    }
}

/// Ranks of queries (Q, S) among candidates (C, S) of given concepts, see [`recall::group_ranks`].
pub(super) fn rank(
    queries: &Matrix,
    (candidates, concepts): (&Matrix, &[u32]),
    concept_count: usize,
    right: &[&[u32]],
) -> Result<Vec<Option<f64>>> {
    let mut ranks = Vec::with_capacity(right.len());
    if right.is_empty() || concepts.is_empty() {
        return Ok(vec![None; right.len()]);
    }
    for_scores(queries, candidates, |first, rows, scores| {
        let right = &right[first..first + rows];
        ranks.extend(recall::group_ranks(scores, concepts, concept_count, right));
    })?;
    Ok(ranks)
}
