//! Subword tokens by a `tokenizer.json` of the Hugging Face tokenizers library.

use std::borrow::Cow;
use std::panic::catch_unwind;

use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{Encoding, PostProcessor, Tokenizer};

use super::{Cut, HuggingFace, Tokens};
use crate::error::{Error, Result};

/// A tokenizer and how it is used.
pub(super) struct Subwords {
    tokenizer: Tokenizer,
    settings: HuggingFace,
    /// How many ids the tokenizer adds to a text.
    added: usize,
}

impl Subwords {
    /// # Errors
    /// [`Error::Corrupt`] for a `tokenizer.json` that cannot be read or has more ids than the settings
    /// say, [`Error::Invalid`] for a limit that the added ids alone reach.
    pub(super) fn new(json: &[u8], settings: &HuggingFace) -> Result<Self> {
        let tokenizer = load(json, settings)?;
        let processor = tokenizer.get_post_processor().filter(|_| settings.special_tokens);
        let added = processor.map_or(0, |processor| processor.added_tokens(false));
        if added >= settings.max_ids {
            let message = format!("is {}, but the tokenizer alone adds {added}", settings.max_ids);
            return Err(Error::invalid("text.max_ids", message));
        }
        Ok(Self { tokenizer, settings: settings.clone(), added })
    }

    /// Whether long texts are cut by [`Subwords::sequence`].
    pub(super) fn cuts_ids(&self) -> bool {
        self.settings.cut == Cut::Ids
    }

    /// The ids of a text, none for white space alone.
    pub(super) fn ids(&self, text: &str) -> Result<Vec<u32>> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let text = self.prefixed(text);
        let encoding = self.tokenizer.encode_fast(&*text, self.settings.special_tokens);
        Ok(encoding.map_err(|_| unsplit())?.get_ids().to_vec())
    }

    /// The ids of a text for a tower that reads them in order; too many are cut with `truncate`.
    /// `truncated` is not told.
    ///
    /// # Errors
    /// [`Error::Empty`] for a text without a token of its own, [`Error::Limit`] (`text tokens`).
    pub(super) fn sequence(&self, text: &str, truncate: bool) -> Result<Tokens> {
        if text.trim().is_empty() {
            return Err(Error::Empty { field: "text" });
        }
        let prefixed = self.prefixed(text);
        let mut own = self.tokenizer.encode(&*prefixed, false).map_err(|_| unsplit())?;
        let (count, most) = (own.len(), self.settings.max_ids - self.added);
        if count == 0 {
            return Err(Error::Empty { field: "text" });
        }
        let mut used_bytes = text.len();
        if count > most {
            if !truncate {
                let (limit, count) = (self.settings.max_ids as u64, (count + self.added) as u64);
                return Err(Error::limit("text tokens", limit, count));
            }
            own.truncate(most, 0, TruncationDirection::Right);
            used_bytes = self.used(&own, text);
        }
        let special = self.settings.special_tokens;
        let whole = self.tokenizer.post_process(own, None, special).map_err(|_| unsplit())?;
        let ids = whole.get_ids().to_vec();
        let word_lengths = vec![1; ids.len()];
        Ok(Tokens { ids, word_lengths, used_bytes, ..Tokens::default() })
    }

    /// Where the last token ends in `text`.
    fn used(&self, encoding: &Encoding, text: &str) -> usize {
        let end = encoding.get_offsets().iter().map(|(_, end)| *end).max().unwrap_or(0);
        let end = end.saturating_sub(self.settings.prefix.len()).min(text.len());
        text.floor_char_boundary(end)
    }

    fn prefixed<'text>(&self, text: &'text str) -> Cow<'text, str> {
        if self.settings.prefix.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(format!("{}{text}", self.settings.prefix))
    }
}

fn unsplit() -> Error {
    Error::invalid("text", "cannot be split by the bundle's tokenizer")
}

/// The tokenizer that a `tokenizer.json` describes, or what is wrong with it. The library that reads it panics at some files, as at a
/// decoder with a key that is no UTF-8.
pub(crate) fn parse(json: &[u8]) -> std::result::Result<Tokenizer, String> {
    let reason = match catch_unwind(|| Tokenizer::from_bytes(json)) {
        Ok(Ok(tokenizer)) => return Ok(tokenizer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it describes a part that cannot be read".to_owned(),
    };
    Err(format!("is not a Hugging Face tokenizer: {reason}"))
}

fn load(json: &[u8], settings: &HuggingFace) -> Result<Tokenizer> {
    let corrupt = |message: String| Error::corrupt("tokenizer.json", message);
    let mut tokenizer = parse(json).map_err(corrupt)?;
    // Cutting and padding are this crate's business: towers pad as they need it, and a cut is reported.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| corrupt(error.to_string()))?;
    let largest = tokenizer.get_vocab(true).into_values().max();
    match largest {
        None => Err(corrupt("has no tokens".into())),
        Some(largest) if largest >= settings.vocabulary => Err(corrupt(format!(
            "has ids up to {largest}, but `text.vocabulary` is {}",
            settings.vocabulary
        ))),
        Some(_) => Ok(tokenizer),
    }
}
