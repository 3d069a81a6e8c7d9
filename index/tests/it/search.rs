//! The general search against a plain one written here.

use std::sync::Arc;

use diptych_index::{
    Comparison, EmbeddedEngine, Engine, Fields, Filter, Hit, Item, Kind, Modality, Resume, Scan,
    SearchQuery, Space, Term, TermSource, Value, search,
};

use crate::support::{Fixture, NAME, delete_ids, id, item, over_engines, put, vector};

const ROWS: u64 = 1_500;

pub(crate) fn term(seed: u64, weight: f32, space: Space) -> Term {
    let dims = if space == Space::Shared { 19 } else { 5 };
    let modality = Some(Modality::Image);
    Term { source: TermSource::Vector { vector: vector(seed, dims), modality }, weight, space }
}

pub(crate) fn query(terms: Vec<Term>) -> SearchQuery {
    SearchQuery::new(Modality::Image, terms, 10)
}

/// Pictures in groups of four with a metadata field `even`.
pub(crate) async fn fill(fixture: &Fixture) {
    let items = (0..ROWS).map(|seed| {
        let mut item = item(&format!("p{seed}"), Modality::Image, seed);
        item.group = (seed % 7 != 0).then(|| format!("g{}", seed / 4));
        item.metadata.insert("even".to_owned(), Value::Bool(seed % 2 == 0));
        item
    });
    put(&*fixture.engine, items.collect()).await;
    fixture.engine.settle().await.unwrap();
}

pub(crate) async fn all_items(engine: &EmbeddedEngine) -> Vec<Item> {
    let fields = Fields { source: false, vectors: true };
    let scan = Scan { limit: 100_000, modality: Some(Modality::Image), fields, ..Scan::default() };
    engine.scan(NAME, scan).await.unwrap().items
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

pub(crate) fn plain_score(query: &SearchQuery, item: &Item) -> f64 {
    let terms = query.terms.iter().map(|term| {
        let TermSource::Vector { vector, .. } = &term.source else { panic!("a vector") };
        f64::from(term.weight) * cosine(vector, item.vectors.get(term.space).unwrap())
    });
    terms.sum()
}

/// The right answer, by the definition: filter, score, best of each group, order.
pub(crate) fn plain(query: &SearchQuery, items: &[Item]) -> Vec<(String, f64)> {
    let mut hits: Vec<(&Item, f64)> = items
        .iter()
        .filter(|item| query.filter.as_ref().is_none_or(|f| f.matches(&item.metadata)))
        .map(|item| (item, plain_score(query, item)))
        .filter(|(_, score)| query.min_score.is_none_or(|least| *score >= f64::from(least)))
        .collect();
    hits.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.id.cmp(&b.0.id)));
    let mut seen = std::collections::HashSet::new();
    hits.retain(|(item, _)| {
        !query.one_per_group || item.group.as_ref().is_none_or(|group| seen.insert(group.clone()))
    });
    hits.iter().map(|(item, score)| (item.id.to_string(), *score)).collect()
}

fn assert_same(hits: &[Hit], expected: &[(String, f64)]) {
    let found: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    let wanted: Vec<&str> = expected.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(found, wanted);
    for (hit, (_, score)) in hits.iter().zip(expected) {
        assert!((f64::from(hit.score) - score).abs() < 1e-5);
    }
}

/// Queries of every shape: one space, two, negative, fused.
pub(crate) fn shapes() -> Vec<Vec<Term>> {
    use Space::{Exclusive, Shared};
    vec![
        vec![term(70_001, 1.0, Shared)],
        vec![term(70_001, 2.5, Exclusive)],
        vec![term(70_001, 1.0, Shared), term(70_002, 0.5, Shared)],
        vec![term(70_001, 1.0, Shared), term(70_002, -0.7, Shared)],
        vec![term(70_001, 1.0, Shared), term(70_003, -1.0, Exclusive)],
        vec![term(70_001, 1.0, Shared), term(70_003, 1.0, Exclusive)],
        vec![term(70_001, 0.2, Shared), term(70_003, 3.0, Exclusive), term(70_004, -1.0, Shared)],
    ]
}

/// Every other picture of [`fill`].
pub(crate) fn even() -> Filter {
    Filter::Compare { field: "even".to_owned(), op: Comparison::Eq, value: Value::Bool(true) }
}

#[test]
fn an_exact_search_is_a_sort() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let items = all_items(&fixture.engine).await;
        let even = even();
        for terms in shapes() {
            for (filter, one_per_group, min_score, k) in [
                (None, false, None, 10),
                (Some(even.clone()), false, None, 25),
                (None, true, None, 300),
                (Some(even.clone()), true, Some(0.3), 50),
                (None, false, None, 2_000),
            ] {
                let query = SearchQuery {
                    filter: filter.map(Arc::new),
                    one_per_group,
                    min_score,
                    k,
                    exact: true,
                    ..query(terms.clone())
                };
                let reply = search(&*fixture.engine, NAME, &query).await.unwrap();
                let mut expected = plain(&query, &items);
                assert_eq!(reply.more, expected.len() > k);
                assert!(!reply.cut);
                expected.truncate(k);
                assert_same(&reply.hits, &expected);
            }
        }
    });
}

#[test]
fn an_inexact_search_of_many_shapes_finds_nearly_all_and_says_when_it_was_cut() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let (mut found, mut total) = (0, 0);
        for terms in shapes() {
            let exact = SearchQuery { exact: true, ..query(terms.clone()) };
            let right = search(&*fixture.engine, NAME, &exact).await.unwrap().hits;
            let reply = search(&*fixture.engine, NAME, &query(terms)).await.unwrap();
            let same = reply.hits.iter().filter(|hit| right.iter().any(|r| r.id == hit.id)).count();
            assert!(reply.cut || reply.route.is_exact());
            assert!(reply.visited > 0);
            if !reply.cut {
                assert_eq!(same, 10, "not cut means right");
            }
            found += same;
            total += right.len();
        }
        assert!(found as f64 >= 0.95 * total as f64, "{found} of {total}");
    });
}

#[test]
fn pages_join_to_the_whole_answer() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let items = all_items(&fixture.engine).await;
        for (terms, one_per_group) in [(0, false), (0, true), (5, true), (4, false)] {
            let mut query =
                SearchQuery { k: 60, one_per_group, exact: true, ..query(shapes().remove(terms)) };
            let expected = plain(&query, &items);
            let mut hits: Vec<Hit> = Vec::new();
            loop {
                let reply = search(&*fixture.engine, NAME, &query).await.unwrap();
                hits.extend(reply.hits);
                if !reply.more {
                    break;
                }
                let last = hits.last().unwrap();
                let (score, id) = (last.score, last.id.clone());
                query.resume = Some(Resume { score, id, seen: hits.len() });
            }
            assert_same(&hits, &expected);
        }
    });
}

#[test]
fn a_deleted_item_never_comes_on_a_later_page() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let mut query = query(shapes().remove(0));
        let first = search(&*fixture.engine, NAME, &query).await.unwrap();
        let last = first.hits.last().unwrap();
        query.resume = Some(Resume { score: last.score, id: last.id.clone(), seen: 10 });
        let second = search(&*fixture.engine, NAME, &query).await.unwrap();
        let gone = second.hits[3].id.clone();
        fixture.engine.delete(NAME, delete_ids(&[gone.as_str()])).await.unwrap();
        let again = search(&*fixture.engine, NAME, &query).await.unwrap();
        assert!(again.hits.iter().all(|hit| hit.id != gone));
        assert_eq!(again.hits[..3], second.hits[..3]);
        assert!(again.generation > first.generation);
    });
}

#[test]
fn an_items_own_vector_finds_it_first_and_term_scores_tell_the_parts() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let own = |space, weight| Term { source: TermSource::Item(id("p42")), weight, space };
        let mut query = query(vec![own(Space::Shared, 1.0), own(Space::Exclusive, 0.5)]);
        query.term_scores = true;
        let reply = search(&*fixture.engine, NAME, &query).await.unwrap();
        assert_eq!(reply.hits[0].id.as_str(), "p42");
        assert!((reply.hits[0].score - 1.5).abs() < 1e-5);
        for hit in &reply.hits {
            let sum = hit.term_scores[0] + 0.5 * hit.term_scores[1];
            assert!((sum - hit.score).abs() < 1e-5);
        }
    });
}

#[test]
fn terms_that_cancel_out_leave_the_order_of_ids() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let terms = vec![term(5, 1.0, Space::Shared), term(5, -1.0, Space::Shared)];
        let reply = search(&*fixture.engine, NAME, &query(terms)).await.unwrap();
        let ids: Vec<_> = reply.hits.iter().map(|hit| hit.id.as_str()).collect();
        assert_eq!(ids[..3], ["p0", "p1", "p10"]);
        assert!(reply.hits.iter().all(|hit| hit.score == 0.0));
    });
}

#[test]
fn bad_searches_are_refused_by_field() {
    type Spoil = fn(&mut SearchQuery);
    let cases: [(&str, Kind, Spoil); 11] = [
        ("limit", Kind::Invalid, |q| q.k = 0),
        ("limit", Kind::Limit, |q| q.k = 100_000),
        ("terms", Kind::Invalid, |q| q.terms.clear()),
        ("terms", Kind::Limit, |q| q.terms = vec![term(1, 1.0, Space::Shared); 17]),
        ("terms", Kind::Invalid, |q| q.terms[0].weight = -1.0),
        ("terms[0].weight", Kind::Invalid, |q| q.terms[0].weight = f32::NAN),
        ("min_score", Kind::Invalid, |q| q.min_score = Some(f32::NAN)),
        ("terms[1].space", Kind::Invalid, |q| {
            q.terms.push(term(1, 1.0, Space::Exclusive));
            q.target = Modality::Text;
        }),
        ("terms[0].item_id", Kind::NotFound, |q| {
            q.terms[0].source = TermSource::Item(id("nobody"));
        }),
        ("terms[0].space", Kind::Invalid, |q| {
            q.terms[0].source = TermSource::Item(id("p1"));
            q.terms[0].space = Space::Exclusive;
            q.target = Modality::Text;
        }),
        ("terms[0].vector", Kind::Invalid, |q| {
            q.terms[0].source = TermSource::Vector { vector: vec![1.0; 4], modality: None };
        }),
    ];
    over_engines(|fixture| async move {
        put(&*fixture.engine, vec![item("p1", Modality::Image, 1)]).await;
        for (field, kind, spoil) in cases {
            let mut query = query(vec![term(1, 1.0, Space::Shared)]);
            spoil(&mut query);
            let error = search(&*fixture.engine, NAME, &query).await.unwrap_err();
            assert_eq!((error.field(), error.kind()), (Some(field), kind), "{error}");
        }
        let error = search(&*fixture.engine, "nothing", &query(shapes().remove(0))).await;
        assert_eq!(error.unwrap_err().kind(), Kind::NotFound);
    });
}
