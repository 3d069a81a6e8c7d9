//! Candidates: found, scored, reduced to hits, widened while too few are left.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Hit, LEAST_CANDIDATES, SearchQuery, SearchReply,
    terms::{Fused, Resolved, fuse},
};
use crate::{
    engine::{Engine, Nearest, Neighbour, Route, Scan},
    error::Result,
    kernel,
    topk::rank,
    types::{ItemId, Space},
};

/// Vectors asked for in one call.
const VECTORS_AT_ONCE: usize = 4096;
/// How far a score of rounding error may lie from the true one, per unit of weight.
const ROUNDING: f32 = 1e-5;

/// An item with its score.
#[derive(Debug, Clone)]
struct Candidate {
    id: ItemId,
    group: Option<Arc<str>>,
    score: f32,
}

/// The candidates of one round.
#[derive(Debug)]
struct Round {
    candidates: Vec<Candidate>,
    /// Every item that passes the filter is among them.
    complete: bool,
    /// No item beyond the candidates has a score above this.
    bound: f32,
    route: Route,
    /// The candidates are the first of one list, so what is beyond them comes after them.
    in_order: bool,
    generation: u64,
}

/// One search under way.
#[derive(Debug)]
pub(super) struct Run<'a> {
    engine: &'a dyn Engine,
    collection: &'a str,
    query: &'a SearchQuery,
    terms: &'a [Resolved],
    fused: Vec<Fused>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        engine: &'a dyn Engine,
        collection: &'a str,
        query: &'a SearchQuery,
        terms: &'a [Resolved],
    ) -> Self {
        Self { engine, collection, query, terms, fused: fuse(terms) }
    }

    /// Widens fourfold until there is one hit more than asked for (then more may follow), or
    /// nothing more can come. An exact search also goes on until no better hit is possible.
    pub(super) async fn until_enough(&mut self) -> Result<SearchReply> {
        let query = self.query;
        let seen = query.resume.as_ref().map_or(0, |resume| resume.seen);
        let first = query.k.saturating_mul(10).max(query.ef_search).max(LEAST_CANDIDATES);
        let mut width = first.saturating_add(seen);
        loop {
            let round = self.round(width).await?;
            let mut hits = self.reduce(&round.candidates);
            // Below the last hit kept, what lies beyond the candidates does not matter.
            let edge = hits.get(query.k - 1).map_or(f32::NEG_INFINITY, |hit| hit.score);
            let least = query.min_score.unwrap_or(f32::NEG_INFINITY).max(edge);
            let beyond_is_worse = round.in_order || round.bound < least;
            let proved = round.complete || (round.route == Route::Exact && beyond_is_worse);
            let hopeless = query.min_score.is_some_and(|least| round.bound < least);
            let enough = hits.len() > query.k || hopeless;
            if round.complete || (enough && (proved || !query.exact)) {
                let more = hits.len() > query.k;
                hits.truncate(query.k);
                return Ok(SearchReply {
                    hits,
                    generation: round.generation,
                    cut: !proved,
                    route: round.route,
                    candidates: round.candidates.len(),
                    more,
                });
            }
            width = width.saturating_mul(4);
        }
    }

    async fn round(&self, width: usize) -> Result<Round> {
        let sources = self.fused.iter().filter(|fused| fused.positive && fused.vector.is_some());
        let mut lists: Vec<(&Fused, Vec<Neighbour>)> = Vec::new();
        let mut round = Round {
            candidates: Vec::new(),
            complete: false,
            bound: self.fused.iter().filter(|f| f.vector.is_some()).map(|f| f.length).sum(),
            route: Route::Exact,
            in_order: false,
            generation: 0,
        };
        for fused in sources {
            let found = self.nearest(fused, width).await?;
            round.complete |= found.neighbours.len() < width;
            round.generation = found.generation;
            if found.route == Route::Graph {
                round.route = Route::Graph;
            }
            // In place of its whole length, a space adds at most what its last neighbour has.
            let last = found.neighbours.last().map_or(-1.0, |last| last.score);
            round.bound += fused.length * (last - 1.0);
            lists.push((fused, found.neighbours));
        }
        match lists.as_mut_slice() {
            [] => self.add_everything(&mut round).await?,
            // All terms lie in one space: the neighbours are the answer, in its order.
            [(fused, list)] if self.fused.len() == 1 && self.is_exactly_scored() => {
                round.in_order = true;
                let length = fused.length;
                let list = std::mem::take(list).into_iter().map(|near| Candidate {
                    id: near.id,
                    group: near.group,
                    score: near.score * length,
                });
                round.candidates.extend(list);
            }
            lists => {
                let union = lists.iter_mut().flat_map(|(_, list)| std::mem::take(list));
                self.add_scored(union.map(|near| (near.id, near.group)), &mut round).await?;
                round.bound += ROUNDING * self.fused.iter().map(|fused| fused.length).sum::<f32>();
            }
        }
        Ok(round)
    }

    fn is_exactly_scored(&self) -> bool {
        self.engine.capabilities().exact_scores
    }

    async fn nearest(&self, fused: &Fused, k: usize) -> Result<crate::engine::Neighbours> {
        let nearest = Nearest {
            modality: self.query.target,
            space: fused.space,
            vector: fused.vector.clone().unwrap_or_default(),
            filter: self.query.filter.clone(),
            k,
            ef_search: self.query.ef_search,
            exact: self.query.exact,
        };
        self.engine.nearest(self.collection, nearest).await
    }

    /// Positive terms that cancel out leave no direction to search in: every item is a candidate.
    async fn add_everything(&self, round: &mut Round) -> Result<()> {
        let mut scan = Scan {
            limit: VECTORS_AT_ONCE,
            modality: Some(self.query.target),
            filter: self.query.filter.clone(),
            ..Scan::default()
        };
        loop {
            let page = self.engine.scan(self.collection, scan.clone()).await?;
            let items = page.items.into_iter();
            let found = items.map(|item| (item.id, item.group.map(Arc::from)));
            self.add_scored(found, round).await?;
            round.generation = page.generation;
            scan.after = page.next;
            if scan.after.is_none() {
                round.complete = true;
                return Ok(());
            }
        }
    }

    /// Adds items once each, with their score over all spaces. An item that was deleted in the
    /// meantime is left out.
    async fn add_scored(
        &self,
        items: impl Iterator<Item = (ItemId, Option<Arc<str>>)>,
        round: &mut Round,
    ) -> Result<()> {
        let mut seen = HashSet::new();
        let items: Vec<_> = items.filter(|(id, _)| seen.insert(id.clone())).collect();
        for items in items.chunks(VECTORS_AT_ONCE) {
            let ids: Vec<ItemId> = items.iter().map(|(id, _)| id.clone()).collect();
            let mut scores = vec![Some(0.0_f32); ids.len()];
            for fused in &self.fused {
                let Some(query) = &fused.vector else { continue };
                let stored = self.vectors(&ids, fused.space).await?;
                for (score, vector) in scores.iter_mut().zip(stored) {
                    let term = vector.map(|vector| fused.length * kernel::dot(query, &vector));
                    *score = score.zip(term).map(|(sum, term)| sum + term);
                }
            }
            for ((id, group), score) in items.iter().zip(scores) {
                let Some(score) = score else { continue };
                round.candidates.push(Candidate { id: id.clone(), group: group.clone(), score });
            }
        }
        Ok(())
    }

    /// Unit vectors of the target's modality; `None` for what is gone or of another one by now.
    async fn vectors(&self, ids: &[ItemId], space: Space) -> Result<Vec<Option<Vec<f32>>>> {
        let found = self.engine.vectors(self.collection, ids, space).await?;
        let target = self.query.target;
        Ok(found
            .into_iter()
            .map(|found| found.filter(|found| found.modality == target).and_then(|f| f.vector))
            .collect())
    }

    /// Minimum score, best of each group, what comes after the page before; in order, one more
    /// than asked for.
    fn reduce(&self, candidates: &[Candidate]) -> Vec<Hit> {
        let query = self.query;
        let least = query.min_score.unwrap_or(f32::NEG_INFINITY);
        let mut kept: Vec<&Candidate> = candidates.iter().filter(|c| c.score >= least).collect();
        if query.one_per_group {
            kept = best_of_groups(kept);
        }
        if let Some(resume) = &query.resume {
            let last = (resume.score, &resume.id);
            kept.retain(|c| rank(last, (c.score, &c.id)).is_lt());
        }
        kept.sort_unstable_by(|a, b| rank((a.score, &a.id), (b.score, &b.id)));
        kept.truncate(query.k + 1);
        let hits = kept.into_iter().map(|candidate| Hit {
            id: candidate.id.clone(),
            group: candidate.group.clone(),
            score: candidate.score,
            term_scores: Vec::new(),
        });
        hits.collect()
    }

    /// Fills in the cosine with each term.
    pub(super) async fn add_term_scores(&self, hits: &mut Vec<Hit>) -> Result<()> {
        let ids: Vec<ItemId> = hits.iter().map(|hit| hit.id.clone()).collect();
        let mut stored = HashMap::new();
        for fused in &self.fused {
            stored.insert(fused.space, self.vectors(&ids, fused.space).await?);
        }
        for term in self.terms {
            let vectors = stored.get(&term.space).into_iter().flatten();
            for (hit, vector) in hits.iter_mut().zip(vectors) {
                let score = vector.as_ref().map(|vector| kernel::dot(&term.vector, vector));
                hit.term_scores.extend(score);
            }
        }
        // An item that went away since it was found has no vectors to tell about.
        hits.retain(|hit| hit.term_scores.len() == self.terms.len());
        Ok(())
    }
}

fn best_of_groups(candidates: Vec<&Candidate>) -> Vec<&Candidate> {
    let mut best: HashMap<&str, &Candidate> = HashMap::new();
    let mut kept = Vec::new();
    for candidate in candidates {
        let Some(group) = &candidate.group else {
            kept.push(candidate);
            continue;
        };
        best.entry(group)
            .and_modify(|best| {
                if rank((candidate.score, &candidate.id), (best.score, &best.id)).is_lt() {
                    *best = candidate;
                }
            })
            .or_insert(candidate);
    }
    kept.extend(best.into_values());
    kept
}
