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
