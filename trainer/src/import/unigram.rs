//! A SentencePiece unigram model as a `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The pieces with their scores, and what characters become before texts are cut into pieces.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// By id.
    pub(super) pieces: Vec<(String, f32)>,
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) pad: usize,
    pub(super) unknown: usize,
    /// Characters that become others, or none.
    pub(super) characters: BTreeMap<char, String>,
}

impl Vocabulary {
    fn piece(&self, id: usize) -> &str {
        self.pieces.get(id).map_or("", |(piece, _)| piece)
    }

    /// The content of `tokenizer.json`: characters are changed, runs of spaces become one, a space is put in front, then the
    /// pieces of the best sum of scores are taken, between begin and end.
    pub(super) fn tokenizer_json(&self) -> Value {
        let special = |id: usize, strip: bool| {
            json!({
                "id": id, "content": self.piece(id), "single_word": false, "lstrip": strip, "rstrip": false,
                "normalized": false, "special": true,
            })
        };
        let mask = self.pieces.iter().position(|(piece, _)| piece == "<mask>");
        let mut added: Vec<Value> =
            [self.begin, self.pad, self.end, self.unknown].map(|id| special(id, false)).into();
        added.extend(mask.map(|id| special(id, true)));
        let (begin, end) = (self.piece(self.begin), self.piece(self.end));
        let one = |id: usize, token: &str| json!({"id": token, "ids": [id], "tokens": [token]});
        let metaspace = json!({
            "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true,
        });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(charsmap(&self.characters))},
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ]},
            "pre_tokenizer": metaspace,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": begin, "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": end, "type_id": 0}},
                ],
                "pair": [
                    {"SpecialToken": {"id": begin, "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": end, "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 0}},
                    {"SpecialToken": {"id": end, "type_id": 0}},
                ],
                "special_tokens": {begin: one(self.begin, begin), end: one(self.end, end)},
            },
            "decoder": metaspace,
            "model": {
                "type": "Unigram", "unk_id": self.unknown, "vocab": self.pieces, "byte_fallback": false,
            },
        })
    }
}

/// The characters as SentencePiece's `precompiled_charsmap`: bytes of a trie, the trie, and all outputs, each ended by a zero.
fn charsmap(characters: &BTreeMap<char, String>) -> Vec<u8> {
    let mut outputs = vec![0_u8];
    let mut keys = BTreeMap::new();
    for (from, to) in characters.iter().filter(|(from, _)| **from != '\0') {
        let place = if to.is_empty() { 0 } else { outputs.len() };
        if !to.is_empty() {
            outputs.extend_from_slice(to.as_bytes());
            outputs.push(0);
        }
        let key = from.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
        keys.insert(key, u32::try_from(place).unwrap_or(u32::MAX >> 1));
    }
    let trie = Trie::new(&keys);
    let bytes = u32::try_from(trie.units.len() * 4).unwrap_or(u32::MAX);
    let mut map = bytes.to_le_bytes().to_vec();
    map.extend(trie.units.iter().flat_map(|unit| unit.to_le_bytes()));
    map.extend(outputs);
    map
}

/// A double array as the library Darts-clone lays it out, since that is what readers expect. The node at `p` with the base `b`
/// has its child by the byte `c` at `b ^ c`, and its value, if a key ends there, at `b`. No two nodes have one base, or the byte
/// of a child would not tell whose it is. A unit holds the byte that leads to it
/// (bits 0 to 7), whether a key ends there (bit 8), and `b ^ p` from bit 10 on; a value has bit 31 set.
struct Trie {
    units: Vec<u32>,
    taken: Vec<bool>,
    /// Bases that have a node.
    bases: BTreeSet<usize>,
    /// No base below this block is tried again.
    first: usize,
}

/// A key, and what it stands for.
type Pair<'a> = (&'a [u8], u32);

const BLOCK: usize = 256;
/// Blocks that are still tried before new ones are opened.
const OPEN_BLOCKS: usize = 16;

impl Trie {
    fn new(keys: &BTreeMap<Vec<u8>, u32>) -> Self {
        let mut trie = Self {
            units: vec![0; BLOCK],
            taken: vec![false; BLOCK],
            bases: BTreeSet::new(),
            first: 0,
        };
        trie.taken[0] = true;
        let keys: Vec<Pair<'_>> =
            keys.iter().map(|(key, value)| (key.as_slice(), *value)).collect();
        trie.node(0, &keys, 0);
        trie
    }

    /// Puts below the unit at `place` the keys, in order, which share their first `depth` bytes.
    fn node(&mut self, place: usize, keys: &[Pair<'_>], depth: usize) {
        let mut children: Vec<(u8, &[Pair<'_>])> = Vec::new();
        let mut value = None;
        for group in keys.chunk_by(|a, b| a.0.get(depth) == b.0.get(depth)) {
            match group[0].0.get(depth) {
                Some(byte) => children.push((*byte, group)),
                None => value = Some(group[0].1),
            }
        }
        let mut labels: Vec<usize> = children.iter().map(|(byte, _)| usize::from(*byte)).collect();
        labels.extend(value.map(|_| 0));
        let base = self.free(&labels);
        self.bases.insert(base);
        labels.iter().for_each(|label| self.taken[base ^ label] = true);
        // Bases are far below the 2^21 that fit without the unit's extension bit: a few hundred blocks hold every character.
        self.units[place] |= u32::try_from(base ^ place).unwrap_or(0) << 10;
        if let Some(value) = value {
            self.units[place] |= 1 << 8;
            self.units[base] = value | 1 << 31;
        }
        for (byte, group) in children {
            let child = base ^ usize::from(byte);
            self.units[child] = byte.into();
            self.node(child, group, depth + 1);
        }
    }

    /// A base whose units for `labels` are all free; the array grows by whole blocks, so that no byte leads out of it.
    fn free(&mut self, labels: &[usize]) -> usize {
        loop {
            let blocks = self.units.len() / BLOCK;
            self.first = self.first.max(blocks.saturating_sub(OPEN_BLOCKS));
            let fits = |base: &usize| {
                !self.bases.contains(base) && labels.iter().all(|label| !self.taken[base ^ label])
            };
            if let Some(base) = (self.first * BLOCK..self.units.len()).find(fits) {
                return base;
            }
            self.units.resize(self.units.len() + BLOCK, 0);
            self.taken.resize(self.units.len(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::Tokenizer;

    use super::*;

    fn tokenizer(pieces: &[(&str, f32)], characters: &[(char, &str)]) -> Tokenizer {
        let vocabulary = Vocabulary {
            pieces: pieces.iter().map(|(piece, score)| ((*piece).to_owned(), *score)).collect(),
            begin: 0,
            pad: 1,
            end: 2,
            unknown: 3,
            characters: characters.iter().map(|(from, to)| (*from, (*to).to_owned())).collect(),
        };
        Tokenizer::from_bytes(vocabulary.tokenizer_json().to_string()).unwrap()
    }

    const SPECIAL: [(&str, f32); 4] = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)];

    #[test]
    fn the_pieces_of_the_best_sum_are_taken_between_begin_and_end() {
        let pieces =
            [("\u{2581}", -3.0), ("ab", -2.0), ("a", -1.5), ("b", -1.5), ("\u{2581}ab", -4.0)];
        let tokenizer = tokenizer(&[&SPECIAL[..], &pieces].concat(), &[]);
        let ids = |text: &str| tokenizer.encode(text, true).unwrap().get_ids().to_vec();
        assert_eq!(ids("ab"), [0, 8, 2]);
        assert_eq!(ids("a  ab"), [0, 4, 6, 8, 2]);
        assert_eq!(ids("x"), [0, 4, 3, 2]);
        assert_eq!(ids(""), [0, 2]);
    }

    #[test]
    fn every_character_becomes_what_the_map_says_and_no_other_changes() {
        // Many, so that the trie has several blocks; characters of one to four bytes.
        let from = |number: u32| char::from_u32(number * 37 % 0x1_ffff + 1);
        let changed: BTreeMap<char, String> =
            (0..6000).filter_map(|number| Some((from(number)?, format!("<{number}>")))).collect();
        let mut changed = changed;
        changed.insert('\u{ad}', String::new());
        let json = json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(charsmap(&changed))});
        let normalizer: tokenizers::NormalizerWrapper = serde_json::from_value(json).unwrap();
        for number in (1..0x2_1000).filter(|number| number % 7 != 0) {
            let Some(letter) = char::from_u32(number) else { continue };
            let mut text = tokenizers::NormalizedString::from(letter.to_string());
            tokenizers::Normalizer::normalize(&normalizer, &mut text).unwrap();
            let expected = changed.get(&letter).cloned().unwrap_or_else(|| letter.to_string());
            assert_eq!(text.get(), expected, "{number:#x}");
        }
    }
}
