//! `diptych-train eval`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::seeds::{self, Run, Seeds};
use super::{Encoded, Opened, Phrase, Questions, Scope, Tables, html, swaps};
use crate::device::{self, DeviceArgs};
use crate::error::{Error, Result};
use crate::phrase_check;
use crate::shards::{Dataset, Split};

/// What to measure, and how to show it.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A prepared dataset, in place of the run file's.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Whose pictures and names to ask about; absent: test, or all where the dataset has no test split.
    #[arg(long)]
    split: Option<SplitArg>,
    /// Ask for withheld names only, which training never saw.
    #[arg(long)]
    held_out: bool,
    /// Leave out probes, retrieval by exclusive vectors, swaps and calibration.
    #[arg(long)]
    quick: bool,
    /// JSON lines of phrases: {"phrase": "...", "accept": ["GROUP", ...]}.
    #[arg(long)]
    phrases: Option<PathBuf>,
    /// Pictures in a style that training never saw: a prepared dataset, or files named by group.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Print JSON in place of tables.
    #[arg(long)]
    json: bool,
    /// Write a page with plots and pictures to this file, too.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ModelArgs {
    /// The folder of a run: its newest checkpoint. Or a folder of runs seed-1, seed-2 and so on: each,
    /// with mean and standard deviation.
    #[arg(long)]
    run: Option<PathBuf>,
    /// The folder of a bundle.
    #[arg(long)]
    bundle: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitArg {
    Train,
    Dev,
    Test,
    All,
}

/// Measures what the arguments say, and writes it to `out`.
///
/// # Errors
/// If a model or data cannot be read, or `out` not be written.
pub fn run(args: &EvalArgs, out: &mut impl Write) -> Result<()> {
    if let Some(folder) = args.model.run.as_deref().filter(|run| !run.join("run.toml").exists()) {
        let runs = seeds::find(folder)?;
        if !runs.is_empty() {
            return several(args, &runs, out);
        }
    }
    let (data, device) = (args.data.as_deref(), device::open(&args.device.device)?);
    let opened = match (&args.model.run, &args.model.bundle) {
        (Some(run), _) => Opened::run(run, data, &device)?,
        (None, Some(bundle)) => Opened::bundle(bundle, data, &device)?,
        (None, None) => return Err(Error::setting("run", "give --run or --bundle")),
    };
    let (tables, encoded) = measure(args, &opened)?;
    if let Some(file) = &args.report {
        let page = html::page(&opened.subject(), &tables, &encoded)?;
        std::fs::write(file, page).map_err(|source| Error::io(file, source))?;
    }
    print(args, &tables, out)
}

fn several(args: &EvalArgs, folders: &[PathBuf], out: &mut impl Write) -> Result<()> {
    if args.report.is_some() {
        let message =
            "a page is of one run: give --run one of the folders seed-1, seed-2 and so on";
        return Err(Error::setting("report", message));
    }
    let mut runs = Vec::new();
    let device = device::open(&args.device.device)?;
    for folder in folders {
        let opened = Opened::run(folder, args.data.as_deref(), &device)?;
        let (tables, _) = measure(args, &opened)?;
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        runs.push(Run { run: name.unwrap_or_default(), tables });
    }
    print(args, &Seeds::of(runs), out)
}

fn measure(args: &EvalArgs, opened: &Opened) -> Result<(Tables, Encoded)> {
    let in_full = !args.held_out;
    let more = in_full && !args.quick;
    let questions = Questions {
        scope: args.split.map_or(Scope::Report, SplitArg::scope),
        withheld: opened.withheld.clone(),
        phrases: args
            .phrases
            .as_deref()
            .map(|file| phrases(file, opened))
            .transpose()?
            .unwrap_or_default(),
        unseen_style: args.images.clone(),
        in_full,
        leaks: more,
        calibration: more,
    };
    let (mut tables, encoded) = super::examine(&opened.subject(), &questions)?;
    if let Some(generator) = opened.generator()?.filter(|_| more) {
        tables.swaps = swaps::evaluate(&generator, questions.scope.split(opened.subject().corpus))?;
    }
    if args.held_out && tables.withheld_names.is_none() {
        return Err(Error::setting("data.hold_out", "the run file withholds no names"));
    }
    Ok((tables, encoded))
}

/// Phrases that measure something on the data at hand.
fn phrases(file: &Path, opened: &Opened) -> Result<Vec<Phrase>> {
    let phrases = super::phrases::read(file)?;
    phrase_check::check(&phrases, &Dataset::open(&opened.data)?)?;
    Ok(phrases)
}

fn print<T: serde::Serialize + std::fmt::Display>(
    args: &EvalArgs,
    found: &T,
    out: &mut impl Write,
) -> Result<()> {
    let text = if args.json {
        let json = serde_json::to_string_pretty(found);
        json.map_err(|error| Error::setting("json", error.to_string()))? + "\n"
    } else {
        found.to_string()
    };
    out.write_all(text.as_bytes()).map_err(|error| Error::io("standard output", error))
}

impl SplitArg {
    const fn scope(self) -> Scope {
        match self {
            Self::Train => Scope::Only(Split::Train),
            Self::Dev => Scope::Only(Split::Dev),
            Self::Test => Scope::Only(Split::Test),
            Self::All => Scope::All,
        }
    }
}
