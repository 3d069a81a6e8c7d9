//! Sources too large for the store: files named by their SHA-256.
//!
//! A file is written and synced under `new/` by the thread that brings it, then renamed to its
//! place by the writing thread before the commit that names it. A process that dies in between
//! leaves a file that no item names; the next start removes it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use sha2::{Digest, Sha256};

use super::folder::sync_folder;
use crate::error::{Error, Result};

/// Sources up to this many bytes lie in the store itself.
pub(crate) const INLINE_MAX_BYTES: usize = 64 * 1024;

/// The folder of source files.
#[derive(Debug)]
pub(crate) struct Sources {
    root: PathBuf,
    counter: AtomicU64,
}

/// A synced file on its way; removed again unless it was placed.
#[derive(Debug)]
pub(crate) struct NewFile {
    pub(crate) digest: [u8; 32],
    pub(crate) bytes: u64,
    path: PathBuf,
    placed: AtomicBool,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, "a source that was not used could not be removed");
        }
    }
}

impl Sources {
    pub(super) fn open(data: &Path) -> Result<Self> {
        let root = data.join("sources");
        let new = root.join("new");
        // The folder itself stays where it is there: on a full disk it could not be made again.
        match fs::read_dir(&new) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(|e| Error::io("list", &new, e))?.path();
                    fs::remove_file(&path).map_err(|e| Error::io("remove", path, e))?;
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&new).map_err(|e| Error::io("create", &new, e))?;
            }
            Err(e) => return Err(Error::io("list", new, e)),
        }
        sync_folder(data).map_err(|e| Error::io("sync", data, e))?;
        // A process that was killed may have made a folder below and not have come to this.
        sync_folder(&root).map_err(|e| Error::io("sync", &root, e))?;
        Ok(Self { root, counter: AtomicU64::new(0) })
    }

    /// Writes and syncs a source under `new/`.
    pub(crate) fn write_new(&self, bytes: &[u8]) -> Result<NewFile> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("new").join(number.to_string());
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let file = NewFile {
            digest: Sha256::digest(bytes).into(),
            bytes: bytes.len() as u64,
            path: path.clone(),
            placed: AtomicBool::new(false),
        };
        write().map_err(|e| Error::io("write", path, e))?;
        Ok(file)
    }

    /// Moves a new file to its place and makes the name durable. Doing it again does nothing, so
    /// between two tries of one write nobody may remove the file.
    pub(crate) fn place(&self, file: &NewFile) -> Result<()> {
        if file.placed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let place = self.path(&file.digest);
        let folder = place.parent().unwrap_or(&self.root);
        let rename = || -> std::io::Result<()> {
            if !folder.exists() {
                fs::create_dir(folder)?;
                sync_folder(&self.root)?;
            }
            fs::rename(&file.path, &place)?;
            file.placed.store(true, Ordering::Relaxed);
            sync_folder(folder)
        };
        rename().map_err(|e| Error::io("place", place.clone(), e))
    }

    /// Reads a source back; `None` when the file is gone.
    pub(crate) fn read(&self, digest: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        let found: [u8; 32] = Sha256::digest(&bytes).into();
        if found != *digest {
            return Err(Error::Damaged {
                path,
                problem: "the source's bytes do not fit its name".to_owned(),
                remedy: "restore the file from a backup, or put the item again".to_owned(),
            });
        }
        Ok(Some(bytes))
    }

    /// Removes a file that no item names any more. A failure costs disk space only, until the next
    /// start.
    pub(crate) fn remove(&self, digest: &[u8; 32]) {
        let path = self.path(digest);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a source could not be removed");
        }
    }

    /// Removes the files that are not wanted.
    pub(super) fn sweep(&self, wanted: impl Fn(&[u8]) -> Result<bool>) -> Result<()> {
        let list = |path: &Path| -> Result<Vec<PathBuf>> {
            let entries = fs::read_dir(path).map_err(|e| Error::io("list", path, e))?;
            entries
                .map(|entry| entry.map(|e| e.path()).map_err(|e| Error::io("list", path, e)))
                .collect()
        };
        for folder in list(&self.root)? {
            if folder.file_name().is_some_and(|name| name == "new") || !folder.is_dir() {
                continue;
            }
            for path in list(&folder)? {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(digest) = hex::decode(name) else { continue };
                if digest.len() == 32 && !wanted(&digest)? {
                    fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let name = hex::encode(digest);
        self.root.join(&name[..2]).join(name)
    }
}
