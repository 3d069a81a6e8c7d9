//! `prepare hf-parquet`: Parquet files as Hugging Face `datasets` keeps them.
//!
//! Pictures lie in the rows, as structs `{bytes, path}` or as bytes; texts are one text, a list of
//! such, or several columns. Files are read twice, a few rows at a time: once to look at every
//! picture, once to write those that are used.

mod sources;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use diptych_model::preprocess::image::{ImageFormat, sniff};
use rayon::prelude::*;

use self::sources::SourceFile;
use super::pairs::{
    Asked, Fault, Gathered, Origin, PairArgs, PictureCell, Pictured, Place, Roles, Row,
};
use super::table::Numbered;
use super::table::parquet::{ParquetFile, ParquetRows};
use super::table::quoted;
use super::{Report, look_at};
use crate::error::{Error, Result};

/// Rows whose pictures are decoded together, on all threads.
const ROWS: usize = 64;

/// Arguments of `prepare hf-parquet`.
#[derive(Debug, Clone, Args)]
pub struct HfParquetArgs {
    /// Parquet files, or folders of them. Names such as train-00000.parquet or validation/0.parquet
    /// say the split, unless --dev or --test asks for a draw.
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub source: Vec<PathBuf>,
    /// Column of pictures; absent: `image`, or another usual name.
    #[arg(long, value_name = "COLUMN")]
    pub image_column: Option<String>,
    /// Columns of captions, as in `caption_0,caption_1`; absent: `text`, or another usual name.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub text_column: Vec<String>,
    /// Column of languages; absent: `lang` or `language` where there is one.
    #[arg(long, value_name = "COLUMN")]
    pub lang_column: Option<String>,
    /// Column of groups; absent: `group` where there is one, else each picture is its own.
    #[arg(long, value_name = "COLUMN")]
    pub group_column: Option<String>,
    /// What is the same for every source.
    #[command(flatten)]
    pub pairs: PairArgs,
}

/// Prepares Hugging Face's Parquet files: the same files give the same bytes.
///
/// # Errors
/// When a source is absent or not Parquet, a column is missing or of a type that is not read, nothing
/// is left to write, there are too few groups to split, or the disk refuses the result. Rows that
/// cannot be used are skipped and named.
pub fn run(args: &HfParquetArgs) -> Result<Report> {
    args.pairs.check()?;
    let draws = args.pairs.dev.is_some() || args.pairs.test.is_some();
    let files = sources::find(&args.source, draws)?;
    sources::refuse_overwrite(&files, &args.pairs.out)?;
    let roles: Vec<Roles> = files.iter().map(|file| roles(file, args)).collect::<Result<_>>()?;
    let mut gathered = Gathered::new(&args.pairs.labels);
    let mut names = Names::default();
    // The rows that hold the pictures, in the order of the pictures.
    let mut holders: Vec<(usize, u64)> = Vec::new();
    for (number, (file, roles)) in files.iter().zip(&roles).enumerate() {
        let mut rows = file.open()?.rows(&roles.columns)?;
        loop {
            let batch: Vec<Numbered> = rows.by_ref().take(ROWS).collect::<Result<_>>()?;
            if batch.is_empty() {
                break;
            }
            for (place, row) in looked_at(batch, file, roles) {
                let pictures = gathered.pictures();
                match row {
                    Ok((row, digest)) => {
                        let picture = names.pictured(&row, digest, &place);
                        gathered.add(&place, row, &picture);
                    }
                    Err(fault) => gathered.skip(place.clone(), fault),
                }
                if gathered.pictures() > pictures {
                    holders.push((number, place.row));
                }
            }
        }
    }
    let ignored = roles.iter().flat_map(|roles| roles.ignored.clone());
    let mut seen = HashSet::new();
    let origin = Origin {
        source: sources::describe(&args.source),
        ignored: ignored.filter(|name| seen.insert(name.clone())).collect(),
    };
    let mut again = Again { files: &files, roles: &roles, open: None };
    gathered.write(&args.pairs, &origin, |number, _| again.picture(holders[number]))
}

/// The columns of a file.
fn roles(file: &SourceFile, args: &HfParquetArgs) -> Result<Roles> {
    let asked = Asked {
        image: args.image_column.clone(),
        texts: args.text_column.clone(),
        lang: args.lang_column.clone(),
        group: args.group_column.clone(),
        // In others' data an id may be the picture's, and stand in several rows.
        ids: false,
    };
    let opened = file.open()?;
    let mut roles = Roles::choose(&opened.columns(), &asked, &args.pairs)
        .map_err(|message| Error::data(&file.path, message))?;
    roles.class_names = opened.class_names();
    Ok(roles)
}

type LookedAt = (Place, std::result::Result<(Row, [u8; 32]), Fault>);

/// Decodes the pictures of some rows.
fn looked_at(rows: Vec<Numbered>, file: &SourceFile, roles: &Roles) -> Vec<LookedAt> {
    let look = |row: Numbered| {
        let place = Place { file: Arc::clone(&file.name), row: row.from, last: row.to };
        let row = row.cells.and_then(|mut cells| roles.row(&mut cells)).and_then(|mut row| {
            let digest = match &row.picture {
                PictureCell::Inline { bytes, path } => {
                    look_at(bytes.data(), path.as_deref().unwrap_or("picture"))?
                }
                PictureCell::File(path) => return Err(Fault::NameOnly(quoted(path))),
            };
            row.split = row.split.or(file.split);
            Ok((row, digest))
        });
        (place, row)
    };
    rows.into_par_iter().map(look).collect()
}

/// Names for pictures: the same for the same file in the same group, and never twice.
#[derive(Debug, Default)]
struct Names {
    known: HashMap<(Option<String>, [u8; 32]), String>,
    taken: HashSet<String>,
}

impl Names {
    fn pictured(&mut self, row: &Row, digest: [u8; 32], place: &Place) -> Pictured {
        let key = (row.group.clone(), digest);
        if let Some(name) = self.known.get(&key) {
            return Pictured { name: name.clone(), digest };
        }
        let (bytes, path) = match &row.picture {
            PictureCell::Inline { bytes, path } => (bytes.data(), path.as_deref()),
            PictureCell::File(path) => (&[][..], Some(path.as_str())),
        };
        let parts = path.unwrap_or_default().split(['/', '\\']);
        let parts: Vec<&str> = parts.filter(|part| !matches!(*part, "" | "." | "..")).collect();
        let own = parts.join("/");
        let row = format!("{}-{:07}", place.file.trim_end_matches(".parquet"), place.row);
        let name = if own.is_empty() {
            format!("{row}.{}", extension(bytes))
        } else if self.taken.contains(&own) {
            format!("{row}/{own}")
        } else {
            own
        };
        self.taken.insert(name.clone());
        self.known.insert(key, name.clone());
        Pictured { name, digest }
    }
}

fn extension(bytes: &[u8]) -> &'static str {
    match sniff(bytes) {
        Some(ImageFormat::Jpeg) => "jpg",
        Some(ImageFormat::WebP) => "webp",
        Some(ImageFormat::Gif) => "gif",
        Some(ImageFormat::Png) | None => "png",
    }
}

/// The second reading: pictures of rows that are asked for in their order.
struct Again<'a> {
    files: &'a [SourceFile],
    roles: &'a [Roles],
    open: Option<(usize, ParquetRows)>,
}

impl Again<'_> {
    fn picture(&mut self, (file, row): (usize, u64)) -> Result<Vec<u8>> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            let column = self.roles[file].image_column().to_owned();
            let opened: ParquetFile = self.files[file].open()?;
            self.open = Some((file, opened.rows(&[column])?));
        }
        let rows = self.open.iter_mut().flat_map(|(_, rows)| rows);
        for read in rows {
            let read = read?;
            if read.from < row {
                continue;
            }
            let picture = read.cells.ok().and_then(|cells| cells.into_iter().next());
            if let Some(bytes) = picture.and_then(super::table::Cell::into_bytes) {
                return Ok(bytes.data().to_vec());
            }
            break;
        }
        let message = format!("row {row} changed while it was prepared");
        Err(Error::data(&self.files[file].path, message))
    }
}
