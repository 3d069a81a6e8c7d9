//! The words that a text decoder writes with.

use std::collections::BTreeMap;

use crate::corpus::Corpus;
use crate::shards::Split;

/// Words that stand for none: the end of a text and what follows it, its beginning, a rare word.
const SPECIAL: usize = 3;

/// What stands behind the last word.
pub(crate) const END: u32 = 0;

/// What stands before the first word.
pub(crate) const BEGIN: u32 = 1;

/// Any word that is not in the vocabulary.
const RARE: u32 = 2;

/// The most frequent words of the names to train on, and what stands for none.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    words: Vec<String>,
    index: BTreeMap<String, u32>,
}

impl Vocabulary {
    /// At most `most` words, split at white space, the most frequent ones; among equals the first in order.
    pub(crate) fn of_corpus(corpus: &Corpus, most: usize) -> Self {
        let trained = corpus.concepts.iter().filter(|concept| concept.split == Split::Train);
        let wordings = trained.flat_map(|concept| concept.wordings.values());
        Self::new(wordings.flat_map(|wordings| &wordings.names), most)
    }

    fn new<'a>(texts: impl Iterator<Item = &'a String>, most: usize) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for word in texts.flat_map(|text| text.split_whitespace()) {
            *counts.entry(word).or_default() += 1;
        }
        let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts.truncate(most);
        let words: Vec<String> = counts.into_iter().map(|(word, _)| word.to_owned()).collect();
        let index = words.iter().cloned().zip(SPECIAL as u32..).collect();
        Self { words, index }
    }

    /// How many ids there are.
    pub(crate) fn len(&self) -> usize {
        SPECIAL + self.words.len()
    }

    /// The ids of a text's first `most` words.
    pub(crate) fn ids(&self, text: &str, most: usize) -> Vec<u32> {
        let id = |word| self.index.get(word).copied().unwrap_or(RARE);
        text.split_whitespace().take(most).map(id).collect()
    }

    /// The words of ids up to the end.
    pub(crate) fn text(&self, ids: &[u32]) -> String {
        let ended = ids.iter().take_while(|id| **id != END).filter(|id| **id != BEGIN);
        let word = |id: &u32| {
            let known = (*id as usize).checked_sub(SPECIAL).and_then(|at| self.words.get(at));
            known.map_or("…", String::as_str)
        };
        ended.map(word).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_come_back_and_rare_ones_are_marked() {
        let texts = ["a red dot", "a red ring", "a blue dot"].map(str::to_owned);
        let vocabulary = Vocabulary::new(texts.iter(), 3);
        assert_eq!(vocabulary.len(), 6);
        let ids = vocabulary.ids("a red ring dot", 8);
        assert_eq!(ids.iter().filter(|id| **id == RARE).count(), 1);
        assert_eq!(vocabulary.text(&ids), "a red … dot");
        let ended = [&ids[..2], &[END], &ids[2..]].concat();
        assert_eq!(vocabulary.text(&ended), "a red");
        assert_eq!(vocabulary.ids("a red dot", 2).len(), 2);
    }
}
