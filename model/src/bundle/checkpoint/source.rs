//! The files of a checkpoint directory: read once, remembered for its digests.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::digest;
use super::super::{FileEntry, Files};
use crate::bundle::stored::{StoredFile, small};
use crate::error::{Error, Result};

/// Longest settings file in bytes.
const MAX_SETTINGS: u64 = 4 << 20;
/// Longest tokenizer file in bytes: the largest published ones have about 35 MB.
const MAX_TOKENIZER: u64 = 128 << 20;
/// Most files that weights may lie in.
const MAX_SHARDS: usize = 1000;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory, and what was read of it.
pub(super) struct Source {
    dir: PathBuf,
    files: Files,
}

impl Source {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), files: Files::new() }
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.dir.join(name).is_file()
    }

    /// JSON from a file, `None` where it is not there.
    pub(super) fn json(&mut self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.bytes(name, MAX_SETTINGS)? else { return Ok(None) };
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(name, format!("is not JSON: {error}")))?;
        Ok(Some(value))
    }

    /// JSON from a file that must be there.
    pub(super) fn required_json(&mut self, name: &str) -> Result<Value> {
        self.json(name)?.ok_or_else(|| missing(name))
    }

    /// A file that belongs to the tokenizer, `None` where it is not there.
    pub(super) fn tokenizer(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        self.bytes(name, MAX_TOKENIZER)
    }

    fn bytes(&mut self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        if let Some(known) = self.files.get(name) {
            return Ok(Some(known.to_vec()));
        }
        if !self.dir.join(name).exists() {
            return Ok(None);
        }
        let content = small(&self.dir.join(name), name, most)?;
        self.files.insert(name.to_owned(), Cow::Owned(content.clone()));
        Ok(Some(content))
    }

    /// The files that hold the weights, open.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where they are missing, or pickled: those are converted, not run.
    pub(super) fn weights(&mut self) -> Result<Vec<StoredFile>> {
        let open = |name: &str| StoredFile::open(&self.dir.join(name), name);
        if self.has(WEIGHTS) {
            return Ok(vec![open(WEIGHTS)?]);
        }
        let Some(index) = self.json(INDEX)? else { return Err(self.no_weights()) };
        let damaged = |message: &str| Error::corrupt(INDEX, message);
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| damaged("has no `weight_map`; copy it again"))?;
        let mut shards = BTreeSet::new();
        for shard in map.values() {
            let shard = shard.as_str().filter(|name| plain(name));
            shards.insert(shard.ok_or_else(|| damaged("names a file that is none beside it"))?);
        }
        if shards.is_empty() || shards.len() > MAX_SHARDS {
            return Err(damaged(&format!("names {} files, 1 to {MAX_SHARDS}", shards.len())));
        }
        let open = |name: &str| {
            let path = self.dir.join(name);
            if path.is_file() { StoredFile::open(&path, name) } else { Err(missing(name)) }
        };
        shards.into_iter().map(open).collect()
    }

    fn no_weights(&self) -> Error {
        let pickled = std::fs::read_dir(&self.dir).ok().and_then(|entries| {
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let mut pickled: Vec<_> = names.filter(|name| is_pickle(name)).collect();
            pickled.sort();
            pickled.into_iter().next()
        });
        let Some(pickled) = pickled else { return missing(WEIGHTS) };
        let dir = self.dir.display();
        let message = format!(
            "is a Python pickle, which is code and not run here, and there is no {WEIGHTS}; convert it \
             with `diptych-train import --from {dir} --to BUNDLE`, which reads its tensors alone"
        );
        Error::corrupt(pickled, message)
    }

    /// The list of all that was read, with the files of the weights.
    pub(super) fn entries(&self, weights: &[StoredFile]) -> Result<Vec<FileEntry>> {
        let mut entries: Vec<FileEntry> =
            self.files.iter().map(|(path, content)| digest::entry(path, content)).collect();
        for file in weights {
            let sha256 = file.sha256()?;
            entries.push(FileEntry { path: file.name.clone(), length: file.length, sha256 });
        }
        Ok(entries)
    }

    /// What was read, but for the weights.
    pub(super) fn into_files(self) -> Files {
        self.files
    }
}

/// A file of a checkpoint that is not there.
pub(super) fn missing(name: &str) -> Error {
    let message = "is missing; copy the checkpoint again, with all its files";
    Error::corrupt(name, message)
}

fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|ending| name.ends_with(ending))
}

fn plain(name: &str) -> bool {
    !name.starts_with('.')
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}
