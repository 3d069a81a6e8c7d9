//! The bundle: a trained encoder pair as one directory, with the proof that it is whole.
//!
//! | file | what |
//! |---|---|
//! | `bundle.json` | the [`Manifest`]: settings, provenance, and length and SHA-256 of every other file |
//! | `model.safetensors` | weights by name, f32 or f16 |
//! | `tokenizer.json` | only for towers that bring a tokenizer |
//! | `golden.safetensors`, `golden/` | a few inputs as bytes, and the vectors they must give |
//! | `calibration.json` | score to probability; may be absent |
//!
//! A directory in Hugging Face layout is taken as a bundle too (`checkpoint`): CLIP, SigLIP, sentence
//! encoders of the BERT family, and a few image towers alone.
//!
//! A [`Bundle`] in memory has been verified file by file. That its weights also fit the networks
//! and reproduce the golden vectors is checked by [`Encoder::open`](crate::infer::Encoder::open).

mod builder;
mod checkpoint;
mod digest;
mod directory;
mod golden;
mod manifest;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
mod verify;
mod weights;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

pub use self::builder::BundleBuilder;
use self::checkpoint::Checkpoint;
pub(crate) use self::golden::Golden;
pub use self::golden::{GoldenInput, LEAST_COSINE};
pub use self::manifest::{DataSource, FileEntry, Manifest, SpaceInfo, Spaces, Training};
use self::stored::StoredFile;
pub use self::stored::StoredTensors;
pub use self::weights::WeightType;
use crate::error::{Error, Result};
use crate::params::Params;

/// The format that this version writes.
pub const FORMAT_VERSION: u32 = 1;
/// The newest `min_reader` that this version can read.
pub const READER_VERSION: u32 = 1;

const MANIFEST: &str = "bundle.json";
const WEIGHTS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const CALIBRATION: &str = "calibration.json";
const GOLDEN_VECTORS: &str = "golden.safetensors";
const GOLDEN_FOLDER: &str = "golden/";

/// The files of a bundle by their path inside it, with `/` between folders.
pub type Files = BTreeMap<String, Cow<'static, [u8]>>;

/// A verified bundle: every file is there with the length and SHA-256 that `bundle.json` states, and the
/// settings agree with each other. Of a checkpoint in Hugging Face layout, which states nothing, the
/// files are as they were when it was opened. Weights of either stay on disk until a network asks for them.
#[derive(Clone)]
pub struct Bundle {
    manifest: Manifest,
    files: Files,
    tensors: Arc<StoredTensors>,
    checkpoint: Option<Arc<Checkpoint>>,
    embedding_digest: String,
    bundle_digest: String,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("name", &self.manifest.name)
            .field("bundle_digest", &self.bundle_digest)
            .finish_non_exhaustive()
    }
}

impl Bundle {
    /// Reads and verifies the bundle in directory `dir`. Files that `bundle.json` does not list are
    /// not read. Without a `bundle.json` it is taken as a checkpoint in Hugging Face layout, by its
    /// `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Corrupt`] naming the file that is
    /// missing, damaged or does not fit, and what to do.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let own = dir.join(MANIFEST).exists() || !checkpoint::is_here(dir);
        let opened = if own {
            directory::read(dir).and_then(|(files, weights)| Self::own(files, weights))
        } else {
            checkpoint::open(dir)
        };
        opened.map_err(|error| match error {
            Error::Corrupt { what, message } => {
                Error::Corrupt { what: dir.join(what).display().to_string(), message }
            }
            other => other,
        })
    }

    /// Verifies a bundle given as its files, for instance those built into a binary.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn from_files(mut files: Files) -> Result<Self> {
        let weights = files.remove(WEIGHTS);
        Self::own(files, weights.map(|bytes| StoredFile::in_memory(WEIGHTS, bytes)))
    }

    /// A bundle of ours from its files and the file of its weights.
    fn own(files: Files, weights: Option<StoredFile>) -> Result<Self> {
        let manifest = Manifest::from_value(&manifest::parse_value(&files)?)?;
        verify::files(&manifest, &files, weights.as_ref())?;
        let weights = weights.into_iter().collect();
        let tensors = StoredTensors::open(weights, |name| Some(name.to_owned()))?;
        Self::of_parts(files, Arc::new(tensors))
    }

    /// A bundle of ours whose files are as `bundle.json` states.
    fn of_parts(files: Files, tensors: Arc<StoredTensors>) -> Result<Self> {
        let value = manifest::parse_value(&files)?;
        let manifest = Manifest::from_value(&value)?;
        verify::settings(&manifest)?;
        let embedding_digest = digest::embedding(&manifest, &value);
        let bundle_digest = digest::bundle(&manifest, &files[MANIFEST]);
        Ok(Self { manifest, files, tensors, checkpoint: None, embedding_digest, bundle_digest })
    }

    /// Writes the bundle as directory `dir`, which appears at once and complete: the files are
    /// written beside it, synced, and renamed. A bundle or an empty directory already at `dir` is
    /// replaced; anything else there is left alone and refused.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses, [`Error::Invalid`] when `dir` holds something else.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        directory::write(&self.files, self.tensors.files(), dir.as_ref())
    }

    /// What `bundle.json` says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The files by path, `bundle.json` among them, without the weights.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Bytes of all files, the weights among them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let held: u64 = self.files.values().map(|content| content.len() as u64).sum();
        held + self.tensors.files().iter().map(|file| file.length).sum::<u64>()
    }

    /// SHA-256, in hex, over what determines vectors: the weights, the tokenizer, and of
    /// `bundle.json` the keys `model`, `image` and `text`; of a checkpoint over all files that are read.
    /// Vectors of bundles that agree in it are the same vectors; collections record it.
    #[must_use]
    pub fn embedding_digest(&self) -> &str {
        &self.embedding_digest
    }

    /// SHA-256, in hex, over every file.
    #[must_use]
    pub fn bundle_digest(&self) -> &str {
        &self.bundle_digest
    }

    /// The content of `calibration.json`, when the bundle is calibrated. It is read by
    /// [`Calibration::parse`](crate::Calibration::parse); no vector depends on it.
    #[must_use]
    pub fn calibration(&self) -> Option<&[u8]> {
        self.files.get(CALIBRATION).map(AsRef::as_ref)
    }

    /// The content of `tokenizer.json`, for towers that bring a tokenizer.
    #[must_use]
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        match &self.checkpoint {
            Some(checkpoint) => checkpoint.tokenizer_json.as_deref(),
            None => self.files.get(TOKENIZER).map(AsRef::as_ref),
        }
    }

    /// The weights by name, as f32 on the CPU, all finite.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a type that is not read, or a value that is not finite; [`Error::Io`].
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>> {
        self.tensors.all()
    }

    /// How many numbers the weights are.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let shapes = self.tensors.names().filter_map(|name| self.tensors.shape(name));
        shapes.map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// How the weights would be stored without losing any of their digits.
    #[must_use]
    pub fn weight_type(&self) -> WeightType {
        if self.tensors.are_halves() { WeightType::F16 } else { WeightType::F32 }
    }

    /// The weights for networks on `device`, each read when it is asked for by name.
    #[must_use]
    pub fn params(&self, device: &Device) -> Params {
        Params::from_stored(Arc::clone(&self.tensors), device)
    }

    /// Whether there are golden inputs; a checkpoint of others has none.
    #[must_use]
    pub fn has_golden(&self) -> bool {
        self.checkpoint.is_none()
    }

    /// The golden inputs with the vectors that they must give; none of a checkpoint of others. They have not been
    /// compared: [`Encoder::open`](crate::infer::Encoder::open) does.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when inputs and vectors do not match in number.
    pub fn golden_inputs(&self) -> Result<Vec<GoldenInput>> {
        Ok(self.golden()?.map(Golden::into_inputs).unwrap_or_default())
    }

    /// The golden inputs and their vectors.
    pub(crate) fn golden(&self) -> Result<Option<Golden>> {
        let own = self.has_golden();
        own.then(|| Golden::from_files(&self.files, &self.manifest)).transpose()
    }
}
