//! How much of the right answer is found, as measured and as it is.

use diptych_index::{
    Draw, Engine, Kind, Measure, Modality, SearchQuery, Space, measure_recall, search,
};

use crate::{
    search::{query, term},
    support::{NAME, delete_ids, many, over_engines, put},
};

const MEASURE: Measure = Measure { queries: 50, k: 10, ef_search: 0, seed: 7 };

#[test]
fn every_index_with_rows_is_measured_and_a_scan_finds_all() {
    over_engines(|fixture| async move {
        let engine = &*fixture.engine;
        assert_eq!(measure_recall(engine, NAME, MEASURE).await.unwrap(), []);
        put(engine, many("p", Modality::Image, 2_000)).await;
        put(engine, many("t", Modality::Text, 30)).await;
        engine.settle().await.unwrap();
        let measured = measure_recall(engine, NAME, MEASURE).await.unwrap();
        let told: Vec<_> =
            measured.iter().map(|m| (m.modality, m.space, m.rows, m.queries)).collect();
        let (image, text) = (Modality::Image, Modality::Text);
        assert_eq!(
            told,
            [
                (image, Space::Shared, 2_000, 50),
                (image, Space::Exclusive, 2_000, 50),
                (text, Space::Shared, 30, 30),
                (text, Space::Exclusive, 30, 30),
            ]
        );
        let by_graph = engine.index_status(NAME).unwrap().iter().any(|slot| slot.graph_rows > 0);
        for found in &measured {
            let least = if by_graph { 0.95 } else { 1.0 };
            assert!((least..=1.0).contains(&found.recall), "{found:?}");
        }
        assert_eq!(measure_recall(engine, NAME, MEASURE).await.unwrap(), measured);
    });
}

#[test]
fn rows_are_drawn_once_each_and_never_one_that_ended() {
    over_engines(|fixture| async move {
        let engine = &*fixture.engine;
        put(engine, many("p", Modality::Image, 200)).await;
        let gone: Vec<String> = (0..150).map(|n| format!("p{n}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        engine.delete(NAME, delete_ids(&gone)).await.unwrap();
        for (count, expected) in [(10, 10), (50, 50), (500, 50)] {
            let (modality, space) = (Modality::Image, Space::Shared);
            let draw = Draw { modality, space, count, seed: 3 };
            let drawn = engine.draw(NAME, draw).await.unwrap();
            assert_eq!((drawn.rows.len(), drawn.of), (expected, 50));
            let mut ids: Vec<&str> = drawn.rows.iter().map(|(id, _)| id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), expected);
            assert!(ids.iter().all(|id| !gone.contains(id)));
            assert_eq!(engine.draw(NAME, draw).await.unwrap(), drawn);
        }
    });
}

#[test]
fn measurements_have_limits() {
    over_engines(|fixture| async move {
        let engine = &*fixture.engine;
        for (field, measure) in [
            ("queries", Measure { queries: 0, ..MEASURE }),
            ("queries", Measure { queries: 1_001, ..MEASURE }),
            ("limit", Measure { k: 0, ..MEASURE }),
            ("limit", Measure { k: 1_001, ..MEASURE }),
        ] {
            let error = measure_recall(engine, NAME, measure).await.unwrap_err();
            assert_eq!(error.field(), Some(field));
        }
        let error = measure_recall(engine, "nothing", MEASURE).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    });
}

#[test]
fn composed_queries_find_nearly_all_of_the_right_answer() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, 7_000)).await;
        fixture.engine.settle().await.unwrap();
        let (mut found, mut total) = (0, 0);
        for seed in 0..60 {
            let minus = term(90_000 + seed, -0.6, Space::Exclusive);
            let asked = query(vec![term(80_000 + seed, 1.0, Space::Shared), minus]);
            let exact = SearchQuery { exact: true, ..asked.clone() };
            let right = search(&*fixture.engine, NAME, &exact).await.unwrap().hits;
            let reply = search(&*fixture.engine, NAME, &asked).await.unwrap();
            found += reply.hits.iter().filter(|hit| right.iter().any(|r| r.id == hit.id)).count();
            total += right.len();
        }
        assert!(found as f64 >= 0.98 * total as f64, "{found} of {total}");
    });
}
