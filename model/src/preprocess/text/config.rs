//! Tokenizer settings, as run files and bundles have them.

use serde::{Deserialize, Serialize};

use crate::config::absent;
use crate::error::{Error, Result};

/// How texts become ids; the key `kind` names the variant. Written into the bundle in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TokenizerConfig {
    /// Hashed character n-grams, for any language and without a vocabulary.
    HashedNgrams(HashedNgrams),
    /// A `tokenizer.json` of the Hugging Face tokenizers library, which lies beside the weights.
    Huggingface(HuggingFace),
}

/// Settings of [`TokenizerConfig::HashedNgrams`].
///
/// A text is normalised (NFKC, lower case) and split into runs. A run of letters, digits and marks
/// is a word `<w>` with its boundaries marked, and gives itself and its n-grams of `min..=max`
/// characters. A run of Han, Kana or Hangul, where words are not spaced, and a run of symbols
/// (emoji among them) give their n-grams of `1..=cjk_max` characters, each a word by itself. Each
/// n-gram is hashed to a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashedNgrams {
    /// Number of buckets, the rows of the tower's table. Default 65,536; 2 to 2^24.
    #[serde(default = "default_buckets")]
    pub buckets: u32,
    /// Shortest n-gram of a word in characters, boundary marks included. Default 3; 1 to `max`.
    #[serde(default = "default_min")]
    pub min: usize,
    /// Longest n-gram of a word in characters. Default 5; `min` to 16.
    #[serde(default = "default_max")]
    pub max: usize,
    /// Longest n-gram in unspaced scripts and among symbols. Default 3; 1 to 16.
    #[serde(default = "default_cjk_max")]
    pub cjk_max: usize,
    /// Longest n-gram among the letters, which a tower's second table reads in place of the above (`text_tower.manner`): n-grams of
    /// `1..=letters` characters of words, boundary marks included, and of one or two in unspaced scripts. Short ones tell a language
    /// of words never seen. Of a text with more than `max_ids` the first are read. 0 for none, the default; to 8.
    #[serde(default, skip_serializing_if = "absent")]
    pub letters: usize,
    /// Longest text in bytes. Default 8,192; 16 to 2^20.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: usize,
    /// Most ids of one text. Default 32,768, which every language's 8 KiB stay below; 256 to 2^20.
    #[serde(default = "default_max_ids")]
    pub max_ids: usize,
}

/// Settings of [`TokenizerConfig::Huggingface`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HuggingFace {
    /// Number of ids, the rows of the tower's table: above every id of `tokenizer.json`. 1 to 2^24.
    pub vocabulary: u32,
    /// Whether the tokens that the tokenizer adds to each text (start, end) are in the bag. Default
    /// false.
    #[serde(default)]
    pub special_tokens: bool,
    /// Longest text in bytes. Default 8,192; 16 to 2^20.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: usize,
    /// Most ids of one text, those that the tokenizer adds among them. Default 32,768; 256 to 2^20, with
    /// `cut = "ids"` 3 to 2^20.
    #[serde(default = "default_max_ids")]
    pub max_ids: usize,
    /// How a text with too many ids is cut.
    #[serde(default, skip_serializing_if = "Cut::is_default")]
    pub cut: Cut,
    /// What is put before each text, as `query: ` for the E5 family. At most 1,024 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// How a text with too many ids is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// The text is cut, and its beginning tokenized as if it were all.
    #[default]
    Text,
    /// The ids are cut, and those that the tokenizer adds stand around the rest: what `transformers` does.
    Ids,
}

impl Cut {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn default_buckets() -> u32 {
    65_536
}

fn default_min() -> usize {
    3
}

fn default_max() -> usize {
    5
}

fn default_cjk_max() -> usize {
    3
}

fn default_max_bytes() -> usize {
    8_192
}

fn default_max_ids() -> usize {
    32_768
}

impl Default for HashedNgrams {
    fn default() -> Self {
        Self {
            buckets: default_buckets(),
            min: default_min(),
            max: default_max(),
            cjk_max: default_cjk_max(),
            letters: 0,
            max_bytes: default_max_bytes(),
            max_ids: default_max_ids(),
        }
    }
}

impl Default for TokenizerConfig {
    fn default() -> Self {
        Self::HashedNgrams(HashedNgrams::default())
    }
}

impl TokenizerConfig {
    /// Number of ids: every id is below it.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        match self {
            Self::HashedNgrams(settings) => settings.buckets,
            Self::Huggingface(settings) => settings.vocabulary,
        }
    }

    /// Longest text in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        match self {
            Self::HashedNgrams(settings) => settings.max_bytes,
            Self::Huggingface(settings) => settings.max_bytes,
        }
    }

    /// Most ids of one text.
    #[must_use]
    pub fn max_ids(&self) -> usize {
        match self {
            Self::HashedNgrams(settings) => settings.max_ids,
            Self::Huggingface(settings) => settings.max_ids,
        }
    }

    /// Longest n-gram among the letters; 0 where there are none.
    #[must_use]
    pub fn letters(&self) -> usize {
        match self {
            Self::HashedNgrams(settings) => settings.letters,
            Self::Huggingface(_) => 0,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn validate(&self) -> Result<()> {
        const LARGEST: usize = 1 << 20;
        const VOCABULARY: usize = 1 << 24;
        in_range("text.max_bytes", self.max_bytes(), 16, LARGEST)?;
        let least_ids = match self {
            Self::Huggingface(HuggingFace { cut: Cut::Ids, .. }) => 3,
            _ => 256,
        };
        in_range("text.max_ids", self.max_ids(), least_ids, LARGEST)?;
        match self {
            Self::HashedNgrams(settings) => {
                in_range("text.buckets", settings.buckets as usize, 2, VOCABULARY)?;
                in_range("text.max", settings.max, 1, 16)?;
                in_range("text.min", settings.min, 1, settings.max)?;
                in_range("text.letters", settings.letters, 0, 8)?;
                in_range("text.cjk_max", settings.cjk_max, 1, 16)
            }
            Self::Huggingface(settings) => {
                in_range("text.prefix", settings.prefix.len(), 0, 1024)?;
                in_range("text.vocabulary", settings.vocabulary as usize, 1, VOCABULARY)
            }
        }
    }
}

fn in_range(field: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("is {value}, must be {least} to {most}")))
}
