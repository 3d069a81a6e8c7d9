//! Bundles: one of ours, and checkpoints of others, with one file replaced.

use std::borrow::Cow;
use std::path::Path;
use std::sync::OnceLock;

use diptych_model::Bundle;
use diptych_model::bundle::Files;
use diptych_model::infer::Encoder;
use diptych_model::testing::tiny_bundle;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Checkpoints of others that are opened.
const CHECKPOINTS: [&str; 3] = ["bert", "clip", "siglip"];
/// The file that vouches for the others of a bundle of ours.
const MANIFEST: &str = "bundle.json";

type Listed = Vec<(String, Vec<u8>)>;

/// The files of our bundle, then those of each checkpoint.
fn originals() -> &'static [Listed] {
    static FILES: OnceLock<Vec<Listed>> = OnceLock::new();
    FILES.get_or_init(|| {
        let own = tiny_bundle(7).expect("the bundle of tests");
        let own = own.files().iter().map(|(name, file)| (name.clone(), file.to_vec())).collect();
        let others = CHECKPOINTS.map(|name| {
            let mut files = crate::files(&format!("tests/fixtures/checkpoints/{name}"));
            files.retain(|(name, _)| name != "expected.json");
            files
        });
        std::iter::once(own).chain(others).collect()
    })
}

/// Opens the bundle with the file replaced, and what opens becomes an encoder or is refused.
pub fn bundle(data: &[u8]) {
    crate::quiet();
    let (choice, rest) = crate::choice(data);
    let (place, content) = crate::choice(rest);
    let kind = choice % originals().len();
    let mut files = originals()[kind].clone();
    let place = place % files.len();
    files[place].1 = content.to_vec();
    let opened = if kind == 0 { own(files) } else { checkpoint(&files) };
    drop(opened.and_then(|bundle| Encoder::open(&bundle)));
}

/// A bundle whose manifest vouches for the file that was replaced, unless that is the manifest.
fn own(files: Listed) -> diptych_model::Result<Bundle> {
    let mut files: Files = files.into_iter().map(|(name, file)| (name, Cow::Owned(file))).collect();
    if let Ok(mut manifest) = serde_json::from_slice::<serde_json::Value>(&files[MANIFEST])
        && let Some(entries) = manifest.get_mut("files").and_then(serde_json::Value::as_array_mut)
    {
        for entry in entries {
            let Some(file) = entry["path"].as_str().and_then(|path| files.get(path)) else {
                continue;
            };
            let digest = Sha256::digest(file);
            entry["length"] = file.len().into();
            entry["sha256"] =
                digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        }
        let manifest = serde_json::to_vec(&manifest).expect("what was read is written");
        files.insert(MANIFEST.to_owned(), Cow::Owned(manifest));
    }
    Bundle::from_files(files)
}

fn checkpoint(files: &Listed) -> diptych_model::Result<Bundle> {
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
    for (name, file) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder");
        std::fs::write(path, file).expect("a file");
    }
    let bundle = Bundle::open(folder.path())?;
    // Weights are read from files that stay open.
    drop(folder);
    Ok(bundle)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kind, files) in originals().iter().enumerate() {
        for (place, (_, file)) in files.iter().enumerate() {
            seeds.push([&[kind as u8, place as u8], file.as_slice()].concat());
        }
    }
    seeds
}
