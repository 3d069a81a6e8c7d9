//! `prepare`: sources as they are found, turned into a prepared dataset (see [`crate::shards`]).
//!
//! One subcommand for each kind of source. What a source holds that cannot be used is named in the
//! dataset's manifest, counted and skipped; it never stops the rest.

pub mod emoji;
pub mod folder;
pub mod hf_parquet;
pub mod mnist_cdcb;
mod pairs;
mod raster;
pub mod shapes;
mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use diptych_model::preprocess::{ImageLimits, decode};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use self::pairs::Fault;
pub use self::pairs::PairArgs;
use crate::error::Result;
use crate::shards::{Manifest, Split};

/// Arguments of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// What to prepare.
    #[command(subcommand)]
    pub source: PrepareSource,
}

/// The kinds of source.
#[derive(Debug, Subcommand)]
pub enum PrepareSource {
    /// Emoji: drawings in several styles, names and keywords in several languages.
    Emoji(emoji::EmojiArgs),
    /// A folder of pictures and a file of captions: JSON lines, CSV or Parquet.
    Folder(folder::FolderArgs),
    /// Parquet files with pictures in them, as Hugging Face datasets keeps them.
    HfParquet(hf_parquet::HfParquetArgs),
    /// Handwritten digits, each on a coloured background and in a colour: pairs of pictures.
    MnistCdcb(mnist_cdcb::MnistCdcbArgs),
    /// Scenes of one to four equal shapes with captions, drawn here: every factor is known, and nothing is fetched.
    Shapes(shapes::ShapesArgs),
}

/// Prepares a dataset.
///
/// # Errors
/// When a source is absent or unreadable as a whole, or the disk refuses the result.
pub fn run(args: &PrepareArgs) -> Result<Report> {
    match &args.source {
        PrepareSource::Emoji(args) => emoji::run(args),
        PrepareSource::Folder(args) => folder::run(args),
        PrepareSource::HfParquet(args) => hf_parquet::run(args),
        PrepareSource::MnistCdcb(args) => mnist_cdcb::run(args),
        PrepareSource::Shapes(args) => shapes::run(args),
    }
}

/// Decodes a picture, to know that training can; the SHA-256 of its file.
fn look_at(bytes: &[u8], path: &str) -> std::result::Result<[u8; 32], Fault> {
    match decode(bytes, &ImageLimits::default()) {
        Ok(_) => Ok(Sha256::digest(bytes).into()),
        Err(error) => Err(Fault::Unusable { path: table::quoted(path), why: error.to_string() }),
    }
}

/// A file's name without its folders, for reports.
fn file_name(path: &Path) -> Arc<str> {
    let name = path.file_name().map(std::ffi::OsStr::to_string_lossy);
    name.unwrap_or_else(|| path.to_string_lossy()).into()
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(what: &str, len: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:40} {pos}/{len} {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len as u64).with_style(style).with_prefix(what.to_owned())
}

/// What `prepare` wrote; its `Display` is what a person wants to read of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the dataset lies.
    pub folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// How many skipped things, and sorts of reasons, a report names; the manifest names all.
const SKIPPED_SHOWN: usize = 10;

impl Report {
    /// The sorts of reasons for which something was skipped, the most frequent first.
    fn sorts(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for skipped in &self.manifest.skipped {
            *counts.entry(skipped.sort()).or_default() += 1;
        }
        let mut sorts: Vec<(&str, usize)> = counts.into_iter().collect();
        sorts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        sorts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.manifest.counts;
        writeln!(
            f,
            "{}: {} groups, {} pictures, {} texts ({} of them names)",
            self.folder.display(),
            counts.groups,
            counts.images,
            counts.texts,
            counts.names
        )?;
        for (label, values) in &counts.images_by_label {
            let values: Vec<String> = values.iter().map(|(v, n)| format!("{v} {n}")).collect();
            writeln!(f, "pictures by {label}: {}", values.join(", "))?;
        }
        for (factor, columns) in &self.manifest.numeric {
            writeln!(f, "numbers of {factor}: {}", columns.join(", "))?;
        }
        let langs = counts.texts_by_lang.iter().map(|(lang, n)| {
            let lang = if lang.is_empty() { "not known" } else { lang };
            format!("{lang} {n}")
        });
        if self.manifest.paired.is_none() {
            writeln!(f, "texts by language: {}", langs.collect::<Vec<_>>().join(", "))?;
        }
        let by_split = |counts: &BTreeMap<Split, u64>| {
            let counts = counts.iter().map(|(split, n)| format!("{} {n}", split.as_str()));
            counts.collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "pictures by split: {}", by_split(&counts.images_by_split))?;
        if self.manifest.paired.is_none() {
            writeln!(f, "texts by split: {}", by_split(&counts.texts_by_split))?;
        }
        for note in &self.manifest.notes {
            writeln!(f, "{note}")?;
        }
        write!(f, "skipped: {}", counts.skipped)?;
        let sorts = self.sorts();
        if sorts.len() > 1 {
            let shown = sorts.iter().take(SKIPPED_SHOWN).map(|(sort, n)| format!("{sort} {n}"));
            write!(f, " ({}", shown.collect::<Vec<_>>().join(", "))?;
            write!(f, "{}", if sorts.len() > SKIPPED_SHOWN { ", ...)" } else { ")" })?;
        }
        for skipped in self.manifest.skipped.iter().take(SKIPPED_SHOWN) {
            write!(f, "\n  {}: {}", skipped.what, skipped.reason)?;
        }
        if self.manifest.skipped.len() > SKIPPED_SHOWN {
            write!(f, "\n  ... all in {}", crate::shards::MANIFEST_FILE)?;
        }
        Ok(())
    }
}
