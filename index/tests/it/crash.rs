//! A writer that is killed in mid-stream loses nothing that it acknowledged.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use diptych_index::{EmbeddedConfig, EmbeddedEngine, Engine, Fields, Modality, NewItem, Scan};

use crate::support::{NAME, delete_ids, id, item, names, nearest, put, run, small, spec, vector};

/// Set for the child: the data folder it writes to.
const FOLDER: &str = "DIPTYCH_INDEX_TEST_FOLDER";
const ROUNDS: u64 = 6;

/// What item `n` of a round is like; every fifth has a source large enough for a file.
fn content(round: u64, n: u64) -> NewItem {
    let mut new = item(&name(round, n), Modality::Image, seed(round, n));
    if n.is_multiple_of(5) {
        new.source = Some(vec![n as u8; 70_000]);
    }
    new
}

fn name(round: u64, n: u64) -> String {
    format!("r{round}-{n}")
}

fn seed(round: u64, n: u64) -> u64 {
    round * 1_000_000 + n
}

/// Not a test of its own: the process that gets killed.
#[test]
#[ignore = "run by `what_was_acknowledged_survives_a_kill`"]
fn child_that_writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    run(async {
        let engine = Arc::new(EmbeddedEngine::open(&config(Path::new(&folder))).unwrap());
        if engine.collections().await.unwrap().is_empty() {
            engine.create_collection(spec(NAME)).await.unwrap();
        }
        let round = engine.collection(NAME).await.unwrap().generation;
        let writers = (0..4_u64).map(|writer| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move {
                for n in (writer..1_000_000).step_by(4) {
                    put(&*engine, vec![content(round, n)]).await;
                    say(&format!("put {round} {n}"));
                    if n % 7 == 3 {
                        say(&format!("deleting {round} {n}"));
                        engine.delete(NAME, delete_ids(&[&name(round, n)])).await.unwrap();
                        say(&format!("deleted {round} {n}"));
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

/// One line, whole.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n> {line}\n").as_bytes()).unwrap();
}

fn config(folder: &Path) -> EmbeddedConfig {
    EmbeddedConfig { exact_below: 0, ..small(folder) }
}

fn start(folder: &Path) -> Child {
    let child = "crash::child_that_writes_until_it_is_killed";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, OsString::from(folder))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What is known of an item: put, perhaps deleted, surely deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    There,
    Unsure,
    Gone,
}

/// Reads what the child says, and kills it after some lines.
fn kill_after(mut child: Child, lines: usize, known: &mut BTreeMap<(u64, u64), Known>) {
    let mut said = 0;
    let stdout = BufReader::new(child.stdout.take().unwrap());
    for line in stdout.lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if words.next() != Some(">") {
            continue;
        }
        let what = match words.next() {
            Some("put") => Known::There,
            Some("deleting") => Known::Unsure,
            Some("deleted") => Known::Gone,
            _ => continue,
        };
        let mut number = || words.next().and_then(|word| word.parse().ok());
        // The last line may be cut off by the kill.
        if let (Some(round), Some(n)) = (number(), number()) {
            known.insert((round, n), what);
        }
        said += 1;
        if said == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(said >= lines, "the child ended by itself after {said} lines");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut known = BTreeMap::new();
    for round in 0..ROUNDS {
        let lines = 20 + 37 * round as usize;
        kill_after(start(folder.path()), lines, &mut known);
        run(check(folder.path(), &known));
    }
    assert!(known.len() > 100);
}

async fn check(folder: &Path, known: &BTreeMap<(u64, u64), Known>) {
    let engine = EmbeddedEngine::open(&config(folder)).unwrap();
    let fields = Fields { source: true, vectors: false };
    for (&(round, n), what) in known {
        let name = name(round, n);
        let found = engine.get(NAME, &[id(&name)], fields).await.unwrap().remove(0);
        match what {
            Known::There => {
                assert_eq!(found.expect("acknowledged").source, content(round, n).source);
                let query = nearest(Modality::Image, vector(seed(round, n), 19), 1);
                let found = engine.nearest(NAME, query).await.unwrap();
                assert_eq!(names(&found), [name]);
            }
            Known::Gone => assert!(found.is_none(), "{name} was deleted"),
            Known::Unsure => {}
        }
    }
    let count = engine.collection(NAME).await.unwrap().counts.images as usize;
    let everything = nearest(Modality::Image, vector(1, 19), usize::MAX);
    let found = engine.nearest(NAME, everything).await.unwrap();
    let mut once = names(&found);
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), count, "nothing is there twice");
    let scan = Scan { limit: usize::MAX, fields, ..Scan::default() };
    assert_eq!(engine.scan(NAME, scan).await.unwrap().items.len(), count);
    engine.close().await.unwrap();
}
