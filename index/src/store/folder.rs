//! The data folder itself: its lock, its format marker, and whether it can be trusted.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    FORMAT_VERSION, damaged,
    inspect::{Fault, inspect},
};
use crate::error::{Error, Result};

const MARKER: &str = "diptych-store.json";
/// The oldest format that can be opened; `upgrade` brings it up to date.
const OLDEST_VERSION: u32 = 1;

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
    /// Version of the marker that was there; `None` in a new folder.
    found: Option<u32>,
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
        let mut folder = Self { path: path.to_path_buf(), _lock: lock, found: None };
        folder.found = folder.check()?;
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

    /// Version of the format that the folder had when it was opened; `None`: it is new.
    pub(super) fn found_version(&self) -> Option<u32> {
        self.found
    }

    fn check(&self) -> Result<Option<u32>> {
        let marker_path = self.path.join(MARKER);
        let data_path = self.database_path().join("data.mdb");
        let data_bytes = fs::metadata(&data_path).map(|m| m.len()).unwrap_or(0);
        let text = match fs::read(&marker_path) {
            Ok(text) => text,
            // The marker is written last, so a start that was killed leaves a database without one.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return self.set_aside_unfinished().map(|()| None);
            }
            Err(e) => return Err(Error::io("read", marker_path, e)),
        };
        let marker: Marker = serde_json::from_slice(&text)
            .map_err(|e| damaged(marker_path.clone(), format!("is not readable ({e})")))?;
        if marker.format != "diptych-store" {
            return Err(damaged(marker_path, format!("names the format {:?}", marker.format)));
        }
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&marker.version) {
            return Err(Error::Damaged {
                path: self.path.clone(),
                problem: format!(
                    "the folder has format {}, this program reads formats {OLDEST_VERSION} to {FORMAT_VERSION}",
                    marker.version
                ),
                remedy: "use the program version that wrote it, or give this one another folder"
                    .to_owned(),
            });
        }
        if data_bytes == 0 {
            return Err(damaged(data_path, "the database is missing or empty"));
        }
        Ok(Some(marker.version))
    }

    /// A first start that lost its power may leave a database of any content: the marker, which was to come next, is not
    /// there, so nothing was acknowledged. A folder with sources was in use, and lost its marker otherwise.
    fn set_aside_unfinished(&self) -> Result<()> {
        let data = self.database_path().join("data.mdb");
        let Err(Fault::Damage(problem)) = inspect(&data) else { return Ok(()) };
        let sources = fs::read_dir(self.path.join("sources")).into_iter().flatten().flatten();
        if sources.into_iter().any(|entry| entry.file_name() != "new") {
            return Ok(());
        }
        let aside = data.with_extension("unfinished");
        tracing::warn!(problem, aside = %aside.display(), "a first start was cut off; beginning anew");
        fs::rename(&data, &aside).map_err(|e| Error::io("rename", data, e))
    }

    /// Writes the marker of the present format, unless it is there.
    pub(super) fn mark(&self) -> Result<()> {
        let path = self.path.join(MARKER);
        if self.found == Some(FORMAT_VERSION) {
            return Ok(());
        }
        let marker = Marker { format: "diptych-store".to_owned(), version: FORMAT_VERSION };
        let text = serde_json::to_vec(&marker).map_err(|e| Error::internal(e.to_string()))?;
        let fresh = self.path.join("diptych-store.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&text)?;
            file.sync_all()?;
            // The way to the database is durable before the marker says that there is one.
            sync_folder(&self.database_path())?;
            sync_folder(&self.path)?;
            sync_way_to(&self.path);
            fs::rename(&fresh, &path)?;
            sync_folder(&self.path)
        };
        write().map_err(|e| Error::io("write", path.clone(), e))
    }
}

/// Makes the names of a folder and of those around it durable, one of which may be new. Where one may not be opened or
/// synced, it was not made by us.
fn sync_way_to(path: &Path) {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    for folder in path.ancestors().skip(1) {
        if let Err(error) = sync_folder(folder) {
            tracing::debug!(folder = %folder.display(), %error, "not synced");
            return;
        }
    }
}

/// Makes names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
