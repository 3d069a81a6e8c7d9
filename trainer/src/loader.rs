//! Batches: drawn, augmented and tokenized on threads ahead of the training step.
//!
//! The batch of a step is a function of the run's seed, the stage and the step alone. A resumed run
//! therefore continues with the same batches, and the loader has no state to save but the step.

mod batch;
mod prefetch;
mod sampler;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use diptych_model::preprocess::{TokenBatch, Tokens};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use batch::{Batch, PictureInputs, Reading, TextInputs};
pub use prefetch::Prefetch;

use crate::augment::generator;
use crate::augment::image::ImageAugmentation;
use crate::augment::text::TextAugmentation;
use crate::corpus::{Corpus, Withheld};
use crate::error::{Error, Result};
use crate::preprocessing::Preprocessing;
pub use sampler::Order;
pub(crate) use sampler::Sampler;
use sampler::{Draw, TrainingWordings, Vocabulary, Wording};

/// Keeps generators of what objectives draw apart from all others of the same seed.
const OBJECTIVE: u64 = 0x6f62_6a65;

/// How many of what a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPlan {
    /// Places, at least 2: each is filled by one picture and some texts of its concept.
    pub concepts: usize,
    /// Texts of each concept, at least 1.
    pub texts_per_concept: usize,
    /// Whether the batch has pictures; a stage with frozen pictures needs none.
    #[serde(default = "yes")]
    pub pictures: bool,
    /// What an epoch goes through.
    #[serde(default)]
    pub order: Order,
    /// How many of the pictures come in a second view, for the exclusive loss.
    #[serde(default)]
    pub second_pictures: usize,
    /// How many of the texts come in a second wording, for the exclusive loss.
    #[serde(default)]
    pub second_texts: usize,
}

const fn yes() -> bool {
    true
}

impl BatchPlan {
    /// Checks that the counts go together; `field` is where the plan stands in the run file.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the count.
    pub fn check(&self, field: &str) -> Result<()> {
        let fail =
            |name: &str, message: &str| Err(Error::setting(format!("{field}.{name}"), message));
        if self.concepts < 2 {
            return fail("concepts", "must be at least 2: a contrast needs another concept");
        }
        if self.texts_per_concept == 0 {
            return fail("texts_per_concept", "must be at least 1");
        }
        if self.second_pictures > if self.pictures { self.concepts } else { 0 } {
            return fail("second_pictures", "must not be more than the pictures");
        }
        if self.second_texts > self.concepts * self.texts_per_concept {
            return fail("second_texts", "must not be more than the texts");
        }
        Ok(())
    }
}

/// How pictures and texts are varied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Pictures.
    pub image: ImageAugmentation,
    /// Texts.
    pub text: TextAugmentation,
}

impl Augmentation {
    /// Checks each value; `at` is where the table stands in the run file.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first one out of range.
    pub fn check(&self, at: &str) -> Result<()> {
        self.image.check().and_then(|()| self.text.check()).map_err(|error| match error {
            Error::Setting { field, message } => Error::setting(format!("{at}{field}"), message),
            other => other,
        })
    }
}

/// Makes the batches of one stage.
#[derive(Debug)]
pub struct Loader {
    corpus: Arc<Corpus>,
    preprocessing: Arc<Preprocessing>,
    augmentation: Augmentation,
    wordings: TrainingWordings,
    vocabulary: Vocabulary,
    sampler: Sampler,
    plan: BatchPlan,
    seed: u64,
}

/// What a place of the batch (one concept) contributes: views and wordings, drawn and made, not yet
/// laid out as tensors.
#[derive(Debug)]
pub struct Slot {
    draw: Draw,
    position: u64,
    pictures: Vec<Vec<f32>>,
    /// Views of one picture of the second kind.
    counterparts: Vec<Vec<f32>>,
    texts: Vec<Tokens>,
    wordings: Vec<Wording>,
    second_texts: Vec<Tokens>,
}

impl Loader {
    /// A loader of the concepts of `corpus` that have pictures and texts left to train on.
    ///
    /// # Errors
    /// If there are fewer than two of them.
    pub fn new(
        (corpus, withheld): (Arc<Corpus>, &Withheld),
        preprocessing: Arc<Preprocessing>,
        augmentation: Augmentation,
        plan: BatchPlan,
        (seed, shuffle_buffer): (u64, usize),
    ) -> Result<Self> {
        let wordings = corpus.training_wordings(withheld);
        if wordings.len() < 2 {
            let message = "training needs two concepts or more that have both pictures and texts";
            return Err(Error::setting("data.folder", message));
        }
        if corpus.pairs_pictures()
            && (plan.texts_per_concept != 1 || plan.second_texts > plan.concepts)
        {
            let message = "must be 1 where pictures stand in place of texts";
            return Err(Error::setting("batch.texts_per_concept", message));
        }
        let concepts: Vec<u32> = wordings.keys().copied().collect();
        let sampler = Sampler::new(seed, (&corpus, &concepts), plan.order, shuffle_buffer);
        let vocabulary = sampler::vocabulary(&wordings);
        Ok(Self { corpus, preprocessing, augmentation, wordings, vocabulary, sampler, plan, seed })
    }

    /// The batch of a step (from 0).
    ///
    /// # Errors
    /// If a text cannot be tokenized or a tensor cannot be made.
    pub fn batch(&mut self, step: u64) -> Result<Batch> {
        let slots = self.slots(step)?;
        self.assemble(&slots)
    }

    /// What the places of the batch of a step hold: the first half of [`Loader::batch`].
    ///
    /// # Errors
    /// If a picture cannot be read, or a text not be tokenized.
    pub fn slots(&mut self, step: u64) -> Result<Vec<Slot>> {
        let first = step * self.plan.concepts as u64;
        let drawn: Vec<(u64, Draw)> = (first..first + self.plan.concepts as u64)
            .map(|position| (position, self.sampler.at(position)))
            .collect();
        let this = &*self;
        drawn
            .into_par_iter()
            .enumerate()
            .map(|(index, (position, draw))| this.slot(index, position, draw))
            .collect()
    }

    fn slot(&self, index: usize, position: u64, draw: Draw) -> Result<Slot> {
        let mut rng = generator(self.seed, &[position]);
        let plan = self.plan;
        let views = if plan.pictures { 1 + usize::from(index < plan.second_pictures) } else { 0 };
        let pictures = self.views(&mut rng, draw.picture, views)?;
        let paired = &self.corpus.concepts[draw.concept as usize].counterparts;
        if let Some(picture) = paired.choose(&mut rng).copied() {
            let views = 1 + usize::from(index < plan.second_texts);
            let counterparts = self.views(&mut rng, picture, views)?;
            let (texts, wordings, second_texts) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Slot {
                draw,
                position,
                pictures,
                counterparts,
                texts,
                wordings,
                second_texts,
            });
        }
        let text = &self.augmentation.text;
        let (around, count) = ((text, &self.vocabulary), plan.texts_per_concept);
        let drawn = sampler::texts_of(&mut rng, &self.wordings[&draw.concept], around, count);
        let first_text = index * plan.texts_per_concept;
        let seconds = plan.second_texts.saturating_sub(first_text).min(drawn.len());
        let mut tokens = |texts: &[Wording]| -> Result<Vec<Tokens>> {
            texts
                .iter()
                .map(|Wording { text: words, .. }| {
                    let tokenizer = &self.preprocessing.text;
                    let fewer = text.drop_words(&mut rng, words);
                    // What is left may be punctuation alone; the whole text never is.
                    let tokens = tokenizer.tokenize(&fewer, true);
                    let mut tokens = tokens.or_else(|_| tokenizer.tokenize(words, true))?;
                    text.drop_tokens(&mut rng, &mut tokens);
                    text.add_noise(&mut rng, &mut tokens, self.preprocessing.vocabulary);
                    Ok(tokens)
                })
                .collect()
        };
        let texts = tokens(&drawn)?;
        let second_texts = tokens(&drawn[..seconds])?;
        let counterparts = Vec::new();
        Ok(Slot { draw, position, pictures, counterparts, texts, wordings: drawn, second_texts })
    }

    /// Some views of a picture, normalised.
    fn views(&self, rng: &mut ChaCha8Rng, picture: usize, count: usize) -> Result<Vec<Vec<f32>>> {
        let image = &self.preprocessing.image;
        let decoded = self.corpus.decoded(picture)?;
        let views = (0..count).map(|_| {
            let view = self.augmentation.image.apply(rng, &decoded.detailed, image.size);
            image.normalize(view.as_ref().unwrap_or(&decoded.plain))
        });
        Ok(views.collect())
    }

    /// The batch that some places make: the second half of [`Loader::batch`].
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn assemble(&self, slots: &[Slot]) -> Result<Batch> {
        let concepts: Vec<u32> = slots.iter().map(|slot| slot.draw.concept).collect();
        let pixels = self.pixels(slots, |slot| &slot.pictures)?.map(PictureInputs::Pixels);
        let texts = slots.iter().flat_map(|slot| &slot.texts);
        let seconds = slots.iter().flat_map(|slot| &slot.second_texts);
        let tokens: Vec<&Tokens> = texts.chain(seconds).collect();
        let wordings = || slots.iter().flat_map(|slot| &slot.wordings);
        let text_inputs = match self.pixels(slots, |slot| &slot.counterparts)? {
            Some(pixels) => TextInputs::Pixels(pixels),
            None => TextInputs::Tokens(TokenBatch::collate(&tokens)),
        };
        let each = if matches!(text_inputs, TextInputs::Pixels(_)) {
            1
        } else {
            self.plan.texts_per_concept
        };
        let repeated = |concept: &u32| std::iter::repeat_n(*concept, each);
        let group = |concept: &u32| self.corpus.concepts[*concept as usize].group.clone();
        let first = slots.first().map_or(0, |slot| slot.position);
        Ok(Batch {
            picture_inputs: pixels,
            text_inputs,
            text_concepts: concepts.iter().flat_map(repeated).collect(),
            text_languages: wordings().map(|wording| wording.language.clone()).collect(),
            texts: wordings().map(|wording| wording.text.clone()).collect(),
            seed: generator(self.seed, &[OBJECTIVE, first]).random(),
            number: first / self.plan.concepts as u64,
            groups: concepts.iter().map(group).collect(),
            pictures: match self.plan.pictures {
                true => slots.iter().map(|slot| slot.draw.picture).collect(),
                false => Vec::new(),
            },
            picture_concepts: if self.plan.pictures { concepts } else { Vec::new() },
        })
    }

    /// (N, 3, size, size): first views, then second ones; `None` without any.
    fn pixels(
        &self,
        slots: &[Slot],
        of: impl Fn(&Slot) -> &Vec<Vec<f32>>,
    ) -> Result<Option<Tensor>> {
        let views = |nth: usize| slots.iter().filter_map(|slot| of(slot).get(nth)).collect();
        let pictures: [Vec<&Vec<f32>>; 2] = [views(0), views(1)];
        let count = pictures[0].len() + pictures[1].len();
        let size = self.preprocessing.image.size as usize;
        let values: Vec<f32> = pictures.concat().into_iter().flatten().copied().collect();
        let tensor = || Tensor::from_vec(values, (count, 3, size, size), &Device::Cpu);
        Ok((count > 0).then(tensor).transpose()?)
    }
}
