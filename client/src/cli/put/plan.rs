//! What a path of the command line stands for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::folder::{files, is_picture};
use super::table::Format;

/// What is to be read for a path.
#[derive(Debug)]
pub(crate) struct Plan {
    path: PathBuf,
    /// What ids are relative to.
    root: PathBuf,
    /// Read first, so that ids and metadata which they give to pictures come before what names say.
    tables: Vec<(PathBuf, Format)>,
    /// Whether pictures below the path are put, too.
    pictures: bool,
    steps: u64,
}

impl Plan {
    /// Looks through a path.
    ///
    /// # Errors
    /// A path that is not there, or holds nothing to put.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        let found = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        let plan = if found.is_dir() { Self::folder(path) } else { Self::file(path) }?;
        if plan.steps == 0 {
            bail!("{} holds no pictures, and no table of pictures or texts", path.display());
        }
        Ok(plan)
    }

    fn folder(path: &Path) -> Result<Self> {
        let (mut tables, mut steps) = (Vec::new(), 0);
        // What cannot be looked into is told when the folder is read.
        for file in files(path).flatten() {
            if is_picture(&file) {
                steps += 1;
            } else if let Some(format) = Format::of(&file)
                // Other tables lie beside pictures too: licences, settings.
                && format.speaks(&file).unwrap_or(false)
            {
                steps += format.count(&file)?;
                tables.push((file, format));
            }
        }
        let (path, root) = (path.to_path_buf(), path.to_path_buf());
        Ok(Self { path, root, tables, pictures: true, steps })
    }

    fn file(path: &Path) -> Result<Self> {
        // Of `a.csv` the parent is nothing, which is no path.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let root = parent.unwrap_or(Path::new(".")).to_path_buf();
        let plan = |tables, pictures, steps| {
            Ok(Self { path: path.to_path_buf(), root, tables, pictures, steps })
        };
        let shown = path.display();
        match Format::of(path) {
            Some(format) => {
                let steps = format.count(path)?;
                if steps > 0 && !format.speaks(path)? && format != Format::JsonLines {
                    bail!("{shown} has no column of pictures or texts, such as image or text");
                }
                plan(vec![(path.to_path_buf(), format)], false, steps)
            }
            None if is_picture(path) => plan(Vec::new(), true, 1),
            None => {
                bail!("{shown} is no folder, no picture, and no CSV, JSON-lines or Parquet file")
            }
        }
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What ids are relative to.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Tables to read.
    pub(crate) fn tables(&self) -> &[(PathBuf, Format)] {
        &self.tables
    }

    /// Whether pictures below the path are put, too.
    pub(crate) fn pictures(&self) -> bool {
        self.pictures
    }

    /// Rows and pictures to look at, about.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_pictures_and_tables_about_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        write("a.jpg", "");
        write("captions.csv", "image,caption\na.jpg,x\na.jpg,y\n");
        let licences = write("licences.csv", "licence,url\nx,y\n");
        write("notes.txt", "x");
        let plan = Plan::make(folder.path()).unwrap();
        assert_eq!((plan.steps(), plan.tables().len(), plan.pictures()), (3, 1, true));
        assert!(Plan::make(&licences).unwrap_err().to_string().contains("licences.csv"));
        assert!(Plan::make(&folder.path().join("notes.txt")).is_err());
        assert_eq!(Plan::make(&folder.path().join("a.jpg")).unwrap().steps(), 1);
    }

    #[test]
    fn what_holds_nothing_is_refused_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Plan::make(folder.path()).unwrap_err().to_string().contains("no pictures"));
        assert!(
            Plan::make(&folder.path().join("x")).unwrap_err().to_string().contains("cannot read")
        );
    }
}
