//! What is said about one item under a query, against the plain search of `search.rs`.

use std::sync::Arc;

use diptych_index::{Kind, Modality, SearchQuery, Space, Term, TermSource, explain};

use crate::{
    search::{all_items, even, fill, plain, plain_score, query, shapes, term},
    support::{NAME, id, item, over_engines, put, vector},
};

#[test]
fn an_item_stands_where_the_right_answer_has_it() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let items = all_items(&fixture.engine).await;
        let even = even();
        for terms in shapes() {
            for (filter, one_per_group, min_score) in
                [(None, false, None), (Some(even.clone()), true, None), (None, true, Some(0.2))]
            {
                let filter = filter.map(Arc::new);
                let query =
                    SearchQuery { filter, one_per_group, min_score, ..query(terms.clone()) };
                let right = plain(&query, &items);
                for name in ["p0", "p3", "p4", "p777", "p1499"] {
                    let told = explain(&*fixture.engine, NAME, &query, &id(name)).await.unwrap();
                    let place = right.iter().position(|(id, _)| id == name);
                    let item = items.iter().find(|item| item.id.as_str() == name).unwrap();
                    let score = plain_score(&query, item);
                    let enough = min_score.is_none_or(|least| score >= f64::from(least));
                    let filtered = query.filter.as_ref();
                    assert_eq!(
                        told.passes,
                        enough && filtered.is_none_or(|f| f.matches(&item.metadata))
                    );
                    assert_eq!(told.rank, place.map_or(0, |place| place as u64 + 1), "{name}");
                    assert!((f64::from(told.hit.score) - score).abs() < 1e-5);
                    assert_eq!(told.hit.term_scores.len(), query.terms.len());
                    assert_eq!(told.hit.group, item.group.as_deref().map(Arc::from));
                    assert!(told.visited > 0);
                    assert!(told.cut || told.route.is_exact());
                }
            }
        }
    });
}

#[test]
fn an_item_of_the_other_modality_is_scored_where_it_can_be_and_does_not_pass() {
    over_engines(|fixture| async move {
        let (picture, text) = (item("p", Modality::Image, 1), item("t", Modality::Text, 2));
        put(&*fixture.engine, vec![picture, text]).await;
        let query = query(vec![term(1, 1.0, Space::Shared), term(1, 1.0, Space::Exclusive)]);
        let told = explain(&*fixture.engine, NAME, &query, &id("t")).await.unwrap();
        assert!(!told.passes && told.rank == 0);
        assert_ne!(told.hit.term_scores[0], 0.0);
        assert_eq!(told.hit.term_scores[1], 0.0);
        assert_eq!(told.hit.score, told.hit.term_scores[0]);
    });
}

#[test]
fn terms_that_cancel_out_rank_by_id() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let terms = vec![term(5, 1.0, Space::Shared), term(5, -1.0, Space::Shared)];
        let told = explain(&*fixture.engine, NAME, &query(terms), &id("p10")).await.unwrap();
        assert_eq!((told.rank, told.hit.score), (3, 0.0));
    });
}

#[test]
fn what_is_not_there_is_told_by_field() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, vec![item("p", Modality::Image, 1)]).await;
        let asked = query(vec![term(1, 1.0, Space::Shared)]);
        let error = explain(&*fixture.engine, NAME, &asked, &id("none")).await.unwrap_err();
        assert_eq!((error.kind(), error.field()), (Kind::NotFound, Some("item_id")));
        let source = TermSource::Vector { vector: vector(1, 4), modality: None };
        let bad = query(vec![Term { source, weight: 1.0, space: Space::Shared }]);
        let error = explain(&*fixture.engine, NAME, &bad, &id("p")).await.unwrap_err();
        assert_eq!(error.field(), Some("terms[0].vector"));
    });
}
