//! The fit loop. It moves variables and keeps order; what for, only the objective knows.

mod centre;
mod report;
#[cfg(test)]
mod tests;
mod training;

use std::ops::ControlFlow;
use std::path::PathBuf;

use candle_core::Device;
pub use report::{Report, Watch};
pub use training::Training;

use crate::checkpoint::{Checkpoint, Checkpoints, Position, create_folder};
use crate::error::{Error, Result};
use crate::loader::{Batch, Prefetch};
use crate::objective::{self, Losses, Objective};
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
    let copy = options.out.join(training::RUN_COPY);
    std::fs::write(&copy, run.to_toml()?).map_err(|source| Error::io(&copy, source))?;
    let training = Training::open(run, &options.device)?;
    watch.opened(&training)?;
    if found.is_none() {
        centre::set_logit_scale(&training, run.initial_scale)?;
        centre::centre_pictures(&training)?;
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
        let of_model = training.params.vars();
        let mut vars = of_model.clone();
        vars.extend(objective.vars());
        if let Some(checkpoint) = resumed {
            // Between stages a checkpoint has no variables of the next objective yet.
            let inside = position.step > 0;
            checkpoint.restore(if inside { &vars } else { &of_model })?;
        }
        objective.begin(training.context())?;
        let mut optimizer = AdamW::new(&vars, &stage.groups, stage.adam)?;
        if let Some(checkpoint) = resumed.filter(|_| position.step > 0) {
            optimizer.restore(&checkpoint.optimizer)?;
        }
        Ok(Self { training, stage, objective, optimizer, position })
    }

    /// Trains to the end of the stage, or to where `watch` breaks off.
    fn run(&mut self, checkpoints: &Checkpoints, watch: &mut dyn Watch) -> Result<ControlFlow<()>> {
        let steps = self.position.step..self.stage.steps;
        let loader = self.training.loader(self.position.stage)?;
        let mut batches = Prefetch::start(loader, steps.clone())?;
        let cadence = self.training.run.cadence;
        for step in steps {
            let batch = batches.next_batch()?;
            let report = self.step(step, &batch)?;
            let flow = watch.step(&report)?;
            self.position.step = step + 1;
            self.position.global_step += 1;
            let last = step + 1 == self.stage.steps;
            if last {
                self.position.stage += 1;
                self.position.step = 0;
            }
            if last || due(step, cadence.evaluate_every) {
                watch.evaluate(self.training, &self.position)?;
            }
            if last || flow.is_break() || due(step, cadence.checkpoint_every) {
                checkpoints.save(&self.checkpoint(last)?)?;
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One optimizer step of every player.
    fn step(&mut self, step: u64, batch: &Batch) -> Result<Report> {
        let share = self.stage.schedule().share(step);
        let mut report = Report::new(&self.stage.name, step, self.stage.steps, share);
        report.global_step = self.position.global_step;
        report.samples = batch.text_concepts.len();
        for player in self.objective.players() {
            let losses = self.objective.losses(player, &self.training.encoder, batch)?;
            self.record(&mut report, player.name, &losses, batch)?;
            let grads = losses.total.backward()?;
            if step == 0 {
                let trains = |name: &str| player.trains(name);
                self.optimizer.check_gradients(&grads, player.name, trains)?;
            }
            let trains = |name: &str| player.trains(name);
            let norm = self.optimizer.step(&grads, trains, share, self.stage.clip_norm)?;
            report.add(format!("{}.gradient_norm", player.name), norm);
        }
        Ok(report)
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
            report.add(name, value);
        }
        Ok(())
    }

    fn checkpoint(&self, between_stages: bool) -> Result<Checkpoint> {
        let mut weights = self.training.params.tensors()?;
        let mut optimizer = std::collections::BTreeMap::new();
        if !between_stages {
            for (name, var) in self.objective.vars() {
                weights.insert(name, var.as_tensor().copy()?);
            }
            optimizer = self.optimizer.state()?;
        }
        Ok(Checkpoint { position: self.position.clone(), weights, optimizer })
    }
}

const fn due(step: u64, every: u64) -> bool {
    every > 0 && (step + 1).is_multiple_of(every)
}
