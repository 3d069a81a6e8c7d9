//! The trainer's command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use diptych_train::allocator;
use diptych_train::device::{self, DeviceArgs};
use diptych_train::eval::cli::EvalArgs;
use diptych_train::eval::{self, Questions, Subject};
use diptych_train::export;
use diptych_train::fit::{FitOptions, Training, fit};
use diptych_train::heads::{self, HeadsArgs};
use diptych_train::import::{self, ImportArgs};
use diptych_train::inspect;
use diptych_train::prepare::{self, PrepareArgs};
use diptych_train::report::RunLog;
use diptych_train::run_file::RunFile;
use diptych_train::sample::{self, SampleArgs};
use diptych_train::seeds;
use diptych_train::sheet::{self, SheetArgs};

/// Pictures and texts to a bundle: prepare data, train, measure, export.
#[derive(Debug, Parser)]
#[command(name = "diptych-train", version)]
struct Cli {
    /// Threads to compute on; absent: all cores. The result depends on the seed, not on this.
    #[arg(long, global = true)]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn sources into a prepared dataset.
    Prepare(PrepareArgs),
    /// Train a run file to its end.
    Fit(FitArgs),
    /// Measure a run or a bundle.
    Eval(EvalArgs),
    /// Write the bundle of a run.
    Export(ExportArgs),
    /// Write a bundle from weights at hand: a checkpoint, or a bundle with other heads.
    Import(ImportArgs),
    /// Train shared and exclusive heads on top of a checkpoint, and write the bundle.
    Heads(HeadsArgs),
    /// Say what a bundle holds, and whether it is whole.
    Inspect(InspectArgs),
    /// Show what a run makes: a contact sheet and a page. Without --run: pack the pictures and names that
    /// the server carries.
    Sample(SampleCommand),
}

#[derive(Debug, Args)]
struct FitArgs {
    /// The run file.
    run: PathBuf,
    /// A prepared dataset, in place of the run file's.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where checkpoints and the log go.
    #[arg(long)]
    out: PathBuf,
    /// Continue from the newest checkpoint in that folder, if there is one.
    #[arg(long)]
    resume: bool,
    /// Train so many times, with seeds that rise by one, in folders `seed-1`, `seed-2` and so on.
    #[arg(long)]
    seeds: Option<u64>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The folder of a run: its newest checkpoint is exported.
    #[arg(long)]
    run: PathBuf,
    /// A prepared dataset, in place of the run file's.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The bundle's folder.
    #[arg(long)]
    to: PathBuf,
    /// Export also what gives away more than the run file's limits allow.
    #[arg(long)]
    allow_leaks: bool,
}

#[derive(Debug, Args)]
struct SampleCommand {
    /// The folder of a run with decoders, whose newest checkpoint is shown.
    #[arg(long)]
    run: Option<PathBuf>,
    /// A prepared dataset: to pack, or in place of the run file's.
    #[arg(long, value_name = "DIR", required_unless_present = "run")]
    data: Option<PathBuf>,
    /// The folder of the sheet and the page, or the pack, as in server/sample/emoji.tar.gz.
    #[arg(long)]
    out: PathBuf,
    /// Of a sheet: the concepts shown.
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// Of a sheet: draws of the exclusive code for each concept.
    #[arg(long, default_value_t = 6)]
    draws: usize,
    /// Of a sheet: decides which concepts, and the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Of a pack: the side of the pictures in pixels.
    #[arg(long, value_name = "PX", default_value_t = 48, value_parser = clap::value_parser!(u32).range(8..=512))]
    size: u32,
    /// Of a pack: the most colours that a picture keeps.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=256))]
    colors: u16,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The bundle's folder.
    bundle: PathBuf,
    /// Print JSON in place of lines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if standard error is closed.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    let mut out = std::io::stdout();
    match cli.command {
        Command::Prepare(args) => writeln!(out, "{}", prepare::run(&args)?)?,
        Command::Sample(args) => run_sample(args)?,
        Command::Fit(args) => run_fit(args)?,
        Command::Eval(args) => eval::cli::run(&args, &mut out)?,
        Command::Export(args) => run_export(&args)?,
        Command::Import(args) => writeln!(out, "{}", import::run(&args)?)?,
        Command::Heads(args) => writeln!(out, "{}", heads::run(&args)?)?,
        Command::Inspect(args) => run_inspect(&args)?,
    }
    Ok(())
}

fn run_fit(args: FitArgs) -> anyhow::Result<()> {
    let mut run = RunFile::read(&args.run)?;
    if let Some(data) = args.data {
        run.data.folder = data;
    }
    let device = device::open(&args.device.device)?;
    let options = FitOptions { out: args.out, resume: args.resume, device };
    if let Some(count) = args.seeds {
        return Ok(seeds::fit_all(&run, &options, count)?);
    }
    let mut log = RunLog::open(&options.out)?;
    fit(&run, &options, &mut log)?;
    Ok(())
}

fn run_export(args: &ExportArgs) -> anyhow::Result<()> {
    let training = Training::of_checkpoint(&args.run, args.data.as_deref(), &device::open("cpu")?)?;
    let questions = Questions::all(&training.withheld);
    let tables = eval::evaluate(&Subject::of_training(&training), &questions)?;
    if !args.allow_leaks {
        export::check_leaks(&training.run.export.limits, &tables)?;
    }
    let report = export::export(&training, &tables, &args.to)?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

fn run_sample(args: SampleCommand) -> anyhow::Result<()> {
    let SampleCommand { run, data, out, rows, draws, seed, size, colors } = args;
    let mut stdout = std::io::stdout();
    match (run, data) {
        (Some(run), data) => {
            let args = SheetArgs { run, data, out, rows, draws, seed };
            writeln!(stdout, "{}", sheet::run(&args)?)?;
        }
        (None, Some(data)) => {
            let args = SampleArgs { data, out, size, colors };
            writeln!(stdout, "{}", sample::run(&args)?)?;
        }
        (None, None) => anyhow::bail!("give --run or --data"),
    }
    Ok(())
}

fn run_inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let inspection = inspect::inspect(&args.bundle)?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&inspection)?)?;
    } else {
        writeln!(out, "{inspection}")?;
    }
    if let inspect::Golden::Failed(why) = inspection.golden {
        anyhow::bail!("the bundle would not be served: {why}");
    }
    Ok(())
}
