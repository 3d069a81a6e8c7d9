//! What the fit loop tells, and who listens.

use std::ops::ControlFlow;

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
    /// Share of the peak learning rates.
    pub rate_share: f64,
    /// Loss terms and gradient norms as `player.name`, in order.
    pub values: Vec<(String, f64)>,
}

impl Report {
    pub(super) fn new(stage: &str, step: u64, steps: u64, rate_share: f64) -> Self {
        let (global_step, samples, values) = (0, 0, Vec::new());
        Self { stage: stage.to_owned(), step, steps, global_step, samples, rate_share, values }
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
