//! Which concepts, pictures and texts make the batch of a step: functions of seed and position alone.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::augment::generator;
use crate::augment::text::TextAugmentation;
use crate::corpus::{Corpus, Wordings};

/// Keeps generators of the order of concepts apart from all others of the same seed.
const ORDER: u64 = 0x6f72_6465;

/// Keeps generators of the order of row groups apart from all others of the same seed.
const BLOCKS: u64 = 0x626c_6f63;

/// What an epoch goes through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Every picture once.
    #[default]
    Pictures,
    /// Every group once, with one picture of it: groups count alike, however many pictures they have.
    Groups,
}

/// One place of a batch: a concept, and the picture of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draw {
    pub(crate) concept: u32,
    /// An index into the corpus's pictures.
    pub(crate) picture: usize,
}

/// Draws what an epoch goes through, each once, in an order of that epoch alone.
#[derive(Debug)]
pub(crate) struct Sampler {
    seed: u64,
    items: Items,
    /// The epoch whose order was asked for last, and that order.
    current: (u64, Vec<Draw>),
}

#[derive(Debug)]
enum Items {
    /// Concepts with their pictures.
    Groups(Vec<(u32, Vec<usize>)>),
    /// Pictures by row group, and how many of them are shuffled together.
    Pictures { blocks: Vec<Vec<Draw>>, buffer: usize },
}

impl Sampler {
    /// A sampler of concepts of `corpus`, which are not none, all with pictures. Pictures are shuffled
    /// among `buffer` others: row groups come in any order, and their pictures as far as they are
    /// in the buffer together, so that each row group is read once an epoch.
    pub(crate) fn new(
        seed: u64,
        (corpus, concepts): (&Corpus, &[u32]),
        order: Order,
        buffer: usize,
    ) -> Self {
        let pictures = |concept: &u32| corpus.concepts[*concept as usize].pictures.clone();
        let items = match order {
            Order::Groups => Items::Groups(concepts.iter().map(|c| (*c, pictures(c))).collect()),
            Order::Pictures => {
                let mut blocks: BTreeMap<(u32, u32), Vec<Draw>> = BTreeMap::new();
                for concept in concepts {
                    for picture in pictures(concept) {
                        let block = corpus.pictures[picture].row_group();
                        blocks.entry(block).or_default().push(Draw { concept: *concept, picture });
                    }
                }
                Items::Pictures { blocks: blocks.into_values().collect(), buffer: buffer.max(1) }
            }
        };
        Self { seed, items, current: (u64::MAX, Vec::new()) }
    }

    /// How many draws make an epoch.
    pub(super) fn epoch_length(&self) -> u64 {
        let length = match &self.items {
            Items::Groups(groups) => groups.len(),
            Items::Pictures { blocks, .. } => blocks.iter().map(Vec::len).sum(),
        };
        length as u64
    }

    /// What comes at a position of the endless row of epochs.
    pub(crate) fn at(&mut self, position: u64) -> Draw {
        let length = self.epoch_length();
        let epoch = position / length;
        if self.current.0 != epoch {
            self.current = (epoch, self.items.order(self.seed, epoch));
        }
        self.current.1[(position % length) as usize]
    }
}

impl Items {
    fn order(&self, seed: u64, epoch: u64) -> Vec<Draw> {
        let mut rng = generator(seed, &[ORDER, epoch]);
        match self {
            Self::Groups(groups) => {
                let mut order: Vec<&(u32, Vec<usize>)> = groups.iter().collect();
                order.shuffle(&mut rng);
                let draw = |(concept, pictures): &(u32, Vec<usize>)| {
                    let nth = picture_of(seed, *concept, epoch, pictures.len());
                    Draw { concept: *concept, picture: pictures[nth] }
                };
                order.into_iter().map(draw).collect()
            }
            Self::Pictures { blocks, buffer } => {
                let mut blocks: Vec<&Vec<Draw>> = blocks.iter().collect();
                blocks.shuffle(&mut generator(seed, &[BLOCKS, epoch]));
                let mut order: Vec<Draw> = blocks.into_iter().flatten().copied().collect();
                order.chunks_mut(*buffer).for_each(|window| window.shuffle(&mut rng));
                order
            }
        }
    }
}

/// One of `count` pictures for a concept in an epoch: each comes up once in `count` epochs.
fn picture_of(seed: u64, concept: u32, epoch: u64, count: usize) -> usize {
    let round = epoch / count as u64;
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator(seed, &[u64::from(concept), round]));
    order[(epoch % count as u64) as usize]
}

/// A text as it was drawn, and its language.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wording {
    pub(super) text: String,
    pub(super) language: String,
}

/// `count` texts of a concept: languages drawn by weight, each at most once while others are left.
/// `vocabulary` has words of all concepts, for what stands around a text.
pub(super) fn texts_of(
    rng: &mut ChaCha8Rng,
    wordings: &[(String, Wordings)],
    (augmentation, vocabulary): (&TextAugmentation, &Vocabulary),
    count: usize,
) -> Vec<Wording> {
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
            let text = augmentation.surround(rng, text, (language, others));
            Wording { text, language: language.clone() }
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

    /// 40 pictures in blocks of 7 or fewer, each of a concept of its own.
    fn pictures(buffer: usize) -> Sampler {
        let draws: Vec<Draw> =
            (0..40).map(|at| Draw { concept: at as u32, picture: at as usize }).collect();
        let blocks = draws.chunks(7).map(<[Draw]>::to_vec).collect();
        let items = Items::Pictures { blocks, buffer };
        Sampler { seed: 3, items, current: (u64::MAX, Vec::new()) }
    }

    fn groups() -> Sampler {
        let items = Items::Groups((0..20).map(|at| (at, vec![at as usize])).collect());
        Sampler { seed: 3, items, current: (u64::MAX, Vec::new()) }
    }

    #[test]
    fn everything_comes_once_an_epoch_in_another_order() {
        for mut sampler in [groups(), pictures(1000), pictures(10), pictures(1)] {
            let length = sampler.epoch_length();
            let mut epoch = |epoch: u64| -> Vec<usize> {
                let positions = epoch * length..(epoch + 1) * length;
                positions.map(|position| sampler.at(position).picture).collect()
            };
            let (first, second, again) = (epoch(0), epoch(1), epoch(0));
            assert_eq!(first.iter().collect::<BTreeSet<_>>().len() as u64, length);
            assert_eq!(second.iter().collect::<BTreeSet<_>>().len() as u64, length);
            assert_ne!(first, second);
            assert_eq!(first, again);
        }
    }

    #[test]
    fn a_row_group_is_not_come_back_to_further_than_the_buffer_reaches() {
        let mut sampler = pictures(10);
        let mut seen: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for position in 0..40 {
            let block = sampler.at(position).picture / 7;
            seen.entry(block).or_insert((position, position)).1 = position;
        }
        // A block of 7 touches two windows of 10 at most.
        assert!(seen.values().all(|(first, last)| last - first < 20), "{seen:?}");
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
            assert!(texts.iter().all(|wording| wording.text == wording.language));
        }
    }
}
