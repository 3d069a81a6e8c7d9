//! The files of a folder.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::table::extension;

/// Pictures that servers take, by the ends of their names.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];

/// All files below `root` in the order of their names, hidden ones left out; or what cannot be looked into, and why.
pub(crate) fn files(root: &Path) -> impl Iterator<Item = Result<PathBuf, (PathBuf, String)>> {
    let given = root.to_path_buf();
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
    walk.filter_entry(shown).filter_map(move |entry| match entry {
        Ok(entry) if entry.file_type().is_file() => Some(Ok(entry.into_path())),
        Ok(_) => None,
        Err(error) => {
            let path = error.path().unwrap_or(&given).to_path_buf();
            let reason = error.into_io_error().map(|error| error.to_string());
            Some(Err((path, reason.unwrap_or_else(|| "a link leads back to it".to_owned()))))
        }
    })
}

/// The folder that was named is looked into whatever its name.
fn shown(entry: &DirEntry) -> bool {
    entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// Whether a file is a picture by its name.
pub(crate) fn is_picture(path: &Path) -> bool {
    PICTURES.contains(&extension(path).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_and_hidden_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.JPG", "a/2.png", "a/1.txt", ".git/x.jpg", "._b.jpg"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found: Vec<PathBuf> = files(folder.path()).map(Result::unwrap).collect();
        let expected = ["a/1.txt", "a/2.png", "b.JPG"].map(|name| folder.path().join(name));
        assert_eq!(found, expected);
        assert_eq!(expected.map(|path| is_picture(&path)), [false, true, true]);
    }
}
