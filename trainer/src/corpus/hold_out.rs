//! Names that training never sees, so that evaluation can ask for them.

use std::collections::BTreeMap;

use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

use super::{Corpus, Wordings};
use crate::augment::generator;
use crate::error::{Error, Result};
use crate::shards::Split;

/// Keeps generators of the hold-out apart from all others of the same seed.
const PURPOSE: u64 = 0x686f_6c64;

/// Which texts are withheld from training: for a share of the concepts, the name and the keywords of
/// one language, drawn for each; the other languages stay.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldOut {
    /// Share of the concepts, above 0 to 0.5.
    pub share: f64,
    /// Seed of the draw.
    pub seed: u64,
}

/// The withheld language of each concept that has one, by concept index.
pub type Withheld = BTreeMap<u32, String>;

impl HoldOut {
    /// Checks each value.
    ///
    /// # Errors
    /// [`Error::Setting`] if the share is out of range.
    pub fn check(&self) -> Result<()> {
        if self.share > 0.0 && self.share <= 0.5 {
            return Ok(());
        }
        let message = format!("{} is not above 0 and at most 0.5", self.share);
        Err(Error::setting("data.hold_out.share", message))
    }

    /// Draws what is withheld. Only concepts with pictures and with names in two languages or more
    /// take part; the share is of these, rounded down.
    #[must_use]
    pub fn draw(&self, corpus: &Corpus) -> Withheld {
        let mut rng = generator(self.seed, &[PURPOSE]);
        let mut eligible: Vec<u32> = (0..corpus.concepts.len() as u32)
            .filter(|index| {
                let concept = &corpus.concepts[*index as usize];
                !concept.pictures.is_empty() && named_languages(&concept.wordings).len() >= 2
            })
            .collect();
        eligible.shuffle(&mut rng);
        let count = (eligible.len() as f64 * self.share) as usize;
        let mut withheld = Withheld::new();
        for index in eligible.into_iter().take(count) {
            let languages = named_languages(&corpus.concepts[index as usize].wordings);
            if let Some(language) = languages.choose(&mut rng) {
                withheld.insert(index, (*language).to_owned());
            }
        }
        withheld
    }
}

fn named_languages(wordings: &BTreeMap<String, Wordings>) -> Vec<&str> {
    let named = wordings.iter().filter(|(_, wordings)| !wordings.names.is_empty());
    named.map(|(language, _)| language.as_str()).collect()
}

impl Corpus {
    /// What training may read: the wordings of each concept by language, without the withheld ones,
    /// for concepts that are there to train on and have pictures.
    #[must_use]
    pub fn training_wordings(&self, withheld: &Withheld) -> BTreeMap<u32, Vec<(String, Wordings)>> {
        let mut training = BTreeMap::new();
        for (index, concept) in (0_u32..).zip(&self.concepts) {
            let kept: Vec<_> = concept
                .wordings
                .iter()
                .filter(|(language, _)| withheld.get(&index) != Some(language))
                .map(|(language, wordings)| (language.clone(), wordings.clone()))
                .collect();
            let trains = concept.split == Split::Train && !concept.pictures.is_empty();
            let named = !kept.is_empty() || !concept.counterparts.is_empty();
            if named && trains {
                training.insert(index, kept);
            }
        }
        training
    }
}
