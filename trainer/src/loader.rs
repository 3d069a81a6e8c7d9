//! Batches: drawn, augmented and tokenized on threads ahead of the training step.
//!
//! The batch of a step is a function of the run's seed, the stage and the step alone. A resumed run
//! therefore continues with the same batches, and the loader has no state to save but the step.

mod prefetch;
mod sampler;

use std::sync::Arc;

use candle_core::{Device, Tensor};
use diptych_model::preprocess::{TokenBatch, Tokens};
use diptych_model::tower::ImageFeatures;
use diptych_model::{DualEncoder, Encoding};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

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

/// Pictures as a model takes them.
#[derive(Debug)]
pub enum PictureInputs {
    /// (N, 3, size, size), for the tower.
    Pixels(Tensor),
    /// What a tower that does not change gave for them.
    Features(ImageFeatures),
}

/// Texts as a model takes them.
#[derive(Debug)]
pub enum TextInputs {
    /// Ids, for the tower.
    Tokens(TokenBatch),
    /// (N, D): what a tower that does not change gave for them.
    Features(Tensor),
}

/// What one training step sees. Views and wordings of the second kind follow the first ones, so that
/// each tower runs once.
#[derive(Debug)]
pub struct Batch {
    /// P pictures, then second views of the first P2 of them.
    pub picture_inputs: Option<PictureInputs>,
    /// Each of the P pictures as an index into the corpus's.
    pub pictures: Vec<usize>,
    /// The concept of each of the P pictures.
    pub picture_concepts: Vec<u32>,
    /// T texts, then second wordings of the first T2 of them.
    pub text_inputs: TextInputs,
    /// The concept of each of the T texts.
    pub text_concepts: Vec<u32>,
    /// The language of each of the T texts.
    pub text_languages: Vec<String>,
    /// Names of the groups in the batch, for messages.
    pub groups: Vec<String>,
}

impl Batch {
    /// The vectors of the pictures, second views behind the first ones.
    ///
    /// # Errors
    /// If the batch has none, or they do not fit the model.
    pub fn encode_pictures(&self, encoder: &DualEncoder) -> Result<Encoding> {
        match &self.picture_inputs {
            Some(PictureInputs::Pixels(pixels)) => Ok(encoder.encode_images(pixels)?),
            Some(PictureInputs::Features(known)) => Ok(encoder.encode_image_features(known)?),
            None => Err(Error::setting("batch.pictures", "missing")),
        }
    }

    /// The vectors of the texts, second wordings behind the first ones.
    ///
    /// # Errors
    /// If they do not fit the model.
    pub fn encode_texts(&self, encoder: &DualEncoder) -> Result<Encoding> {
        Ok(match &self.text_inputs {
            TextInputs::Tokens(tokens) => encoder.encode_texts(tokens)?,
            TextInputs::Features(known) => encoder.encode_text_features(known)?,
        })
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
    pictures: Vec<Vec<f32>>,
    texts: Vec<Tokens>,
    languages: Vec<String>,
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
        let image = &self.preprocessing.image;
        let pictures = (0..views)
            .map(|_| {
                let picture = self.corpus.decoded(draw.picture)?;
                let view = self.augmentation.image.apply(&mut rng, &picture.detailed, image.size);
                Ok(image.normalize(view.as_ref().unwrap_or(&picture.plain)))
            })
            .collect::<Result<_>>()?;
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
        let languages = drawn.into_iter().map(|wording| wording.language).collect();
        Ok(Slot { draw, pictures, texts, languages, second_texts })
    }

    /// The batch that some places make: the second half of [`Loader::batch`].
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn assemble(&self, slots: &[Slot]) -> Result<Batch> {
        let concepts: Vec<u32> = slots.iter().map(|slot| slot.draw.concept).collect();
        let views = |nth: usize| slots.iter().filter_map(move |slot| slot.pictures.get(nth));
        let pictures: Vec<&Vec<f32>> = views(0).chain(views(1)).collect();
        let size = self.preprocessing.image.size as usize;
        let pixels = match pictures.len() {
            0 => None,
            count => {
                let values = pictures.into_iter().flatten().copied().collect::<Vec<f32>>();
                let shape = (count, 3, size, size);
                Some(PictureInputs::Pixels(Tensor::from_vec(values, shape, &Device::Cpu)?))
            }
        };
        let texts = slots.iter().flat_map(|slot| &slot.texts);
        let seconds = slots.iter().flat_map(|slot| &slot.second_texts);
        let tokens: Vec<&Tokens> = texts.chain(seconds).collect();
        let repeated = |concept: &u32| std::iter::repeat_n(*concept, self.plan.texts_per_concept);
        let group = |concept: &u32| self.corpus.concepts[*concept as usize].group.clone();
        Ok(Batch {
            picture_inputs: pixels,
            text_inputs: TextInputs::Tokens(TokenBatch::collate(&tokens)),
            text_concepts: concepts.iter().flat_map(repeated).collect(),
            text_languages: slots.iter().flat_map(|slot| slot.languages.clone()).collect(),
            groups: concepts.iter().map(group).collect(),
            pictures: match self.plan.pictures {
                true => slots.iter().map(|slot| slot.draw.picture).collect(),
                false => Vec::new(),
            },
            picture_concepts: if self.plan.pictures { concepts } else { Vec::new() },
        })
    }
}
