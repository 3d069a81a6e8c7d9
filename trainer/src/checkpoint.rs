//! Checkpoints: all that a resumed run needs to go on as if it had never stopped.
//!
//! ```text
//! OUT/run.toml                             the run file, as read
//! OUT/checkpoints/000600/model.safetensors       the model's weights, and an objective's own
//! OUT/checkpoints/000600/optimizer.safetensors   moments and counts, by variable
//! OUT/checkpoints/000600/state.json              where the run stands
//! OUT/checkpoints/best.safetensors               the best weights so far of a stage that may end early
//! ```
//!
//! A checkpoint is written beside its place and renamed into it, so one that can be seen is whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::objective::OWN_PREFIX;

/// The version of the layout.
const FORMAT_VERSION: u32 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// The best weights of a stage that may end early.
const BEST: &str = "best.safetensors";

/// Where a run stands. Batches depend on nothing else, so there is no loader state beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The version of the layout.
    pub format_version: u32,
    /// The digest of the run file.
    pub run_digest: String,
    /// The stage that the next step belongs to; the number of stages when the run has ended.
    pub stage: usize,
    /// The next step within that stage.
    pub step: u64,
    /// Steps done in all stages.
    pub global_step: u64,
    /// How the stage's evaluations went, where it may end early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

/// The best evaluation of a stage so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The rsum on the dev split, as its bits: it is compared again after a resume.
    pub rsum_bits: u64,
    /// The step of the stage after which it was measured.
    pub step: u64,
    /// Evaluations since then.
    pub waited: u32,
}

impl Best {
    /// The rsum, 0 to 600.
    #[must_use]
    pub const fn rsum(&self) -> f64 {
        f64::from_bits(self.rsum_bits)
    }
}

impl Position {
    /// The start of a run.
    #[must_use]
    pub const fn start(run_digest: String) -> Self {
        let (stage, step, global_step) = (0, 0, 0);
        Self { format_version: FORMAT_VERSION, run_digest, stage, step, global_step, best: None }
    }
}

/// The checkpoints of one run.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// What a checkpoint holds.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the run stood.
    pub position: Position,
    /// Weights by name.
    pub weights: BTreeMap<String, Tensor>,
    /// The optimizer's state by name; empty between stages.
    pub optimizer: BTreeMap<String, Tensor>,
}

impl Checkpoints {
    /// The checkpoints under a run's folder; the newest `keep` stay.
    #[must_use]
    pub fn new(out: &Path, keep: usize) -> Self {
        Self { folder: out.join("checkpoints"), keep }
    }

    /// Writes a checkpoint and removes those that are too old.
    ///
    /// # Errors
    /// If the disk refuses; earlier checkpoints are still whole then.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf> {
        let place = self.folder.join(format!("{:08}", checkpoint.position.global_step));
        let unfinished = place.with_extension("unfinished");
        remove_folder(&unfinished)?;
        create_folder(&unfinished)?;
        save_tensors(&unfinished.join(MODEL), &checkpoint.weights)?;
        save_tensors(&unfinished.join(OPTIMIZER), &checkpoint.optimizer)?;
        let state = unfinished.join(STATE);
        let json = serde_json::to_vec_pretty(&checkpoint.position)
            .map_err(|error| Error::checkpoint(&state, error.to_string()))?;
        fs::write(&state, json).map_err(|source| Error::io(&state, source))?;
        for name in [MODEL, OPTIMIZER, STATE] {
            sync(&unfinished.join(name))?;
        }
        remove_folder(&place)?;
        fs::rename(&unfinished, &place).map_err(|source| Error::io(&place, source))?;
        sync(&self.folder)?;
        let mut old = self.list()?;
        old.truncate(old.len().saturating_sub(self.keep));
        old.iter().try_for_each(|folder| remove_folder(folder))?;
        Ok(place)
    }

    /// The newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn newest(&self) -> Result<Option<Checkpoint>> {
        self.list()?.last().map(|folder| Checkpoint::open(folder)).transpose()
    }

    /// Keeps the best weights of a stage, in place of those kept before.
    ///
    /// # Errors
    /// If the disk refuses; what was kept before is whole then.
    pub fn save_best(&self, weights: &BTreeMap<String, Tensor>) -> Result<()> {
        create_folder(&self.folder)?;
        let (place, unfinished) = (self.folder.join(BEST), self.folder.join("best.unfinished"));
        save_tensors(&unfinished, weights)?;
        sync(&unfinished)?;
        fs::rename(&unfinished, &place).map_err(|source| Error::io(&place, source))?;
        sync(&self.folder)
    }

    /// The weights that [`Checkpoints::save_best`] kept.
    ///
    /// # Errors
    /// If there are none, or they cannot be read.
    pub fn best(&self) -> Result<BTreeMap<String, Tensor>> {
        load_tensors(&self.folder.join(BEST))
    }

    /// Whole checkpoints, oldest first.
    fn list(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&self.folder, e))?.path();
            if path.extension().is_none() && path.join(STATE).is_file() {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(folders)
    }
}

impl Checkpoint {
    /// Reads the checkpoint in `folder`.
    ///
    /// # Errors
    /// Naming the file that is missing or damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let bytes = fs::read(&path).map_err(|source| Error::io(&path, source))?;
        let position: Position = serde_json::from_slice(&bytes)
            .map_err(|error| Error::checkpoint(&path, error.to_string()))?;
        if position.format_version != FORMAT_VERSION {
            let message =
                format!("format version {}, not {FORMAT_VERSION}", position.format_version);
            return Err(Error::checkpoint(&path, message));
        }
        let weights = load_tensors(&folder.join(MODEL))?;
        let optimizer = load_tensors(&folder.join(OPTIMIZER))?;
        Ok(Self { position, weights, optimizer })
    }

    /// Sets variables, on any device, to the saved weights. What an objective has for itself may be left
    /// over.
    ///
    /// # Errors
    /// If names or shapes differ.
    pub fn restore(&self, vars: &BTreeMap<String, Var>) -> Result<()> {
        let of_model = |name: &&String| !name.starts_with(OWN_PREFIX);
        let mut names = self.weights.keys().filter(of_model);
        if let Some(name) = names.find(|name| !vars.contains_key(*name)) {
            return Err(Error::checkpoint(MODEL, format!("`{name}` is no variable of the run")));
        }
        self.restore_part(vars)
    }

    /// Sets variables to the saved weights, which may hold others too.
    ///
    /// # Errors
    /// If one is missing or has another shape.
    pub fn restore_part(&self, vars: &BTreeMap<String, Var>) -> Result<()> {
        for (name, var) in vars {
            let saved = self.weights.get(name);
            let saved =
                saved.ok_or_else(|| Error::checkpoint(MODEL, format!("`{name}` is missing")))?;
            var.set(&saved.to_device(var.device())?)?;
        }
        Ok(())
    }
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, error)),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| Error::io(path, source))
}

fn save_tensors(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let tensors: HashMap<&str, Tensor> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    candle_core::safetensors::save(&tensors, path)
        .map_err(|error| Error::checkpoint(path, error.to_string()))
}

fn load_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu);
    let tensors = tensors.map_err(|error| Error::checkpoint(path, error.to_string()))?;
    Ok(tensors.into_iter().collect())
}
