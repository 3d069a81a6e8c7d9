//! Hashed character n-grams.
//!
//! Subword n-grams with boundary marks as in Bojanowski et al., "Enriching Word Vectors with
//! Subword Information", 2017, section 3.2, departing from it in the unspaced scripts and symbols.
//! The result is part of what a bundle means: a change here makes every trained table worthless, so
//! golden ids guard it.

use std::ops::RangeInclusive;

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::{HashedNgrams, Words};

/// Longest n-gram among the letters of unspaced scripts, which tell their language one by one.
const LETTERS_UNSPACED: usize = 2;

/// What a run of characters is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Script {
    /// Letters, numbers and marks of spaced scripts. Marks belong to the word they stand in: the
    /// vowel signs and the virama of Devanagari are marks.
    Spaced,
    /// Han, Kana, Bopomofo, Hangul.
    Unspaced,
    /// Emoji, other pictures, currency and mathematical signs.
    Symbol,
}

/// What a character does to the run that it stands in.
enum Role {
    Member(Script),
    /// Neither seen nor a boundary: joiners, variation selectors, soft hyphens.
    Invisible,
    Boundary,
}

/// The words of `text`, in the order of its runs; none when it holds boundaries only.
pub(super) fn words(text: &str, settings: &HashedNgrams) -> Words {
    let mut words = Words::default();
    words.ids.reserve(text.len() * 3);
    let mut run = String::new();
    let mut script = None;
    for character in normalized(text) {
        match role(character) {
            Role::Invisible => {}
            Role::Member(member) => {
                if script != Some(member) {
                    push_run(&mut words, &run, script, settings);
                    run.clear();
                    script = Some(member);
                }
                run.push(character);
            }
            Role::Boundary => {
                push_run(&mut words, &run, script, settings);
                run.clear();
                script = None;
            }
        }
    }
    push_run(&mut words, &run, script, settings);
    words
}

/// The letters of `text`: its short n-grams in a row, `max_ids` of them at most, with the buckets of [`words`]. None where the
/// settings say so.
pub(super) fn letters(text: &str, settings: &HashedNgrams) -> Vec<u32> {
    if settings.letters == 0 {
        return Vec::new();
    }
    let cjk_max = settings.letters.min(LETTERS_UNSPACED);
    let short = HashedNgrams { min: 1, max: settings.letters, cjk_max, ..settings.clone() };
    let mut letters = words(text, &short).ids;
    letters.truncate(settings.max_ids);
    letters
}

/// NFKC, each character in lower case by itself (a sigma at a word's end stays a plain sigma, so
/// that n-grams do not depend on what follows), NFKC again since lower case may decompose.
fn normalized(text: &str) -> impl Iterator<Item = char> {
    text.nfkc().flat_map(char::to_lowercase).nfkc()
}

fn role(character: char) -> Role {
    match character {
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => return Role::Invisible,
        // Skin tones are "modifier symbols", tags of flags "format characters", and emoji newer
        // than the category table are "unassigned"; all are parts of pictures.
        '\u{1F000}'..='\u{1FAFF}' | '\u{E0020}'..='\u{E007E}' => {
            return Role::Member(Script::Symbol);
        }
        '\u{200B}' => return Role::Boundary,
        _ if is_unspaced(character) => return Role::Member(Script::Unspaced),
        _ => {}
    }
    use GeneralCategory as Category;
    match character.general_category() {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter
        | Category::NonspacingMark
        | Category::SpacingMark
        | Category::EnclosingMark
        | Category::DecimalNumber
        | Category::LetterNumber
        | Category::OtherNumber => Role::Member(Script::Spaced),
        Category::MathSymbol | Category::CurrencySymbol | Category::OtherSymbol => {
            Role::Member(Script::Symbol)
        }
        Category::Format => Role::Invisible,
        _ => Role::Boundary,
    }
}

/// Blocks of scripts written without spaces, or (Hangul) whose syllables carry a word's meaning.
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{1100}'..='\u{11FF}' // Hangul Jamo
        | '\u{2E80}'..='\u{2FDF}' // radicals
        | '\u{3005}'..='\u{3007}' // iteration mark, zero
        | '\u{3041}'..='\u{3096}' // Hiragana
        | '\u{3099}'..='\u{309A}' // voicing marks
        | '\u{309D}'..='\u{309F}'
        | '\u{30A1}'..='\u{30FA}' // Katakana
        | '\u{30FC}'..='\u{30FF}' // length and iteration marks
        | '\u{3105}'..='\u{312F}' // Bopomofo
        | '\u{3131}'..='\u{318E}' // Hangul compatibility Jamo
        | '\u{31A0}'..='\u{31BF}'
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}' // Han
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{A960}'..='\u{A97C}'
        | '\u{AC00}'..='\u{D7FB}' // Hangul syllables and Jamo
        | '\u{F900}'..='\u{FAFF}'
        | '\u{1AFF0}'..='\u{1B16F}' // Kana extensions
        | '\u{20000}'..='\u{3FFFD}' // Han extensions
    )
}

fn push_run(words: &mut Words, run: &str, script: Option<Script>, settings: &HashedNgrams) {
    let hash = |ngram: &str| bucket(ngram, settings.buckets);
    match script {
        None => {}
        Some(Script::Spaced) => {
            let word = format!("<{run}>");
            // The word itself comes first: its n-grams are the shorter ones.
            let longest = settings.max.min(word.chars().count() - 1);
            let shorter = ngrams(&word, settings.min..=longest);
            words.push([word.as_str()].into_iter().chain(shorter).map(hash));
        }
        Some(Script::Unspaced | Script::Symbol) => {
            // Where words begin is not written, so that each n-gram may be one.
            ngrams(run, 1..=settings.cjk_max).for_each(|ngram| words.push([hash(ngram)]));
        }
    }
}

/// The n-grams of `run`, by length, then by place.
fn ngrams(run: &str, lengths: RangeInclusive<usize>) -> impl Iterator<Item = &str> {
    let edges: Vec<usize> = run.char_indices().map(|(at, _)| at).chain([run.len()]).collect();
    lengths.flat_map(move |length| {
        let ends = edges.iter().skip(length).copied();
        edges.iter().copied().zip(ends).map(|(start, end)| &run[start..end]).collect::<Vec<_>>()
    })
}

/// The bucket of an n-gram: FNV-1a of 64 bits over its UTF-8 bytes (offset basis
/// `0xcbf29ce484222325`, prime `0x100000001b3`), upper half folded onto the lower by exclusive or,
/// modulo the number of buckets.
fn bucket(ngram: &str, buckets: u32) -> u32 {
    let hash = fnv1a(ngram.as_bytes());
    let folded = (hash ^ (hash >> 32)) as u32;
    folded % buckets
}

pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
