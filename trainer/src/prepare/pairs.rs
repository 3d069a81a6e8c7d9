//! Rows of pictures and captions, from whatever table, on their way to a dataset.
//!
//! A source reads its table ([`super::table`]), turns cells into a [`Row`], finds the row's picture
//! and hands both to [`Gathered`], which holds rows against each other. When all rows are in, groups
//! get their splits and the dataset is written: texts and names stay in memory, pictures do not.

mod columns;
mod draw;
mod fault;
mod gather;
mod row;
#[cfg(test)]
pub(super) mod tests;
mod write;

use std::path::PathBuf;

use clap::Args;

pub(super) use self::columns::Asked;
pub(super) use self::draw::{Shares, Unit, draw};
pub(super) use self::fault::{Fault, Place};
pub(super) use self::gather::{Gathered, Pictured};
pub(super) use self::row::{PictureCell, Roles, Row, parse_split};
pub(super) use self::write::Origin;
use crate::error::{Error, Result};
use crate::shards::IMAGE_COLUMNS;

/// Arguments that every source of pairs takes.
#[derive(Debug, Clone, Args)]
pub struct PairArgs {
    /// Folder to write the dataset to; shards of an earlier run there are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The dataset's name; absent: that of the folder it is written to.
    #[arg(long)]
    pub name: Option<String>,
    /// SPDX name of the licence of pictures and captions; the dataset carries it.
    #[arg(long, value_name = "SPDX", default_value = "NOASSERTION")]
    pub licence: String,
    /// Columns to keep as labels of the pictures.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Language (BCP 47) of captions whose row names none.
    #[arg(long, value_name = "TAG")]
    pub lang: Option<String>,
    /// Share of the groups to choose settings by; absent: 0.1.
    #[arg(long, value_name = "SHARE")]
    pub dev: Option<f64>,
    /// Share of the groups to report on; absent: 0.1.
    #[arg(long, value_name = "SHARE")]
    pub test: Option<f64>,
    /// Seed of the split: the same seed and group give the same place in the draw.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Longest caption in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 8192)]
    pub max_text_bytes: usize,
}

/// The share of dev and of test where none is given.
const SHARE: f64 = 0.1;

impl PairArgs {
    /// The shares to draw.
    ///
    /// # Errors
    /// When they are no shares, or leave nothing to train on.
    pub(super) fn shares(&self) -> Result<Shares> {
        let (dev, test) = (self.dev.unwrap_or(SHARE), self.test.unwrap_or(SHARE));
        for (flag, share) in [("--dev", dev), ("--test", test)] {
            if !(0.0..1.0).contains(&share) {
                let message = format!("{share} is not a share from 0 to below 1");
                return Err(Error::setting(flag, message));
            }
        }
        if dev + test >= 1.0 {
            let message = format!("{dev} and --test {test} leave nothing to train on");
            return Err(Error::setting("--dev", message));
        }
        Ok(Shares { dev, test, seed: self.seed })
    }

    /// Checks what can be checked before a table is read.
    ///
    /// # Errors
    /// Names the flag.
    pub(super) fn check(&self) -> Result<()> {
        self.shares()?;
        for (number, label) in self.labels.iter().enumerate() {
            if label.is_empty() || IMAGE_COLUMNS.contains(&label.as_str()) {
                let taken = IMAGE_COLUMNS.join("`, `");
                let message = format!("`{label}` cannot be a label: `{taken}` are columns already");
                return Err(Error::setting("--labels", message));
            }
            if self.labels[..number].contains(label) {
                return Err(Error::setting("--labels", format!("`{label}` is there twice")));
            }
        }
        if self.max_text_bytes == 0 {
            return Err(Error::setting("--max-text-bytes", "0 leaves no captions"));
        }
        match self.lang.as_deref().map(row::language) {
            Some(None) => {
                Err(Error::setting("--lang", "is not a BCP 47 tag, as in `en` or `pt-BR`"))
            }
            _ => Ok(()),
        }
    }

    /// The dataset's name.
    pub(super) fn dataset_name(&self) -> String {
        let folder = || self.out.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name.clone().or_else(folder).unwrap_or_else(|| "pairs".to_owned())
    }
}
