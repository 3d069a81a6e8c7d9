//! `bundle.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Files, MANIFEST, READER_VERSION};
use crate::config::{Modality, ModelConfig, Space};
use crate::error::{Error, Result};
use crate::preprocess::{ImagePreprocessing, TokenizerConfig};

/// Longest `bundle.json` in bytes.
const MAX_BYTES: usize = 1 << 20;

/// What a bundle says about itself. Keys that a newer writer adds are ignored, as long as its
/// `min_reader` allows this reader; keys inside `model`, `image` and `text` never are, since they
/// change vectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format that wrote it.
    pub format_version: u32,
    /// The oldest reader that understands it.
    pub min_reader: u32,
    /// A short name for lists, such as `emoji-small`.
    pub name: String,
    /// What the encoders know, in words: "emoji", "photographs".
    pub domain: String,
    /// Towers and heads. Determines vectors.
    pub model: ModelConfig,
    /// Dimensions of the vectors.
    pub spaces: Spaces,
    /// From a picture to the image tower's input, where there is one. Determines vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePreprocessing>,
    /// From a text to the text tower's input, where there is one. Determines vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TokenizerConfig>,
    /// What a cosine similarity of shared vectors is multiplied by to give a logit.
    pub logit_scale: f32,
    /// What is then added.
    pub logit_bias: f32,
    /// Where the weights come from.
    pub training: Training,
    /// Every other file of the bundle, by path.
    pub files: Vec<FileEntry>,
}

/// The dimensions of each space. Exclusive vectors of pictures and of texts are two spaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spaces {
    /// Where pictures and texts meet.
    pub shared: SpaceInfo,
    /// What only the picture says, where the model tells it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_image: Option<SpaceInfo>,
    /// What only the wording says, where the model tells it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_text: Option<SpaceInfo>,
}

/// The dimensions of one space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceInfo {
    /// Length of a vector.
    pub dims: usize,
    /// Shorter lengths, rising, whose first values work as a vector alone once they are brought to
    /// unit length (Matryoshka representations, Kusupati et al. 2022).
    #[serde(default)]
    pub prefixes: Vec<usize>,
}

/// Where weights come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// What was trained on.
    pub data: Vec<DataSource>,
    /// The licence of the weights, as an SPDX expression or in words.
    pub licence: String,
    /// The run file, as its text.
    pub run_file: String,
    /// The seed of the run.
    pub seed: u64,
    /// Measured figures, free in form.
    #[serde(default)]
    pub metrics: Value,
}

/// One source of training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression or in words.
    pub licence: String,
}

/// One file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path inside the bundle, with `/` between folders.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

impl Spaces {
    /// The spaces that a model has.
    #[must_use]
    pub fn of(model: &ModelConfig) -> Self {
        let heads = &model.heads;
        let exclusive = |modality, dims: usize| {
            let there = dims > 0 && model.has(modality);
            there.then_some(SpaceInfo { dims, prefixes: Vec::new() })
        };
        Self {
            shared: SpaceInfo { dims: heads.shared, prefixes: heads.matryoshka.clone() },
            exclusive_image: exclusive(Modality::Image, heads.exclusive_image),
            exclusive_text: exclusive(Modality::Text, heads.exclusive_text),
        }
    }

    /// The space in which the `space` vectors of a modality live, where there is one.
    #[must_use]
    pub fn get(&self, modality: Modality, space: Space) -> Option<&SpaceInfo> {
        match (space, modality) {
            (Space::Shared, _) => Some(&self.shared),
            (Space::Exclusive, Modality::Image) => self.exclusive_image.as_ref(),
            (Space::Exclusive, Modality::Text) => self.exclusive_text.as_ref(),
        }
    }
}

impl Manifest {
    /// How pictures are fitted.
    ///
    /// # Errors
    /// [`Error::Absent`] for a bundle of texts alone.
    pub fn image(&self) -> Result<&ImagePreprocessing> {
        self.image.as_ref().ok_or(Error::Absent { part: "image tower" })
    }

    /// How texts become ids.
    ///
    /// # Errors
    /// [`Error::Absent`] for a bundle of pictures alone.
    pub fn text(&self) -> Result<&TokenizerConfig> {
        self.text.as_ref().ok_or(Error::Absent { part: "text tower" })
    }

    /// Reads the typed manifest out of the parsed `bundle.json`.
    pub(super) fn from_value(value: &Value) -> Result<Self> {
        // Asked first, so that a bundle of the future is told apart from a damaged one.
        let min_reader = value.get("min_reader").and_then(Value::as_u64).ok_or_else(|| {
            Error::corrupt(MANIFEST, "has no `min_reader`; this is not a bundle, pick another")
        })?;
        if min_reader > u64::from(READER_VERSION) {
            let message = format!(
                "needs a reader of format {min_reader}, this program reads up to \
                 {READER_VERSION}; update the program or export the bundle for it"
            );
            return Err(Error::corrupt(MANIFEST, message));
        }
        Self::deserialize(value).map_err(|error| {
            let message = format!("is not a manifest: {error}; export or copy the bundle again");
            Error::corrupt(MANIFEST, message)
        })
    }
}

/// The JSON in `bundle.json`.
pub(super) fn parse_value(files: &Files) -> Result<Value> {
    let bytes = files.get(MANIFEST).ok_or_else(|| {
        Error::corrupt(MANIFEST, "is missing; this is not a bundle, check the path")
    })?;
    if bytes.len() > MAX_BYTES {
        let message =
            format!("has {} bytes, more than {MAX_BYTES}; copy the bundle again", bytes.len());
        return Err(Error::corrupt(MANIFEST, message));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Error::corrupt(MANIFEST, format!("is not JSON: {error}; copy the bundle again"))
    })
}
