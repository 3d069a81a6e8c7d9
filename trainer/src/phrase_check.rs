//! Whether a list of everyday phrases measures something: it must hold nothing that training sees.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::eval::Phrase;
use crate::shards::Dataset;

/// Checks that every phrase is said once and accepts something, that every accepted group is in
/// `dataset`, and that no phrase is one of its texts, or made of nothing but the words of one
/// group's texts in one language (which training joins into queries). Case, punctuation and the
/// order of words do not count.
///
/// # Errors
/// Names every phrase at fault, and why.
pub fn check(phrases: &[Phrase], dataset: &Dataset) -> Result<()> {
    let mut vocabulary: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for row in dataset.texts() {
        let row = row?;
        vocabulary.entry((row.group, row.lang)).or_default().extend(words(&row.text));
    }
    let groups: BTreeSet<&str> = vocabulary.keys().map(|(group, _)| group.as_str()).collect();
    let mut faults = Vec::new();
    let mut said = BTreeSet::new();
    for phrase in phrases {
        if words(&phrase.phrase).next().is_none() || phrase.accept.is_empty() {
            faults.push(format!("`{}` has no words or accepts nothing", phrase.phrase));
            continue;
        }
        if !said.insert(words(&phrase.phrase).collect::<Vec<_>>()) {
            faults.push(format!("`{}` is there twice", phrase.phrase));
        }
        for group in phrase.accept.iter().filter(|group| !groups.contains(group.as_str())) {
            faults.push(format!("`{}` accepts the unknown group {group}", phrase.phrase));
        }
        let phrase_words: BTreeSet<String> = words(&phrase.phrase).collect();
        let seen = vocabulary.iter().find(|(_, words)| phrase_words.is_subset(words));
        if let Some(((group, lang), _)) = seen {
            faults.push(format!(
                "`{}` is made of the words of {group} in {lang}, which training sees",
                phrase.phrase
            ));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Error::data(dataset.folder(), faults.join("; "))) }
}

/// Words in lower case, without punctuation.
fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::check;
    use crate::eval::{Phrase, phrases};
    use crate::shards::{Dataset, DatasetWriter, Split, TextKind, TextRow};

    fn phrase(phrase: &str, accept: &str) -> Phrase {
        Phrase { phrase: phrase.to_owned(), accept: vec![accept.to_owned()] }
    }

    #[test]
    fn the_committed_list_has_at_least_seventy_phrases_with_groups_as_the_data_writes_them() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/phrases.jsonl");
        let phrases = phrases::read(&path).unwrap();
        assert!(phrases.len() >= 70, "{}", phrases.len());
        for group in phrases.iter().flat_map(|phrase| &phrase.accept) {
            let is_code_point =
                |part: &str| u32::from_str_radix(part, 16).is_ok_and(|p| p != 0xfe0f);
            assert!(group.split('-').all(is_code_point), "{group}");
        }
    }

    #[test]
    fn a_phrase_that_training_sees_or_that_accepts_an_unknown_group_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = DatasetWriter::create(folder.path(), "tiny", &[]).unwrap();
        for (text, kind) in [("red heart", TextKind::Name), ("in love", TextKind::Keyword)] {
            let (text, lang, group) = (text.to_owned(), "en".to_owned(), "2764".to_owned());
            writer.push_text(TextRow { text, lang, kind, group, split: Split::Train }).unwrap();
        }
        writer.finish().unwrap();
        let dataset = Dataset::open(folder.path()).unwrap();
        check(&[phrase("I am in love", "2764")], &dataset).unwrap();
        let faulty = [
            phrase("Heart, red", "2764"),
            phrase("a love letter", "1f48c"),
            phrase("A love-letter", "2764"),
            phrase("?", "2764"),
        ];
        let message = check(&faulty, &dataset).unwrap_err().to_string();
        assert!(message.contains("`Heart, red` is made of the words of 2764 in en"), "{message}");
        assert!(message.contains("`a love letter` accepts the unknown group 1f48c"), "{message}");
        assert!(message.contains("`A love-letter` is there twice"), "{message}");
        assert!(message.contains("`?` has no words"), "{message}");
    }
}
