//! What training aims at. An objective knows losses; the fit loop knows none.
//!
//! To add one: a file here, a `mod` line, a row in [`OBJECTIVES`].

mod affine;
mod centroid;
mod contrast;
pub mod decoders;
mod dssl;
mod exclusive_label;
mod hybrid;
mod iiae;
pub mod losses;
pub(crate) mod noise;
mod split;
#[cfg(test)]
mod tests;
pub(crate) mod vocabulary;

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{Tensor, Var};
use diptych_model::{DualEncoder, HeadsConfig};
use serde::de::DeserializeOwned;

use decoders::Decoders;

use crate::corpus::{Corpus, Withheld};
use crate::error::{Error, Result};
use crate::loader::{Batch, BatchPlan};

/// A loss, and the variables that it trains. Adversaries are two players with opposed losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Player {
    /// A word for logs and messages.
    pub name: &'static str,
    /// Beginnings of the names of the variables it trains, as far as the stage's groups do too.
    pub prefixes: &'static [&'static str],
}

impl Player {
    /// Whether this player's loss moves the variable.
    #[must_use]
    pub fn trains(&self, variable: &str) -> bool {
        self.prefixes.iter().any(|prefix| variable.starts_with(prefix))
    }
}

/// What one player minimises on one batch.
#[derive(Debug)]
pub struct Losses {
    /// The scalar to differentiate.
    pub total: Tensor,
    /// Scalars it is made of, unweighted, for the log.
    pub terms: Vec<(&'static str, Tensor)>,
}

/// What an objective may read before its stage begins.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The model as the stage finds it.
    pub encoder: &'a DualEncoder,
    /// Dimensions of the vectors.
    pub heads: &'a HeadsConfig,
    /// All data of the run.
    pub corpus: &'a Corpus,
    /// What training may not read of it.
    pub withheld: &'a Withheld,
    /// Side of the tower's input, in pixels.
    pub image_size: usize,
    /// Seed of the run, for variables of the objective's own.
    pub seed: u64,
}

impl Context<'_> {
    /// Dimensions of what becomes the exclusive vectors of pictures, and of texts or what stands in their
    /// place.
    fn side_codes(&self) -> [usize; 2] {
        let [image, text] = self.heads.exclusive_codes();
        if self.corpus.pairs_pictures() { [image, image] } else { [image, text] }
    }

    /// Widths of the towers' last features, of pictures and of texts or what stands in their place.
    fn side_features(&self) -> [usize; 2] {
        let widths = self.encoder.feature_widths();
        let second = if self.corpus.pairs_pictures() { widths.counterpart } else { widths.text };
        [widths.image_last, second]
    }
}

/// An aim of training: turns a batch into losses.
pub trait Objective: Debug {
    /// Checks that a stage's batches hold what the losses need.
    ///
    /// # Errors
    /// [`Error::Setting`] naming the count that is missing, relative to the batch table.
    fn check(&self, plan: &BatchPlan) -> Result<()>;

    /// Who plays, in the order of their turns within a step; at least one.
    fn players(&self) -> &'static [Player];

    /// Variables of networks that only the objective has, by name, from [`Objective::begin`] on. They
    /// are optimized, saved and restored like the model's. Their names begin with [`OWN_PREFIX`].
    fn vars(&self) -> BTreeMap<String, Var> {
        BTreeMap::new()
    }

    /// Called once when the stage begins, and again on resume: what it derives must depend only on
    /// variables that the stage does not train.
    ///
    /// # Errors
    /// If the model and the data do not go together.
    fn begin(&mut self, context: Context<'_>) -> Result<()>;

    /// The way back from codes, of an objective that has one, from [`Objective::begin`] on.
    fn decoders(&self) -> Option<&Decoders> {
        None
    }

    /// The losses of one player's turn, on variables as the turns before left them.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn losses(&mut self, player: &Player, encoder: &DualEncoder, batch: &Batch) -> Result<Losses>;
}

/// A row of the table of objectives.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// `kind` in a run file.
    pub name: &'static str,
    /// The smallest valid settings, without `kind`.
    pub example: &'static str,
    /// Builds it from its settings, without `kind`.
    pub build: fn(toml::Table) -> Result<Box<dyn Objective>>,
}

/// The key of an objective's decoders among its settings.
pub(crate) const DECODER: &str = "decoder";

/// The beginning of the names of variables that only an objective has.
pub const OWN_PREFIX: &str = "objective.";

/// All objectives, by name.
pub const OBJECTIVES: [Entry; 5] =
    [centroid::ENTRY, dssl::ENTRY, hybrid::ENTRY, iiae::ENTRY, split::ENTRY];

/// Builds the objective of a run file's `objective` table.
///
/// # Errors
/// [`Error::Setting`] for an unknown `kind` (listing the known ones), key or value.
pub fn build(settings: &toml::Table) -> Result<Box<dyn Objective>> {
    let mut settings = settings.clone();
    let known = || OBJECTIVES.map(|entry| entry.name).join(", ");
    let Some(toml::Value::String(kind)) = settings.remove("kind") else {
        return Err(Error::setting("objective.kind", format!("missing; known: {}", known())));
    };
    let entry = OBJECTIVES.iter().find(|entry| entry.name == kind).ok_or_else(|| {
        let message = format!("unknown objective `{kind}`; known: {}", known());
        Error::setting("objective.kind", message)
    })?;
    (entry.build)(settings)
}

/// Settings of one objective from its table.
fn parse<S: DeserializeOwned>(table: toml::Table) -> Result<S> {
    let parsed = toml::Value::Table(table).try_into();
    parsed.map_err(|error: toml::de::Error| Error::setting("objective", error.message()))
}

/// Refuses a negative or infinite weight.
fn check_weight(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::setting(format!("objective.{name}"), format!("{value} is not finite and >= 0")))
}

fn check_positive(name: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::setting(format!("objective.{name}"), format!("{value} is not finite and above 0")))
}

/// The logit scale as a factor, at most 100 (Radford et al., 2021, section 2.5).
fn bounded_scale(encoder: &DualEncoder) -> Result<Tensor> {
    const LARGEST: f64 = 4.605_170_185_988_092; // ln 100
    Ok(encoder.logit_scale().minimum(LARGEST)?.exp()?)
}
