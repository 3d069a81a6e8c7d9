//! Snapshots: what comes back is what was there, and what is damaged does not come back at all.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use diptych_index::{
    AliasChange, EmbeddedConfig, EmbeddedEngine, Engine, EngineAdmin, Error, Fields, Item,
    Modality, Progress, Scan, Selection, SnapshotInfo,
};
use sha2::{Digest as _, Sha256};

use crate::support::{
    Fixture, NAME, delete_ids, item, many, names, nearest, over_engines, put, run, small, spec,
    vector,
};

/// All items with all parts, in the order of ids.
async fn whole(engine: &EmbeddedEngine, collection: &str) -> Vec<Item> {
    let fields = Fields { source: true, vectors: true };
    let scan = Scan { limit: 10_000, fields, ..Scan::default() };
    engine.scan(collection, scan).await.unwrap().items
}

async fn fill(engine: &EmbeddedEngine) {
    put(engine, many("a", Modality::Image, 300)).await;
    let mut large = item("large", Modality::Text, 1);
    large.source = Some((0..3_000_000_u32).map(|n| n as u8).collect());
    large.group = Some("g".to_owned());
    put(engine, vec![large]).await;
    engine.delete(NAME, delete_ids(&["a0", "a1"])).await.unwrap();
    put(engine, vec![item("a2", Modality::Text, 77)]).await;
}

async fn snapshot(engine: &EmbeddedEngine) -> SnapshotInfo {
    engine.create_snapshot(NAME, Arc::default()).await.unwrap()
}

async fn restore(
    engine: &EmbeddedEngine,
    name: &str,
    into: Option<&str>,
) -> diptych_index::Result<diptych_index::CollectionInfo> {
    engine.restore_snapshot(name, into, Arc::default()).await
}

fn file(fixture: &Fixture, snapshot: &SnapshotInfo) -> PathBuf {
    fixture.config.snapshots.join(format!("{}.{}.snapshot", snapshot.name, snapshot.sha256))
}

#[test]
fn what_is_restored_is_what_was_there_bit_for_bit_also_under_another_name_and_after_a_start() {
    over_engines(|mut fixture| async move {
        fill(&fixture.engine).await;
        let before = whole(&fixture.engine, NAME).await;
        let made = snapshot(&fixture.engine).await;
        let bytes = std::fs::read(file(&fixture, &made)).unwrap();
        assert_eq!(made.bytes, bytes.len() as u64);
        assert_eq!(made.sha256, hex::encode(Sha256::digest(&bytes)));
        put(&*fixture.engine, vec![item("later", Modality::Text, 5)]).await;
        let progress = Arc::new(Progress::default());
        let restored = fixture
            .engine
            .restore_snapshot(&made.name, Some("copy"), Arc::clone(&progress))
            .await
            .unwrap();
        assert_eq!((restored.spec.name.as_str(), restored.generation), ("copy", made.generation));
        assert!((progress.share() - 1.0).abs() < f64::EPSILON);
        for _ in 0..2 {
            assert_eq!(whole(&fixture.engine, "copy").await, before);
            let query = nearest(Modality::Image, vector(9, 19), 3);
            let found = fixture.engine.nearest("copy", query).await.unwrap();
            assert_eq!(names(&found)[0], "a9");
            fixture.reopen().await;
        }
        // A write goes on behind the last number of before.
        let written = fixture
            .engine
            .put(
                "copy",
                diptych_index::PutBatch {
                    items: vec![item("new", Modality::Text, 6)],
                    ..Default::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(written.generation, made.generation + 1);
    });
}

#[test]
fn snapshots_are_listed_newest_first_and_deleted_and_a_taken_name_is_refused() {
    over_engines(|fixture| async move {
        let engine = &fixture.engine;
        assert!(engine.snapshots().await.unwrap().is_empty());
        fill(engine).await;
        let first = snapshot(engine).await;
        let second = snapshot(engine).await;
        assert_ne!(first.name, second.name);
        let listed = engine.snapshots().await.unwrap();
        assert_eq!(listed.len(), 2);
        assert!(listed.contains(&first) && listed[0].created_at_ms >= listed[1].created_at_ms);
        let taken = restore(engine, &first.name, None).await;
        assert!(matches!(taken, Err(Error::CollectionExists { .. })), "{taken:?}");
        let change = AliasChange {
            name: "now".to_owned(),
            collection: Some(NAME.to_owned()),
            ..AliasChange::default()
        };
        engine.change_alias(change).await.unwrap();
        let taken = restore(engine, &first.name, Some("now")).await;
        assert!(matches!(taken, Err(Error::CollectionExists { .. })), "{taken:?}");
        engine.delete_snapshot(&first.name).await.unwrap();
        let gone = engine.delete_snapshot(&first.name).await;
        assert!(matches!(gone, Err(Error::SnapshotMissing { .. })));
        for name in ["../store", "", "none"] {
            let missing = restore(engine, name, Some("copy")).await;
            assert!(matches!(missing, Err(Error::SnapshotMissing { .. })), "{missing:?}");
        }
        assert_eq!(engine.snapshots().await.unwrap(), [second]);
    });
}

#[test]
fn an_archive_that_is_cut_flipped_or_foreign_is_refused_before_anything_is_written() {
    over_engines(|fixture| async move {
        let engine = &fixture.engine;
        fill(engine).await;
        let made = snapshot(engine).await;
        let path = file(&fixture, &made);
        let good = std::fs::read(&path).unwrap();
        let mut bad: Vec<(&str, Vec<u8>)> = vec![
            ("no snapshot", b"PK\x03\x04 a foreign file of some length".to_vec()),
            ("no snapshot", Vec::new()),
            ("something follows", [good.as_slice(), b"x"].concat()),
        ];
        for part in [13, good.len() / 3, good.len() / 2, good.len() - 1] {
            bad.push(("", good[..part].to_vec()));
            let mut flipped = good.clone();
            flipped[part] ^= 0x10;
            bad.push(("", flipped));
        }
        let mut future = good.clone();
        future[8] = 99;
        bad.push(("format 99", future));
        for (problem, bytes) in bad {
            std::fs::write(&path, &bytes).unwrap();
            let refused = restore(engine, &made.name, Some("copy")).await.unwrap_err();
            assert!(matches!(refused, Error::SnapshotRefused { .. }), "{refused}");
            assert!(refused.to_string().contains(problem), "{refused}");
        }
        assert_eq!(engine.collections().await.unwrap().len(), 1);
        std::fs::write(&path, &good).unwrap();
        restore(engine, &made.name, Some("copy")).await.unwrap();
    });
}

#[test]
fn a_cancelled_snapshot_or_restore_leaves_nothing_behind() {
    over_engines(|mut fixture| async move {
        fill(&fixture.engine).await;
        let made = snapshot(&fixture.engine).await;
        let cancelled = Arc::new(Progress::default());
        cancelled.cancel();
        let created = fixture.engine.create_snapshot(NAME, Arc::clone(&cancelled)).await;
        assert!(matches!(created, Err(Error::Cancelled)), "{created:?}");
        let restored = fixture.engine.restore_snapshot(&made.name, Some("copy"), cancelled).await;
        assert!(matches!(restored, Err(Error::Cancelled)), "{restored:?}");
        assert_eq!(std::fs::read_dir(&fixture.config.snapshots).unwrap().count(), 1);
        std::fs::write(fixture.config.snapshots.join("~things-1"), b"cut off").unwrap();
        fixture.reopen().await;
        assert_eq!(fixture.engine.collections().await.unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(&fixture.config.snapshots).unwrap().count(), 1);
    });
}

#[test]
fn a_snapshot_is_of_one_moment_while_writers_go_on() {
    over_engines(|fixture| async move {
        let engine = Arc::clone(&fixture.engine);
        let mut large = many("a", Modality::Image, 200);
        for item in &mut large {
            item.source = Some(vec![item.id.as_str().len() as u8; 70_000]);
        }
        put(&*engine, large).await;
        let writing = Arc::clone(&engine);
        let writer = tokio::spawn(async move {
            for round in 0..40 {
                let name = format!("a{}", round * 5);
                writing.delete(NAME, delete_ids(&[&name])).await.unwrap();
                put(&*writing, vec![item(&format!("b{round}"), Modality::Text, round)]).await;
            }
        });
        let made = snapshot(&engine).await;
        writer.await.unwrap();
        let copy = restore(&engine, &made.name, Some("copy")).await.unwrap();
        // Deletes and puts alternate, so the number of items follows from the generation.
        let writes = copy.generation - 200;
        assert_eq!(copy.counts.images + copy.counts.texts, 200 - writes % 2);
        assert_eq!(whole(&engine, "copy").await.len() as u64, copy.counts.total());
        let rest = engine.matching(NAME, &Selection::Group("none".to_owned())).await.unwrap();
        assert_eq!(rest.generation, 280);
    });
}

#[test]
fn a_restored_collection_takes_a_spec_as_it_was() {
    over_engines(|fixture| async move {
        let asked = fixture.engine.collection(NAME).await.unwrap().spec;
        let made = snapshot(&fixture.engine).await;
        fixture.engine.drop_collection(NAME).await.unwrap();
        let restored = restore(&fixture.engine, &made.name, None).await.unwrap();
        assert_eq!(restored.spec, asked);
    });
}

#[test]
fn snapshots_of_one_moment_are_each_whole_and_have_names_of_their_own() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { now_ms: || 1_700_000_000_000, ..small(folder.path()) };
        let engine = Arc::new(EmbeddedEngine::open(&config).unwrap());
        engine.create_collection(spec(NAME)).await.unwrap();
        put(&*engine, many("a", Modality::Image, 300)).await;
        let mut making = tokio::task::JoinSet::new();
        for n in 0..8 {
            let engine = Arc::clone(&engine);
            making.spawn(async move {
                put(&*engine, vec![item(&format!("b{n}"), Modality::Image, n)]).await;
                snapshot(&engine).await
            });
        }
        let made = making.join_all().await;
        let names: BTreeSet<&str> = made.iter().map(|made| made.name.as_str()).collect();
        assert_eq!(names.len(), made.len());
        for made in &made {
            let path = config.snapshots.join(format!("{}.{}.snapshot", made.name, made.sha256));
            assert_eq!(made.sha256, hex::encode(Sha256::digest(std::fs::read(path).unwrap())));
        }
    });
}
