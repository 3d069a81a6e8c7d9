//! The two digests of a bundle, over canonical lists of its files.
//!
//! A list is a first line that names the digest, then for each file, sorted by path, the lines
//! `path`, length in decimal and SHA-256 in hex. Each line ends in a line feed.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{FileEntry, MANIFEST, Manifest, TOKENIZER, WEIGHTS};

/// The keys of `bundle.json` that determine vectors.
const DETERMINING: [&str; 3] = ["image", "model", "text"];

/// SHA-256 in lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The entry of a file with this content.
pub(super) fn entry(path: &str, content: &[u8]) -> FileEntry {
    FileEntry { path: path.to_owned(), length: content.len() as u64, sha256: sha256(content) }
}

/// Over weights, tokenizer and the determining part of `bundle.json`, which stands in the list as
/// its canonical JSON.
pub(super) fn embedding(manifest: &Manifest, value: &Value) -> String {
    let part: Map<String, Value> = DETERMINING
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), value.get(key)?.clone())))
        .collect();
    let settings = entry(MANIFEST, canonical(&Value::Object(part)).as_bytes());
    let files = manifest.files.iter().filter(|file| [WEIGHTS, TOKENIZER].contains(&&*file.path));
    list("diptych embedding digest 1", files.chain([&settings]))
}

/// Over every file.
pub(super) fn bundle(manifest: &Manifest, bundle_json: &[u8]) -> String {
    let own = entry(MANIFEST, bundle_json);
    list("diptych bundle digest 1", manifest.files.iter().chain([&own]))
}

/// SHA-256 over the canonical list of these files.
pub(super) fn list<'a>(title: &str, files: impl Iterator<Item = &'a FileEntry>) -> String {
    let mut files: Vec<_> = files.collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let lines =
        files.iter().map(|file| format!("{}\n{}\n{}\n", file.path, file.length, file.sha256));
    let text: String = std::iter::once(format!("{title}\n")).chain(lines).collect();
    sha256(text.as_bytes())
}

/// JSON without white space and with the keys of each object sorted by their bytes. Numbers are
/// written as the shortest text that reads back as the same 64-bit value.
pub(super) fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        scalar => scalar.to_string(),
    }
}
