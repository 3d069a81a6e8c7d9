//! The Parquet files of a source, and the splits that their names say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::pairs::parse_split;
use super::super::table::parquet::ParquetFile;
use crate::error::{Error, Result};
use crate::shards::Split;

/// Folders within folders that are followed.
const DEPTH: usize = 16;

/// A file of the source.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// Its name for reports: its path within the folder that was named.
    pub(super) name: Arc<str>,
    /// The split that its name says.
    pub(super) split: Option<Split>,
}

impl SourceFile {
    /// Opens the file.
    pub(super) fn open(&self) -> Result<ParquetFile> {
        ParquetFile::open(&self.path)
    }
}

/// Finds the files, in order of name within each source. Names say splits unless `draws`, and unless
/// all of them say the same: a source that is all `train` has not been split.
pub(super) fn find(sources: &[PathBuf], draws: bool) -> Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for source in sources {
        let mut paths = Vec::new();
        if source.is_dir() {
            walk(source, DEPTH, &mut paths)?;
            paths.sort();
        } else {
            paths.push(source.clone());
        }
        if paths.is_empty() {
            return Err(Error::data(source, "holds no .parquet files"));
        }
        for path in paths {
            let within = path.strip_prefix(source).ok().filter(|p| !p.as_os_str().is_empty());
            let within = within.unwrap_or_else(|| path.file_name().map_or(&path, Path::new));
            let name = within.to_string_lossy().replace('\\', "/");
            files.push(SourceFile { split: named_split(&name), name: name.into(), path });
        }
    }
    let said: BTreeSet<Option<Split>> = files.iter().map(|file| file.split).collect();
    if draws || said.len() < 2 {
        for file in &mut files {
            file.split = None;
        }
    }
    Ok(files)
}

/// Collects `.parquet` files below a folder. Links to files are followed (the cache of Hugging Face
/// is made of them), links to folders are not: they may lead in circles.
fn walk(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
        if kind.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, paths)?;
            }
        } else if path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet")) {
            paths.push(path);
        }
    }
    Ok(())
}

/// The split in a file's name, as in `data/train-00000-of-00002.parquet`, or in the name of a folder,
/// as in `default/validation/0000.parquet`: the nearest to the end counts.
fn named_split(name: &str) -> Option<Split> {
    let name = name.to_lowercase();
    let name = name.strip_suffix(".parquet").unwrap_or(&name);
    let mut parts = name.rsplit('/');
    parts.find_map(|part| part.split(|c: char| !c.is_alphanumeric()).find_map(parse_split))
}

/// Refuses to write where a source lies: what an earlier run left there is removed first.
pub(super) fn refuse_overwrite(files: &[SourceFile], out: &Path) -> Result<()> {
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let lies_there =
        |file: &&SourceFile| file.path.canonicalize().is_ok_and(|path| path.parent() == Some(&out));
    match files.iter().find(lies_there) {
        None => Ok(()),
        Some(file) => {
            let message = format!("{} lies there; give another folder", file.name);
            Err(Error::setting("--out", message))
        }
    }
}

/// What the sources are called in the manifest: names, not where they lie.
pub(super) fn describe(sources: &[PathBuf]) -> String {
    let name = |source: &PathBuf| {
        let resolved = source.canonicalize().unwrap_or_else(|_| source.clone());
        resolved.file_name().map(|name| name.to_string_lossy().into_owned())
    };
    let names: Vec<String> = sources.iter().filter_map(name).collect();
    names.join(", ")
}
