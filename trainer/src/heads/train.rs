//! Training of heads on features: the objectives, optimizer and schedule of `fit`, without towers.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use diptych_model::{DualEncoder, HeadsConfig, Params};
use rand::Rng;
use rand::seq::index;
use serde_json::json;

use super::choose::Standing;
use super::inputs::Inputs;
use crate::augment::generator;
use crate::corpus::{Corpus, Withheld};
use crate::error::{Error, Result};
use crate::eval::encoded;
use crate::loader::{Batch, PictureInputs, Sampler, TextInputs};
use crate::objective::{self, Context};
use crate::optim::AdamW;
use crate::report::RunLog;
use crate::run_file::Stage;
use crate::shards::Split;

/// Pictures that an epoch shuffles together: all, since their features are anywhere on disk as near.
const BUFFER: usize = usize::MAX;
/// Steps between two lines of the log.
const LOG_EVERY: u64 = 20;

/// Weights of heads, by name.
pub(super) type Weights = BTreeMap<String, Tensor>;

/// What is trained, and on what.
#[derive(Debug)]
pub(super) struct Heads<'a> {
    pub(super) config: HeadsConfig,
    pub(super) params: Params,
    pub(super) model: DualEncoder,
    pub(super) inputs: &'a Inputs,
    pub(super) corpus: &'a Corpus,
    /// Texts of each concept that is there to train on, as rows of the features.
    texts: BTreeMap<u32, Vec<usize>>,
    seed: u64,
    feature_dropout: f64,
}

impl<'a> Heads<'a> {
    /// Fresh heads.
    ///
    /// # Errors
    /// If there are fewer than two concepts to train on.
    pub(super) fn new(
        config: HeadsConfig,
        inputs: &'a Inputs,
        corpus: &'a Corpus,
        (seed, feature_dropout): (u64, f64),
    ) -> Result<Self> {
        let params = Params::seeded(seed, &Device::Cpu);
        let model = DualEncoder::over_features(&config, inputs.widths(), &params)?;
        let mut texts: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (row, text) in inputs.names.iter().enumerate() {
            let concept = &corpus.concepts[text.concept as usize];
            let seen = concept.pictures.iter().any(|picture| inputs.has_picture(*picture));
            if concept.split == Split::Train && seen && inputs.has_text(row) {
                texts.entry(text.concept).or_default().push(row);
            }
        }
        if texts.len() < 2 {
            let message = "training needs two concepts or more that have both pictures and texts";
            return Err(Error::setting("--data", message));
        }
        Ok(Self { config, params, model, inputs, corpus, texts, seed, feature_dropout })
    }

    /// The weights of the shared heads as they are.
    pub(super) fn shared(&self) -> Result<Weights> {
        let mut weights = self.params.tensors()?;
        weights.retain(|name, _| !name.contains(".exclusive."));
        Ok(weights)
    }

    /// Sets weights.
    pub(super) fn set(&self, weights: &Weights) -> Result<()> {
        let vars = self.params.vars();
        for (name, value) in weights {
            if let Some(var) = vars.get(name) {
                var.set(value)?;
            }
        }
        Ok(())
    }

    /// Features of pictures and of texts to train on, at most so many of each.
    pub(super) fn some_features(&self, most: usize) -> Result<(Tensor, Tensor)> {
        let pictures: Vec<usize> = (0..self.corpus.pictures.len())
            .filter(|at| self.texts.contains_key(&self.corpus.pictures[*at].concept))
            .filter(|at| self.inputs.has_picture(*at))
            .collect();
        let texts: Vec<usize> = self.texts.values().flatten().copied().collect();
        let spread = |rows: &[usize]| -> Vec<usize> {
            rows.iter().step_by(rows.len().div_ceil(most).max(1)).copied().collect()
        };
        let pictures = self.inputs.pictures(&spread(&pictures))?;
        let last = self.inputs.parts(&pictures)?.last;
        Ok((last, self.inputs.texts(&spread(&texts))?))
    }

    /// How the model retrieves on the dev split.
    pub(super) fn on_dev(&self) -> Result<Standing> {
        let wanted = encoded::in_scope(self.corpus, Some(Split::Dev));
        Standing::of(&self.inputs.encoded(&self.model, self.corpus, &wanted)?)
    }

    /// Trains one stage. `each` sees the model now and then, and at the end, and says whether that is enough.
    ///
    /// # Errors
    /// If a loss or a gradient is not finite, or features cannot be read.
    pub(super) fn train(
        &self,
        stage: &Stage,
        evaluate_every: u64,
        log: &mut RunLog,
        mut each: impl FnMut(&Self, u64, &mut RunLog) -> Result<bool>,
    ) -> Result<()> {
        let mut objective = objective::build(&stage.objective)?;
        objective.begin(Context {
            encoder: &self.model,
            heads: &self.config,
            corpus: self.corpus,
            withheld: &Withheld::new(),
            image_size: 0,
            seed: self.seed,
        })?;
        let mut vars = self.params.vars();
        vars.extend(objective.vars());
        let mut optimizer = AdamW::new(&vars, &stage.groups, stage.adam)?;
        let concepts: Vec<u32> = self.texts.keys().copied().collect();
        let stage_seed =
            generator(self.seed, &[u64::from(crc32c::crc32c(stage.name.as_bytes()))]).random();
        let mut sampler =
            Sampler::new(stage_seed, (self.corpus, &concepts), stage.batch.order, BUFFER);
        for step in 0..stage.steps {
            let batch = self.batch(stage, (stage_seed, step), &mut sampler)?;
            let share = stage.schedule().share(step);
            let training = optimizer.training_at(step);
            for player in objective.players() {
                let losses = objective.losses(player, &self.model, &batch)?;
                let terms = losses.terms.iter().map(|(name, term)| (*name, term));
                let mut values = BTreeMap::new();
                for (name, term) in terms.chain([("total", &losses.total)]) {
                    let value = f64::from(term.to_scalar::<f32>()?);
                    if !value.is_finite() {
                        return Err(Error::NonFiniteLoss {
                            term: format!("{}.{name}", player.name),
                            value,
                            stage: stage.name.clone(),
                            step,
                            batch: batch.groups.join(" "),
                        });
                    }
                    values.insert(name, value);
                }
                let trains = |name: &str| player.trains(name) && training.contains(name);
                let grads = losses.total.backward()?;
                if step == 0 {
                    optimizer.check_gradients(&grads, player.name, trains)?;
                }
                optimizer.step(&grads, trains, share, stage.clip_norm)?;
                if step % LOG_EVERY == 0 {
                    log.log(&json!({
                        "event": "step", "stage": stage.name, "player": player.name,
                        "step": step, "rate_share": share, "values": values,
                    }))?;
                }
            }
            let last = step + 1 == stage.steps;
            if (last || (step + 1).is_multiple_of(evaluate_every)) && each(self, step + 1, log)? {
                break;
            }
        }
        Ok(())
    }

    /// The batch of a step: a function of the seed and the step alone.
    fn batch(
        &self,
        stage: &Stage,
        (seed, step): (u64, u64),
        sampler: &mut Sampler,
    ) -> Result<Batch> {
        let plan = stage.batch;
        // A small dataset does not come twice in one batch.
        let places = plan.concepts.min(self.texts.len()) as u64;
        let (mut pictures, mut texts) = (Vec::new(), Vec::new());
        let (mut picture_concepts, mut text_concepts) = (Vec::new(), Vec::new());
        for position in step * places..(step + 1) * places {
            let draw = sampler.at(position);
            if !self.inputs.has_picture(draw.picture) {
                continue;
            }
            let mut rng = generator(seed, &[position]);
            let own = &self.texts[&draw.concept];
            let count = plan.texts_per_concept;
            let chosen = index::sample(&mut rng, own.len(), count.min(own.len())).into_vec();
            // Where a concept has fewer, they come again.
            texts.extend(chosen.iter().cycle().take(count).map(|at| own[*at]));
            text_concepts.extend(std::iter::repeat_n(draw.concept, count));
            pictures.push(draw.picture);
            picture_concepts.push(draw.concept);
        }
        let seen = self.inputs.pictures(&pictures)?;
        let seen = self.with_seconds(seen, plan.second_pictures, (seed, step, 0))?;
        let read = self.inputs.texts(&texts)?;
        let read = self.with_seconds(read, plan.second_texts, (seed, step, 1))?;
        let group = |concept: &u32| self.corpus.concepts[*concept as usize].group.clone();
        Ok(Batch {
            picture_inputs: Some(PictureInputs::Features(self.inputs.parts(&seen)?)),
            text_inputs: TextInputs::Features(read),
            groups: picture_concepts.iter().map(group).collect(),
            text_languages: texts.iter().map(|row| self.inputs.language(*row)).collect(),
            texts: Vec::new(),
            seed: generator(seed, &[step, u64::MAX]).random(),
            number: step,
            pictures,
            picture_concepts,
            text_concepts,
        })
    }

    /// Second views of the first `count` rows behind all of them: some features left out, the others
    /// scaled up for it.
    fn with_seconds(
        &self,
        rows: Tensor,
        count: usize,
        (seed, step, side): (u64, u64, u64),
    ) -> Result<Tensor> {
        let (all, width) = rows.dims2()?;
        let count = count.min(all);
        if count == 0 {
            return Ok(rows);
        }
        let mut rng = generator(seed, &[step, side]);
        let kept = 1.0 - self.feature_dropout;
        let mut mask = || if rng.random_bool(kept) { (1.0 / kept) as f32 } else { 0.0 };
        let mask: Vec<f32> = (0..count * width).map(|_| mask()).collect();
        let mask = Tensor::from_vec(mask, (count, width), &Device::Cpu)?;
        let seconds = (rows.narrow(0, 0, count)? * mask)?;
        Ok(Tensor::cat(&[&rows, &seconds], 0)?)
    }
}

/// `share` of the way from `own` to `new`: weights between two models of one origin often generalise better
/// than either (Wortsman et al., 2022, "WiSE-FT").
///
/// # Errors
/// If names or shapes differ.
pub(super) fn between(own: &Weights, new: &Weights, share: f64) -> Result<Weights> {
    let mixed = own.iter().map(|(name, own)| {
        let new = new.get(name);
        let new = new.ok_or_else(|| Error::checkpoint("heads", format!("`{name}` is missing")))?;
        Ok((name.clone(), ((own * (1.0 - share))? + (new * share)?)?))
    });
    mixed.collect()
}

/// Sets a variable to what it will be once it is stored in 16 bits, where it has two axes or more.
///
/// # Errors
/// If a tensor operation fails.
pub(super) fn round(var: &Var) -> Result<()> {
    if var.rank() >= 2 {
        let rounded = var.as_tensor().to_dtype(candle_core::DType::F16)?;
        var.set(&rounded.to_dtype(candle_core::DType::F32)?)?;
    }
    Ok(())
}
