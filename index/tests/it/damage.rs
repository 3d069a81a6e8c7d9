//! A data folder that can't be used is refused with a sentence that says what to do.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use diptych_index::{EmbeddedEngine, Engine, Fields, Kind, Modality};
use tempfile::TempDir;

use crate::support::{NAME, delete_ids, id, item, many, put, run, small, spec};

/// A closed folder with some items; some sources fill pages of their own, some pages are free.
fn filled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        let mut items = many("p", Modality::Image, 300);
        for item in items.iter_mut().step_by(30) {
            item.source = Some(vec![7; 9_000]);
        }
        put(&engine, items.clone()).await;
        engine.delete(NAME, delete_ids(&["p1", "p30", "p77"])).await.unwrap();
        put(&engine, items).await;
        engine.close().await.unwrap();
    });
    folder
}

fn refusal(folder: &Path) -> String {
    let error = EmbeddedEngine::open(&small(folder)).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    error.to_string()
}

fn data(folder: &Path) -> std::path::PathBuf {
    folder.join("db/data.mdb")
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = filled();
    let first = EmbeddedEngine::open(&small(folder.path())).unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("in use by another process"), "{text}");
    drop(first);
    EmbeddedEngine::open(&small(folder.path())).unwrap();
}

#[test]
fn a_truncated_database_is_refused() {
    let folder = filled();
    let whole = fs::metadata(data(folder.path())).unwrap().len();
    for bytes in [whole / 2, 8192, 5000, 1, 0] {
        let file = OpenOptions::new().write(true).open(data(folder.path())).unwrap();
        file.set_len(bytes).unwrap();
        let text = refusal(folder.path());
        assert!(text.contains("restore the folder from a backup"), "{bytes}: {text}");
    }
    fs::remove_file(data(folder.path())).unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("missing or empty"), "{text}");
}

#[test]
fn a_damaged_head_is_refused() {
    let folder = filled();
    overwrite(&data(folder.path()), 0, &[0xAA; 9000]);
    let text = refusal(folder.path());
    assert!(text.contains("head is damaged"), "{text}");
}

#[test]
fn a_format_of_the_future_is_refused() {
    let folder = filled();
    let marker = folder.path().join("diptych-store.json");
    fs::write(&marker, r#"{"format":"diptych-store","version":99}"#).unwrap();
    let text = refusal(folder.path());
    assert!(text.contains("format 99") && text.contains("reads formats 1 to 2"), "{text}");
    fs::write(&marker, "not json").unwrap();
    assert!(refusal(folder.path()).contains("not readable"));
}

#[test]
fn flipped_bytes_in_vectors_are_refused_at_open() {
    let folder = filled();
    let path = data(folder.path());
    let bytes = fs::read(&path).unwrap();
    // The stored form of a vector of the first item, found by its bytes.
    let needle = run(async {
        let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
        let fields = Fields { source: false, vectors: true };
        let found = engine.get(NAME, &[id("p7")], fields).await.unwrap().remove(0).unwrap();
        let shared = found.vectors.shared.unwrap();
        shared.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()
    });
    let mut places = 0;
    for at in 0..bytes.len() - needle.len() {
        if bytes[at..].starts_with(&needle) {
            overwrite(&path, at as u64 + 8, &[0x12, 0x34]);
            places += 1;
        }
    }
    assert!(places > 0);
    let text = refusal(folder.path());
    assert!(text.contains("vector of item \"p7\" is not readable"), "{text}");
}

#[test]
fn a_start_that_was_killed_before_its_marker_is_finished() {
    let folder = filled();
    fs::remove_file(folder.path().join("diptych-store.json")).unwrap();
    run(async {
        let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
        assert_eq!(engine.collection(NAME).await.unwrap().counts.images, 300);
    });
}

/// A power loss, which a kill is not, may leave any part of a first start's database. No marker says that it was finished.
#[test]
fn a_first_start_that_lost_its_power_begins_anew() {
    for bytes in [vec![0; 1], vec![0; 8192], vec![0xAA; 40_000]] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("db")).unwrap();
        fs::write(data(folder.path()), bytes).unwrap();
        run(async {
            let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
            engine.create_collection(spec(NAME)).await.unwrap();
        });
    }
    // A folder that was in use is not taken for one.
    let folder = filled();
    fs::remove_file(folder.path().join("diptych-store.json")).unwrap();
    fs::create_dir(folder.path().join("sources/ab")).unwrap();
    overwrite(&data(folder.path()), 0, &[0xAA; 9000]);
    assert!(refusal(folder.path()).contains("head is damaged"));
}

#[test]
fn source_files_are_shared_removed_and_swept() {
    let count = |folder: &Path| {
        let folders = fs::read_dir(folder.join("sources")).unwrap().map(|f| f.unwrap().path());
        folders.flat_map(|f| fs::read_dir(f).unwrap()).count()
    };
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        let large = |name: &str, byte: u8| {
            let mut new = item(name, Modality::Image, 1);
            new.source = Some(vec![byte; 100_000]);
            new
        };
        put(&engine, vec![large("a", 1), large("b", 1), large("c", 2)]).await;
        assert_eq!(count(folder.path()), 2, "equal sources share a file");
        // Written again with the same source: the file stays.
        put(&engine, vec![large("c", 2)]).await;
        engine.delete(NAME, delete_ids(&["a"])).await.unwrap();
        assert_eq!(count(folder.path()), 2);
        engine.delete(NAME, delete_ids(&["b"])).await.unwrap();
        assert_eq!(count(folder.path()), 1);
        engine.close().await.unwrap();

        let orphan = folder.path().join("sources/ab").join("ab".repeat(32));
        fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        fs::write(&orphan, "left by a process that died").unwrap();
        let engine = EmbeddedEngine::open(&small(folder.path())).unwrap();
        assert!(!orphan.exists());
        let fields = Fields { source: true, vectors: false };
        let found = engine.get(NAME, &[id("c")], fields).await.unwrap().remove(0).unwrap();
        assert_eq!(found.source, Some(vec![2; 100_000]));
        for file in fs::read_dir(folder.path().join("sources")).unwrap() {
            let file = file.unwrap().path();
            fs::remove_dir_all(&file).unwrap();
            fs::create_dir(&file).unwrap();
        }
        let error = engine.get(NAME, &[id("c")], fields).await.unwrap_err();
        assert!(error.to_string().contains("put the item again"), "{error}");
    });
}

/// Every page in turn is overwritten: with zeros, with noise, or with another page. The engine
/// refuses in words, or opens with everything there (the page was free, or in the middle of a
/// source, which is checked when it is read). It never ends the process.
#[test]
fn no_damaged_page_ends_the_process() {
    const PAGE: usize = 4096;
    let folder = filled();
    let sound = fs::read(data(folder.path())).unwrap();
    let (mut refused, mut opened) = (0, 0);
    for page in 0..sound.len() / PAGE {
        for kind in 0..3_usize {
            let mut bytes = sound.clone();
            let other = (page + 1 + kind) % (sound.len() / PAGE);
            let spoilt = match kind {
                0 => vec![0; PAGE],
                1 => (0..PAGE).map(|i| (i * 31 + page * 7) as u8).collect(),
                _ => sound[other * PAGE..(other + 1) * PAGE].to_vec(),
            };
            bytes[page * PAGE..(page + 1) * PAGE].copy_from_slice(&spoilt);
            fs::write(data(folder.path()), &bytes).unwrap();
            match EmbeddedEngine::open(&small(folder.path())) {
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
                    refused += 1;
                }
                Ok(engine) => {
                    run(all_is_there(&engine));
                    opened += 1;
                }
            }
        }
    }
    assert!(refused > 100 && opened > 0, "{refused} refused, {opened} opened");
}

/// The same for single bytes, wherever they are: in a header, a key, a link or a value.
#[test]
fn no_flipped_byte_ends_the_process_or_loses_an_item() {
    let folder = filled();
    let sound = fs::read(data(folder.path())).unwrap();
    let places = (0..600).map(|n| (n * 7_919 + n * n * 31) % sound.len());
    for at in places {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(data(folder.path()), &bytes).unwrap();
        match EmbeddedEngine::open(&small(folder.path())) {
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{at}: {error}"),
            Ok(engine) => run(all_is_there(&engine)),
        }
    }
}

/// Every item is as it was written, or its source is said to be damaged; writes go on.
async fn all_is_there(engine: &EmbeddedEngine) {
    assert_eq!(engine.collection(NAME).await.unwrap().counts.images, 300);
    let fields = Fields { source: true, vectors: true };
    for n in 0..300_u64 {
        let expected = match n % 30 {
            0 => vec![7; 9_000],
            _ => format!("source {n}").into_bytes(),
        };
        match engine.get(NAME, &[id(&format!("p{n}"))], fields).await {
            Ok(found) => assert_eq!(found[0].as_ref().unwrap().source, Some(expected)),
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{error}"),
        }
    }
    put(engine, vec![item("new", Modality::Image, 1)]).await;
}
