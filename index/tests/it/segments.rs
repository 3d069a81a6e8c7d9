//! Segments: read from disk after a start, merged, rid of ended rows; and whatever is wrong with
//! their files, nothing is lost and no start is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use diptych_index::{
    BuilderKind, CollectionSpec, Dims, EmbeddedConfig, EmbeddedEngine, Engine, EngineAdmin as _,
    Kind, Modality, Nearest, VectorStorage,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::{
    Fixture, NAME, delete_ids, item, many, names, nearest, over_engines, put, run, small, spec,
    vector,
};

const ROWS: u64 = 600;

/// Graphs from the first row on.
fn config(folder: &Path) -> EmbeddedConfig {
    EmbeddedConfig { exact_below: 0, ..small(folder) }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(folder.join("index")).into_iter().flatten();
    let paths = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let mut paths: Vec<PathBuf> = paths.map(|path| path.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every picture is there once, and the nearest of its own vector.
async fn all_are_there(engine: &EmbeddedEngine, rows: u64) {
    let everything = nearest(Modality::Image, vector(1, 19), usize::MAX);
    for exact in [false, true] {
        let query = Nearest { exact, ..everything.clone() };
        let found = engine.nearest(NAME, query).await.unwrap();
        let mut once = names(&found);
        once.sort_unstable();
        once.dedup();
        assert_eq!((once.len(), found.neighbours.len()), (rows as usize, rows as usize));
    }
    for seed in (0..rows).step_by(37) {
        let query = nearest(Modality::Image, vector(seed, 19), 1);
        let found = engine.nearest(NAME, query).await.unwrap();
        assert_eq!(names(&found), [format!("p{seed}")]);
    }
}

/// Rows that came from files, of both spaces of pictures.
fn rows_from_files(engine: &EmbeddedEngine) -> usize {
    engine.index_status(NAME).unwrap().iter().map(|slot| slot.rows_from_files).sum()
}

#[test]
fn a_start_reads_segments_from_disk_and_only_newer_rows_from_the_store() {
    over_engines(|mut fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, ROWS)).await;
        fixture.engine.settle().await.unwrap();
        put(&*fixture.engine, vec![item("p600", Modality::Image, 600)]).await;
        fixture.reopen().await;
        let scanned = fixture.config.exact_below > 0;
        assert_eq!(rows_from_files(&fixture.engine), if scanned { 0 } else { 2 * ROWS as usize });
        all_are_there(&fixture.engine, ROWS + 1).await;
        // Rows that ended while the files stayed as they are do not come back.
        fixture.engine.delete(NAME, delete_ids(&["p3", "p600"])).await.unwrap();
        put(&*fixture.engine, vec![item("p4", Modality::Image, 9_999)]).await;
        fixture.reopen().await;
        let query = nearest(Modality::Image, vector(3, 19), usize::MAX);
        let found = fixture.engine.nearest(NAME, query).await.unwrap();
        assert_eq!(found.neighbours.len(), ROWS as usize - 1);
        assert!(!names(&found).contains(&"p3"));
        let query = nearest(Modality::Image, vector(9_999, 19), 1);
        assert_eq!(names(&fixture.engine.nearest(NAME, query).await.unwrap()), ["p4"]);
    });
}

#[test]
fn many_writes_leave_few_segments_and_few_files() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        let items = many("p", Modality::Image, 2_000);
        for items in items.chunks(70) {
            put(&engine, items.to_vec()).await;
            engine.settle().await.unwrap();
        }
        let status = engine.index_status(NAME).unwrap();
        let segments: usize = status.iter().map(|slot| slot.segments).sum();
        assert!((2..=16).contains(&segments), "{segments} segments");
        let files = files(folder.path());
        assert!(files.len() <= 2 * segments, "{files:?}");
        all_are_there(&engine, 2_000).await;
    });
}

#[test]
fn a_segment_whose_rows_ended_is_made_again_without_them() {
    over_engines(|fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, ROWS)).await;
        fixture.engine.settle().await.unwrap();
        let gone: Vec<String> = (0..ROWS).filter(|n| n % 3 == 0).map(|n| format!("p{n}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        fixture.engine.delete(NAME, delete_ids(&gone)).await.unwrap();
        fixture.engine.settle().await.unwrap();
        for slot in fixture.engine.index_status(NAME).unwrap() {
            assert_eq!(slot.ended, 0, "{slot:?}");
        }
        let query = nearest(Modality::Image, vector(3, 19), usize::MAX);
        let found = fixture.engine.nearest(NAME, query).await.unwrap();
        assert_eq!(found.neighbours.len(), 400);
        assert!(found.neighbours.iter().all(|near| !gone.contains(&near.id.as_str())));
    });
}

#[test]
fn compacting_leaves_one_segment_without_ended_rows() {
    over_engines(|mut fixture| async move {
        for part in many("p", Modality::Image, ROWS).chunks(150) {
            put(&*fixture.engine, part.to_vec()).await;
            fixture.engine.settle().await.unwrap();
        }
        fixture.engine.delete(NAME, delete_ids(&["p1", "p2"])).await.unwrap();
        put(&*fixture.engine, vec![item("p5", Modality::Image, 5)]).await;
        fixture.engine.compact(NAME, Arc::default()).await.unwrap();
        let scanned = fixture.config.exact_below > 0;
        for slot in fixture.engine.index_status(NAME).unwrap() {
            assert_eq!(slot.ended, 0);
            if slot.modality == Modality::Image {
                assert_eq!(slot.rows, 598, "no ended row is left");
                assert_eq!(slot.segments, usize::from(!scanned));
            }
        }
        fixture.reopen().await;
        let query = nearest(Modality::Image, vector(5, 19), usize::MAX);
        let found = fixture.engine.nearest(NAME, query).await.unwrap();
        assert_eq!((names(&found)[0], found.neighbours.len()), ("p5", 598));
        // Nothing to do, nothing there, and a collection that is missing.
        fixture.engine.compact(NAME, Arc::default()).await.unwrap();
        let error = fixture.engine.compact("other", Arc::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    });
}

/// A closed folder with segments of each form, and their files.
fn filled(storage: VectorStorage, graph: BuilderKind) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        let spec = CollectionSpec { storage, graph, ..spec(NAME) };
        engine.create_collection(spec).await.unwrap();
        put(&engine, many("p", Modality::Image, 200)).await;
        engine.settle().await.unwrap();
        engine.close().await.unwrap();
    });
    folder
}

/// Opens, finds everything, and after the next start has all rows in files again.
fn heals(folder: &Path) {
    run(async {
        let engine = EmbeddedEngine::open(&config(folder)).unwrap();
        all_are_there(&engine, 200).await;
        engine.settle().await.unwrap();
        all_are_there(&engine, 200).await;
        engine.close().await.unwrap();
        let engine = EmbeddedEngine::open(&config(folder)).unwrap();
        assert_eq!(rows_from_files(&engine), 400);
        all_are_there(&engine, 200).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_file_cut_flipped_or_missing_costs_no_row_and_no_start(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        kind in 0..4_u8,
        storage in prop_oneof![
            Just(VectorStorage::F32), Just(VectorStorage::I16), Just(VectorStorage::I8)],
        graph in prop_oneof![Just(BuilderKind::Native), Just(BuilderKind::HnswRs)],
    ) {
        let folder = filled(storage, graph);
        let files = files(folder.path());
        let path = &files[which.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        match kind {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << (at % 8),
            2 => bytes.extend([7; 9]),
            _ => bytes.clear(),
        }
        fs::write(path, bytes).unwrap();
        if kind == 3 {
            fs::remove_file(path).unwrap();
        }
        heals(folder.path());
    }
}

#[test]
fn files_that_changed_places_or_came_from_elsewhere_are_not_used() {
    for graph in [BuilderKind::Native, BuilderKind::HnswRs] {
        let folder = filled(VectorStorage::F32, graph);
        let all = files(folder.path());
        let of_rows: Vec<&PathBuf> =
            all.iter().filter(|path| path.extension().unwrap() == "rows").collect();
        let (first, second) = (of_rows[0], of_rows[1]);
        let (a, b) = (fs::read(first).unwrap(), fs::read(second).unwrap());
        fs::write(first, b).unwrap();
        fs::write(second, a).unwrap();
        fs::write(folder.path().join("index/1/0-77.rows"), "not named by any commit").unwrap();
        fs::write(folder.path().join("index/1/0-1.new"), "left by a process that died").unwrap();
        heals(folder.path());
        assert_eq!(files(folder.path()).len(), all.len(), "what is not named has gone");

        let other = filled(VectorStorage::I8, graph);
        fs::remove_dir_all(folder.path().join("index")).unwrap();
        fs::rename(other.path().join("index"), folder.path().join("index")).unwrap();
        heals(folder.path());
    }
}

#[test]
fn a_disk_that_refuses_segments_fails_nobody_and_is_tried_again() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        // A plain file where the folder of segments is to be.
        let place = folder.path().join("index");
        fs::write(&place, "in the way").unwrap();
        put(&engine, many("p", Modality::Image, 200)).await;
        engine.settle().await.unwrap();
        let status = engine.index_status(NAME).unwrap();
        assert!(status.iter().any(|slot| slot.graph_rows == 200), "used in memory: {status:?}");
        all_are_there(&engine, 200).await;
        assert!(engine.takes_writes());
        put(&engine, vec![item("new", Modality::Image, 5_000)]).await;
        engine.delete(NAME, delete_ids(&["new"])).await.unwrap();
        let error = engine.compact(NAME, Arc::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");

        fs::remove_file(&place).unwrap();
        engine.settle().await.unwrap();
        engine.compact(NAME, Arc::default()).await.unwrap();
        assert!(!files(folder.path()).is_empty());
        engine.close().await.unwrap();
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        assert_eq!(rows_from_files(&engine), 400);
        all_are_there(&engine, 200).await;
    });
}

#[test]
fn a_collection_of_one_space_is_compacted_too() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        let dims = Dims { shared: Some(19), exclusive_image: None, exclusive_text: None };
        engine.create_collection(CollectionSpec { dims, ..spec(NAME) }).await.unwrap();
        engine.compact(NAME, Arc::default()).await.unwrap();
        let mut items = many("p", Modality::Image, 200);
        items.iter_mut().for_each(|item| item.vectors.exclusive = None);
        put(&engine, items).await;
        engine.compact(NAME, Arc::default()).await.unwrap();
        all_are_there(&engine, 200).await;
    });
}

#[test]
fn a_dropped_collection_leaves_no_files() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let engine = EmbeddedEngine::open(&config(folder.path())).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        put(&engine, many("p", Modality::Image, 200)).await;
        engine.settle().await.unwrap();
        assert!(!files(folder.path()).is_empty());
        // One more order is under way when the collection goes.
        put(&engine, many("q", Modality::Image, 200)).await;
        engine.drop_collection(NAME).await.unwrap();
        engine.close().await.unwrap();
        drop(EmbeddedEngine::open(&config(folder.path())).unwrap());
        assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
    });
}

/// Half of the rows replaced by new ones: what a graph finds is what a fresh one finds.
#[test]
fn recall_after_many_deletes_and_inserts_is_that_of_a_fresh_build() {
    over_engines(|fixture| async move {
        if fixture.config.exact_below > 0 {
            return;
        }
        const ALL: u64 = 1_200;
        put(&*fixture.engine, many("p", Modality::Image, ALL)).await;
        fixture.engine.settle().await.unwrap();
        let fresh = recall(&fixture).await;
        let gone: Vec<String> = (0..ALL).filter(|n| n % 2 == 0).map(|n| format!("p{n}")).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        fixture.engine.delete(NAME, delete_ids(&gone)).await.unwrap();
        let items = (0..ALL / 2).map(|n| item(&format!("n{n}"), Modality::Image, 70_000 + n));
        put(&*fixture.engine, items.collect()).await;
        let before_merging = recall(&fixture).await;
        fixture.engine.settle().await.unwrap();
        let after = recall(&fixture).await;
        fixture.engine.compact(NAME, Arc::default()).await.unwrap();
        let compact = recall(&fixture).await;
        for (when, share) in [("before", before_merging), ("after", after), ("compact", compact)] {
            assert!(share >= fresh - 0.01, "{when}: {share}, fresh: {fresh}");
        }
    });
}

/// Share of the exact ten nearest that are found, over 100 queries.
async fn recall(fixture: &Fixture) -> f64 {
    let mut found = 0;
    for seed in 0..100 {
        let query = nearest(Modality::Image, vector(seed + 50_000, 19), 10);
        let exact = Nearest { exact: true, ..query.clone() };
        let exact = fixture.engine.nearest(NAME, exact).await.unwrap();
        let near = fixture.engine.nearest(NAME, query).await.unwrap();
        let exact = names(&exact);
        found += names(&near).iter().filter(|name| exact.contains(name)).count();
    }
    found as f64 / 1000.0
}
