//! What earlier versions of the program wrote is still read: data folders and snapshots, kept as
//! fixtures.
//!
//! A fixture is written once, by the program that has its format: `cargo test --release -p
//! diptych-index --test it -- --ignored formats::write_the_fixture`. It is never written again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use diptych_index::{
    ChangeKind, EmbeddedConfig, EmbeddedEngine, Engine, EngineAdmin, Fields, Item, Modality,
    PutBatch, RequestKey, Scan, StoredOutcome, Value,
};

use crate::support::{NAME, delete_ids, item, names, nearest, put, run, small, spec, vector};

/// When everything in the fixtures was written.
const THEN_MS: u64 = 1_700_000_000_000;

/// The folder of the fixture of one format of the store.
fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/store-v{version}"))
}

/// What a fixture holds: a picture with a large source, two texts of a group, and one that was put
/// again; a fifth item was deleted.
async fn fill(engine: &EmbeddedEngine) {
    engine.create_collection(spec(NAME)).await.unwrap();
    let mut large = item("large", Modality::Image, 1);
    large.source = Some(vec![7; 70_000]);
    let mut grouped: Vec<_> =
        [("one", 2), ("two", 3)].map(|(name, seed)| item(name, Modality::Text, seed)).into();
    for item in &mut grouped {
        item.group = Some("pair".to_owned());
        item.metadata.insert("tags".to_owned(), Value::Strings(vec!["a".into(), "b".into()]));
    }
    put(engine, vec![large, item("again", Modality::Text, 4), item("gone", Modality::Text, 5)])
        .await;
    put(engine, grouped).await;
    let items = vec![item("again", Modality::Text, 6)];
    let batch = PutBatch { items, request: Some(request()), ..PutBatch::default() };
    engine.put(NAME, batch).await.unwrap();
    engine.delete(NAME, delete_ids(&["gone"])).await.unwrap();
}

fn request() -> RequestKey {
    RequestKey { id: "request".to_owned(), digest: [9; 32] }
}

/// What [`fill`] wrote is there under `collection`.
async fn check(engine: &EmbeddedEngine, collection: &str) {
    let fields = Fields { source: true, vectors: true };
    let scan = Scan { limit: 10, fields, ..Scan::default() };
    let page = engine.scan(collection, scan).await.unwrap();
    let told: Vec<_> = page.items.iter().map(|item| (item.id.as_str(), item.version)).collect();
    assert_eq!(told, [("again", 6), ("large", 1), ("one", 4), ("two", 5)]);
    assert_eq!(page.generation, 7);
    let [again, large, one, _] = <[Item; 4]>::try_from(page.items).unwrap();
    assert_eq!(large.source, Some(vec![7; 70_000]));
    assert_eq!(again.source.as_deref(), Some(b"source 6".as_slice()));
    assert_eq!(one.group.as_deref(), Some("pair"));
    let tags = Value::Strings(vec!["a".into(), "b".into()]);
    assert_eq!((&one.metadata["tags"], &one.metadata["seed"]), (&tags, &Value::Int(2)));
    assert_eq!((again.created_at_ms, again.updated_at_ms), (THEN_MS, THEN_MS));
    let query = nearest(Modality::Text, vector(3, 19), 1);
    assert_eq!(names(&engine.nearest(collection, query).await.unwrap()), ["two"]);
}

fn opened(folder: &Path, version: u32) -> EmbeddedEngine {
    copy(&fixture(version), folder);
    // A request in the ledger lives for an hour.
    let config = EmbeddedConfig { now_ms: || THEN_MS + 1000, ..small(folder) };
    EmbeddedEngine::open(&config).unwrap()
}

#[test]
fn data_folders_of_every_format_are_opened_and_written_on() {
    for version in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        run(async {
            for start in 0..2 {
                let engine = match start {
                    0 => opened(folder.path(), version),
                    _ => EmbeddedEngine::open(&small(folder.path())).unwrap(),
                };
                check(&engine, NAME).await;
                let known = engine.outcome(NAME, &request()).await.unwrap();
                assert!(matches!(known, Some(StoredOutcome::Put(_))), "format {version}");
                let log = engine.changes(NAME, 0, 100).await.unwrap();
                let puts = log.changes.iter().filter(|change| change.kind == ChangeKind::Put);
                assert_eq!(puts.count(), 4, "format {version}");
                // Format 1 had no log: which items were deleted is not known.
                let after_delete = engine.changes(NAME, 2, 100).await.unwrap();
                assert_eq!(after_delete.complete, version > 1);
                engine.close().await.unwrap();
            }
            let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
            put(&engine, vec![item("new", Modality::Text, 8)]).await;
            assert_eq!(engine.changes(NAME, 7, 100).await.unwrap().changes.len(), 1);
        });
    }
}

/// Format 1 is the only one yet; the folder of store format 2 holds a snapshot of it.
#[test]
fn snapshots_of_every_format_are_restored() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let engine = opened(folder.path(), 2);
        let [snapshot] = <[_; 1]>::try_from(engine.snapshots().await.unwrap()).unwrap();
        let told = (snapshot.name.as_str(), snapshot.created_at_ms);
        assert_eq!(told, ("things-1700000000000", THEN_MS));
        engine.restore_snapshot(&snapshot.name, Some("copy"), Arc::default()).await.unwrap();
        check(&engine, "copy").await;
        check(&engine, NAME).await;
    });
}

/// Copies a fixture to where it may be written, without what only marks it as a fixture.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

#[test]
#[ignore = "writes the fixture of a new format, once"]
fn write_the_fixture_of_the_present_format() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let mut config = small(folder.path());
        config.now_ms = || THEN_MS;
        let engine = EmbeddedEngine::open(&config).unwrap();
        fill(&engine).await;
        engine.create_snapshot(NAME, Arc::default()).await.unwrap();
        engine.close().await.unwrap();
    });
    let marker = std::fs::read(folder.path().join("diptych-store.json")).unwrap();
    let marker: serde_json::Value = serde_json::from_slice(&marker).unwrap();
    let version = marker["version"].as_u64().unwrap().try_into().unwrap();
    std::fs::remove_file(folder.path().join("lock")).unwrap();
    std::fs::remove_file(folder.path().join("db/lock.mdb")).unwrap();
    assert!(!fixture(version).exists(), "the fixture is there");
    copy(folder.path(), &fixture(version));
}
