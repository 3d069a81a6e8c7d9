//! From a folder of pictures with captions to a bundle.

use crate::support::{errors, prepared, succeed, trainer};

#[test]
fn pairs_become_a_bundle_in_four_commands() {
    let folder = tempfile::tempdir().unwrap();
    let run = prepared(folder.path(), 12);
    let path = |name: &str| folder.path().join(name).display().to_string();
    succeed(&["fit", run.to_str().unwrap(), "--out", &path("out")]);
    let tables = succeed(&["eval", "--run", &path("out"), "--json"]);
    let tables: serde_json::Value = serde_json::from_str(&tables).unwrap();
    assert!(tables.is_object());
    succeed(&["export", "--run", &path("out"), "--to", &path("bundle")]);
    let inspected = succeed(&["inspect", &path("bundle")]);
    assert!(inspected.contains("golden inputs: reproduced"), "{inspected}");
    // TensorBoard's files are there and begin with a record of 24 bytes or so.
    let events = std::fs::read_dir(path("out/tensorboard")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::metadata(events.path()).unwrap().len() > 500);
}

#[test]
fn several_seeds_are_trained_in_folders_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let run = prepared(folder.path(), 2);
    let path = |name: &str| folder.path().join(name).display().to_string();
    succeed(&["fit", run.to_str().unwrap(), "--out", &path("out"), "--seeds", "2"]);
    let weights = |seed: &str| {
        let file = format!("out/{seed}/checkpoints/00000002/model.safetensors");
        std::fs::read(path(&file)).unwrap()
    };
    assert!(weights("seed-1") != weights("seed-2"));
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    for arguments in [
        vec!["inspect", &path],
        vec!["eval", "--bundle", &path],
        vec!["export", "--run", &path, "--to", "x"],
        vec!["import", "--from", &path, "--to", "x"],
        vec!["fit", "nowhere.toml", "--out", &path],
    ] {
        let output = trainer(&arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let message = errors(&output);
        assert!(message.starts_with("error: "), "{arguments:?}: {message}");
        assert!(message.contains(&path) || message.contains("nowhere.toml"), "{message}");
    }
}

#[test]
fn heads_on_a_checkpoint_become_a_bundle_that_is_inspected_and_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    prepared(folder.path(), 1);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/checkpoints/clip");
    let arguments = ["--checkpoint", clip, "--data", &path("data"), "--out", &path("heads")];
    let settings =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/heads.toml"));
    let settings = settings.unwrap().replace("steps = 2000", "steps = 60");
    std::fs::write(path("heads.toml"), settings.replace("steps = 600", "steps = 40")).unwrap();
    let more = ["--settings", &path("heads.toml"), "--to", &path("bundle")];
    let said = succeed(&[&["heads"][..], &arguments, &more].concat());
    // One group in dev is too few to prefer anything by.
    assert!(said.contains("shared vectors: kept"), "{said}");
    let inspected = succeed(&["inspect", &path("bundle")]);
    assert!(inspected.contains("golden inputs: reproduced"), "{inspected}");
    for (bundle, exclusive) in [(path("bundle"), true), (clip.to_owned(), false)] {
        let tables = succeed(&["eval", "--bundle", &bundle, "--data", &path("data"), "--json"]);
        let tables: serde_json::Value = serde_json::from_str(&tables).unwrap();
        assert!(tables["retrieval"]["all"]["rsum"].is_number(), "{tables}");
        assert_eq!(tables.get("exclusive_retrieval").is_some(), exclusive, "{tables}");
    }
    let output = trainer(&["eval", "--bundle", clip]).output().unwrap();
    assert!(errors(&output).contains("`--data`"), "{}", errors(&output));
    let log = std::fs::read_to_string(path("heads/log.jsonl")).unwrap();
    for event in ["features", "evaluated", "chosen", "written"] {
        assert!(log.contains(&format!("\"event\":\"{event}\"")), "{event}");
    }
}
