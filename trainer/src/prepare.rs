//! `prepare`: sources as they are found, turned into a prepared dataset (see [`crate::shards`]).
//!
//! One subcommand for each kind of source. What a source holds that cannot be used is named in the
//! dataset's manifest, counted and skipped; it never stops the rest.

pub mod emoji;

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::error::Result;
use crate::shards::Manifest;

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
}

/// Prepares a dataset.
///
/// # Errors
/// When a source is absent or unreadable as a whole, or the disk refuses the result.
pub fn run(args: &PrepareArgs) -> Result<Report> {
    match &args.source {
        PrepareSource::Emoji(args) => emoji::run(args),
    }
}

/// What `prepare` wrote; its `Display` is what a person wants to read of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the dataset lies.
    pub folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// How many skipped things a report names; the manifest names all.
const SKIPPED_SHOWN: usize = 10;

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
        let langs: Vec<String> =
            counts.texts_by_lang.iter().map(|(lang, n)| format!("{lang} {n}")).collect();
        writeln!(f, "texts by language: {}", langs.join(", "))?;
        write!(f, "skipped: {}", counts.skipped)?;
        for skipped in self.manifest.skipped.iter().take(SKIPPED_SHOWN) {
            write!(f, "\n  {}: {}", skipped.what, skipped.reason)?;
        }
        if self.manifest.skipped.len() > SKIPPED_SHOWN {
            write!(f, "\n  ... all in {}", crate::shards::MANIFEST_FILE)?;
        }
        Ok(())
    }
}
