//! Pictures within a folder, and nothing outside it.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use diptych_model::preprocess::ImageLimits;

use super::super::look_at;
use super::super::pairs::Fault;
use super::super::table::quoted;
use crate::error::{Error, Result};

/// A folder of pictures.
#[derive(Debug)]
pub(super) struct Files {
    /// Without symbolic links, so that what lies within can be told.
    root: PathBuf,
}

impl Files {
    /// Opens the folder.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let root = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
        if !root.is_dir() {
            return Err(Error::data(folder, "is not a folder of pictures"));
        }
        Ok(Self { root })
    }

    /// Decodes the picture at `path`, as [`normal`] gives it; the SHA-256 of its file.
    pub(super) fn look_at(&self, path: &str) -> std::result::Result<[u8; 32], Fault> {
        let file = self.locate(path)?;
        let unreadable = |error: std::io::Error| unreadable(path, &error);
        // A file that is too long is refused before it is in memory.
        let length = std::fs::metadata(&file).map_err(unreadable)?.len();
        let limits = ImageLimits::default();
        if length > limits.max_bytes {
            let why = format!("{length} bytes, at most {}", limits.max_bytes);
            return Err(Fault::Unusable { path: quoted(path), why });
        }
        look_at(&std::fs::read(&file).map_err(unreadable)?, path)
    }

    /// The file of a picture that was looked at.
    pub(super) fn again(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.root.join(path);
        std::fs::read(&file).map_err(|e| Error::io(file, e))
    }

    /// Where a picture lies, all symbolic links followed.
    fn locate(&self, path: &str) -> std::result::Result<PathBuf, Fault> {
        let refused = |why| Fault::Path { path: quoted(path), why };
        let file = self.root.join(path).canonicalize().map_err(|e| unreadable(path, &e))?;
        if !file.starts_with(&self.root) {
            return Err(refused("is a link out of the folder of pictures"));
        }
        if !file.is_file() {
            return Err(refused("is not a file"));
        }
        Ok(file)
    }
}

fn unreadable(path: &str, error: &std::io::Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Fault::Missing(quoted(path)),
        _ => Fault::Unreadable { path: quoted(path), why: error.to_string() },
    }
}

/// A path in the one form that a file has: no `.`, no doubled separators, `/` between the parts.
///
/// # Errors
/// When the path leads out of the folder it is joined to, or names nothing.
pub(super) fn normal(path: &str) -> std::result::Result<String, Fault> {
    let refused = |why| Fault::Path { path: quoted(path), why };
    let mut parts = Vec::new();
    for part in Path::new(path.trim()).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => return Err(refused("leads out of the folder of pictures")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refused("is not relative to the folder of pictures"));
            }
        }
    }
    if parts.is_empty() {
        return Err(refused("names no file"));
    }
    Ok(parts.join("/"))
}
