//! A run on the terminal and in a log file of JSON lines.

mod tensorboard;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::checkpoint::Position;
use crate::error::{Error, Result};
use crate::eval;
use crate::fit::{Report, Training, Watch};
use tensorboard::Events;

/// Steps between two lines where there is no terminal to draw a bar on.
const QUIET_STEPS: u64 = 20;

/// Shows a run as a progress bar (or a line now and then), appends it to `log.jsonl`, and writes it for
/// TensorBoard.
#[derive(Debug)]
pub struct RunLog {
    path: PathBuf,
    file: File,
    events: Events,
    bar: Option<ProgressBar>,
    started: Instant,
    steps_total: u64,
    steps_seen: u64,
}

impl RunLog {
    /// Appends to `log.jsonl` in the run's folder and begins an event file in its `tensorboard`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(out: &Path) -> Result<Self> {
        crate::checkpoint::create_folder(out)?;
        let path = out.join("log.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|source| Error::io(&path, source))?;
        let folder = out.join("tensorboard");
        crate::checkpoint::create_folder(&folder)?;
        let events = Events::create(&folder)?;
        let started = Instant::now();
        Ok(Self { path, file, events, bar: None, started, steps_total: 0, steps_seen: 0 })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn log(&mut self, line: &Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(|source| Error::io(&self.path, source))
    }

    /// A line for people, above the bar where there is one.
    ///
    /// # Errors
    /// If standard error is closed.
    pub(crate) fn say(&self, line: &str) -> Result<()> {
        match &self.bar {
            Some(bar) if !bar.is_hidden() => bar.println(line),
            _ => {
                let written = writeln!(std::io::stderr(), "{line}");
                written.map_err(|error| Error::io("standard error", error))?;
            }
        }
        Ok(())
    }
}

impl Watch for RunLog {
    fn opened(&mut self, training: &Training) -> Result<()> {
        let corpus = &training.corpus;
        self.steps_total = training.run.stages.iter().map(|stage| stage.steps).sum();
        let parameters: usize = training.params.vars().values().map(|var| var.elem_count()).sum();
        self.log(&json!({
            "event": "opened", "run": training.run.name, "concepts": corpus.concepts.len(),
            "pictures": corpus.pictures.len(), "skipped": corpus.skipped.len(),
            "withheld": training.withheld.len(), "parameters": parameters,
            "threads": rayon::current_num_threads(),
        }))?;
        self.say(&format!(
            "{}: {} concepts, {} pictures, {parameters} parameters, {} rows skipped",
            training.run.name,
            corpus.concepts.len(),
            corpus.pictures.len(),
            corpus.skipped.len(),
        ))?;
        let bar =
            ProgressBar::with_draw_target(Some(self.steps_total), ProgressDrawTarget::stderr());
        let template =
            "{bar:30} {pos}/{len} steps, {msg}, {elapsed_precise} gone, {eta_precise} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.bar = Some(bar);
        self.started = Instant::now();
        Ok(())
    }

    fn step(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        self.steps_seen += 1;
        let elapsed = self.started.elapsed().as_secs_f64();
        let per_step = elapsed / self.steps_seen as f64;
        let values: serde_json::Map<String, Value> =
            report.values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        self.log(&json!({
            "event": "step", "stage": report.stage, "step": report.step,
            "rate_share": report.rate_share, "elapsed_seconds": elapsed, "values": values,
            "seconds": report.seconds,
        }))?;
        let scalars = report.values.iter().map(|(name, value)| (name.as_str(), *value));
        let rate = std::iter::once(("rate_share", report.rate_share));
        self.events.scalars(report.global_step, scalars.chain(rate))?;
        let total = report.values.iter().find(|(name, _)| name.ends_with(".total"));
        let loss = total.map_or(f64::NAN, |(_, value)| *value);
        let speed = report.samples as f64 / per_step;
        let message = format!("{} loss {loss:.3}, {speed:.0} texts/s", report.stage);
        if let Some(bar) = &self.bar {
            bar.set_message(message.clone());
            bar.set_position(report.global_step + 1);
            if bar.is_hidden() && report.step.is_multiple_of(QUIET_STEPS) {
                let left =
                    (self.steps_total.saturating_sub(report.global_step + 1)) as f64 * per_step;
                let line = format!(
                    "step {}/{}: {message}, {per_step:.2} s a step, {left:.0} s left",
                    report.global_step + 1,
                    self.steps_total,
                );
                self.say(&line)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn evaluate(&mut self, training: &Training, position: &Position) -> Result<()> {
        let subject = eval::Subject::of_training(training);
        let tables = eval::evaluate(&subject, &eval::Questions::quick(&training.withheld))?;
        let line = json!({ "event": "evaluated", "position": position, "tables": tables });
        self.log(&line)?;
        let recall = tables.text_to_picture.iter();
        let scalars: Vec<(String, f64)> = recall
            .map(|(language, recall)| (format!("recall_at_5.{language}"), recall.at_5))
            .collect();
        let scalars = scalars.iter().map(|(name, value)| (name.as_str(), *value));
        self.events.scalars(position.global_step, scalars)?;
        self.say(&format!("step {}: {}", position.global_step, tables.summary()))
    }
}
