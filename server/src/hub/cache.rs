//! The cache on disk, laid out as the hub's other clients do, so that what one fetched none fetches again: contents in
//! `blobs/` by ETag, names of a commit in `snapshots/`, what a branch was in `refs/`.
//!
//! Beside them, below `diptych/`, lie our own: a folder for each commit that has exactly the files that were fetched and
//! verified, and the record of their digests. Those files are hard links, since a bundle takes no link that leads out of its
//! folder, and copies where a disk has no hard links.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::choose::is_safe;
use super::error::{Error, Result};
use super::spec::is_commit;

const RECORD_VERSION: u32 = 1;
/// Most bytes of a record that are read.
const LARGEST_RECORD: u64 = 16 << 20;

/// What was fetched of a commit, and what every later start finds again or says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format_version: u32,
    /// `ORG/NAME`.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// Where it came from; empty for what another client had fetched.
    pub endpoint: String,
    /// Every file that is served.
    pub files: Vec<Entry>,
}

/// A file of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the repository.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// The name of its content in `blobs/`.
    pub etag: String,
}

impl Record {
    pub(super) fn new(repository: &str, commit: &str, endpoint: &str, files: Vec<Entry>) -> Self {
        Self {
            format_version: RECORD_VERSION,
            repository: repository.to_owned(),
            commit: commit.to_owned(),
            endpoint: endpoint.to_owned(),
            files,
        }
    }
}

/// What a record says of the disk.
pub(super) enum Found {
    /// All is as it was fetched.
    Whole(Record),
    /// These entries are gone or have another content.
    Changed(Record, Vec<Entry>),
    /// Nothing was fetched.
    Nothing,
}

/// The part of the cache that one repository has.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The folder that is served.
    pub(super) fn folder(&self, commit: &str) -> PathBuf {
        self.root.join("diptych").join(commit)
    }

    /// Where the content of that name is, or will be.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where a commit's files have their names, for other clients.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag was when it was last asked for.
    pub(super) fn reference(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn set_reference(&self, revision: &str, commit: &str) -> Result<()> {
        write(&self.root.join("refs").join(revision), commit.as_bytes())
    }

    /// Waits until nobody else fetches the content of that name, and holds it for as long as the file is kept.
    pub(super) fn lock(&self, etag: &str) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::create(&path).map_err(Error::io(&path))?;
        if file.try_lock().is_err() {
            tracing::info!(lock = %path.display(), "waiting for another process that fetches the same");
            file.lock().map_err(Error::io(&path))?;
        }
        Ok(file)
    }

    /// Gives a content its name in a commit: for us, and for other clients.
    pub(super) fn name(&self, commit: &str, path: &str, blob: &Path) -> Result<()> {
        let own = self.folder(commit).join(path);
        make_parent(&own)?;
        remove(&own)?;
        if fs::hard_link(blob, &own).is_err() {
            fs::copy(blob, &own).map_err(Error::io(&own))?;
        }
        let theirs = self.snapshot(commit).join(path);
        if theirs.exists() {
            return Ok(());
        }
        make_parent(&theirs)?;
        remove(&theirs)?;
        let Some(name) = blob.file_name() else { return Ok(()) };
        let up = "../".repeat(path.split('/').count() + 1);
        let target = Path::new(&up).join("blobs").join(name);
        std::os::unix::fs::symlink(target, &theirs).map_err(Error::io(&theirs))
    }

    /// Reads every file that was fetched of `commit` and compares it with its record.
    pub(super) fn check(&self, commit: &str) -> Result<Found> {
        let Some(record) = self.record(commit) else { return Ok(Found::Nothing) };
        let mut changed = Vec::new();
        for entry in &record.files {
            let file = self.folder(commit).join(&entry.path);
            // Asked before it is opened: opening a pipe would wait for a writer.
            let same = fs::symlink_metadata(&file)
                .is_ok_and(|found| found.is_file() && found.len() == entry.length)
                && digest(&file)? == entry.sha256;
            if !same {
                changed.push(entry.clone());
            }
        }
        Ok(if changed.is_empty() { Found::Whole(record) } else { Found::Changed(record, changed) })
    }

    /// Takes out what has another content than was fetched, so that it is fetched again.
    pub(super) fn forget(&self, commit: &str, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            remove(&self.folder(commit).join(&entry.path))?;
            remove(&self.blob(&entry.etag))?;
        }
        Ok(())
    }

    pub(super) fn set_record(&self, record: &Record) -> Result<()> {
        let path = self.record_path(&record.commit);
        let json = serde_json::to_vec_pretty(record)
            .map_err(|error| Error::Io { path: path.clone(), source: error.into() })?;
        write(&path, &json)
    }

    /// The record of a commit; one that cannot be read, or that was tampered with, is none.
    fn record(&self, commit: &str) -> Option<Record> {
        let mut text = Vec::new();
        let file = File::open(self.record_path(commit)).ok()?;
        file.take(LARGEST_RECORD).read_to_end(&mut text).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let sound = record.format_version == RECORD_VERSION
            && record.commit == commit
            && record.files.iter().all(|file| is_safe(&file.path) && is_safe(&file.etag));
        sound.then_some(record)
    }

    fn record_path(&self, commit: &str) -> PathBuf {
        self.root.join("diptych").join(format!("{commit}.json"))
    }
}

/// SHA-256 of a file, in hex.
pub(super) fn digest(path: &Path) -> Result<String> {
    const CHUNK: usize = 1 << 20;
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex::encode(hash.finalize())),
            Ok(bytes) => hash.update(&chunk[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
}

/// Removes a file, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(Error::io(parent))
}

/// Writes a small file so that readers see the old content or the new one.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    make_parent(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = || {
        let mut file = File::create(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(Error::io(path))
}
