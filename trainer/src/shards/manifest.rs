//! `dataset.json`: what a prepared dataset holds and where it comes from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FORMAT_VERSION, MANIFEST_FILE, Split};
use crate::error::{Error, Result};

/// `dataset.json`: what a prepared dataset holds and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the layout, [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The dataset's name, as in `emoji`.
    pub name: String,
    /// The label columns of the picture shards, in the order of [`super::ImageRow::labels`].
    pub labels: Vec<String>,
    /// Which pictures stand where texts do, in a dataset that pairs pictures with pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<PairedPictures>,
    /// Factors that are numbers: each with the label columns that hold its coordinates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub numeric: BTreeMap<String, Vec<String>>,
    /// How much there is of what.
    pub counts: Counts,
    /// Where pictures and texts come from, and on which terms.
    pub sources: Vec<Source>,
    /// What else is worth knowing of how it was prepared, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the sources held but the dataset does not, and why.
    pub skipped: Vec<Skipped>,
    /// The shards, in reading order.
    pub files: Vec<ShardFile>,
}

/// How the two pictures of a pair are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedPictures {
    /// The label column that says which of the two a picture is.
    pub label: String,
    /// Its value for those that stand where texts do.
    pub counterpart: String,
}

/// How much a dataset holds of what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Distinct groups among the pictures and the texts.
    pub groups: u64,
    /// Pictures.
    pub images: u64,
    /// Texts of every kind.
    pub texts: u64,
    /// Texts that are names.
    pub names: u64,
    /// What was left out, named in [`Manifest::skipped`].
    pub skipped: u64,
    /// Pictures by label column, then by value; columns of numbers are not counted.
    pub images_by_label: BTreeMap<String, BTreeMap<String, u64>>,
    /// Pictures by split.
    pub images_by_split: BTreeMap<Split, u64>,
    /// Texts by split.
    pub texts_by_split: BTreeMap<Split, u64>,
    /// Texts by language.
    pub texts_by_lang: BTreeMap<String, u64>,
}

/// One source of pictures or texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it gives here, as in `pictures of style noto`.
    pub gives: String,
    /// The package and its version, as in `@iconify-json/noto 1.2.9`.
    pub package: String,
    /// The SPDX name of its licence.
    pub licence: String,
    /// Who made it.
    pub author: String,
}

/// Something that a source held and the dataset does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// What was left out, as in `noto/1fa8b`.
    pub what: String,
    /// Why. What stands before its first colon is the sort of reason, which reports count by.
    pub reason: String,
}

impl Skipped {
    /// The sort of reason, as in `picture missing`.
    pub fn sort(&self) -> &str {
        self.reason.split_once(": ").map_or(&*self.reason, |(sort, _)| sort)
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardFile {
    /// The file's name within the dataset's folder.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// The SHA-256 of its bytes, in lower-case hex.
    pub sha256: String,
}

impl Manifest {
    /// Whether a label column holds a coordinate of a factor that is a number.
    pub fn is_numeric(&self, column: &str) -> bool {
        self.numeric.values().flatten().any(|name| name == column)
    }

    /// Reads the manifest of the dataset in `folder`.
    ///
    /// # Errors
    /// Names the file when it is absent, is not such a manifest, or has another format version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST_FILE);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&path, format!("not a dataset manifest: {e}")))?;
        if manifest.format_version != FORMAT_VERSION {
            let message = format!(
                "format version {} is not the {FORMAT_VERSION} that this version reads; prepare the data again",
                manifest.format_version
            );
            return Err(Error::data(&path, message));
        }
        if let Some(file) = manifest.files.iter().find(|f| !is_plain_name(&f.path)) {
            return Err(Error::data(&path, format!("`{}` is not a plain file name", file.path)));
        }
        Ok(manifest)
    }

    /// Writes the manifest into `folder`, whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST_FILE);
        let partial = folder.join(format!("{MANIFEST_FILE}.partial"));
        let mut json = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::data(&path, format!("cannot be written as JSON: {e}")))?;
        json.push(b'\n');
        std::fs::write(&partial, json).map_err(|e| Error::io(&partial, e))?;
        let file = File::open(&partial).map_err(|e| Error::io(&partial, e))?;
        file.sync_all().map_err(|e| Error::io(&partial, e))?;
        std::fs::rename(&partial, &path).map_err(|e| Error::io(&path, e))?;
        Ok(())
    }
}

/// Whether `name` stays within the folder it is joined to.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\'])
}

/// The SHA-256 of the file at `path`, in lower-case hex.
pub(super) fn file_sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer).map_err(|e| Error::io(path, e))?;
        if read == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(&buffer[..read]);
    }
}
