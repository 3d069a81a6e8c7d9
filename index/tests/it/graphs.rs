//! Graphs: built in the background, used, complete with what is newer, without what is deleted.

use std::collections::HashSet;

use diptych_index::{EmbeddedConfig, EmbeddedEngine, Engine, Modality, Route};

use crate::support::{
    Fixture, NAME, delete_ids, item, many, nearest, over_engines, put, run, small, spec, vector,
};

const ROWS: u64 = 2_000;

async fn settled(fixture: &Fixture) -> bool {
    fixture.engine.settle().await.unwrap();
    let status = fixture.engine.index_status(NAME).unwrap();
    status.iter().any(|slot| slot.graph_rows > 0)
}

/// Share of the exact ten nearest that a search by graph finds, over 100 queries.
async fn recall(fixture: &Fixture) -> f64 {
    let mut found = 0;
    for seed in 0..100 {
        let query = nearest(Modality::Image, vector(seed + 50_000, 19), 10);
        let exact = diptych_index::Nearest { exact: true, ..query.clone() };
        let exact = fixture.engine.nearest(NAME, exact).await.unwrap();
        assert_eq!(exact.route, Route::Exact);
        let exact: HashSet<_> = exact.neighbours.into_iter().map(|near| near.id).collect();
        let by_graph = fixture.engine.nearest(NAME, query).await.unwrap();
        assert_eq!(by_graph.route, Route::Graph);
        found += by_graph.neighbours.iter().filter(|near| exact.contains(&near.id)).count();
    }
    found as f64 / 1000.0
}

#[test]
fn a_graph_is_built_in_the_background_and_finds_what_a_scan_finds() {
    over_engines(|mut fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, ROWS)).await;
        if !settled(&fixture).await {
            assert_eq!(fixture.config.exact_below, EmbeddedConfig::EXACT_BELOW);
            return;
        }
        assert!(recall(&fixture).await >= 0.97);
        // Opened again, it is built again from the store.
        fixture.reopen().await;
        assert!(settled(&fixture).await);
        assert!(recall(&fixture).await >= 0.97);
    });
}

#[test]
fn newer_rows_and_deletes_show_at_once_beside_a_graph() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, ROWS)).await;
        settled(&fixture).await;
        let fresh: Vec<_> =
            (0..50).map(|n| item(&format!("fresh{n}"), Modality::Image, 900_000 + n)).collect();
        put(&*fixture.engine, fresh).await;
        for n in 0..50_u64 {
            let query = nearest(Modality::Image, vector(900_000 + n, 19), 1);
            let found = fixture.engine.nearest(NAME, query).await.unwrap();
            assert_eq!(found.neighbours[0].id.as_str(), format!("fresh{n}"));
        }
        let deleted: Vec<String> = (0..ROWS).step_by(3).map(|seed| format!("p{seed}")).collect();
        let names: Vec<&str> = deleted.iter().map(String::as_str).collect();
        fixture.engine.delete(NAME, delete_ids(&names)).await.unwrap();
        for wait in [false, true] {
            if wait {
                settled(&fixture).await;
            }
            for seed in (0..ROWS).step_by(30) {
                let query = nearest(Modality::Image, vector(seed, 19), 10);
                let found = fixture.engine.nearest(NAME, query).await.unwrap();
                assert_eq!(found.neighbours.len(), 10);
                let gone = |near: &diptych_index::Neighbour| names.contains(&near.id.as_str());
                assert!(!found.neighbours.iter().any(gone));
            }
        }
    });
}

#[test]
fn every_one_of_many_equal_rows_is_found() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, ROWS)).await;
        let equal: Vec<_> =
            (0..100).map(|n| item(&format!("same{n}"), Modality::Image, 77_000)).collect();
        put(&*fixture.engine, equal).await;
        settled(&fixture).await;
        let query = nearest(Modality::Image, vector(77_000, 19), 100);
        let found = fixture.engine.nearest(NAME, query).await.unwrap();
        let same = |near: &&diptych_index::Neighbour| near.id.as_str().starts_with("same");
        assert_eq!(found.neighbours.iter().filter(same).count(), 100);
        let ids: Vec<_> = found.neighbours.iter().map(|near| near.id.clone()).collect();
        assert!(ids.is_sorted(), "equal scores are ordered by id");
    });
}

#[test]
fn closing_does_not_wait_for_a_long_build() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { exact_below: 0, ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        put(&engine, many("p", Modality::Image, 20_000)).await;
        let started = std::time::Instant::now();
        engine.close().await.unwrap();
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    });
}

#[test]
fn a_scan_answers_where_it_is_cheaper_than_a_walk() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        for (walk_cost_rows, route) in [(8, Route::Graph), (1_000, Route::Exact)] {
            let config = EmbeddedConfig { exact_below: 0, walk_cost_rows, ..small(folder.path()) };
            let engine = EmbeddedEngine::open(&config).unwrap();
            if engine.collections().await.unwrap().is_empty() {
                engine.create_collection(spec(NAME)).await.unwrap();
                put(&engine, many("p", Modality::Image, ROWS)).await;
            }
            engine.settle().await.unwrap();
            let query = nearest(Modality::Image, vector(1, 19), 10);
            assert_eq!(engine.nearest(NAME, query).await.unwrap().route, route);
        }
    });
}
