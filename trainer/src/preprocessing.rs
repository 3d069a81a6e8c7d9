//! What turns pictures and texts into tensors: the same in training, evaluation and serving.

use diptych_model::preprocess::{ImagePreprocessing, TextPreprocessor, TokenizerConfig};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Settings of the way from bytes to what the towers read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreprocessingConfig {
    /// Pictures to pixels.
    pub image: ImagePreprocessing,
    /// Texts to token ids.
    pub text: TokenizerConfig,
}

/// The way from bytes to what the towers read.
#[derive(Debug)]
pub struct Preprocessing {
    /// Pixels.
    pub image: ImagePreprocessing,
    /// Tokens.
    pub text: TextPreprocessor,
    /// Token ids are below it.
    pub vocabulary: u32,
}

impl Preprocessing {
    /// Builds both halves.
    ///
    /// # Errors
    /// If a setting is out of range, or the tokenizer needs a file of its own.
    pub fn new(config: &PreprocessingConfig) -> Result<Self> {
        Self::with_tokenizer(config, None)
    }

    /// Builds both halves, with the content of a `tokenizer.json` for towers that bring one.
    ///
    /// # Errors
    /// If a setting is out of range, or the tokenizer cannot be read.
    pub fn with_tokenizer(config: &PreprocessingConfig, json: Option<&[u8]>) -> Result<Self> {
        config.image.validate()?;
        Ok(Self {
            image: config.image.clone(),
            text: TextPreprocessor::new(&config.text, json)?,
            vocabulary: config.text.vocabulary(),
        })
    }
}
