//! Texts: from a string to a bag of token ids, within limits.

mod config;
mod ngrams;
mod subwords;
#[cfg(test)]
mod tests;

pub use self::config::{Cut, HashedNgrams, HuggingFace, TokenizerConfig};
use self::subwords::Subwords;
pub(crate) use self::subwords::parse as parse_tokenizer;
use crate::error::{Error, Result};

/// The ids of one text, word by word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Ids below [`TokenizerConfig::vocabulary`], at least one. An id may repeat.
    pub ids: Vec<u32>,
    /// How many ids each word has, in order: none is 0, and they sum to the number of ids. What a
    /// word is, the tokenizer says.
    pub word_lengths: Vec<u32>,
    /// Ids of the letters, below the same number: at least one where [`HashedNgrams::letters`] asks for them, else none.
    pub letters: Vec<u32>,
    /// How many bytes of the text, from its start, these ids stand for. The ids are exactly those
    /// of the text cut there.
    pub used_bytes: usize,
    /// Whether the text went on after that.
    pub truncated: bool,
}

/// Texts of a batch as one list of words, each a few ids: text `i` has the words
/// `text_offsets[i]..text_offsets[i + 1]`, word `w` the ids
/// `ids[word_offsets[w]..word_offsets[w + 1]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// The ids of all texts, one after the other.
    pub ids: Vec<u32>,
    /// Where each word's ids begin, and their end: one more than there are words, the first is 0.
    pub word_offsets: Vec<u32>,
    /// Where each text's words begin, and their end: one more than there are texts, the first is 0.
    pub text_offsets: Vec<u32>,
    /// The letters of all texts, one after the other.
    pub letters: Vec<u32>,
    /// Where each text's letters begin, and their end, as in `text_offsets`.
    pub letter_offsets: Vec<u32>,
}

impl Default for TokenBatch {
    fn default() -> Self {
        Self {
            ids: Vec::new(),
            word_offsets: vec![0],
            text_offsets: vec![0],
            letters: Vec::new(),
            letter_offsets: vec![0],
        }
    }
}

impl TokenBatch {
    /// Puts the words of several texts one after the other.
    #[must_use]
    pub fn collate(items: &[&Tokens]) -> Self {
        let mut batch = Self::default();
        batch.ids.reserve(items.iter().map(|item| item.ids.len()).sum());
        batch.word_offsets.reserve(items.iter().map(|item| item.word_lengths.len()).sum());
        batch.text_offsets.reserve(items.len());
        let mut end = 0;
        for item in items {
            batch.ids.extend_from_slice(&item.ids);
            batch.word_offsets.extend(item.word_lengths.iter().map(|length| {
                end += length;
                end
            }));
            batch.text_offsets.push(batch.words() as u32);
            batch.letters.extend_from_slice(&item.letters);
            batch.letter_offsets.push(batch.letters.len() as u32);
        }
        batch
    }

    /// The number of texts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.text_offsets.len().saturating_sub(1)
    }

    /// The ids of text number `text`, in order.
    #[must_use]
    pub fn text(&self, text: usize) -> &[u32] {
        let word = |at: usize| self.word_offsets[self.text_offsets[at] as usize] as usize;
        &self.ids[word(text)..word(text + 1)]
    }

    /// The number of words of all texts.
    #[must_use]
    pub fn words(&self) -> usize {
        self.word_offsets.len().saturating_sub(1)
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Turns texts into ids as a [`TokenizerConfig`] says.
pub struct TextPreprocessor {
    config: TokenizerConfig,
    engine: Engine,
}

/// What a tokenizer gives: ids, and how many of them each word has.
#[derive(Default)]
struct Words {
    ids: Vec<u32>,
    lengths: Vec<u32>,
}

impl Words {
    /// Adds a word; one without ids is none.
    fn push(&mut self, ids: impl IntoIterator<Item = u32>) {
        let before = self.ids.len();
        self.ids.extend(ids);
        let length = self.ids.len() - before;
        if length > 0 {
            self.lengths.push(length as u32);
        }
    }
}

enum Engine {
    Ngrams(HashedNgrams),
    HuggingFace(Box<Subwords>),
}

impl std::fmt::Debug for TextPreprocessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A Hugging Face tokenizer prints its whole vocabulary.
        f.debug_struct("TextPreprocessor").field("config", &self.config).finish_non_exhaustive()
    }
}

impl TextPreprocessor {
    /// Builds the tokenizer. `tokenizer_json` is the content of `tokenizer.json`, needed by
    /// [`TokenizerConfig::Huggingface`] and refused by the others.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a setting out of range or a file that is missing or superfluous,
    /// [`Error::Corrupt`] for a `tokenizer.json` that cannot be read or has more ids than
    /// the settings say.
    pub fn new(config: &TokenizerConfig, tokenizer_json: Option<&[u8]>) -> Result<Self> {
        config.validate()?;
        let engine = match (config, tokenizer_json) {
            (TokenizerConfig::HashedNgrams(settings), None) => Engine::Ngrams(settings.clone()),
            (TokenizerConfig::HashedNgrams(_), Some(_)) => {
                let message = "is `hashed_ngrams`, which takes no tokenizer.json";
                return Err(Error::invalid("text.kind", message));
            }
            (TokenizerConfig::Huggingface(settings), Some(json)) => {
                Engine::HuggingFace(Box::new(Subwords::new(json, settings)?))
            }
            (TokenizerConfig::Huggingface(_), None) => {
                let message = "is `huggingface`, which needs a tokenizer.json";
                return Err(Error::invalid("text.kind", message));
            }
        };
        Ok(Self { config: config.clone(), engine })
    }

    /// The settings it was built with.
    #[must_use]
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// The ids of a text. With `truncate`, a text beyond the limits is cut and the result says
    /// where.
    ///
    /// # Errors
    /// [`Error::Empty`] when nothing of the text can be searched for (no letter, digit or symbol),
    /// [`Error::Limit`] (`text bytes`, `text tokens`) when it is too long and `truncate` is false.
    pub fn tokenize(&self, text: &str, truncate: bool) -> Result<Tokens> {
        let max_bytes = self.config.max_bytes();
        if text.len() > max_bytes && !truncate {
            return Err(Error::limit("text bytes", max_bytes as u64, text.len() as u64));
        }
        let mut used = &text[..text.floor_char_boundary(max_bytes)];
        if let Engine::HuggingFace(subwords) = &self.engine
            && subwords.cuts_ids()
        {
            let tokens = subwords.sequence(used, truncate)?;
            return Ok(Tokens { truncated: tokens.used_bytes < text.len(), ..tokens });
        }
        let mut words = self.words(used)?;
        let max_ids = self.config.max_ids();
        if words.ids.len() > max_ids {
            if !truncate {
                return Err(Error::limit("text tokens", max_ids as u64, words.ids.len() as u64));
            }
            used = self.longest_fitting(used, max_ids)?;
            words = self.words(used)?;
        }
        let Words { ids, lengths: word_lengths } = words;
        if ids.is_empty() {
            return Err(Error::Empty { field: "text" });
        }
        let truncated = used.len() < text.len();
        let letters = match &self.engine {
            Engine::Ngrams(settings) => ngrams::letters(used, settings),
            Engine::HuggingFace(_) => Vec::new(),
        };
        Ok(Tokens { ids, word_lengths, letters, used_bytes: used.len(), truncated })
    }

    /// A prefix of `text` with at most `max_ids` ids, by bisection: about 13 passes at 8 KiB, only
    /// for texts that are cut.
    fn longest_fitting<'text>(&self, text: &'text str, max_ids: usize) -> Result<&'text str> {
        let (mut fits, mut beyond) = (0, text.len());
        loop {
            let middle = text.floor_char_boundary(fits + (beyond - fits) / 2);
            if middle <= fits {
                return Ok(&text[..fits]);
            }
            if self.words(&text[..middle])?.ids.len() <= max_ids {
                fits = middle;
            } else {
                beyond = middle;
            }
        }
    }

    fn words(&self, text: &str) -> Result<Words> {
        match &self.engine {
            Engine::Ngrams(settings) => Ok(ngrams::words(text, settings)),
            Engine::HuggingFace(subwords) => {
                let ids = subwords.ids(text)?;
                Ok(Words { lengths: vec![1; ids.len()], ids })
            }
        }
    }
}
