//! A bundle's files on disk.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Files, GOLDEN_FOLDER, MANIFEST, Manifest, WEIGHTS, manifest, verify};
use crate::bundle::stored::StoredFile;
use crate::error::{Error, Result};

/// Reads `bundle.json` and the files that it lists, but for the weights, which are opened. Lengths are
/// compared before a file is read, so that what is in memory is bounded by the manifest.
pub(super) fn read(dir: &Path) -> Result<(Files, Option<StoredFile>)> {
    let mut files = Files::new();
    let mut weights = None;
    files.insert(MANIFEST.to_owned(), read_file(dir, MANIFEST, None)?);
    let listed = Manifest::from_value(&manifest::parse_value(&files)?)?.files;
    for entry in listed {
        verify::path(&entry.path)?;
        if entry.path == WEIGHTS {
            let (full, _) = inside(dir, WEIGHTS, Some(entry.length))?;
            weights = Some(StoredFile::open(&full, WEIGHTS)?);
        } else {
            let content = read_file(dir, &entry.path, Some(entry.length))?;
            files.insert(entry.path, content);
        }
    }
    Ok((files, weights))
}

fn read_file(dir: &Path, path: &str, expected: Option<u64>) -> Result<Cow<'static, [u8]>> {
    const LARGEST_MANIFEST: u64 = 2 << 20;
    let (full, length) = inside(dir, path, expected)?;
    let refused = |error| Error::io(&full, error);
    let most = expected.unwrap_or(LARGEST_MANIFEST);
    let mut content = Vec::with_capacity(usize::try_from(length.min(most)).unwrap_or(0));
    let file = File::open(&full).map_err(refused)?;
    file.take(most).read_to_end(&mut content).map_err(refused)?;
    Ok(Cow::Owned(content))
}

/// Where the file `path` lies and how long it is, once it is known to be one that may be read.
fn inside(dir: &Path, path: &str, expected: Option<u64>) -> Result<(PathBuf, u64)> {
    let full = dir.join(path);
    let refused = |error| Error::io(&full, error);
    // Asked before it is opened: opening a pipe would wait for a writer.
    let metadata = match fs::metadata(&full) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(verify::damaged(path, "is missing"));
        }
        Err(error) => return Err(refused(error)),
    };
    if !metadata.is_file() {
        return Err(verify::damaged(path, "is not a file"));
    }
    let inside = full.canonicalize().map_err(refused)?;
    if !inside.starts_with(dir.canonicalize().map_err(|error| Error::io(dir, error))?) {
        return Err(verify::damaged(path, "is a link that leads out of the bundle"));
    }
    let length = metadata.len();
    if let Some(expected) = expected
        && length != expected
    {
        let wrong = format!("has {length} bytes, bundle.json says {expected}");
        return Err(verify::damaged(path, &wrong));
    }
    Ok((full, length))
}

/// Writes the files beside `dir`, syncs them and renames.
///
/// Replacing takes two renames, old away and new in. A crash between them leaves no `dir`, and
/// beside it the old bundle as `.NAME.old-*` and the new one as `.NAME.new-*`, both complete.
pub(super) fn write(files: &Files, stored: &[StoredFile], dir: &Path) -> Result<()> {
    let replaces = may_replace(dir, files)?;
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
    let fresh = sibling(parent, dir, "new")?;
    let moved = write_files(files, stored, &fresh)
        .and_then(|()| if replaces { replace(parent, dir, &fresh) } else { rename(&fresh, dir) });
    if moved.is_err() {
        // What is half written has a name of its own and no reader; the first error is the one to
        // tell, so a failure to tidy up is not.
        fs::remove_dir_all(&fresh).ok();
    }
    moved.and_then(|()| sync(parent))
}

/// Puts `fresh` in the place of `dir`, and `dir` back if that fails.
fn replace(parent: &Path, dir: &Path, fresh: &Path) -> Result<()> {
    let old = sibling(parent, dir, "old")?;
    rename(dir, &old)?;
    if let Err(error) = rename(fresh, dir) {
        rename(&old, dir)?;
        return Err(error);
    }
    fs::remove_dir_all(&old).map_err(|error| Error::io(&old, error))
}

/// Whether there is something at `dir` that these files may replace; an error if they may not. A bundle
/// replaces a bundle, and a checkpoint a folder that has nothing but what one has.
fn may_replace(dir: &Path, files: &Files) -> Result<bool> {
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(dir, error)),
    };
    let own = files.contains_key(MANIFEST);
    if dir.join(MANIFEST).is_file() && own {
        return Ok(true);
    }
    let of_checkpoint = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.map(|entry| entry.file_name());
        name.is_ok_and(|name| {
            let name = name.to_string_lossy();
            let ends = |ending: &str| name.ends_with(ending);
            !own && (files.keys().any(|path| path.split('/').next() == Some(&*name))
                || ends(".safetensors")
                || name == GOLDEN_FOLDER.trim_end_matches('/'))
        })
    };
    if entries.all(of_checkpoint) {
        return Ok(true);
    }
    let message = format!("{} holds something that is not a bundle; give another", dir.display());
    Err(Error::invalid("bundle directory", message))
}

/// A name in `parent` that nothing else has.
fn sibling(parent: &Path, dir: &Path, role: &str) -> Result<PathBuf> {
    let name = dir
        .file_name()
        .ok_or_else(|| Error::invalid("bundle directory", "has no name of its own"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let unique = format!(".{}.{role}-{}-{now}", name.to_string_lossy(), std::process::id());
    Ok(parent.join(unique))
}

fn write_files(files: &Files, stored: &[StoredFile], fresh: &Path) -> Result<()> {
    fs::create_dir_all(fresh).map_err(|error| Error::io(fresh, error))?;
    let mut folders = BTreeSet::from([fresh.to_path_buf()]);
    for (path, content) in files {
        let full = fresh.join(path);
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
            folders.insert(folder.to_path_buf());
        }
        write_file(&full, |file| file.write_all(content).map_err(|error| Error::io(&full, error)))?;
    }
    for source in stored {
        let full = fresh.join(&source.name);
        write_file(&full, |file| {
            source.for_each_chunk(|bytes| {
                file.write_all(bytes).map_err(|error| Error::io(&full, error))
            })
        })?;
    }
    // The deepest first: a name is durable once what it leads to is.
    folders.iter().rev().try_for_each(|folder| sync(folder))
}

fn write_file(full: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let refused = |error| Error::io(full, error);
    let mut file = File::create_new(full).map_err(refused)?;
    fill(&mut file)?;
    file.sync_all().map_err(refused)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| Error::io(to, error))
}

/// Makes the entries of a directory durable.
fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|error| Error::io(dir, error))
}
