use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use crate::graph::{
    Ask, BuilderKind, FileError, Graph, Params, Storage, builder,
    conformance::{Table, clusters},
};

fn built(storage: Storage, rows: &Table) -> Box<dyn Graph> {
    let params = Params { storage, m: 6, ef_construction: 40, ..Params::default() };
    builder(BuilderKind::Native).build(rows, &params, &AtomicBool::new(false)).unwrap()
}

fn load(path: &std::path::Path) -> Result<Box<dyn Graph>, FileError> {
    builder(BuilderKind::Native).load(path)
}

/// Rows of which some are equal.
fn some_rows() -> Table {
    let mut rows = clusters(4, 60, 20);
    rows.0.push(rows.0[3].clone());
    rows.0.push(rows.0[3].clone());
    rows
}

#[test]
fn what_is_loaded_answers_as_what_was_saved() {
    let folder = tempfile::tempdir().unwrap();
    let all = [Storage::Bits8, Storage::Bits16, Storage::Bits24, Storage::Bits32];
    let tables = [some_rows(), Table(Vec::new()), Table(clusters(1, 1, 65).0)];
    for (storage, rows) in all.into_iter().flat_map(|s| tables.iter().map(move |rows| (s, rows))) {
        let path = folder.path().join("graph");
        let graph = built(storage, rows);
        graph.save(&path).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!((loaded.len(), loaded.dims()), (graph.len(), graph.dims()));
        for row in 0..rows.0.len() {
            assert_eq!(loaded.row(row), graph.row(row));
            let ask = Ask::new(10, 20);
            assert_eq!(loaded.search(&rows.0[row], &ask), graph.search(&rows.0[row], &ask));
        }
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left behind");
        // What is saved again is the same file.
        let first = std::fs::read(&path).unwrap();
        loaded.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }
}

#[test]
fn one_thread_builds_the_same_graph_each_time_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    let rows = clusters(8, 100, 20);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let bytes = |seed: u64| {
        let params = Params { seed, ..Params::default() };
        let never = AtomicBool::new(false);
        let graph = one.install(|| builder(BuilderKind::Native).build(&rows, &params, &never));
        graph.unwrap().save(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    assert!(bytes(1) == bytes(1));
    assert!(bytes(1) != bytes(2));
}

#[test]
fn foreign_files_and_none_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph");
    assert!(matches!(load(&path), Err(FileError::Io { .. })));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(load(&path), Err(FileError::Damaged { .. })));
    std::fs::write(&path, [b'x'; 100]).unwrap();
    assert!(matches!(load(&path), Err(FileError::Foreign { version: 1, .. })));
    built(Storage::Bits8, &some_rows()).save(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2;
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(load(&path), Err(FileError::Foreign { .. })));
    let nowhere = folder.path().join("missing").join("graph");
    let refused = built(Storage::Bits8, &some_rows()).save(&nowhere);
    assert!(matches!(refused, Err(FileError::Io { .. })));
}

/// What a change of the bytes does to a file.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Grow(Vec<u8>),
    /// A run of bytes from one place copied to another.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<prop::sample::Index>(), 1..=u8::MAX).prop_map(|(at, mask)| Damage::Flip(at, mask)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        proptest::collection::vec(any::<u8>(), 1..100).prop_map(Damage::Grow),
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..64_usize)
            .prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
    ]
}

fn damaged(whole: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    match damage {
        Damage::Flip(at, mask) => bytes[at.index(whole.len())] ^= mask,
        Damage::Cut(at) => bytes.truncate(at.index(whole.len())),
        Damage::Grow(more) => bytes.extend(more),
        Damage::Copy(from, to, length) => {
            let (from, to) = (from.index(whole.len()), to.index(whole.len()));
            let length = (*length).min(whole.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_file_is_refused(damage in damage()) {
        static WHOLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph");
        let whole = WHOLE.get_or_init(|| {
            built(Storage::Bits16, &some_rows()).save(&path).unwrap();
            std::fs::read(&path).unwrap()
        });
        let bytes = damaged(whole, &damage);
        std::fs::write(&path, &bytes).unwrap();
        if bytes == *whole {
            prop_assert!(load(&path).is_ok());
        } else {
            let refused = load(&path).err();
            let told = matches!(refused, Some(FileError::Damaged { .. } | FileError::Foreign { .. }));
            prop_assert!(told, "{:?}", refused);
        }
    }
}

/// Wrong numbers under right checksums, as a fault in the writing program would leave them.
#[test]
fn links_that_lead_nowhere_are_refused_even_with_right_checksums() {
    use super::*;
    let places = |last: u32| {
        let mut places = vec![u32::MAX; 32];
        places[0] = 1;
        places[16] = last;
        places
    };
    assert!(Links::from_places(&places(0), 2, 6).is_some());
    assert!(Links::from_places(&places(2), 2, 6).is_none());
    assert!(Links::from_places(&places(0), 3, 6).is_none());
    assert!(Points::from_parts(vec![0, 2], None).is_none());
    assert!(Points::from_parts(vec![1, 1], None).is_none());
    assert!(Points::from_parts(vec![1, 0], Some(vec![0, 0, 2])).is_none());
    assert!(Points::from_parts(vec![1, 0], Some(vec![0, 1])).is_none());
    assert!(Points::from_parts(vec![1, 0], Some(vec![0, 2])).is_some());
}
