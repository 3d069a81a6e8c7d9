//! Candidates: found, scored, reduced to hits, widened while too few are left.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Hit, LEAST_CANDIDATES, SearchQuery, SearchReply,
    terms::{Fused, Resolved, fuse, stored},
};
use crate::{
    engine::{Engine, Nearest, Neighbour, Route, Scan, Sum, SumPart},
    error::Result,
    kernel,
    topk::rank,
    types::{ItemId, Space},
};

/// Vectors asked for in one call.
const VECTORS_AT_ONCE: usize = 4096;
/// How many times as wide as at first a query in several spaces is searched for more than it needs.
const WIDEST: usize = 16;
/// How many candidates of one list there are at least beside the hits.
const BESIDE: usize = 8;
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
    /// No item beyond the candidates has a score above this, if what spaces add that were not
    /// searched is no more for it than for any candidate.
    likely_bound: f32,
    route: Route,
    /// The candidates are the first of one list, so what is beyond them comes after them.
    in_order: bool,
    generation: u64,
    visited: u64,
    /// The most that spaces that were not searched add to a candidate's score.
    most_beside: f32,
}

/// One search under way.
#[derive(Debug)]
pub(super) struct Run<'a> {
    engine: &'a dyn Engine,
    collection: &'a str,
    query: &'a SearchQuery,
    terms: &'a [Resolved],
    fused: Vec<Fused>,
    way: Way,
}

/// How a query in several spaces finds its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the nearest of each space, as long as that is enough.
    Lists,
    /// By the sum over all spaces.
    Sum,
    /// From the nearest of each space, because the engine gives no sums, or there is but one space.
    OnlyLists,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        engine: &'a dyn Engine,
        collection: &'a str,
        query: &'a SearchQuery,
        terms: &'a [Resolved],
    ) -> Self {
        let fused = fuse(terms);
        let spaces = fused.iter().filter(|fused| fused.vector.is_some()).count();
        let way = match (spaces > 1 && query.prefix_dims == 0, query.exact) {
            (false, _) => Way::OnlyLists,
            (true, false) => Way::Lists,
            (true, true) => Way::Sum,
        };
        Self { engine, collection, query, terms, fused, way }
    }

    /// Widens fourfold until there is one hit more than asked for (then more may follow), or
    /// nothing more can come. An exact search also goes on until no better hit is possible; another
    /// one, in several spaces, until none is likely, by the sum over the spaces where the engine
    /// gives it: a list of one space does not tell what lies well in all.
    pub(super) async fn until_enough(&mut self) -> Result<SearchReply> {
        let query = self.query;
        let seen = query.resume.as_ref().map_or(0, |resume| resume.seen);
        let first = self.first_width();
        let mut width = first.saturating_add(seen);
        let widest = first.saturating_mul(WIDEST).saturating_add(seen);
        let mut visited = 0_u64;
        let mut before: Option<Vec<ItemId>> = None;
        loop {
            let round = self.next_round(width).await?;
            visited = visited.saturating_add(round.visited);
            let mut hits = self.reduce(&round.candidates);
            // Below the last hit kept, what lies beyond the candidates does not matter.
            let edge = hits.get(query.k - 1).map_or(f32::NEG_INFINITY, |hit| hit.score);
            let least = query.min_score.unwrap_or(f32::NEG_INFINITY).max(edge);
            let beyond_is_worse = round.in_order || round.bound < least;
            let proved = round.complete || (round.route.is_exact() && beyond_is_worse);
            let hopeless = query.min_score.is_some_and(|least| round.bound < least);
            let enough = hits.len() > query.k || hopeless;
            let now: Vec<ItemId> = hits.iter().take(query.k).map(|hit| hit.id.clone()).collect();
            let settled = (self.way == Way::OnlyLists && self.is_of_one_list())
                || round.likely_bound < least
                || before.as_ref() == Some(&now)
                || width >= widest;
            if round.complete || (enough && (proved || (settled && !query.exact))) {
                let more = hits.len() > query.k;
                hits.truncate(query.k);
                return Ok(SearchReply {
                    hits,
                    generation: round.generation,
                    cut: !proved,
                    route: round.route,
                    candidates: round.candidates.len(),
                    visited,
                    more,
                });
            }
            before = Some(now);
            match self.way {
                Way::Lists => self.way = Way::Sum,
                Way::Sum | Way::OnlyLists => width = width.saturating_mul(4),
            }
        }
    }

    /// Widening is for the sake of a filter, of groups or of the least score alone.
    fn is_of_one_list(&self) -> bool {
        self.fused.len() == 1 || self.query.prefix_dims > 0
    }

    async fn next_round(&mut self, width: usize) -> Result<Round> {
        if self.way == Way::Sum {
            if let Some(round) = self.summed(width).await? {
                return Ok(round);
            }
            self.way = Way::OnlyLists;
        }
        self.round(width).await
    }

    /// The first of all items by the sum over the spaces.
    async fn summed(&self, width: usize) -> Result<Option<Round>> {
        let parts = self.fused.iter().filter_map(|fused| {
            let vector = fused.vector.clone()?;
            Some(SumPart { space: fused.space, vector, weight: fused.length })
        });
        let sum = Sum {
            modality: self.query.target,
            parts: parts.collect(),
            filter: self.query.filter.clone(),
            k: width,
            exact: self.query.exact,
            pin: self.query.pin.clone(),
            bulk: self.query.bulk,
        };
        let Some(found) = self.engine.nearest_sum(self.collection, sum).await? else {
            return Ok(None);
        };
        let last = found.neighbours.last().map_or(f32::NEG_INFINITY, |last| last.score);
        let complete = found.neighbours.len() < width;
        let candidates = found.neighbours.into_iter().map(|near| Candidate {
            id: near.id,
            group: near.group,
            score: near.score,
        });
        Ok(Some(Round {
            candidates: candidates.collect(),
            complete,
            bound: last,
            likely_bound: last,
            route: found.route,
            in_order: true,
            generation: found.generation,
            visited: found.visited,
            most_beside: 0.0,
        }))
    }

    /// Score of an item by its cosine with each space's query, as every round computes it.
    pub(super) fn score(&self, cosine: impl Fn(&[f32], Space) -> f32) -> f32 {
        let spaces = self.fused.iter().filter_map(|fused| Some((fused, fused.vector.as_ref()?)));
        // The sum of nothing by `sum` is -0, which ranks behind 0.
        spaces.fold(0.0, |sum, (fused, vector)| sum + fused.length * cosine(vector, fused.space))
    }

    /// Candidates of the first round.
    fn first_width(&self) -> usize {
        let query = self.query;
        if self.is_in_order() && !query.one_per_group {
            // A few more than asked for, because equal scores are ordered by id.
            return query.k.saturating_add(query.k / 4).saturating_add(BESIDE);
        }
        query.k.saturating_mul(10).max(query.ef_search).max(LEAST_CANDIDATES)
    }

    /// How many hits come before an item's, on all pages of the right answer; with one hit per
    /// group, `None` when one of them stands for the item's group. The run must be exact.
    pub(super) async fn before(&mut self, item: &Hit) -> Result<Option<u64>> {
        let mut width = self.first_width();
        loop {
            let round = self.next_round(width).await?;
            let own = round.candidates.iter().find(|candidate| candidate.id == item.id);
            let all =
                round.complete || (round.in_order && own.is_some()) || round.bound < item.score;
            if !all {
                width = width.saturating_mul(4);
                continue;
            }
            // Its score among the others may differ in the last bit.
            let last = (own.map_or(item.score, |own| own.score), &item.id);
            let mut better: Vec<&Candidate> = round.candidates.iter().collect();
            better.retain(|candidate| rank((candidate.score, &candidate.id), last).is_lt());
            if self.query.one_per_group {
                if item.group.is_some() && better.iter().any(|better| better.group == item.group) {
                    return Ok(None);
                }
                better = best_of_groups(better);
            }
            return Ok(Some(better.len() as u64));
        }
    }

    async fn round(&self, width: usize) -> Result<Round> {
        let sources = self.fused.iter().filter(|fused| fused.positive && fused.vector.is_some());
        let mut lists: Vec<(&Fused, Vec<Neighbour>)> = Vec::new();
        let mut round = Round {
            candidates: Vec::new(),
            complete: false,
            likely_bound: 0.0,
            bound: self.fused.iter().filter(|f| f.vector.is_some()).map(|f| f.length).sum(),
            route: Route::Exact,
            in_order: false,
            generation: self.query.pin.as_ref().map_or(0, |pin| pin.id().generation),
            visited: 0,
            most_beside: f32::NEG_INFINITY,
        };
        for fused in sources {
            let found = self.nearest(fused, width).await?;
            round.complete |= found.neighbours.len() < width;
            round.generation = found.generation;
            round.route = round.route.max(found.route);
            round.visited = round.visited.saturating_add(found.visited);
            if self.query.prefix_dims == 0 {
                // In place of its whole length, a space adds at most what its last neighbour has.
                let last = found.neighbours.last().map_or(-1.0, |last| last.score);
                round.bound += fused.length * (last - 1.0);
                round.likely_bound += fused.length * last;
            }
            lists.push((fused, found.neighbours));
        }
        match lists.as_mut_slice() {
            [] => self.add_everything(&mut round).await?,
            [(fused, list)] if self.is_in_order() => {
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
                let rounding = ROUNDING * self.fused.iter().map(|fused| fused.length).sum::<f32>();
                round.bound += rounding;
                round.likely_bound += rounding + round.most_beside;
            }
        }
        Ok(round)
    }

    /// Whether the neighbours in the one space are the answer, in its order.
    fn is_in_order(&self) -> bool {
        self.fused.len() == 1
            && self.engine.capabilities().exact_scores
            && self.query.prefix_dims == 0
    }

    async fn nearest(&self, fused: &Fused, k: usize) -> Result<crate::engine::Neighbours> {
        let vector = fused.vector.clone().unwrap_or_default();
        let nearest = Nearest {
            filter: self.query.filter.clone(),
            ef_search: self.query.ef_search,
            exact: self.query.exact,
            pin: self.query.pin.clone(),
            bulk: self.query.bulk,
            prefix_dims: self.query.prefix_dims,
            ..Nearest::new(self.query.target, fused.space, vector, k)
        };
        self.engine.nearest(self.collection, nearest).await
    }

    /// Positive terms that cancel out leave no direction to search in: every item is a candidate.
    async fn add_everything(&self, round: &mut Round) -> Result<()> {
        if self.query.pin.is_some() {
            return self.add_everything_pinned(round).await;
        }
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

    /// As [`Self::add_everything`], at a held generation, which only a search can list: every
    /// direction is as good, since the scores are not read.
    async fn add_everything_pinned(&self, round: &mut Round) -> Result<()> {
        let dims = self.engine.collection(self.collection).await?.spec.dims;
        let space = self.fused.first().map_or(Space::Shared, |fused| fused.space);
        let vector = Some(vec![1.0; dims.get(self.query.target, space).unwrap_or(1)]);
        let any = Fused { space, vector, length: 1.0, positive: true };
        let found = self.nearest(&any, usize::MAX).await?;
        round.visited = found.visited;
        round.complete = true;
        let all = found.neighbours.into_iter().map(|near| (near.id, near.group));
        self.add_scored(all, round).await
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
            let mut beside = vec![0.0_f32; ids.len()];
            for fused in &self.fused {
                let Some(query) = &fused.vector else { continue };
                let stored = self.vectors(&ids, fused.space).await?;
                for ((score, beside), vector) in scores.iter_mut().zip(&mut beside).zip(stored) {
                    let term = vector.map(|vector| fused.length * kernel::dot(query, &vector));
                    *score = score.zip(term).map(|(sum, term)| sum + term);
                    if !fused.positive {
                        *beside += term.unwrap_or(0.0);
                    }
                }
            }
            for (((id, group), score), beside) in items.iter().zip(scores).zip(beside) {
                let Some(score) = score else { continue };
                round.most_beside = round.most_beside.max(beside);
                round.candidates.push(Candidate { id: id.clone(), group: group.clone(), score });
            }
        }
        Ok(())
    }

    /// Unit vectors of the target's modality; `None` for what is gone or of another one by now.
    async fn vectors(&self, ids: &[ItemId], space: Space) -> Result<Vec<Option<Vec<f32>>>> {
        let found =
            stored(self.engine, self.collection, (self.query.pin.as_ref(), ids, space)).await?;
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
