//! The house rules that neither the compiler nor clippy keeps: who may name whom, and how long a file may grow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use diptych_tests::checkout;

/// The workspace's crates by folder, and the crates of ours that each may depend on outside its tests.
const EDGES: [(&str, &[&str]); 7] = [
    ("proto", &[]),
    ("model", &[]),
    ("index", &[]),
    ("client", &["diptych-proto"]),
    ("server", &["diptych-index", "diptych-model", "diptych-proto"]),
    ("trainer", &["diptych-model"]),
    ("tests", &["diptych-proto"]),
];

/// A name, and the only places that may say it. Tests beside a crate are its users and may say what a user may.
struct Only {
    name: &'static str,
    places: &'static [&'static str],
    because: &'static str,
}

const ONLY: [Only; 8] = [
    Only {
        name: "candle_core",
        places: &["model/", "trainer/"],
        because: "the server sees rows of numbers, so that what computes them can change",
    },
    Only {
        name: "heed",
        places: &["index/src/store"],
        because: "the key layout has one owner, and no transaction crosses an await",
    },
    Only {
        name: "hnsw_rs",
        places: &["index/src/graph/hnsw.rs"],
        because: "it exits, panics and speaks in distances; all that stops at one door",
    },
    Only {
        name: "tonic",
        places: &[
            "server/src/grpc",
            "server/src/observe/otlp",
            "server/tests/",
            "client/",
            "proto/",
            "tests/",
        ],
        because: "use cases are tested without a socket",
    },
    Only {
        name: "axum",
        places: &[
            "server/src/grpc",
            "server/src/app.rs",
            "server/src/ops.rs",
            "server/src/observe/scrape",
        ],
        because: "use cases know no transport",
    },
    Only {
        name: "safetensors",
        places: &[
            "model/src/bundle",
            "trainer/src/checkpoint",
            "trainer/src/import/foreign",
            "trainer/src/heads/tests",
        ],
        because: "each format on disk has one reader and writer",
    },
    Only {
        name: "ureq",
        places: &["server/src/hub"],
        because: "whoever reads that folder knows to whom the server connects, and when",
    },
    Only {
        name: "parquet",
        places: &["trainer/src/shards", "trainer/src/prepare", "client/src/cli/put"],
        because: "tables are read at the doors of data",
    },
];

/// Lines of a source file at most; generated code and tests are exempt.
const LINES: usize = 500;

/// Source files as paths below the checkout, generated code left out.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (folder, _) in EDGES {
        collect(&checkout().join(folder), &mut found);
    }
    assert!(found.len() > 50, "only {} source files were found", found.len());
    let relative = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(checkout()).unwrap().to_string_lossy().into_owned(), text)
    };
    found.into_iter().map(relative).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("gen") && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether a line of code says `name` as a path or in a `use`, outside comments.
fn says(line: &str, name: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        // `tonic_types` is tonic's too, `mytonic` is not.
        let whole = before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_');
        let longer =
            after.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_');
        let in_use = code.trim_start().trim_start_matches("pub ").starts_with("use ");
        whole && (longer.starts_with("::") || in_use && longer.trim_start().starts_with([';', ' ']))
    })
}

#[test]
fn names_stay_behind_their_doors() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        for only in &ONLY {
            if only.places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            let line = text.lines().position(|line| says(line, only.name));
            faults.extend(line.map(|line| {
                format!("{path}:{}: names {}, but {}", line + 1, only.name, only.because)
            }));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_a_name_is_is_told_from_what_it_is_not() {
    for line in ["use tonic::Code;", "a: tonic::Status,", "use tonic_types::X;", "pub use tonic;"] {
        assert!(says(line, "tonic"), "{line}");
    }
    for line in ["// tonic::Code", "use my_tonic::Code;", "\"tonic is a drink\"", "let tonic = 3;"]
    {
        assert!(!says(line, "tonic"), "{line}");
    }
}

#[test]
fn crates_depend_on_no_crate_of_ours_but_those_they_may() {
    for (folder, allowed) in EDGES {
        let path = checkout().join(folder).join("Cargo.toml");
        let manifest: BTreeMap<String, toml::Value> =
            toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for table in ["dependencies", "build-dependencies"] {
            let named = manifest.get(table).and_then(toml::Value::as_table);
            for name in named.into_iter().flat_map(|table| table.keys()) {
                let ours = name.starts_with("diptych");
                assert!(!ours || allowed.contains(&name.as_str()), "{folder} depends on {name}");
                let transport = ["tonic", "axum", "hyper"].iter().any(|it| name.starts_with(it));
                let pure = ["model", "index", "trainer"].contains(&folder);
                assert!(!(pure && transport), "{folder} depends on {name}: it must know no wire");
                assert!(
                    folder == "index" || name != "heed" && name != "hnsw_rs",
                    "{folder}: {name}"
                );
            }
        }
    }
}

#[test]
fn in_the_server_only_the_app_names_the_wire() {
    let faults: Vec<String> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("server/src/"))
        .filter(|(path, _)| {
            !path.starts_with("server/src/grpc") && !path.starts_with("server/src/app")
        })
        .filter(|(_, text)| text.lines().any(|line| line.contains("crate::grpc")))
        .map(|(path, _)| path)
        .collect();
    assert!(faults.is_empty(), "use cases that know the wire: {faults:?}");
}

#[test]
fn no_source_file_grows_beyond_what_one_reads() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(path, _)| !path.contains("tests"))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {LINES}"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
