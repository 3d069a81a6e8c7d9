//! Wordings of a concept: its name, or a few of its keywords, with words left out, and with what people
//! say around it: words that say nothing, words of other things, words that nobody taught.

use std::collections::BTreeMap;

use diptych_model::preprocess::Tokens;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most words of other concepts in one text.
const MOST_DISTRACTORS: usize = 2;

/// The most tokens in a random word. One of seven letters has 22 hashed n-grams.
const MOST_NOISE_TOKENS: u32 = 22;

/// Languages that are written without spaces between words.
const UNSPACED_LANGUAGES: [&str; 3] = ["ja", "zh", "th"];

/// How texts are drawn and varied.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TextAugmentation {
    /// Share of texts made of keywords instead of a name, 0 to 1.
    pub keyword_share: f64,
    /// The most keywords joined in one text, at least 1.
    pub max_keywords: usize,
    /// Chance that a word is left out (never the last one left), 0 to below 1.
    pub word_dropout: f64,
    /// Chance that a token is left out after tokenizing, 0 to below 1.
    pub token_dropout: f64,
    /// Chance that a text gets filler words of its language around it, 0 to 1.
    pub filler_share: f64,
    /// The most filler words in one text, at least 1.
    pub max_fillers: usize,
    /// Chance that a text gets a word or two of another concept in its language, 0 to 0.5.
    pub distractor_share: f64,
    /// Chance that words of random tokens are put behind a text's own, 0 to 1. A word that training never
    /// saw is to a hashed table just that: tokens that stand for something else.
    pub noise_share: f64,
    /// The most random words in one text, at least 1.
    pub max_noise: usize,
    /// Chance that a text gets a few invented words: the beginning of one word of its language and the end
    /// of another, 0 to 1. Most words of a sentence were never taught, and share n-grams with some that were.
    pub invented_share: f64,
    /// The most invented words in one text, at least 1.
    pub max_invented: usize,
    /// Words that say nothing about a picture, by language.
    pub fillers: BTreeMap<String, Vec<String>>,
    /// How often a language is drawn relative to the others. Languages not named: 1.
    pub language_weights: BTreeMap<String, f64>,
}

impl Default for TextAugmentation {
    fn default() -> Self {
        Self {
            keyword_share: 0.45,
            max_keywords: 4,
            word_dropout: 0.15,
            token_dropout: 0.0,
            filler_share: 0.0,
            max_fillers: 6,
            distractor_share: 0.0,
            noise_share: 0.0,
            max_noise: 4,
            invented_share: 0.0,
            max_invented: 3,
            fillers: BTreeMap::new(),
            language_weights: BTreeMap::new(),
        }
    }
}

impl TextAugmentation {
    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first one out of range.
    pub fn check(&self) -> Result<()> {
        let share = |name: &str, value: f64, most: f64| {
            let message = format!("{value} is not in 0..={most}");
            let fails = !(0.0..=most).contains(&value);
            if fails {
                Err(Error::setting(format!("augment.text.{name}"), message))
            } else {
                Ok(())
            }
        };
        share("keyword_share", self.keyword_share, 1.0)?;
        share("word_dropout", self.word_dropout, 0.9)?;
        share("token_dropout", self.token_dropout, 0.9)?;
        share("filler_share", self.filler_share, 1.0)?;
        share("distractor_share", self.distractor_share, 0.5)?;
        share("noise_share", self.noise_share, 1.0)?;
        share("invented_share", self.invented_share, 1.0)?;
        let counts = [
            ("max_keywords", self.max_keywords),
            ("max_fillers", self.max_fillers),
            ("max_noise", self.max_noise),
            ("max_invented", self.max_invented),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::setting(format!("augment.text.{name}"), "must be at least 1"));
        }
        if self.language_weights.values().any(|weight| !weight.is_finite() || *weight < 0.0) {
            let message = "weights are finite and not negative";
            return Err(Error::setting("augment.text.language_weights", message));
        }
        Ok(())
    }

    /// The weight of a language.
    #[must_use]
    pub fn weight(&self, language: &str) -> f64 {
        self.language_weights.get(language).copied().unwrap_or(1.0)
    }

    /// A text of one concept in one language: a name, or some keywords in any order.
    ///
    /// `names` and `keywords` are of that language; one of them is not empty, else the text is.
    pub fn draw(&self, rng: &mut impl Rng, names: &[String], keywords: &[String]) -> String {
        let of_keywords = rng.random_bool(self.keyword_share);
        if keywords.is_empty() || (!of_keywords && !names.is_empty()) {
            return names.choose(rng).cloned().unwrap_or_default();
        }
        let count = rng.random_range(1..=self.max_keywords.min(keywords.len()));
        let mut chosen: Vec<&str> =
            keywords.choose_multiple(rng, count).map(String::as_str).collect();
        chosen.shuffle(rng);
        chosen.join(if rng.random_bool(0.5) { ", " } else { " " })
    }

    /// The text as it may stand in a sentence: filler words of its language and, now and then, words of
    /// `others`, at random places. Scripts without spaces get them before and behind.
    pub fn surround(
        &self,
        rng: &mut impl Rng,
        text: String,
        (language, others): (&str, &[String]),
    ) -> String {
        let mut around: Vec<&str> = Vec::new();
        let fillers = self.fillers.get(language).map_or(&[][..], Vec::as_slice);
        if !fillers.is_empty() && rng.random_bool(self.filler_share) {
            let count = rng.random_range(1..=self.max_fillers);
            around.extend((0..count).filter_map(|_| fillers.choose(rng)).map(String::as_str));
        }
        if !others.is_empty() && rng.random_bool(self.distractor_share) {
            let count = rng.random_range(1..=MOST_DISTRACTORS);
            around.extend((0..count).filter_map(|_| others.choose(rng)).map(String::as_str));
        }
        let spaced = !UNSPACED_LANGUAGES.contains(&language);
        let mut invented = Vec::new();
        // Nothing is drawn where the share is 0, so that a run without it keeps its batches.
        if self.invented_share > 0.0 && spaced && rng.random_bool(self.invented_share) {
            let count = rng.random_range(1..=self.max_invented);
            invented.extend((0..count).filter_map(|_| invent(rng, others)));
        }
        around.extend(invented.iter().map(String::as_str));
        if around.is_empty() {
            return text;
        }
        let mut words: Vec<&str> =
            if spaced { text.split_whitespace().collect() } else { vec![&text] };
        for word in around {
            words.insert(rng.random_range(0..=words.len()), word);
        }
        words.join(if spaced { " " } else { "" })
    }

    /// Puts words of random tokens below `vocabulary` behind the text's own.
    pub fn add_noise(&self, rng: &mut impl Rng, tokens: &mut Tokens, vocabulary: u32) {
        if vocabulary > 0 && rng.random_bool(self.noise_share) {
            for _ in 0..rng.random_range(1..=self.max_noise) {
                let length = rng.random_range(1..=MOST_NOISE_TOKENS);
                tokens.word_lengths.push(length);
                tokens.ids.extend((0..length).map(|_| rng.random_range(0..vocabulary)));
            }
        }
    }

    /// The text with words left out; at least one stays.
    pub fn drop_words(&self, rng: &mut impl Rng, text: &str) -> String {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut kept: Vec<&str> =
            words.iter().copied().filter(|_| !rng.random_bool(self.word_dropout)).collect();
        if kept.is_empty() {
            kept.extend(words.choose(rng));
        }
        kept.join(" ")
    }

    /// Leaves tokens and letters out in place; at least one of each stays.
    pub fn drop_tokens(&self, rng: &mut impl Rng, tokens: &mut Tokens) {
        let kept = self.kept(rng, tokens.ids.len());
        let mut words = kept.as_slice();
        for length in &mut tokens.word_lengths {
            let (word, rest) = words.split_at(*length as usize);
            *length = word.iter().filter(|kept| **kept).count() as u32;
            words = rest;
        }
        tokens.word_lengths.retain(|length| *length > 0);
        retain(&mut tokens.ids, kept);
        let kept = self.kept(rng, tokens.letters.len());
        retain(&mut tokens.letters, kept);
    }

    /// Which of `count` tokens stay; at least one, if there are any.
    fn kept(&self, rng: &mut impl Rng, count: usize) -> Vec<bool> {
        let mut kept: Vec<bool> =
            (0..count).map(|_| !rng.random_bool(self.token_dropout)).collect();
        if count > 0 && !kept.contains(&true) {
            kept[rng.random_range(0..count)] = true;
        }
        kept
    }
}

fn retain(ids: &mut Vec<u32>, kept: Vec<bool>) {
    let mut kept = kept.into_iter();
    ids.retain(|_| kept.next().unwrap_or(true));
}

/// The beginning of one word and the end of another, each of half its characters.
fn invent(rng: &mut impl Rng, words: &[String]) -> Option<String> {
    let (first, last) = (words.choose(rng)?, words.choose(rng)?);
    let half = |word: &str| word.chars().count().div_ceil(2);
    let beginning = first.chars().take(half(first));
    Some(beginning.chain(last.chars().skip(last.chars().count() / 2)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::generator;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn draws_names_and_keyword_sets_of_one_to_four() {
        let augmentation = TextAugmentation::default();
        let (names, keywords) = (strings(&["red heart"]), strings(&["a", "b", "c", "d", "e"]));
        let mut named = 0;
        for index in 0..1000 {
            let text = augmentation.draw(&mut generator(1, &[index]), &names, &keywords);
            if text == "red heart" {
                named += 1;
            } else {
                let words: Vec<&str> = text.split([' ', ',']).filter(|w| !w.is_empty()).collect();
                assert!((1..=4).contains(&words.len()), "{text}");
            }
        }
        assert!((500..600).contains(&named), "{named}");
    }

    #[test]
    fn something_always_stays() {
        let augmentation =
            TextAugmentation { word_dropout: 0.9, token_dropout: 0.9, ..Default::default() };
        for index in 0..100 {
            let mut rng = generator(2, &[index]);
            assert!(!augmentation.drop_words(&mut rng, "one two").is_empty());
            let (ids, letters) = (vec![1, 2, 3], vec![4, 5]);
            let mut tokens = Tokens { ids, word_lengths: vec![1, 2], letters, ..Tokens::default() };
            augmentation.drop_tokens(&mut rng, &mut tokens);
            assert!(!tokens.ids.is_empty() && !tokens.letters.is_empty());
            let kept: u32 = tokens.word_lengths.iter().sum();
            assert_eq!(kept as usize, tokens.ids.len());
        }
    }

    #[test]
    fn what_stands_around_a_text_leaves_its_words_in_order() {
        let fillers = BTreeMap::from([("en".to_owned(), strings(&["the", "is"]))]);
        let augmentation = TextAugmentation {
            filler_share: 1.0,
            distractor_share: 0.5,
            fillers,
            ..Default::default()
        };
        let others = strings(&["rocket"]);
        for index in 0..100 {
            let mut rng = generator(3, &[index]);
            let text = augmentation.surround(&mut rng, "red heart".to_owned(), ("en", &others));
            let words: Vec<&str> = text.split(' ').collect();
            let place = |word: &str| words.iter().position(|other| *other == word).unwrap();
            assert!(place("red") < place("heart"), "{text}");
            let around = words.iter().filter(|word| ["the", "is"].contains(word)).count();
            assert!((1..=6).contains(&around) && words.len() <= around + 4, "{text}");
            let text = augmentation.surround(&mut rng, "赤いハート".to_owned(), ("ja", &others));
            assert!(text.replace("rocket", "") == "赤いハート", "{text}");
        }
    }

    #[test]
    fn an_invented_word_begins_as_one_word_and_ends_as_another() {
        let words = strings(&["rocket", "heart"]);
        let mut seen = std::collections::BTreeSet::new();
        for index in 0..50 {
            seen.extend(invent(&mut generator(5, &[index]), &words));
        }
        let expected = ["heaart", "heaket", "rocart", "rocket"].map(str::to_owned);
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(invent(&mut generator(5, &[0]), &[]), None);
    }

    #[test]
    fn noise_is_put_behind_a_texts_own_words_and_below_the_vocabulary() {
        let augmentation =
            TextAugmentation { noise_share: 1.0, max_noise: 5, ..Default::default() };
        for index in 0..50 {
            let mut tokens =
                Tokens { ids: vec![90, 91], word_lengths: vec![2], ..Tokens::default() };
            augmentation.add_noise(&mut generator(4, &[index]), &mut tokens, 7);
            assert!(tokens.ids.starts_with(&[90, 91]) && tokens.ids[2..].iter().all(|id| *id < 7));
            assert!((2..=6).contains(&tokens.word_lengths.len()));
            let sum: u32 = tokens.word_lengths.iter().sum();
            assert_eq!(sum as usize, tokens.ids.len());
        }
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let wrong = TextAugmentation { word_dropout: 1.5, ..Default::default() };
        assert!(wrong.check().unwrap_err().to_string().contains("augment.text.word_dropout"));
    }
}
