//! What a training step costs, by stage, with the trainer's own code on a run file's first stage.
//!
//! `cargo run --release -p diptych-train --example bench_step -- --data target/emoji-data`
//!
//! First the fit loop itself, with its loader on a thread beside it, for the whole step and for the
//! peak of memory; then each stage alone, on the same data. `scripts/bench-train.sh` runs it beside the
//! same network in PyTorch.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use clap::Parser;
use diptych_train::allocator;
use diptych_train::checkpoint::Position;
use diptych_train::fit::{FitOptions, Report, Training, Watch, fit};
use diptych_train::loader::TextInputs;
use diptych_train::objective;
use diptych_train::optim::AdamW;
use diptych_train::run_file::RunFile;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::json;

/// Times the stages of a training step.
#[derive(Debug, Parser)]
struct Arguments {
    /// The run file.
    #[arg(default_value = "configs/train/emoji-split.toml")]
    run: PathBuf,
    /// A prepared dataset, in place of the run file's.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Steps that are timed, at least 1.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Steps before them.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// Threads to compute on; absent: all cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Leave the C library's allocator as it is.
    #[arg(long)]
    plain_allocator: bool,
    /// Print JSON in place of a table.
    #[arg(long)]
    json: bool,
}

/// Milliseconds of the median step, by stage.
#[derive(Debug, Default, Serialize)]
struct Milliseconds {
    /// Decoding as many pictures as a batch has, from their files.
    decode: f64,
    /// Drawing, augmenting, tokenizing.
    augment: f64,
    /// Laying out as tensors.
    assemble: f64,
    /// Both encoders.
    forward: f64,
    /// The objective, less the encoders.
    loss: f64,
    backward: f64,
    optimizer: f64,
    /// Forward to optimizer, with what is dropped, on a batch that is ready.
    step: f64,
    /// A step of the fit loop, the loader beside it.
    step_of_fit: f64,
}

/// Resident memory, MiB.
#[derive(Debug, Default, Serialize)]
struct Mebibytes {
    /// Data and model open, all pictures decoded.
    opened: f64,
    /// The most, after the fit loop.
    peak: f64,
}

/// Watches the fit loop for a few steps.
#[derive(Debug)]
struct Probe {
    steps: usize,
    /// The end of every step.
    ends: Vec<Instant>,
    decode: Duration,
    opened: f64,
}

impl Watch for Probe {
    fn opened(&mut self, training: &Training) -> diptych_train::Result<()> {
        let corpus = &training.corpus;
        let pictures = 0..corpus.pictures.len();
        // Brings the files into memory, so that the disk is not timed.
        for picture in pictures.clone() {
            corpus.file(picture)?;
        }
        let start = Instant::now();
        pictures.into_par_iter().try_for_each(|picture| corpus.decoded(picture).map(drop))?;
        self.decode = start.elapsed();
        self.opened = resident("VmRSS").unwrap_or_default();
        Ok(())
    }

    fn step(&mut self, _: &Report) -> diptych_train::Result<ControlFlow<()>> {
        self.ends.push(Instant::now());
        Ok(match self.ends.len() < self.steps {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    }

    fn evaluate(&mut self, _: &Training, _: &Position) -> diptych_train::Result<()> {
        Ok(())
    }
}

/// A line of this process's status, in MiB.
fn resident(name: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

/// Times of one stage, step by step.
#[derive(Debug, Default)]
struct Times(Vec<Duration>);

impl Times {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push(start.elapsed());
        result
    }

    /// The median in milliseconds, without the first `warmup`.
    fn median(&self, warmup: usize) -> f64 {
        let mut times: Vec<Duration> = self.0.iter().skip(warmup).copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

/// The fit loop for a few steps: what it trained, the peak of memory, and the times.
fn whole(run: &RunFile, arguments: &Arguments) -> anyhow::Result<(Training, Probe, f64)> {
    let steps = arguments.warmup + arguments.steps;
    let mut probe = Probe { steps, ends: Vec::new(), decode: Duration::ZERO, opened: 0.0 };
    let out = tempfile::tempdir()?;
    let options = FitOptions { out: out.path().join("run"), resume: false, device: Device::Cpu };
    let training = fit(run, &options, &mut probe)?;
    Ok((training, probe, resident("VmHWM").unwrap_or_default()))
}

/// Each stage alone, and how many words and token ids a batch has.
fn stages(
    training: &Training,
    arguments: &Arguments,
) -> anyhow::Result<(Milliseconds, [usize; 2])> {
    let stage = &training.run.stages[0];
    let mut objective = objective::build(&stage.objective)?;
    objective.begin(training.context())?;
    let mut vars = training.params.vars();
    vars.extend(objective.vars());
    let mut optimizer = AdamW::new(&vars, &stage.groups, stage.adam)?;
    let mut loader = training.loader(0)?;
    let [mut augment, mut assemble, mut forward, mut losses] = [const { Times(Vec::new()) }; 4];
    let [mut backward, mut update, mut step] = [const { Times(Vec::new()) }; 3];
    let [mut words, mut ids] = [0; 2];
    for index in 0..(arguments.warmup + arguments.steps) as u64 {
        let slots = augment.time(|| loader.slots(index))?;
        let batch = assemble.time(|| loader.assemble(&slots))?;
        if let TextInputs::Tokens(tokens) = &batch.text_inputs {
            words += tokens.words();
            ids += tokens.ids.len();
        }
        let encoded = forward.time(|| -> anyhow::Result<_> {
            let pictures = batch.picture_inputs.as_ref();
            let pictures = pictures.map(|_| batch.encode_pictures(&training.encoder));
            Ok((pictures.transpose()?, batch.encode_texts(&training.encoder)?))
        })?;
        drop(encoded);
        step.time(|| -> anyhow::Result<()> {
            let share = stage.schedule().share(index);
            for player in objective.players() {
                let loss = losses.time(|| objective.losses(player, &training.encoder, &batch))?;
                let grads = backward.time(|| loss.total.backward())?;
                let trains = |name: &str| player.trains(name);
                update.time(|| optimizer.step(&grads, trains, share, stage.clip_norm))?;
            }
            Ok(())
        })?;
    }
    let steps = arguments.warmup + arguments.steps;
    let median = |times: &Times| times.median(arguments.warmup * (times.0.len() / steps));
    let forward = median(&forward);
    let stages = Milliseconds {
        augment: median(&augment),
        assemble: median(&assemble),
        forward,
        loss: median(&losses) - forward,
        backward: median(&backward),
        optimizer: median(&update),
        step: median(&step),
        ..Milliseconds::default()
    };
    Ok((stages, [words / steps, ids / steps]))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if !arguments.plain_allocator {
        allocator::keep_freed_memory();
    }
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = arguments.threads {
        pool = pool.num_threads(threads);
    }
    pool.build_global()?;
    let mut run = RunFile::read(&arguments.run)?;
    if let Some(data) = &arguments.data {
        run.data.folder.clone_from(data);
    }
    run.cadence.checkpoint_every = 0;
    run.cadence.evaluate_every = 0;
    let (training, probe, peak) = whole(&run, &arguments)?;
    let (mut times, [words, token_ids]) = stages(&training, &arguments)?;
    let plan = run.stages[0].batch;
    let views = if plan.pictures { plan.concepts + plan.second_pictures } else { 0 };
    let texts = plan.concepts * plan.texts_per_concept;
    let decoded = training.corpus.pictures.len();
    let of_fit = probe.ends.windows(2).map(|ends| ends[1] - ends[0]).collect();
    times.step_of_fit = Times(of_fit).median(arguments.warmup.saturating_sub(1));
    times.decode = probe.decode.as_secs_f64() * 1e3 / decoded as f64 * views as f64;
    let memory = Mebibytes { opened: probe.opened, peak };
    let parameters: usize = training.params.vars().values().map(|var| var.elem_count()).sum();
    let threads = rayon::current_num_threads();
    let mut out = std::io::stdout();
    let times = serde_json::to_value(&times)?;
    if arguments.json {
        let figures = json!({
            "threads": threads, "steps": arguments.steps, "parameters": parameters,
            "batch": {
                "pictures": plan.concepts, "second_pictures": plan.second_pictures, "texts": texts,
                "second_texts": plan.second_texts, "words": words,
                "token_ids": token_ids,
            },
            "model": run.model, "objective": run.stages[0].objective,
            "milliseconds": times, "mebibytes": memory,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&figures)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{parameters} parameters; a batch: {views} pictures, {} texts of {token_ids} token ids; \
         {threads} threads",
        texts + plan.second_texts
    )?;
    writeln!(out, "{:12} {:>9} {:>11}", "stage", "ms", "pictures/s")?;
    for (name, value) in times.as_object().into_iter().flatten() {
        let milliseconds = value.as_f64().unwrap_or_default();
        let rate = views as f64 / milliseconds * 1e3;
        writeln!(out, "{name:12} {milliseconds:9.1} {rate:11.0}")?;
    }
    writeln!(out, "memory, MiB: {:.0} opened, {:.0} at most", memory.opened, memory.peak)?;
    Ok(())
}
