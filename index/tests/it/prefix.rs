//! Candidates by the first components, hits by the whole vectors.

use diptych_index::{Engine, Modality, Nearest, SearchQuery, Space, search};

use crate::{
    search::{all_items, fill, plain_score, query, shapes},
    support::{NAME, many, nearest, over_engines, put, vector},
};

/// Cosine of the first components.
fn prefix_cosine(a: &[f32], b: &[f32], dims: usize) -> f64 {
    crate::search::cosine(&a[..dims], &b[..dims])
}

#[test]
fn neighbours_by_a_prefix_are_ordered_by_its_cosine() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let items = all_items(&fixture.engine).await;
        let asked = vector(4_000, 19);
        for dims in [1, 7, 8, 18] {
            let query =
                Nearest { prefix_dims: dims, ..nearest(Modality::Image, asked.clone(), 25) };
            let found = fixture.engine.nearest(NAME, query).await.unwrap();
            let mut right: Vec<f64> = items
                .iter()
                .map(|item| prefix_cosine(&asked, item.vectors.shared.as_ref().unwrap(), dims))
                .collect();
            right.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(found.neighbours.len(), 25);
            for (near, right) in found.neighbours.iter().zip(right) {
                assert!((f64::from(near.score) - right).abs() < 1e-5);
            }
        }
    });
}

#[test]
fn hits_are_scored_by_whole_vectors_and_told_as_cut() {
    over_engines(|fixture| async move {
        fill(&fixture).await;
        let items = all_items(&fixture.engine).await;
        for terms in shapes() {
            let asked = SearchQuery { prefix_dims: 4, ..query(terms) };
            let reply = search(&*fixture.engine, NAME, &asked).await.unwrap();
            assert!(reply.cut);
            assert_eq!(reply.hits.len(), 10);
            for hit in &reply.hits {
                let item = items.iter().find(|item| item.id == hit.id).unwrap();
                assert!((f64::from(hit.score) - plain_score(&asked, item)).abs() < 1e-5);
            }
            assert!(reply.hits.is_sorted_by(|a, b| a.score >= b.score));
        }
    });
}

#[test]
fn of_few_items_all_are_candidates_and_the_answer_is_the_right_one() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, 150)).await;
        for terms in shapes() {
            let asked = SearchQuery { prefix_dims: 2, ..query(terms) };
            let reply = search(&*fixture.engine, NAME, &asked).await.unwrap();
            let exact = SearchQuery { prefix_dims: 0, exact: true, ..asked };
            let right = search(&*fixture.engine, NAME, &exact).await.unwrap();
            assert!(!reply.cut);
            let ids = |hits: &[diptych_index::Hit]| {
                hits.iter().map(|hit| hit.id.clone()).collect::<Vec<_>>()
            };
            assert_eq!(ids(&reply.hits), ids(&right.hits));
        }
    });
}

#[test]
fn a_prefix_is_shorter_than_the_vectors_and_no_company_for_exact() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, 5)).await;
        let asked = query(shapes().remove(0));
        for (prefix_dims, exact) in [(19, false), (20, false), (3, true)] {
            let asked = SearchQuery { prefix_dims, exact, ..asked.clone() };
            let error = search(&*fixture.engine, NAME, &asked).await.unwrap_err();
            assert_eq!(error.field(), Some("prefix_dims"), "{prefix_dims}");
        }
        let both = SearchQuery { prefix_dims: 5, ..query(shapes().remove(5)) };
        let error = search(&*fixture.engine, NAME, &both).await.unwrap_err();
        assert_eq!(error.field(), Some("prefix_dims"));
        let own = Space::Exclusive;
        let query = Nearest::new(Modality::Image, own, vector(1, 5), 3);
        let query = Nearest { prefix_dims: 4, ..query };
        assert_eq!(fixture.engine.nearest(NAME, query).await.unwrap().neighbours.len(), 3);
    });
}
