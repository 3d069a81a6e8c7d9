//! What the fit loop tells, and who listens.

use std::ops::ControlFlow;

use serde::Serialize;

use super::Training;
use crate::checkpoint::Position;
use crate::error::Result;

/// What happened in one step.
#[derive(Debug, Clone)]
pub struct Report {
    /// The stage's name.
    pub stage: String,
    /// The step within the stage, from 0.
    pub step: u64,
    /// Steps of the stage.
    pub steps: u64,
    /// The step within the run, from 0.
    pub global_step: u64,
    /// Texts in the batch.
    pub samples: usize,
    /// Pictures in the batch, second views not counted.
    pub pictures: usize,
    /// Where the step's time went.
    pub seconds: Seconds,
    /// Share of the peak learning rates.
    pub rate_share: f64,
    /// Loss terms and gradient norms as `player.name`, in order.
    pub values: Vec<(String, f64)>,
}

/// Where a step's time went, in seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// For batches that were not ready.
    pub waiting: f64,
    /// Encoding and losses.
    pub forward: f64,
    /// Gradients.
    pub backward: f64,
    /// Clipping and updates.
    pub optimizer: f64,
}

impl Report {
    pub(super) fn new(stage: &str, step: u64, steps: u64, rate_share: f64) -> Self {
        Self {
            stage: stage.to_owned(),
            step,
            steps,
            global_step: 0,
            samples: 0,
            pictures: 0,
            seconds: Seconds::default(),
            rate_share,
            values: Vec::new(),
        }
    }

    /// Adds one of `count` values whose mean is reported.
    pub(super) fn add_mean(&mut self, name: String, value: f64, count: u64) {
        let share = value / count as f64;
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += share,
            None => self.values.push((name, share)),
        }
    }

    pub(super) fn add(&mut self, name: String, value: f64) {
        self.values.push((name, value));
    }
}

/// Hears of a run as it goes.
pub trait Watch {
    /// Data and model are open; the first step comes next.
    ///
    /// # Errors
    /// Stops the run.
    fn opened(&mut self, training: &Training) -> Result<()>;

    /// A step is done. `Break` ends the run after a checkpoint.
    ///
    /// # Errors
    /// Stops the run without one.
    fn step(&mut self, report: &Report) -> Result<ControlFlow<()>>;

    /// The run file's cadence asks for an evaluation of the model as it is.
    ///
    /// # Errors
    /// Stops the run.
    fn evaluate(&mut self, training: &Training, position: &Position) -> Result<()>;
}
