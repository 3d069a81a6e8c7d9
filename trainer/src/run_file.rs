//! A run as one TOML file: data, model, augmentation, stages, cadence, seed.

use std::path::{Path, PathBuf};

use diptych_model::{Modality, ModelConfig, Space, TextTowerConfig};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::corpus::{HoldOut, PictureMemory};
use crate::error::{Error, Result};
use crate::fit::Erase;
use crate::loader::{Augmentation, BatchPlan};
use crate::objective;
use crate::optim::{AdamSettings, ParameterGroup};
use crate::preprocessing::PreprocessingConfig;
use crate::schedule::Schedule;

/// A run, typed and complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// A word for the run, written into the bundle.
    pub name: String,
    /// What the model knows, in words, written into the bundle ("emoji").
    pub domain: String,
    /// Decides initial weights, batches and augmentation.
    pub seed: u64,
    /// What is trained on.
    pub data: DataConfig,
    /// From bytes to what the towers read.
    #[serde(default)]
    pub preprocessing: PreprocessingConfig,
    /// The towers and heads.
    #[serde(default)]
    pub model: ModelConfig,
    /// What similarities are multiplied with when training starts, above 0 to 100. Low: the towers
    /// first learn to tell things apart, where a high one makes them draw everything together.
    #[serde(default = "default_initial_scale")]
    pub initial_scale: f64,
    /// Weights to begin with in place of drawn ones: a bundle, or the folder of a run, relative to the
    /// working folder. Weights of the same name and shape are taken; its towers are then at least a
    /// beginning, for which a small dataset has too little to say.
    #[serde(default)]
    pub initial_weights: Option<PathBuf>,
    /// How pictures and texts are varied.
    #[serde(default)]
    pub augment: Augmentation,
    /// How often progress is saved and measured.
    #[serde(default)]
    pub cadence: Cadence,
    /// What is trained, in order. At least one.
    pub stages: Vec<Stage>,
    /// What a model must not give away to be exported.
    #[serde(default)]
    pub export: ExportRules,
}

/// What a model must not give away to be exported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportRules {
    /// The most that probes may read from which vectors.
    pub limits: Vec<LeakLimit>,
}

/// The most that probes may read of one factor from vectors of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakLimit {
    /// Whose vectors; `text` are also those of pictures that stand in place of texts.
    pub modality: Modality,
    /// Which of them.
    pub space: Space,
    /// A label column of the data, `concept` or `language`; a factor that is a number, of which the share
    /// of its variance counts; or, of exclusive vectors, `retrieval`: the R@1 that a map fitted from them
    /// to the other side's shared vectors finds.
    pub factor: String,
    /// The highest figure of the better of the two probes, or maps, 0 to 1.
    pub most: f64,
}

const fn default_initial_scale() -> f64 {
    5.0
}

const fn default_shuffle_buffer() -> usize {
    16_384
}

/// What is trained on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A prepared dataset, relative to the working folder. The command line may name another.
    pub folder: PathBuf,
    /// Pictures that are shuffled together, at least 1, where an epoch goes through pictures. Row groups
    /// of that many stay in memory as files, and beyond `memory` are read more than once an epoch.
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// How much memory pictures may take; more than that is read again when asked for.
    #[serde(default)]
    pub memory: PictureMemory,
    /// Texts that training never sees; absent: it sees all.
    #[serde(default)]
    pub hold_out: Option<HoldOut>,
}

/// How often progress is saved and measured, in steps; 0 for only at the end of each stage.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cadence {
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps between evaluations.
    pub evaluate_every: u64,
    /// Checkpoints kept, at least 1.
    pub keep: usize,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { checkpoint_every: 100, evaluate_every: 0, keep: 2 }
    }
}

/// A part of the run with one objective.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// A word for logs.
    pub name: String,
    /// Optimizer steps, at least 1.
    pub steps: u64,
    /// Steps over which the learning rate rises; fewer than `steps`.
    #[serde(default)]
    pub warmup_steps: u64,
    /// The last step's learning rate as a share of the peak, 0 to 1.
    #[serde(default)]
    pub final_share: f64,
    /// The largest global gradient norm; absent: not clipped.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// What a batch holds.
    pub batch: BatchPlan,
    /// Batches whose gradients are averaged for one step, at least 1. Each is contrasted by itself.
    #[serde(default = "one")]
    pub accumulate: u64,
    /// Decay of a running mean of the weights, above 0 to below 1; the stage ends with the mean in place
    /// of the weights, and evaluations see it. Absent: none is kept.
    #[serde(default)]
    pub ema_decay: Option<f64>,
    /// When to end the stage before its steps are done; absent: never.
    #[serde(default)]
    pub early_stop: Option<EarlyStop>,
    /// How pictures and texts are varied in this stage; absent: as in all others.
    #[serde(default)]
    pub augment: Option<Augmentation>,
    /// Known factors that are taken out of vectors when the stage ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erase: Vec<Erase>,
    /// `kind` and the settings of the objective, see [`objective::OBJECTIVES`].
    pub objective: toml::Table,
    /// Which variables train, and how fast. Those in no group are frozen.
    pub groups: Vec<ParameterGroup>,
    /// Constants of the optimizer.
    #[serde(default)]
    pub adam: AdamSettings,
}

/// When to end a stage: no better rsum on the dev split for a while. The stage then ends with the best
/// weights that were measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Evaluations in a row without a better rsum that end the stage, at least 1.
    pub patience: u32,
    /// How much better counts, in points of rsum (0 to 600), 0 or more.
    #[serde(default)]
    pub min_delta: f64,
}

const fn one() -> u64 {
    1
}

impl Stage {
    /// The stage's learning-rate schedule.
    #[must_use]
    pub const fn schedule(&self) -> Schedule {
        Schedule {
            steps: self.steps,
            warmup_steps: self.warmup_steps,
            final_share: self.final_share,
        }
    }
}

impl RunFile {
    /// Reads and validates a run file.
    ///
    /// # Errors
    /// [`Error::RunFile`] with line and column for what is no such file, [`Error::Setting`] naming
    /// the first value that cannot be used.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        Self::parse(&text, path)
    }

    /// Parses and validates the text of a run file that stands in `path`.
    ///
    /// # Errors
    /// As [`RunFile::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let run: Self = toml::from_str(text).map_err(|error| Error::RunFile {
            path: path.to_path_buf(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        run.check()?;
        Ok(run)
    }

    /// Checks every value, before anything is read or built.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the first value that cannot be used.
    pub fn check(&self) -> Result<()> {
        self.model.validate_for_training()?;
        self.preprocessing.image.validate()?;
        self.preprocessing.text.validate()?;
        let size = self.model.image_size()?;
        if size != self.preprocessing.image.size as usize {
            let message = format!("must be model.image_tower.size, {size}");
            return Err(Error::setting("preprocessing.image.size", message));
        }
        if let Some(counterpart) = &self.model.counterpart_tower {
            if counterpart.size() != size {
                let message = format!("must be model.image_tower.size, {size}");
                return Err(Error::setting("model.counterpart_tower.size", message));
            }
        } else {
            let most = self.model.vocabulary()?;
            if self.preprocessing.text.vocabulary() as usize > most {
                let message = format!("the text tower takes ids below {most} only");
                return Err(Error::setting("preprocessing.text", message));
            }
            let reads_letters =
                self.model.text_tower.as_ref().is_some_and(TextTowerConfig::reads_letters);
            if self.preprocessing.text.letters() > 0 && !reads_letters {
                let message = "needs a text tower that reads letters: set model.text_tower.manner, e.g. to 32";
                return Err(Error::setting("preprocessing.text.letters", message));
            }
        }
        if let Some(hold_out) = self.data.hold_out {
            hold_out.check()?;
        }
        if !(self.initial_scale > 0.0 && self.initial_scale <= 100.0) {
            return Err(Error::setting("initial_scale", "must be above 0 and at most 100"));
        }
        self.augment.check("")?;
        if self.cadence.keep == 0 {
            return Err(Error::setting("cadence.keep", "must be at least 1"));
        }
        if self.data.shuffle_buffer == 0 {
            return Err(Error::setting("data.shuffle_buffer", "must be at least 1"));
        }
        let stops = self.stages.iter().any(|stage| stage.early_stop.is_some());
        if stops && self.cadence.evaluate_every == 0 {
            let message = "must be above 0 where a stage has early_stop";
            return Err(Error::setting("cadence.evaluate_every", message));
        }
        if let Some(limit) = self.export.limits.iter().find(|l| !(0.0..=1.0).contains(&l.most)) {
            let message = format!("of `{}` must be in 0..=1", limit.factor);
            return Err(Error::setting("export.limits.most", message));
        }
        if self.stages.is_empty() {
            return Err(Error::setting("stages", "there must be at least one"));
        }
        let check =
            |(index, stage): (usize, &Stage)| check_stage(stage, &format!("stages[{index}]"));
        self.stages.iter().enumerate().try_for_each(check)
    }

    /// Side of the image tower's input, in pixels.
    #[must_use]
    pub fn image_size(&self) -> usize {
        // A run that was checked has the tower's size here too.
        self.preprocessing.image.size as usize
    }

    /// SHA-256, in hex, of everything that decides the result: all but where the data lies and how
    /// much of it is held in memory.
    ///
    /// # Errors
    /// If the run cannot be written as JSON.
    pub fn digest(&self) -> Result<String> {
        let mut run = self.clone();
        run.data.folder = PathBuf::new();
        run.data.memory = PictureMemory::default();
        let canonical = serde_json::to_vec(&run)
            .map_err(|error| Error::setting("run file", error.to_string()))?;
        Ok(hex::encode(Sha256::digest(canonical)))
    }

    /// The run as TOML, to lie beside its checkpoints.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::setting("run file", error.to_string()))
    }
}

/// Checks every value of a stage that stands at `at`.
///
/// # Errors
/// [`Error::Setting`] naming the first value that cannot be used.
pub(crate) fn check_stage(stage: &Stage, at: &str) -> Result<()> {
    let fail = |name: &str, message: &str| Err(Error::setting(format!("{at}.{name}"), message));
    if stage.steps == 0 {
        return fail("steps", "must be at least 1");
    }
    if stage.warmup_steps >= stage.steps {
        return fail("warmup_steps", "must be below steps");
    }
    if !(0.0..=1.0).contains(&stage.final_share) {
        return fail("final_share", "must be in 0..=1");
    }
    if stage.clip_norm.is_some_and(|norm| !(norm > 0.0 && norm.is_finite())) {
        return fail("clip_norm", "must be above 0");
    }
    if stage.accumulate == 0 {
        return fail("accumulate", "must be at least 1");
    }
    if stage.ema_decay.is_some_and(|decay| !(decay > 0.0 && decay < 1.0)) {
        return fail("ema_decay", "must be above 0 and below 1");
    }
    if let Some(EarlyStop { patience, min_delta }) = stage.early_stop {
        if patience == 0 {
            return fail("early_stop.patience", "must be at least 1");
        }
        if !(min_delta >= 0.0 && min_delta.is_finite()) {
            return fail("early_stop.min_delta", "must be 0 or more");
        }
    }
    stage.batch.check(&format!("{at}.batch"))?;
    if let Some(augment) = &stage.augment {
        augment.check(&format!("{at}."))?;
    }
    let prefixed = |error: Error| match error {
        Error::Setting { field, message } => Error::setting(format!("{at}.{field}"), message),
        other => other,
    };
    objective::build(&stage.objective)
        .and_then(|objective| objective.check(&stage.batch))
        .map_err(prefixed)?;
    if stage.groups.is_empty() {
        return fail("groups", "there must be at least one");
    }
    for group in &stage.groups {
        if !(group.learning_rate > 0.0 && group.learning_rate.is_finite()) {
            return fail("groups.learning_rate", "must be above 0");
        }
        if group.from_step >= group.until_step.unwrap_or(stage.steps).min(stage.steps) {
            return fail("groups.from_step", "must be below until_step and the stage's steps");
        }
        if !(group.weight_decay >= 0.0 && group.weight_decay.is_finite()) {
            return fail("groups.weight_decay", "must be 0 or more");
        }
    }
    let AdamSettings { beta1, beta2, epsilon } = stage.adam;
    if ![beta1, beta2].iter().all(|beta| (0.0..1.0).contains(beta)) || epsilon <= 0.0 {
        return fail("adam", "beta1 and beta2 are in 0 to below 1, epsilon above 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
