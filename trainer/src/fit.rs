//! The fit loop. It moves variables and keeps order; what for, only the objective knows.

mod centre;
mod erase;
mod mean_weights;
mod report;
#[cfg(test)]
mod tests;
mod training;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::Device;
use candle_core::backprop::GradStore;

pub(crate) use centre::centre;
pub use erase::Erase;
use mean_weights::MeanWeights;
pub use report::{Report, Seconds, Watch};
pub(crate) use training::RUN_COPY;
pub use training::Training;

use crate::checkpoint::{Best, Checkpoint, Checkpoints, Position, create_folder};
use crate::error::{Error, Result};
use crate::eval::{self, Subject};
use crate::loader::{Batch, Prefetch};
use crate::objective::{self, Losses, Objective, Player, decoders};
use crate::optim::AdamW;
use crate::run_file::{RunFile, Stage};

/// What a run needs beside its run file.
#[derive(Debug, Clone)]
pub struct FitOptions {
    /// Where checkpoints and logs go.
    pub out: PathBuf,
    /// Continue from the newest checkpoint there; without one, start anew.
    pub resume: bool,
    /// Where it computes. A checkpoint goes on on any device.
    pub device: Device,
}

/// Trains a run to its end; returns what was trained, with its final weights.
///
/// `watch` hears of every step and may break off, which leaves a checkpoint.
///
/// # Errors
/// If data or settings cannot be used, a loss or a gradient is not finite, or the disk refuses.
pub fn fit(run: &RunFile, options: &FitOptions, watch: &mut dyn Watch) -> Result<Training> {
    run.check()?;
    let digest = run.digest()?;
    let checkpoints = Checkpoints::new(&options.out, run.cadence.keep);
    create_folder(&options.out)?;
    let found = checkpoints.newest()?;
    if found.is_some() && !options.resume {
        let message = "holds a run already: add --resume, or choose another folder";
        return Err(Error::checkpoint(&options.out, message));
    }
    let mut position = Position::start(digest);
    if let Some(found) = &found {
        if found.position.run_digest != position.run_digest {
            let message = "was written by another run file";
            return Err(Error::checkpoint(&options.out, message));
        }
        position = found.position.clone();
    }
    let copy = options.out.join(RUN_COPY);
    std::fs::write(&copy, run.to_toml()?).map_err(|source| Error::io(&copy, source))?;
    let training = Training::open(run, &options.device)?;
    watch.opened(&training)?;
    if found.is_none() {
        match &run.initial_weights {
            Some(source) => training.begin_with(source)?,
            None => {
                centre::set_logit_scale(&training, run.initial_scale)?;
                centre::centre_pictures(&training)?;
            }
        }
    }
    let mut resumed = found;
    while let Some(stage) = run.stages.get(position.stage) {
        let mut staged = StageRun::begin(&training, stage, position, resumed.take().as_ref())?;
        let flow = staged.run(&checkpoints, watch)?;
        position = staged.position;
        if flow.is_break() {
            return Ok(training);
        }
    }
    if let Some(ended) = resumed {
        ended.restore(&training.params.vars())?;
    }
    Ok(training)
}

/// One stage under way.
struct StageRun<'a> {
    training: &'a Training,
    stage: &'a Stage,
    objective: Box<dyn Objective>,
    optimizer: AdamW,
    mean: Option<MeanWeights>,
    position: Position,
}

impl<'a> StageRun<'a> {
    fn begin(
        training: &'a Training,
        stage: &'a Stage,
        position: Position,
        resumed: Option<&Checkpoint>,
    ) -> Result<Self> {
        let mut objective = objective::build(&stage.objective)?;
        let mut vars = training.params.vars();
        if let Some(checkpoint) = resumed {
            checkpoint.restore_part(&vars)?;
        }
        objective.begin(training.context())?;
        vars.extend(objective.vars());
        let mut optimizer = AdamW::new(&vars, &stage.groups, stage.adam)?;
        let mean = stage.ema_decay.map(|decay| MeanWeights::new(decay, optimizer.vars()));
        let mut mean = mean.transpose()?;
        // Between stages a checkpoint has no state of the next one yet.
        if let Some(checkpoint) = resumed.filter(|_| position.step > 0) {
            checkpoint.restore(&vars)?;
            optimizer.restore(&checkpoint.optimizer)?;
            if let Some(mean) = &mut mean {
                mean.restore(&checkpoint.optimizer)?;
            }
        }
        Ok(Self { training, stage, objective, optimizer, mean, position })
    }

    /// Trains to the end of the stage, or to where `watch` breaks off.
    fn run(&mut self, checkpoints: &Checkpoints, watch: &mut dyn Watch) -> Result<ControlFlow<()>> {
        let steps = self.position.step..self.stage.steps;
        let each = self.stage.accumulate;
        let loader = self.training.loader(self.position.stage)?;
        let mut batches = Prefetch::start(loader, steps.start * each..steps.end * each)?;
        let cadence = self.training.run.cadence;
        for step in steps {
            let report = self.step(step, &mut batches)?;
            let flow = watch.step(&report)?;
            self.position.step = step + 1;
            self.position.global_step += 1;
            let mut last = step + 1 == self.stage.steps;
            if last || due(step, cadence.evaluate_every) {
                last |= self.evaluate(checkpoints, watch)?;
            }
            if last {
                self.end(checkpoints)?;
            }
            if last || flow.is_break() || due(step, cadence.checkpoint_every) {
                checkpoints.save(&self.checkpoint(last)?)?;
            }
            if flow.is_break() {
                return Ok(flow);
            }
            if last {
                break;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One optimizer step of every player.
    fn step(&mut self, step: u64, batches: &mut Prefetch) -> Result<Report> {
        let share = self.stage.schedule().share(step);
        let mut report = Report::new(&self.stage.name, step, self.stage.steps, share);
        report.global_step = self.position.global_step;
        let started = Instant::now();
        let batches: Vec<Batch> =
            (0..self.stage.accumulate).map(|_| batches.next_batch()).collect::<Result<_>>()?;
        report.seconds.waiting = started.elapsed().as_secs_f64();
        report.samples = batches.iter().map(|batch| batch.text_concepts.len()).sum();
        report.pictures = batches.iter().map(|batch| batch.picture_concepts.len()).sum();
        let training = self.optimizer.training_at(step);
        // A variable is checked in the first step that trains it.
        let before = step.checked_sub(1).map(|before| self.optimizer.training_at(before));
        let fresh = |name: &str| before.as_ref().is_none_or(|before| !before.contains(name));
        for player in self.objective.players() {
            let trains = |name: &str| player.trains(name) && training.contains(name);
            let grads = self.gradients(player, &batches, &mut report)?;
            let checked = |name: &str| trains(name) && fresh(name);
            self.optimizer.check_gradients(&grads, player.name, checked)?;
            let started = Instant::now();
            let norm = self.optimizer.step(&grads, trains, share, self.stage.clip_norm)?;
            report.seconds.optimizer += started.elapsed().as_secs_f64();
            report.add(format!("{}.gradient_norm", player.name), norm);
        }
        if let Some(mean) = &mut self.mean {
            mean.update(step)?;
        }
        Ok(report)
    }

    /// The mean gradient of a player's loss over some batches.
    fn gradients(
        &mut self,
        player: &Player,
        batches: &[Batch],
        report: &mut Report,
    ) -> Result<GradStore> {
        let mut sum: Option<GradStore> = None;
        for batch in batches {
            let started = Instant::now();
            let losses = self.objective.losses(player, &self.training.encoder, batch)?;
            self.record(report, player.name, &losses, batch)?;
            report.seconds.forward += started.elapsed().as_secs_f64();
            let started = Instant::now();
            let grads = (losses.total / batches.len() as f64)?.backward()?;
            report.seconds.backward += started.elapsed().as_secs_f64();
            sum = Some(match sum {
                None => grads,
                Some(sum) => self.added(sum, &grads)?,
            });
        }
        sum.ok_or_else(|| Error::setting("accumulate", "must be at least 1"))
    }

    fn added(&self, mut sum: GradStore, grads: &GradStore) -> Result<GradStore> {
        for var in self.optimizer.vars().values() {
            let Some(gradient) = grads.get(var) else { continue };
            let both = match sum.get(var) {
                None => gradient.clone(),
                Some(before) => (before + gradient)?,
            };
            sum.insert(var, both);
        }
        Ok(sum)
    }

    /// Notes the terms of a loss; one that is not finite stops the run.
    fn record(
        &self,
        report: &mut Report,
        player: &str,
        losses: &Losses,
        batch: &Batch,
    ) -> Result<()> {
        let terms = losses.terms.iter().map(|(name, term)| (*name, term));
        for (name, term) in terms.chain([("total", &losses.total)]) {
            let value = f64::from(term.to_scalar::<f32>()?);
            let name = format!("{player}.{name}");
            if !value.is_finite() {
                return Err(Error::NonFiniteLoss {
                    term: name,
                    value,
                    stage: self.stage.name.clone(),
                    step: report.step,
                    batch: batch.groups.join(" "),
                });
            }
            report.add_mean(name, value, self.stage.accumulate);
        }
        Ok(())
    }

    /// Lets `watch` see the model as it would be kept; whether the stage has been without progress for
    /// long enough to end.
    fn evaluate(&mut self, checkpoints: &Checkpoints, watch: &mut dyn Watch) -> Result<bool> {
        if let Some(mean) = &mut self.mean {
            mean.swap()?;
        }
        watch.evaluate(self.training, &self.position)?;
        let mut stops = false;
        if let Some(rule) = self.stage.early_stop {
            let rsum = eval::dev_rsum(&Subject::of_training(self.training))?;
            let step = self.position.step;
            let best = self.position.best.take();
            let better = best.as_ref().is_none_or(|best| rsum > best.rsum() + rule.min_delta);
            if better {
                checkpoints.save_best(&self.training.params.tensors()?)?;
            }
            let best = match best {
                Some(best) if !better => Best { waited: best.waited + 1, ..best },
                _ => Best { rsum_bits: rsum.to_bits(), step, waited: 0 },
            };
            stops = best.waited >= rule.patience;
            self.position.best = Some(best);
        }
        if let Some(mean) = &mut self.mean {
            mean.swap()?;
        }
        Ok(stops)
    }

    /// Leaves the weights that the stage is to end with, and moves on to the next one.
    fn end(&mut self, checkpoints: &Checkpoints) -> Result<()> {
        if let Some(mean) = &mut self.mean {
            mean.swap()?;
        }
        if self.position.best.take().is_some() {
            let best = checkpoints.best()?;
            for (name, var) in self.training.params.vars() {
                let missing = || Error::checkpoint("best weights", format!("`{name}` is missing"));
                var.set(&best.get(&name).ok_or_else(missing)?.to_device(var.device())?)?;
            }
        }
        erase::erase(self.training, &self.stage.erase)?;
        self.position.stage += 1;
        self.position.step = 0;
        Ok(())
    }

    fn checkpoint(&self, between_stages: bool) -> Result<Checkpoint> {
        let mut weights = self.training.params.tensors()?;
        let mut optimizer = BTreeMap::new();
        for (name, var) in self.objective.vars() {
            // Decoders are looked at when the run has ended.
            if !between_stages || name.starts_with(decoders::PREFIX) {
                weights.insert(name, var.as_tensor().copy()?);
            }
        }
        if !between_stages {
            optimizer = self.optimizer.state()?;
            if let Some(mean) = &self.mean {
                optimizer.extend(mean.state());
            }
        }
        Ok(Checkpoint { position: self.position.clone(), weights, optimizer })
    }
}

const fn due(step: u64, every: u64) -> bool {
    every > 0 && (step + 1).is_multiple_of(every)
}
