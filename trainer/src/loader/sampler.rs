//! Which concepts, pictures and languages make the batch of a step.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::augment::generator;
use crate::augment::text::TextAugmentation;
use crate::corpus::Wordings;

/// Keeps generators of the order of concepts apart from all others of the same seed.
const ORDER: u64 = 0x6f72_6465;

/// Draws concepts: each once an epoch, in an order of that epoch alone.
#[derive(Debug)]
pub(super) struct Sampler {
    seed: u64,
    concepts: Vec<u32>,
    /// The epoch whose order was asked for last, and that order.
    current: (u64, Vec<u32>),
}

impl Sampler {
    /// A sampler of `concepts`, which are not empty.
    pub(super) fn new(seed: u64, concepts: Vec<u32>) -> Self {
        Self { seed, concepts, current: (u64::MAX, Vec::new()) }
    }

    /// The concept at a position of the endless row of epochs, and its epoch.
    pub(super) fn at(&mut self, position: u64) -> (u32, u64) {
        let length = self.concepts.len() as u64;
        let epoch = position / length;
        if self.current.0 != epoch {
            let mut order = self.concepts.clone();
            order.shuffle(&mut generator(self.seed, &[ORDER, epoch]));
            self.current = (epoch, order);
        }
        (self.current.1[(position % length) as usize], epoch)
    }
}

/// One of `count` pictures for a concept in an epoch: each comes up once in `count` epochs.
pub(super) fn picture_of(seed: u64, concept: u32, epoch: u64, count: usize) -> usize {
    let round = epoch / count as u64;
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator(seed, &[u64::from(concept), round]));
    order[(epoch % count as u64) as usize]
}

/// `count` texts of a concept: languages drawn by weight, each at most once while others are left.
/// `vocabulary` has words of all concepts, for what stands around a text.
pub(super) fn texts_of(
    rng: &mut ChaCha8Rng,
    wordings: &[(String, Wordings)],
    (augmentation, vocabulary): (&TextAugmentation, &Vocabulary),
    count: usize,
) -> Vec<String> {
    let mut weights: Vec<f64> = Vec::new();
    (0..count)
        .map(|_| {
            if weights.iter().all(|weight| *weight <= 0.0) {
                weights = wordings.iter().map(|(lang, _)| augmentation.weight(lang)).collect();
            }
            let chosen = match WeightedIndex::new(&weights) {
                Ok(distribution) => distribution.sample(rng),
                // All weights are zero: the run file mutes every language of this concept.
                Err(_) => rng.random_range(0..wordings.len()),
            };
            weights[chosen] = 0.0;
            let (language, wordings) = &wordings[chosen];
            let text = augmentation.draw(rng, &wordings.names, &wordings.keywords);
            let others = vocabulary.get(language).map_or(&[][..], Vec::as_slice);
            augmentation.surround(rng, text, (language, others))
        })
        .collect()
}

/// What each concept is called in training, by concept index.
pub(super) type TrainingWordings = BTreeMap<u32, Vec<(String, Wordings)>>;

/// Words that training has seen, by language.
pub(super) type Vocabulary = BTreeMap<String, Vec<String>>;

/// The words of all wordings, each once.
pub(super) fn vocabulary(wordings: &TrainingWordings) -> Vocabulary {
    let mut words: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (language, wordings) in wordings.values().flatten() {
        let texts = wordings.names.iter().chain(&wordings.keywords);
        words
            .entry(language.clone())
            .or_default()
            .extend(texts.flat_map(|text| text.split_whitespace()));
    }
    let owned = |words: BTreeSet<&str>| words.into_iter().map(str::to_owned).collect();
    words.into_iter().map(|(language, words)| (language, owned(words))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_concept_comes_once_an_epoch_in_another_order() {
        let mut sampler = Sampler::new(3, (0..20).collect());
        let mut epoch = |epoch: u64| -> Vec<u32> {
            (epoch * 20..(epoch + 1) * 20).map(|position| sampler.at(position).0).collect()
        };
        let (first, second, again) = (epoch(0), epoch(1), epoch(0));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_ne!(first, second);
        assert_eq!(first, again);
    }

    #[test]
    fn every_picture_of_a_concept_comes_once_a_round() {
        let round: BTreeSet<usize> = (3..6).map(|epoch| picture_of(1, 7, epoch, 3)).collect();
        assert_eq!(round, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn languages_are_not_repeated_while_others_are_left() {
        let wordings: Vec<_> = ["de", "en", "hi"]
            .map(|lang| {
                let names = vec![lang.to_owned()];
                (lang.to_owned(), Wordings { names, keywords: Vec::new() })
            })
            .into();
        let (augmentation, vocabulary) = (TextAugmentation::default(), Vocabulary::new());
        let around = (&augmentation, &vocabulary);
        for index in 0..20 {
            let texts = texts_of(&mut generator(1, &[index]), &wordings, around, 3);
            assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), 3, "{texts:?}");
        }
    }
}
