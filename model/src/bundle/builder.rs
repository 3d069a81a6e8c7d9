//! Making a bundle out of what training leaves.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::golden::Golden;
use super::manifest::{Manifest, Spaces, Training};
use super::{
    Bundle, CALIBRATION, FORMAT_VERSION, FileEntry, Files, MANIFEST, TOKENIZER, WEIGHTS,
    WeightType, digest, weights,
};
use crate::bundle::stored::{StoredFile, StoredTensors};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::infer::Networks;
use crate::params::Params;
use crate::preprocess::{ImagePreprocessing, TokenizerConfig};

/// The parts of a bundle. Fill the fields and [`build`](BundleBuilder::build).
#[derive(Clone, Debug)]
pub struct BundleBuilder {
    /// A short name for lists, such as `emoji-small`.
    pub name: String,
    /// What the encoders know, in words.
    pub domain: String,
    /// Towers and heads.
    pub model: ModelConfig,
    /// From a picture to the image tower's input, where there is one; its size is the tower's.
    pub image: Option<ImagePreprocessing>,
    /// From a text to the text tower's input, where there is one; its ids are the tower's.
    pub text: Option<TokenizerConfig>,
    /// The content of `tokenizer.json`, for towers that bring a tokenizer.
    pub tokenizer_json: Option<Vec<u8>>,
    /// The weights, as [`Params::tensors`](crate::Params::tensors) gives them.
    pub weights: BTreeMap<String, Tensor>,
    /// How to store them.
    pub weight_type: WeightType,
    /// What is added to a scaled cosine; 0 for objectives without a bias. The scale itself is a
    /// weight.
    pub logit_bias: f32,
    /// Where the weights come from.
    pub training: Training,
    /// Pictures as files, at least one if there is an image tower, whose vectors the bundle must reproduce.
    pub golden_images: Vec<Vec<u8>>,
    /// Texts, at least one if there is a text tower, whose vectors the bundle must reproduce.
    pub golden_texts: Vec<String>,
    /// The content of `calibration.json`, when there is one.
    pub calibration: Option<Vec<u8>>,
}

impl BundleBuilder {
    /// A builder without golden inputs, provenance and calibration.
    #[must_use]
    pub fn new(
        model: ModelConfig,
        image: impl Into<Option<ImagePreprocessing>>,
        text: impl Into<Option<TokenizerConfig>>,
        weights: BTreeMap<String, Tensor>,
    ) -> Self {
        Self {
            name: "unnamed".to_owned(),
            domain: "unknown".to_owned(),
            model,
            image: image.into(),
            text: text.into(),
            tokenizer_json: None,
            weights,
            weight_type: WeightType::default(),
            logit_bias: 0.0,
            training: Training::default(),
            golden_images: Vec::new(),
            golden_texts: Vec::new(),
            calibration: None,
        }
    }

    /// Rounds the weights as they will be stored, computes the golden vectors from the rounded
    /// ones, and puts the files together. The same parts give the same bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings, golden inputs or weights that do not fit, and what
    /// [`Bundle::from_files`] answers.
    pub fn build(self) -> Result<Bundle> {
        let stored = weights::encode(&self.weights, self.weight_type)?;
        let weights_entry = digest::entry(WEIGHTS, &stored);
        // From here on the weights are in memory once as a file, and once in the networks.
        drop(self.weights);
        let stored = StoredFile::in_memory(WEIGHTS, Cow::Owned(stored));
        let rounded = StoredTensors::open(vec![stored], |name| Some(name.to_owned()))?;
        let rounded = Arc::new(rounded);
        let networks = Networks::new(
            &self.model,
            self.image.clone(),
            (self.text.as_ref(), self.tokenizer_json.as_deref()),
            &Params::from_stored(Arc::clone(&rounded), &Device::Cpu),
        )?;
        let mut files: Files =
            Golden::compute(&networks, &self.golden_images, &self.golden_texts)?.to_files()?;
        for (path, content) in [(TOKENIZER, self.tokenizer_json), (CALIBRATION, self.calibration)] {
            if let Some(content) = content {
                files.insert(path.to_owned(), Cow::Owned(content));
            }
        }
        let mut listed: Vec<FileEntry> =
            files.iter().map(|(path, content)| digest::entry(path, content)).collect();
        listed.push(weights_entry);
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            // Format 1 is the first: any reader understands it.
            min_reader: 1,
            name: self.name,
            domain: self.domain,
            spaces: Spaces::of(&self.model),
            model: self.model,
            image: self.image,
            text: self.text,
            logit_scale: networks.logit_scale()?,
            logit_bias: self.logit_bias,
            training: self.training,
            files: listed,
        };
        let mut json = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::invalid(MANIFEST, format!("cannot be written: {error}")))?;
        json.push(b'\n');
        files.insert(MANIFEST.to_owned(), Cow::Owned(json));
        drop(networks);
        Bundle::of_parts(files, rounded)
    }
}
