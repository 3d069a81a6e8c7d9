//! `prepare folder`: a folder of pictures and a file of captions beside it.
//!
//! The captions file is JSON lines, CSV or Parquet: a row names a picture and says something of it;
//! several rows may name the same picture.

mod files;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use rayon::prelude::*;

use self::files::Files;
use super::pairs::{
    Asked, Fault, Gathered, Origin, PairArgs, PictureCell, Pictured, Place, Roles, Row,
};
use super::table::{Numbered, Table, quoted};
use super::{Report, file_name, progress_bar};
use crate::error::{Error, Result};

/// Arguments of `prepare folder`.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// Folder of pictures (PNG, JPEG, WebP or GIF), with folders below it.
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// File of captions: .jsonl, .csv, .tsv or .parquet with the columns image and text (several
    /// where .jsonl or .parquet has a list), and as you like lang, group, kind, split, id.
    #[arg(long, value_name = "FILE")]
    pub captions: PathBuf,
    /// What is the same for every source.
    #[command(flatten)]
    pub pairs: PairArgs,
}

/// A row and the path of its picture.
type Named = (Place, std::result::Result<(Row, String), Fault>);

/// Prepares a folder of pictures and a file of captions: the same files give the same bytes.
///
/// # Errors
/// When the folder or the file is absent or unreadable as a whole, a column is missing, nothing is
/// left to write, there are too few groups to split, or the disk refuses the result. Rows that cannot
/// be used are skipped and named.
pub fn run(args: &FolderArgs) -> Result<Report> {
    args.pairs.check()?;
    let files = Files::open(&args.images)?;
    let table = Table::open(&args.captions)?;
    let asked = Asked { ids: true, ..Asked::default() };
    let roles = Roles::choose(&table.columns, &asked, &args.pairs)
        .map_err(|message| Error::data(&args.captions, message))?;
    let name = file_name(&args.captions);
    let mut rows = Vec::new();
    for row in table.rows(&roles.columns)? {
        rows.push(named(row?, &name, &roles));
    }
    let looked_at = look_at(&files, &rows);
    let mut gathered = Gathered::new(&args.pairs.labels);
    for (place, row) in rows {
        let row = row.and_then(|(row, path)| match looked_at.get(&path) {
            Some(Ok(digest)) => Ok((row, Pictured { name: path, digest: *digest })),
            Some(Err(fault)) => Err(fault.clone()),
            None => Err(Fault::Missing(quoted(&path))),
        });
        match row {
            Ok((row, picture)) => gathered.add(&place, row, &picture),
            Err(fault) => gathered.skip(place, fault),
        }
    }
    let origin = Origin { source: name.to_string(), ignored: roles.ignored };
    gathered.write(&args.pairs, &origin, |_, path| files.again(path))
}

/// The row and its picture's path, in one form for one file.
fn named(row: Numbered, file: &Arc<str>, roles: &Roles) -> Named {
    let place = Place { file: Arc::clone(file), row: row.from, last: row.to };
    let row = row.cells.and_then(|mut cells| roles.row(&mut cells)).and_then(|row| {
        let path = match &row.picture {
            PictureCell::File(path) => files::normal(path)?,
            // A path in a Parquet column is bytes until its use is known.
            PictureCell::Inline { bytes, path: None } => match std::str::from_utf8(bytes.data()) {
                Ok(path) if path.trim().is_empty() => return Err(roles.no_picture()),
                Ok(path) => files::normal(path)?,
                Err(_) => return Err(roles.not_a_path()),
            },
            PictureCell::Inline { .. } => return Err(roles.not_a_path()),
        };
        Ok((row, path))
    });
    (place, row)
}

/// Decodes each picture once, on all threads; keeps its digest or what is wrong with it.
fn look_at(
    files: &Files,
    rows: &[Named],
) -> BTreeMap<String, std::result::Result<[u8; 32], Fault>> {
    let usable = rows.iter().filter_map(|(_, row)| row.as_ref().ok());
    let paths: BTreeSet<&String> = usable.map(|(_, path)| path).collect();
    let paths: Vec<&String> = paths.into_iter().collect();
    let progress = progress_bar("decode", paths.len());
    let looked_at = paths.into_par_iter().map(|path| {
        let digest = files.look_at(path);
        progress.inc(1);
        (path.clone(), digest)
    });
    let looked_at = looked_at.collect();
    progress.finish_and_clear();
    looked_at
}
