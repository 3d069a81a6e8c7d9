//! `heads`: shared and exclusive vectors on top of a checkpoint whose towers do not change.
//!
//! Towers run once for each picture and text; their features lie on disk. The shared heads begin as the
//! checkpoint's own way to shared vectors, so that step 0 retrieves as it does, and are trained on the pairs at
//! hand. What comes out takes the place of the checkpoint's own vectors only if it is better on the dev split
//! (`choose`). The exclusive heads are trained then, on the shared vectors as they will be served.
//!
//! - `settings`: how heads are trained
//! - `backbone`: the checkpoint, or two of one modality each
//! - `cache`, `inputs`: features on disk, and what they are of
//! - `train`: the steps
//! - `choose`: what counts as better
//! - `bundle`: what is written

mod backbone;
mod bundle;
mod cache;
mod choose;
mod inputs;
mod settings;
#[cfg(test)]
mod tests;
mod train;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use diptych_model::bundle::WeightType;
use serde::Serialize;
use serde_json::json;

use self::backbone::Backbone;
pub use self::choose::Comparison;
use self::choose::Standing;
use self::inputs::Inputs;
pub use self::settings::HeadsSettings;
use self::train::{Heads, Weights, between, round};
use crate::corpus::{Corpus, PictureMemory, Withheld};
use crate::error::{Error, Result};
use crate::eval::encoded::{self, Scope};
use crate::eval::retrieval::Directions;
use crate::eval::{self, Questions, Subject, Tables};
use crate::export::ExportReport;
use crate::fit::centre;
use crate::preprocessing::Preprocessing;
use crate::report::RunLog;
use crate::shards::Split;

/// MiB of picture files in memory: they are read once, in order.
const PICTURES_MIB: u32 = 64;
/// Rows that the start of heads without one of their own is centred by.
const CENTRED_BY: usize = 4096;
/// The logit scale of such heads: low, so that they first learn to tell things apart.
const FRESH_SCALE: f64 = 5.0;
/// How far from the checkpoint's own weights to the trained ones, for each candidate.
const SHARES: [f64; 4] = [1.0, 0.75, 0.5, 0.25];

/// Arguments of `heads`.
#[derive(Debug, Args)]
pub struct HeadsArgs {
    /// The checkpoint to stand on: a folder in Hugging Face layout, or a bundle.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// A second checkpoint for texts, where the first is to see pictures alone. Shared vectors are then
    /// trained from nothing.
    #[arg(long, value_name = "DIR")]
    pub text_checkpoint: Option<PathBuf>,
    /// The prepared dataset to train on, with a dev split.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// How to train; absent: as configs/heads.toml says, or configs/heads-two-towers.toml.
    #[arg(long, value_name = "FILE.toml")]
    pub settings: Option<PathBuf>,
    /// Where the log goes.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where features are kept; absent: `features` in the folder of the log.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// The bundle's name; absent: that of the checkpoint, and `-heads`.
    #[arg(long)]
    pub name: Option<String>,
    /// The bundle's folder.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// What became of the shared vectors.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The trained heads make them.
    Taken {
        /// The step after which they were measured.
        step: u64,
        /// How far from the checkpoint's own weights to those of that step, above 0 to 1.
        share: f64,
        /// Beside the checkpoint's own, where it has some.
        comparison: Option<Comparison>,
    },
    /// They are the checkpoint's own: nothing that was trained is better on dev.
    Kept {
        /// The best of what was trained.
        comparison: Comparison,
    },
}

/// What `heads` did.
#[derive(Debug)]
pub struct HeadsReport {
    /// What became of the shared vectors.
    pub outcome: Outcome,
    /// Inputs that the towers ran for; the others' features were there.
    pub computed: usize,
    /// Retrieval on the dev split by the checkpoint's own vectors, where it has some.
    pub own_on_dev: Option<Directions>,
    /// Retrieval on the dev split by the bundle's.
    pub on_dev: Directions,
    /// The same on the split that is reported on, with its name.
    pub own_on_report: Option<Directions>,
    /// All figures of the bundle.
    pub tables: Tables,
    /// What was written.
    pub bundle: ExportReport,
}

/// Trains heads and writes the bundle.
///
/// # Errors
/// If a checkpoint, the data or a setting cannot be used, a loss is not finite, or the disk refuses.
pub fn run(args: &HeadsArgs) -> Result<HeadsReport> {
    let settings = HeadsSettings::read(args.settings.as_deref(), args.text_checkpoint.is_some())?;
    let backbone = Backbone::open(&args.checkpoint, args.text_checkpoint.as_deref())?;
    let preprocessing = Arc::new(backbone.preprocessing()?);
    let memory = PictureMemory { encoded_mib: PICTURES_MIB, decoded_mib: 0 };
    let corpus = Corpus::open(&args.data, &preprocessing, memory)?;
    if !corpus.has(Split::Dev) {
        let message = "has no dev split to choose by; prepare it with one (`--dev 0.1`)";
        return Err(Error::setting("--data", message));
    }
    let mut log = RunLog::open(&args.out)?;
    let cache = args.cache.clone().unwrap_or_else(|| args.out.join("features"));
    let inputs =
        Inputs::open(&backbone, (&corpus, &preprocessing), &cache, &mut |line| log.say(line))?;
    log.log(&json!({"event": "features", "computed": inputs.computed()}))?;
    let draws = (settings.seed, settings.feature_dropout);
    let heads = Heads::new(backbone.heads(&settings), &inputs, &corpus, draws)?;
    begin(&heads, &backbone)?;
    let own = backbone.has_shared().then(|| heads.shared()).transpose()?;
    let own_on_dev = own.is_some().then(|| heads.on_dev()).transpose()?;
    let own_on_report = own.is_some().then(|| on_report(&heads)).transpose()?;

    let trained = train_shared(&heads, &settings, &mut log)?;
    let halves = backbone.weight_type() == WeightType::F16;
    let beside = own.as_ref().zip(own_on_dev.as_ref());
    let outcome = choose(&heads, &trained, beside, halves)?;
    log.log(&json!({"event": "chosen", "outcome": outcome}))?;

    let every = settings.evaluate_every;
    heads.train(&settings.exclusive_stage, every, &mut log, |_, _, _| Ok(false))?;
    if halves {
        heads.params.vars().values().try_for_each(round)?;
    }
    let on_dev = heads.on_dev()?.directions;
    let tables = tables(&heads, &preprocessing)?;
    let written = bundle::Parts {
        backbone: &backbone,
        heads: &heads,
        settings: &settings,
        preprocessing: &preprocessing,
        outcome: &outcome,
        tables: &tables,
    };
    let bundle = written.write(args)?;
    let report = HeadsReport {
        outcome,
        computed: inputs.computed(),
        own_on_dev: own_on_dev.map(|standing| standing.directions),
        on_dev,
        own_on_report,
        tables,
        bundle,
    };
    log.log(&json!({
        "event": "written", "own_on_dev": report.own_on_dev, "on_dev": report.on_dev,
        "own_on_report": report.own_on_report, "tables": report.tables,
    }))?;
    Ok(report)
}

/// Sets fresh heads to where they begin.
fn begin(heads: &Heads<'_>, backbone: &Backbone) -> Result<()> {
    if backbone.has_shared() {
        return backbone.begin(&heads.params);
    }
    let vars = heads.params.vars();
    let var = |name: &str| {
        vars.get(name).ok_or_else(|| Error::setting("heads", format!("there is no `{name}`")))
    };
    let (pictures, texts) = heads.some_features(CENTRED_BY)?;
    centre(&pictures, var("image.shared.weight")?, var("image.shared.bias")?)?;
    centre(&texts, var("text.shared.weight")?, var("text.shared.bias")?)?;
    let scale = var("logit_scale")?;
    scale.set(&(scale.as_tensor().zeros_like()? + FRESH_SCALE.ln())?)?;
    Ok(())
}

/// The best weights on dev of those that were looked at in training.
struct Trained {
    step: u64,
    rsum: f64,
    weights: Weights,
}

fn train_shared(heads: &Heads<'_>, settings: &HeadsSettings, log: &mut RunLog) -> Result<Trained> {
    let stage = &settings.shared_stage;
    let mut best: Option<Trained> = None;
    let mut waited = 0;
    heads.train(stage, settings.evaluate_every, log, |heads, step, log| {
        let Directions { rsum, text_to_picture, picture_to_text } = heads.on_dev()?.directions;
        log.log(&json!({
            "event": "evaluated", "stage": stage.name, "step": step, "rsum": rsum,
            "text_to_picture": text_to_picture, "picture_to_text": picture_to_text,
        }))?;
        log.say(&format!("{} step {step}: rsum {rsum:.1} on dev", stage.name))?;
        let delta = stage.early_stop.map_or(0.0, |rule| rule.min_delta);
        if best.as_ref().is_none_or(|best| rsum > best.rsum + delta) {
            best = Some(Trained { step, rsum, weights: heads.shared()? });
            waited = 0;
        } else {
            waited += 1;
        }
        Ok(stage.early_stop.is_some_and(|rule| waited >= rule.patience))
    })?;
    best.ok_or_else(|| Error::setting("shared_stage.steps", "must be at least 1"))
}

/// Leaves the shared heads that will be served in place: the best on dev of what was trained and of what lies
/// between it and the checkpoint's own, if it is a gain; else the checkpoint's own.
fn choose(
    heads: &Heads<'_>,
    trained: &Trained,
    own: Option<(&Weights, &Standing)>,
    halves: bool,
) -> Result<Outcome> {
    let step = trained.step;
    let Some((own, own_standing)) = own else {
        heads.set(&trained.weights)?;
        return Ok(Outcome::Taken { step, share: 1.0, comparison: None });
    };
    let mut best: Option<(f64, f64, Comparison)> = None;
    let mut least: Option<Comparison> = None;
    for share in SHARES {
        put(heads, &between(own, &trained.weights, share)?, halves)?;
        let standing = heads.on_dev()?;
        let comparison = standing.beside(own_standing);
        let rsum = standing.directions.rsum;
        if comparison.is_gain() && best.as_ref().is_none_or(|(most, ..)| rsum > *most) {
            best = Some((rsum, share, comparison));
        }
        least.get_or_insert(comparison);
    }
    match (best, least) {
        (Some((_, share, comparison)), _) => {
            put(heads, &between(own, &trained.weights, share)?, halves)?;
            Ok(Outcome::Taken { step, share, comparison: Some(comparison) })
        }
        (None, Some(comparison)) => {
            heads.set(own)?;
            Ok(Outcome::Kept { comparison })
        }
        (None, None) => Err(Error::setting("heads", "there was nothing to choose from")),
    }
}

/// Sets shared heads as they will be stored, so that what is measured is what is served.
fn put(heads: &Heads<'_>, weights: &Weights, halves: bool) -> Result<()> {
    heads.set(weights)?;
    if halves {
        let vars = heads.params.vars();
        vars.iter()
            .filter(|(name, _)| weights.contains_key(*name))
            .try_for_each(|(_, v)| round(v))?;
    }
    Ok(())
}

/// Retrieval on the split that is reported on.
fn on_report(heads: &Heads<'_>) -> Result<Directions> {
    let split = Scope::Report.split(heads.corpus);
    let wanted = encoded::in_scope(heads.corpus, split);
    let encoded = heads.inputs.encoded(&heads.model, heads.corpus, &wanted)?;
    Ok(Standing::of(&encoded)?.directions)
}

/// All figures that `export` has too.
fn tables(heads: &Heads<'_>, preprocessing: &Preprocessing) -> Result<Tables> {
    let subject = Subject {
        encoder: &heads.model,
        preprocessing,
        corpus: heads.corpus,
        image_size: preprocessing.image.size as usize,
    };
    let questions = Questions::all(&Withheld::new());
    let mut wanted = encoded::in_scope(heads.corpus, questions.scope.split(heads.corpus));
    encoded::add_some_of_each_split(heads.corpus, &mut wanted, eval::SEED);
    let encoded = heads.inputs.encoded(&heads.model, heads.corpus, &wanted)?;
    eval::of_encoded(&subject, &questions, &encoded)
}

impl fmt::Display for HeadsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = |comparison: &Comparison| {
            let Comparison { lower, better, worse } = comparison;
            let recall = if *lower { ", and recall lower in a direction" } else { "" };
            format!("{better} concepts of dev are found better, {worse} worse{recall}")
        };
        match &self.outcome {
            Outcome::Taken { step, share, comparison: Some(comparison) } => writeln!(
                f,
                "shared vectors: new ones, {share} of the way to step {step}: {}",
                beside(comparison)
            )?,
            Outcome::Taken { step, .. } => {
                writeln!(f, "shared vectors: new ones, of step {step}")?;
            }
            Outcome::Kept { comparison } => writeln!(
                f,
                "shared vectors: kept, they are the checkpoint's own. Training found nothing better: {}",
                beside(comparison)
            )?,
        }
        let mut row = |split: &str, whose: &str, found: &Directions| {
            let Directions { text_to_picture: there, picture_to_text: back, rsum } = found;
            writeln!(
                f,
                "{split:<5} {whose:<10} text to picture R@1 {:.3} R@10 {:.3}, picture to text R@1 \
                 {:.3} R@10 {:.3}, rsum {rsum:.1}",
                there.at_1, there.at_10, back.at_1, back.at_10,
            )
        };
        if let Some(own) = &self.own_on_dev {
            row("dev", "checkpoint", own)?;
        }
        row("dev", "bundle", &self.on_dev)?;
        let split = &self.tables.split;
        if let Some(own) = &self.own_on_report {
            row(split, "checkpoint", own)?;
        }
        if let Some(found) = &self.tables.retrieval {
            row(split, "bundle", &found.all)?;
        }
        write!(f, "{}", self.bundle)
    }
}
