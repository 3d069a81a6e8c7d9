//! Repeated requests, concurrent writers, searches while writing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use diptych_index::{
    DeleteBatch, EmbeddedConfig, EmbeddedEngine, Engine, EngineAdmin as _, Error, Fields, Kind,
    Mark, Modality, PutBatch, RequestKey, Selection, StoredOutcome,
};

use crate::support::{
    NAME, delete_ids, id, item, many, names, nearest, over_engines, put, run, small, spec, vector,
};

fn key(id: &str, digest: u8) -> Option<RequestKey> {
    Some(RequestKey { id: id.to_owned(), digest: [digest; 32] })
}

#[test]
fn a_repeated_put_gets_the_stored_outcome_and_writes_nothing() {
    over_engines(|mut fixture| async move {
        let mut bad = item("bad", Modality::Image, 2);
        bad.vectors.shared = Some(vec![0.0; 19]);
        let items = vec![item("a", Modality::Image, 1), bad];
        let batch = PutBatch { items, request: key("r", 1), ..PutBatch::default() };
        let first = fixture.engine.put(NAME, batch.clone()).await.unwrap();
        put(&*fixture.engine, vec![item("a", Modality::Image, 9)]).await;
        fixture.reopen().await;
        let version = || async {
            fixture.engine.get(NAME, &[id("a")], Fields::default()).await.unwrap()[0]
                .as_ref()
                .unwrap()
                .version
        };
        let before = version().await;
        let again = fixture.engine.put(NAME, batch.clone()).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(version().await, before, "the later write is still there");
        let stored = fixture.engine.outcome(NAME, &key("r", 1).unwrap()).await.unwrap();
        assert_eq!(stored, Some(StoredOutcome::Put(first)));

        let other = PutBatch { request: key("r", 2), ..batch };
        let error = fixture.engine.put(NAME, other).await.unwrap_err();
        assert_eq!((error.kind(), error.field()), (Kind::Conflict, Some("request_id")));
        assert_eq!(fixture.engine.outcome(NAME, &key("s", 1).unwrap()).await.unwrap(), None);
    });
}

#[test]
fn a_repeated_delete_gets_the_stored_counts() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("t", Modality::Text, 3)).await;
        let batch = DeleteBatch { request: key("d", 1), ..delete_ids(&["t0", "t1", "no"]) };
        let first = fixture.engine.delete(NAME, batch.clone()).await.unwrap();
        put(&*fixture.engine, many("t", Modality::Text, 3)).await;
        let again = fixture.engine.delete(NAME, batch).await.unwrap();
        assert_eq!(first, again);
        assert_eq!(fixture.engine.collection(NAME).await.unwrap().counts.texts, 3);
        let selection = Selection::Ids(vec![]);
        let clash = DeleteBatch { selection, expected_count: None, request: key("d", 2) };
        let error = fixture.engine.delete(NAME, clash).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
    });
}

#[test]
fn requests_are_forgotten_after_an_hour() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = || NOW.load(Ordering::SeqCst);
        let config = EmbeddedConfig { now_ms, ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        let batch = |request| PutBatch {
            items: vec![item("a", Modality::Text, 1)],
            request,
            ..PutBatch::default()
        };
        let first = engine.put(NAME, batch(key("r", 1))).await.unwrap();
        NOW.fetch_add(3_599_000, Ordering::SeqCst);
        assert_eq!(engine.put(NAME, batch(key("r", 1))).await.unwrap(), first);
        NOW.fetch_add(2_000, Ordering::SeqCst);
        // Another request sweeps the ledger.
        engine.put(NAME, batch(key("s", 1))).await.unwrap();
        assert_eq!(engine.outcome(NAME, &key("r", 1).unwrap()).await.unwrap(), None);
        assert!(engine.outcome(NAME, &key("s", 1).unwrap()).await.unwrap().is_some());
    });
}

#[test]
fn concurrent_writers_all_get_in_and_see_their_own_writes() {
    over_engines(|mut fixture| async move {
        let writers = (0..8_u64).map(|writer| {
            let engine = Arc::clone(&fixture.engine);
            tokio::spawn(async move {
                for n in 0..20 {
                    let seed = writer * 100 + n;
                    let name = format!("w{writer}-{n}");
                    put(&*engine, vec![item(&name, Modality::Image, seed)]).await;
                    let query = nearest(Modality::Image, vector(seed, 19), 1);
                    assert_eq!(names(&engine.nearest(NAME, query).await.unwrap()), [name]);
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        for _ in 0..2 {
            let info = fixture.engine.collection(NAME).await.unwrap();
            assert_eq!(info.counts.images, 160);
            assert_eq!(info.generation, 160);
            fixture.reopen().await;
        }
    });
}

#[test]
fn a_search_during_replacement_always_finds_the_item_once() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, vec![item("a", Modality::Image, 1)]).await;
        let engine = Arc::clone(&fixture.engine);
        let writer = tokio::spawn(async move {
            for _ in 0..100 {
                put(&*engine, vec![item("a", Modality::Image, 1)]).await;
            }
        });
        while !writer.is_finished() {
            let query = nearest(Modality::Image, vector(1, 19), 10);
            assert_eq!(names(&fixture.engine.nearest(NAME, query).await.unwrap()), ["a"]);
        }
        writer.await.unwrap();
    });
}

#[test]
fn items_made_for_a_collection_never_reach_another_of_its_name() {
    over_engines(|fixture| async move {
        let engine = &fixture.engine;
        let first = engine.collection(NAME).await.unwrap().number;
        engine.drop_collection(NAME).await.unwrap();
        let second = engine.create_collection(spec(NAME)).await.unwrap().number;
        assert_ne!(first, second);
        let items = vec![item("a", Modality::Image, 1)];
        let mut batch = PutBatch { items, collection: Some(first), ..PutBatch::default() };
        let error = engine.put(NAME, batch.clone()).await.unwrap_err();
        assert!(matches!(error, Error::CollectionMissing { .. }), "{error}");
        assert_eq!(engine.collection(NAME).await.unwrap().counts.images, 0);
        batch.collection = Some(second);
        assert!(engine.put(NAME, batch).await.unwrap().results[0].is_ok());
    });
}

#[test]
fn a_mark_is_written_with_its_batch_or_not_at_all() {
    over_engines(|mut fixture| async move {
        let mark = |value: &[u8]| Some(Mark { key: "walk".to_owned(), value: value.to_vec() });
        let mut bad = item("bad", Modality::Image, 2);
        bad.vectors.shared = Some(vec![0.0; 19]);
        let items = vec![item("a", Modality::Image, 1), bad.clone()];
        let first = PutBatch { items, mark: mark(b"one"), ..PutBatch::default() };
        let outcome = fixture.engine.put(NAME, first.clone()).await.unwrap();
        fixture.reopen().await;
        let stored = fixture.engine.mark("walk").await.unwrap().unwrap();
        assert_eq!((stored.value.as_slice(), &stored.outcome), (b"one".as_slice(), &outcome));

        let none = PutBatch { items: vec![bad], mark: mark(b"two"), ..PutBatch::default() };
        let refused = fixture.engine.put(NAME, none).await.unwrap();
        assert!(refused.results[0].is_err());
        assert_eq!(refused.generation, outcome.generation);
        fixture.reopen().await;
        let stored = fixture.engine.mark("walk").await.unwrap().unwrap();
        assert_eq!((stored.value.as_slice(), &stored.outcome), (b"two".as_slice(), &refused));

        let elsewhere = PutBatch { collection: Some(999), mark: mark(b"three"), ..first.clone() };
        fixture.engine.put(NAME, elsewhere).await.unwrap_err();
        let request = key("r", 1);
        let known = PutBatch { request: request.clone(), ..first.clone() };
        fixture.engine.put(NAME, known).await.unwrap();
        let other = PutBatch { request: key("r", 2), mark: mark(b"four"), ..first };
        fixture.engine.put(NAME, other).await.unwrap_err();
        let marks = fixture.engine.marks().await.unwrap();
        assert_eq!(marks.len(), 1);
        assert_eq!((marks[0].0.as_str(), marks[0].1.value.as_slice()), ("walk", b"one".as_slice()));
        assert!(fixture.engine.notes().await.unwrap().is_empty(), "marks are no notes");
    });
}

#[test]
fn a_mark_that_is_forgotten_is_gone_and_its_key_has_a_limit() {
    over_engines(|fixture| async move {
        let key = "k".repeat(200);
        let mark = Some(Mark { key: key.clone(), value: Vec::new() });
        let batch = PutBatch { mark, ..PutBatch::default() };
        fixture.engine.put(NAME, batch).await.unwrap();
        assert!(fixture.engine.mark(&key).await.unwrap().is_some());
        fixture.engine.forget_mark(&key).await.unwrap();
        fixture.engine.forget_mark(&key).await.unwrap();
        assert!(fixture.engine.mark(&key).await.unwrap().is_none());
        let mark = Some(Mark { key: "k".repeat(201), value: Vec::new() });
        let batch = PutBatch { mark, ..PutBatch::default() };
        let error = fixture.engine.put(NAME, batch).await.unwrap_err();
        assert_eq!((error.kind(), error.field()), (Kind::Limit, Some("mark")));
    });
}

#[test]
fn items_that_are_read_together_are_of_one_moment() {
    over_engines(|fixture| async move {
        let both = || vec![item("a", Modality::Image, 1), item("b", Modality::Image, 2)];
        put(&*fixture.engine, both()).await;
        let engine = Arc::clone(&fixture.engine);
        let writer = tokio::spawn(async move {
            for _ in 0..100 {
                put(&*engine, both()).await;
            }
        });
        let ids = [id("a"), id("b")];
        while !writer.is_finished() {
            let found = fixture.engine.get(NAME, &ids, Fields::default()).await.unwrap();
            let versions: Vec<u64> = found.into_iter().map(|item| item.unwrap().version).collect();
            assert_eq!(versions[0] + 1, versions[1]);
        }
        writer.await.unwrap();
    });
}

#[test]
fn a_writing_thread_that_died_is_a_fault_and_no_goodbye() {
    static DIES: AtomicBool = AtomicBool::new(false);
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = || {
            assert!(!DIES.load(Ordering::SeqCst), "for a test");
            1
        };
        let config = EmbeddedConfig { now_ms, ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        assert!(engine.takes_writes());
        DIES.store(true, Ordering::SeqCst);
        let batch =
            || PutBatch { items: vec![item("a", Modality::Text, 1)], ..PutBatch::default() };
        for _ in 0..2 {
            let error = engine.put(NAME, batch()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Internal, "{error}");
        }
        assert!(engine.get(NAME, &[id("a")], Fields::default()).await.unwrap()[0].is_none());
    });
}
