//! How a checkpoint's texts become ids.

use serde_json::{Value, json};

use super::source::{Source, missing};
use crate::error::{Error, Result};
use crate::preprocess::TokenizerConfig;
use crate::preprocess::text::{Cut, HuggingFace, parse_tokenizer};

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// Longest text in bytes: some 70 bytes for each token of the longest towers.
const MAX_BYTES: usize = 8192;

/// Settings and the content of `tokenizer.json`.
type Found = (TokenizerConfig, Vec<u8>);

fn settings((vocabulary, longest): (usize, usize)) -> TokenizerConfig {
    TokenizerConfig::Huggingface(HuggingFace {
        // Out of range is told with the tower's.
        vocabulary: u32::try_from(vocabulary).unwrap_or(u32::MAX),
        special_tokens: true,
        max_bytes: MAX_BYTES,
        max_ids: longest,
        cut: Cut::Ids,
        prefix: String::new(),
    })
}

/// `tokenizer.json` alone. `sizes` are the rows of the tower's table and its longest text in tokens.
pub(super) fn plain(source: &mut Source, sizes: (usize, usize)) -> Result<Found> {
    let json = source.tokenizer(TOKENIZER)?.ok_or_else(|| missing(TOKENIZER))?;
    Ok((settings(sizes), json))
}

/// `tokenizer.json`; a vocabulary of SentencePiece alone is refused with what writes the former.
pub(super) fn sentencepiece(source: &mut Source, sizes: (usize, usize)) -> Result<Found> {
    if !source.has(TOKENIZER) && source.has("spiece.model") {
        let message = "is a SentencePiece vocabulary, and there is no tokenizer.json; write it with \
                       Python: `transformers.AutoTokenizer.from_pretrained(DIR, \
                       use_fast=True).save_pretrained(DIR)`";
        return Err(Error::corrupt("spiece.model", message));
    }
    plain(source, sizes)
}

/// `tokenizer.json`, or made from `vocab.json` and `merges.txt`.
pub(super) fn clip(source: &mut Source, sizes: (usize, usize)) -> Result<Found> {
    if let Some(json) = source.tokenizer(TOKENIZER)? {
        return Ok((settings(sizes), json));
    }
    let vocabulary = source.tokenizer(VOCABULARY)?.ok_or_else(|| missing(TOKENIZER))?;
    let merges = source.tokenizer(MERGES)?.ok_or_else(|| missing(MERGES))?;
    Ok((settings(sizes), byte_pairs(&vocabulary, &merges)?))
}

/// CLIP's byte-pair encoding as a `tokenizer.json`: what `transformers` makes of the same two files.
fn byte_pairs(vocabulary: &[u8], merges: &[u8]) -> Result<Vec<u8>> {
    let vocabulary: Value = serde_json::from_slice(vocabulary)
        .map_err(|error| Error::corrupt(VOCABULARY, format!("is not JSON: {error}")))?;
    let merges =
        std::str::from_utf8(merges).map_err(|_| Error::corrupt(MERGES, "is not text in UTF-8"))?;
    // The first line states a version.
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let id = |token: &str| {
        let id = vocabulary.get(token).and_then(Value::as_u64);
        id.ok_or_else(|| Error::corrupt(VOCABULARY, format!("lacks the token {token}")))
    };
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let (start_id, end_id) = (id(start)?, id(end)?);
    let special = |content: &str, id: u64| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": true,
        })
    };
    let pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(start, start_id), special(end, end_id)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": {
            "type": "RobertaProcessing", "sep": [end, end_id], "cls": [start, start_id],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": end, "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    });
    serde_json::to_vec(&tokenizer)
        .map_err(|error| Error::corrupt(VOCABULARY, format!("cannot be used: {error}")))
}

/// The id that pads, where `tokenizer_config.json` names its token.
pub(super) fn pad(source: &mut Source, tokenizer_json: &[u8]) -> Result<Option<u32>> {
    let Some(settings) = source.json(SETTINGS)? else { return Ok(None) };
    let token = settings.get("pad_token");
    let token = token.and_then(|token| token.get("content").unwrap_or(token).as_str());
    let Some(token) = token else { return Ok(None) };
    let tokenizer =
        parse_tokenizer(tokenizer_json).map_err(|message| Error::corrupt(TOKENIZER, message))?;
    Ok(tokenizer.token_to_id(token))
}
