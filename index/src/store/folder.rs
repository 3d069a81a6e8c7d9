//! The data folder itself: its lock, its format marker, and whether it can be trusted.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, damaged};
use crate::error::{Error, Result};

const MARKER: &str = "diptych-store.json";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: String,
    version: u32,
}

/// A locked data folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked for as long as this lives; the kernel unlocks it when the process dies.
    _lock: File,
}

impl Folder {
    /// Locks the folder (made when missing) and checks that it can be read by this program.
    pub(super) fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| Error::io("open", &lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: path.to_path_buf() });
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", lock_path, e)),
        }
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        folder.check()?;
        let database = folder.database_path();
        fs::create_dir_all(&database).map_err(|e| Error::io("create", database, e))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database_path(&self) -> PathBuf {
        self.path.join("db")
    }

    fn check(&self) -> Result<()> {
        let marker_path = self.path.join(MARKER);
        let data_path = self.database_path().join("data.mdb");
        let data_bytes = fs::metadata(&data_path).map(|m| m.len()).unwrap_or(0);
        let text = match fs::read(&marker_path) {
            Ok(text) => text,
            // The marker is written last, so a start that was killed leaves a database without one.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("read", marker_path, e)),
        };
        let marker: Marker = serde_json::from_slice(&text)
            .map_err(|e| damaged(marker_path.clone(), format!("is not readable ({e})")))?;
        if marker.format != "diptych-store" {
            return Err(damaged(marker_path, format!("names the format {:?}", marker.format)));
        }
        if marker.version != FORMAT_VERSION {
            return Err(Error::Damaged {
                path: self.path.clone(),
                problem: format!(
                    "the folder has format {}, this program reads format {FORMAT_VERSION}",
                    marker.version
                ),
                remedy: "use the program version that wrote it, or give this one another folder"
                    .to_owned(),
            });
        }
        if data_bytes == 0 {
            return Err(damaged(data_path, "the database is missing or empty"));
        }
        Ok(())
    }

    /// Writes the marker, unless it is there.
    pub(super) fn mark(&self) -> Result<()> {
        let path = self.path.join(MARKER);
        if path.exists() {
            return Ok(());
        }
        let marker = Marker { format: "diptych-store".to_owned(), version: FORMAT_VERSION };
        let text = serde_json::to_vec(&marker).map_err(|e| Error::internal(e.to_string()))?;
        let fresh = self.path.join("diptych-store.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            sync_folder(&self.database_path())?;
            sync_folder(&self.path)
        };
        write().map_err(|e| Error::io("write", path.clone(), e))
    }
}

/// Makes names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
