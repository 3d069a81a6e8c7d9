//! Snapshots: a collection to one file, and back.
//!
//! A file is named `NAME.SHA256.snapshot`, where the SHA-256 is that of its bytes, so that a listing
//! need not read it and `sha256sum` tells whether it is whole. It is written under another name,
//! synced, and renamed; what a crash leaves of that is removed at the next start.

mod create;
mod restore;

use std::{
    fs::{self, File},
    io::{BufReader, ErrorKind},
    path::{Path, PathBuf},
};

pub(super) use self::create::create;
use crate::{
    archive::{ArchiveReader, Fault},
    engine::SnapshotInfo,
    error::{Error, Result},
    store::folder::sync_folder,
};

const ENDING: &str = ".snapshot";
/// Begins the names of files that are not whole.
const UNFINISHED: &str = "~";

/// Removes what a process that died left unfinished.
pub(super) fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(%error, "an unfinished snapshot could not be removed");
        }
    }
}

/// All snapshots, newest first. A file whose head cannot be read is told in the log and left out.
pub(super) fn list(folder: &Path) -> Result<Vec<SnapshotInfo>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", folder, e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io("list", folder, e))?.path();
        let Some((name, sha256)) = parts(&path) else { continue };
        match info(&path, (&name, &sha256)) {
            Ok(info) => found.push(info),
            Err(fault) => {
                let path = path.display();
                tracing::warn!(%path, %fault, "a snapshot is not readable");
            }
        }
    }
    found.sort_unstable_by(|a, b| {
        b.created_at_ms.cmp(&a.created_at_ms).then_with(|| a.name.cmp(&b.name))
    });
    Ok(found)
}

/// Deletes a snapshot.
pub(super) fn delete(folder: &Path, name: &str) -> Result<()> {
    let (path, _) = find(folder, name)?;
    let remove = || -> std::io::Result<()> {
        fs::remove_file(&path)?;
        sync_folder(folder)
    };
    remove().map_err(|e| Error::io("remove", path.clone(), e))
}

/// The file of a snapshot, and the SHA-256 that its bytes must have.
fn find(folder: &Path, name: &str) -> Result<(PathBuf, String)> {
    let missing = || Error::SnapshotMissing { name: name.to_owned() };
    let entries = fs::read_dir(folder).map_err(|_| missing())?;
    let paths = entries.flatten().map(|entry| entry.path());
    // Names are compared, never joined to a path.
    let mut found = paths.filter_map(|path| {
        let (known, sha256) = parts(&path)?;
        (known == name).then_some((path, sha256))
    });
    found.next().ok_or_else(missing)
}

/// Name and SHA-256 of a file, when it is named as a snapshot.
fn parts(path: &Path) -> Option<(String, String)> {
    let file = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    let (name, sha256) = file.rsplit_once('.')?;
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    let sound = is_digest && !name.is_empty() && !name.starts_with(UNFINISHED);
    sound.then(|| (name.to_owned(), sha256.to_owned()))
}

fn info(path: &Path, (name, sha256): (&str, &str)) -> Result<SnapshotInfo, Fault> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let archive = ArchiveReader::open(BufReader::new(file))?;
    let head = archive.head();
    Ok(SnapshotInfo {
        name: name.to_owned(),
        collection: head.collection.clone(),
        bytes,
        sha256: sha256.to_owned(),
        created_at_ms: head.created_at_ms,
        generation: head.sequence,
    })
}

/// An archive's fault as an error of the engine.
fn told(name: &str, path: &Path, fault: Fault) -> Error {
    match fault {
        Fault::Refused(problem) => Error::SnapshotRefused { name: name.to_owned(), problem },
        Fault::Io(source) => Error::io("read or write", path, source),
    }
}
