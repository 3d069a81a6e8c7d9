//! Seeded steps of a writer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::inputs;
use rand::seq::IteratorRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Answer, DIMS, Key, THINGS, VECTORS};

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Items to put, no id twice, each with the version it must have, if one is named.
    Put(Vec<(v1::ItemInput, Option<u64>)>),
    /// Ids to delete; some may not be there.
    Delete(Vec<String>),
    /// A group to delete.
    DeleteGroup(String),
}

/// One call with everything that it changes.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) collection: &'static str,
    pub(crate) request_id: String,
    pub(crate) work: Work,
    /// What is there afterwards: an item, or none. Empty for a step that must be refused.
    pub(crate) effects: BTreeMap<Key, Option<v1::ItemInput>>,
}

/// A writer, with what it knows of its own items.
#[derive(Debug)]
pub(crate) struct Writer {
    number: u64,
    rng: ChaCha8Rng,
    /// Shared by all writers of a run, so that no id and no text comes twice.
    numbers: Arc<AtomicU64>,
    own: BTreeMap<Key, (v1::ItemInput, u64)>,
}

impl Writer {
    pub(crate) fn new(seed: u64, number: u64, numbers: &Arc<AtomicU64>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { number, rng, numbers: Arc::clone(numbers), own: BTreeMap::new() }
    }

    /// Takes over what a model knows of the writer's items.
    pub(crate) fn take_over<'a>(
        &mut self,
        items: impl Iterator<Item = (&'a Key, &'a (v1::ItemInput, u64))>,
    ) {
        let prefix = format!("w{}-", self.number);
        self.own = items
            .filter(|(key, _)| key.1.starts_with(&prefix))
            .map(|(key, known)| (key.clone(), known.clone()))
            .collect();
    }

    /// Takes in what a step was answered.
    pub(crate) fn learn(&mut self, step: &Step, answer: &Answer) {
        for (key, item) in &step.effects {
            let version = match (&step.work, answer) {
                (Work::Put(items), Answer::Put(versions)) => {
                    let place = items.iter().position(|(item, _)| item.id == key.1);
                    place.and_then(|place| versions.get(place).copied().flatten())
                }
                _ => None,
            };
            match item.clone().zip(version) {
                Some(known) => self.own.insert(key.clone(), known),
                None => self.own.remove(key),
            };
        }
    }

    pub(crate) fn next(&mut self) -> Step {
        let collection = if self.rng.random_bool(0.7) { VECTORS } else { THINGS };
        match self.rng.random_range(0..100) {
            0..45 => self.put(collection, 1, 0.0, false),
            45..60 => {
                let count = self.rng.random_range(2..7);
                self.put(collection, count, 0.4, false)
            }
            60..72 => self.put(collection, 1, 1.0, false),
            72..82 => self.put(collection, 1, 1.0, true),
            82..95 => self.delete(collection),
            _ => self.delete_group(collection),
        }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn step(&self, collection: &'static str, work: Work) -> Step {
        let request_id = format!("r{}-{}", self.number, self.number());
        Step { collection, request_id, work, effects: BTreeMap::new() }
    }

    /// Puts `count` items, a share of them in place of old ones, and some of those only at the version that they have.
    fn put(&mut self, collection: &'static str, count: usize, old: f64, versioned: bool) -> Step {
        let mut items = Vec::new();
        let mut effects = BTreeMap::new();
        for _ in 0..count {
            let known = (self.rng.random_bool(old)).then(|| {
                let own = self.own.iter().filter(|(key, _)| key.0 == collection);
                own.choose(&mut self.rng).map(|(key, (_, version))| (key.1.clone(), *version))
            });
            let known =
                known.flatten().filter(|(id, _)| !effects.contains_key(&(collection, id.clone())));
            let id = known.as_ref().map(|(id, _)| id.clone());
            let id = id.unwrap_or_else(|| format!("w{}-{}", self.number, self.number()));
            let item = self.item(collection, &id);
            let version = known.map_or(0, |(_, version)| version);
            // A wrong version must be refused, and change nothing.
            let wrong = versioned && self.rng.random_bool(0.3);
            if !wrong {
                effects.insert((collection, id), Some(item.clone()));
            }
            items.push((item, versioned.then(|| version + u64::from(wrong))));
        }
        Step { effects, ..self.step(collection, Work::Put(items)) }
    }

    fn delete(&mut self, collection: &'static str) -> Step {
        let count = self.rng.random_range(1..4);
        let own = self.own.keys().filter(|key| key.0 == collection);
        let mut ids: Vec<String> = own
            .choose_multiple(&mut self.rng, count)
            .into_iter()
            .map(|key| key.1.clone())
            .collect();
        if ids.is_empty() || self.rng.random_bool(0.2) {
            ids.push(format!("w{}-never-{}", self.number, self.number()));
        }
        let effects = ids.iter().map(|id| ((collection, id.clone()), None)).collect();
        Step { effects, ..self.step(collection, Work::Delete(ids)) }
    }

    fn delete_group(&mut self, collection: &'static str) -> Step {
        let group = self.group();
        let members =
            self.own.iter().filter(|(key, (item, _))| key.0 == collection && item.group == group);
        let effects = members.map(|(key, _)| (key.clone(), None)).collect();
        Step { effects, ..self.step(collection, Work::DeleteGroup(group)) }
    }

    /// One of the writer's own groups.
    fn group(&mut self) -> String {
        format!("w{}-g{}", self.number, self.rng.random_range(0..12))
    }

    fn item(&mut self, collection: &'static str, id: &str) -> v1::ItemInput {
        let number = self.number();
        let mut item = if collection == VECTORS {
            self.vectors(id)
        } else {
            match self.rng.random_range(0..8) {
                0 => image_item(id, inputs::png(&mut self.rng)),
                // Over 64 KiB: the store keeps it as a file.
                1 => image_item(id, inputs::noise_png(&mut self.rng, 160)),
                _ => text_item(id, &inputs::words(&mut self.rng, number)),
            }
        };
        item.group = self.group();
        item.metadata.insert("number".to_owned(), int_value(i64::try_from(number).unwrap_or(0)));
        item.metadata.insert("tag".to_owned(), text_value(["a", "b", "c"][number as usize % 3]));
        item
    }

    fn vectors(&mut self, id: &str) -> v1::ItemInput {
        let image = self.rng.random();
        let (modality, exclusive) =
            if image { (v1::Modality::Image, DIMS.1) } else { (v1::Modality::Text, DIMS.2) };
        let mut vector = |dims: u32| -> Vec<f32> {
            (0..dims).map(|_| self.rng.random_range(-1.0..1.0)).collect()
        };
        vector_item(id, modality, &vector(DIMS.0), Some(&vector(exclusive)))
    }
}
