//! The folder from which bundles may be loaded while the server serves.
//!
//! Callers name a path below it. Whoever can write into the folder decides what is loaded; what is kept out here is a caller
//! who names something else: another place by an absolute path or `..`, or by a link that leads out.

use std::path::{Component, Path, PathBuf};

use diptych_proto::v1::ErrorReason;

use crate::error::{Error, Result};

/// Longest path in bytes.
const PATH_BYTES: usize = 1024;
/// Folders within a bundle, one in another: those of a bundle and of a checkpoint have one below them.
const DEPTH: usize = 4;
/// Files and folders of a bundle: weights may lie in a thousand files.
const ENTRIES: usize = 4096;

/// A folder with bundles below it.
#[derive(Debug, Clone)]
pub struct ModelsFolder(PathBuf);

impl ModelsFolder {
    /// The folder that a setting names.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The bundle's folder that `path` names, without links in it. Blocks.
    ///
    /// # Errors
    /// INVALID_ARGUMENT under the field `path` for a path that is empty, too long, absolute or leaves the folder, and for a
    /// bundle with a link that does; NOT_FOUND `BUNDLE_NOT_FOUND` when nothing is there.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf> {
        check(path)?;
        let root = self.0.canonicalize().map_err(|error| {
            let folder = self.0.display().to_string();
            tracing::error!(folder, %error, "the folder of models_dir cannot be read");
            let message = "the folder of models_dir cannot be read; the server's log says why";
            Error::precondition(ErrorReason::ModelsDirUnset, message)
        })?;
        let missing = || Error::missing(ErrorReason::BundleNotFound, "bundle", path).at("path");
        let folder = root.join(path).canonicalize().map_err(|_| missing())?;
        if !folder.starts_with(&root) {
            return Err(leads_out());
        }
        if !folder.is_dir() {
            return Err(Error::field("path", "is no folder: name that of the bundle"));
        }
        let mut left = ENTRIES;
        check_links(&root, &folder, (DEPTH, &mut left))?;
        Ok(folder)
    }

    /// Checks a path by its text alone, as [`Self::resolve`] does first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT under the field `path`.
    pub(crate) fn check(path: &str) -> Result<()> {
        check(path)
    }

    /// A text about what is below the folder, as those may see it who do not know where the folder is.
    pub(crate) fn relative(&self, text: &str) -> String {
        let root = self.0.canonicalize().unwrap_or_else(|_| self.0.clone());
        text.replace(&format!("{}/", root.display()), "")
    }
}

/// Checks a path by its text alone.
fn check(path: &str) -> Result<()> {
    match path.len() {
        0 => return Err(Error::field("path", "is required")),
        1..=PATH_BYTES => {}
        length => {
            let sizes = ("bytes", PATH_BYTES as u64, length as u64);
            return Err(Error::limit(ErrorReason::FieldInvalid, "path", sizes));
        }
    }
    if path.contains('\0') {
        return Err(Error::field("path", "holds a NUL"));
    }
    let mut names = 0;
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) => names += 1,
            Component::CurDir => {}
            Component::ParentDir => return Err(Error::field("path", "must not hold `..`")),
            Component::RootDir | Component::Prefix(_) => {
                let text = "is absolute, must be relative to the folder of models_dir";
                return Err(Error::field("path", text));
            }
        }
    }
    if names == 0 {
        return Err(Error::field("path", "must name a folder below that of models_dir"));
    }
    Ok(())
}

/// Checks that what lies in `folder` leads nowhere out of `root`. A bundle of ours says so itself; a checkpoint in the cache of
/// a hub consists of links, which lead to other places of the cache. Hidden names, as of a clone's history, are none of a bundle.
fn check_links(root: &Path, folder: &Path, (depth, left): (usize, &mut usize)) -> Result<()> {
    let unreadable = |error: std::io::Error| {
        let text = format!("cannot be read: {}", error.kind());
        Error::field("path", text)
    };
    for entry in folder.read_dir().map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        *left = left.checked_sub(1).ok_or_else(too_much)?;
        // A link to nothing is met by who needs it.
        let Ok(target) = path.canonicalize() else { continue };
        if !target.starts_with(root) {
            return Err(leads_out());
        }
        if target.is_dir() {
            let deeper = depth.checked_sub(1).ok_or_else(too_much)?;
            check_links(root, &target, (deeper, left))?;
        }
    }
    Ok(())
}

fn leads_out() -> Error {
    Error::field("path", "leads out of the folder of models_dir by a link")
}

fn too_much() -> Error {
    let text = format!(
        "is no bundle: it holds more than {ENTRIES} files, or folders more than {DEPTH} deep"
    );
    Error::field("path", text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::error::Kind;

    /// A folder `models` with `inside/file`, and `secret/file` beside it.
    fn folders() -> (tempfile::TempDir, ModelsFolder) {
        let around = tempfile::tempdir().unwrap();
        for place in ["models/inside", "secret"] {
            let place = around.path().join(place);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("file"), "x").unwrap();
        }
        let folder = ModelsFolder::new(around.path().join("models"));
        (around, folder)
    }

    fn refused(folder: &ModelsFolder, path: &str) -> Error {
        let error = folder.resolve(path).unwrap_err();
        assert_eq!(error.details().violations[0].field, "path", "{path:?}: {error}");
        error
    }

    #[test]
    fn a_folder_below_is_found_by_any_spelling_of_its_path() {
        let (around, folder) = folders();
        let inside = around.path().join("models/inside").canonicalize().unwrap();
        for path in ["inside", "./inside", "inside/", "inside/.", ".//inside"] {
            assert_eq!(folder.resolve(path).unwrap(), inside, "{path}");
        }
    }

    #[test]
    fn what_is_not_below_is_refused_however_it_is_named() {
        let (around, folder) = folders();
        let models = around.path().join("models");
        symlink(around.path().join("secret"), models.join("out")).unwrap();
        symlink("../../secret", models.join("inside/deep")).unwrap();
        let absolute = models.join("inside").display().to_string();
        let long = "a/".repeat(PATH_BYTES);
        for path in
            ["", ".", "..", "../secret", "inside/../../secret", "/etc", &absolute, "a\0b", "out"]
        {
            assert_eq!(refused(&folder, path).kind(), Kind::Invalid, "{path:?}");
        }
        assert_eq!(refused(&folder, &long).kind(), Kind::Invalid);
        // A link within the bundle is one too.
        assert!(refused(&folder, "inside").to_string().contains("leads out"));
        assert_eq!(refused(&folder, "nothing").kind(), Kind::NotFound);
        assert!(refused(&folder, "inside/file").to_string().contains("no folder"));
    }

    #[test]
    fn links_that_stay_inside_are_followed_and_those_in_a_circle_end() {
        let (around, folder) = folders();
        let models = around.path().join("models");
        std::fs::create_dir(models.join("cache")).unwrap();
        symlink("../inside/file", models.join("cache/linked")).unwrap();
        assert_eq!(folder.resolve("cache").unwrap(), models.join("cache").canonicalize().unwrap());
        std::fs::create_dir_all(models.join("cache/.git/a/b/c/d/e/f")).unwrap();
        assert!(folder.resolve("cache").is_ok());
        symlink("..", models.join("cache/around")).unwrap();
        assert!(refused(&folder, "cache").to_string().contains("no bundle"));
    }

    #[test]
    fn what_callers_read_does_not_tell_where_the_folder_is() {
        let (around, folder) = folders();
        let place = around.path().canonicalize().unwrap().join("models/inside/file");
        let told = folder.relative(&format!("{}: is damaged", place.display()));
        assert_eq!(told, "inside/file: is damaged");
    }
}
