//! What a run trains, opened: data, model, preprocessing.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use diptych_model::{DualEncoder, Params};

use crate::augment::generator;
use crate::checkpoint::Checkpoints;
use crate::corpus::{Corpus, Withheld};
use crate::error::{Error, Result};
use crate::loader::Loader;
use crate::objective::Context;
use crate::preprocessing::Preprocessing;
use crate::run_file::RunFile;

/// The run file's copy in a run's folder.
pub(super) const RUN_COPY: &str = "run.toml";

/// What a run trains: data, model, preprocessing.
#[derive(Debug)]
pub struct Training {
    /// The run file.
    pub run: RunFile,
    /// The data, all of it.
    pub corpus: Arc<Corpus>,
    /// What training does not see of it.
    pub withheld: Withheld,
    /// From bytes to what the towers read.
    pub preprocessing: Arc<Preprocessing>,
    /// The model's variables.
    pub params: Params,
    /// The model on these variables.
    pub encoder: DualEncoder,
}

impl Training {
    /// Reads the data and makes the model with its initial weights.
    ///
    /// # Errors
    /// If the data cannot be used, or the model not be built.
    pub fn open(run: &RunFile) -> Result<Self> {
        let preprocessing = Arc::new(Preprocessing::new(&run.preprocessing)?);
        let corpus = Arc::new(Corpus::open(&run.data.folder, &preprocessing, run.data.memory)?);
        let withheld = run.data.hold_out.map(|rule| rule.draw(&corpus)).unwrap_or_default();
        let params = Params::seeded(run.seed, &Device::Cpu);
        let encoder = DualEncoder::new(&run.model, &params)?;
        Ok(Self { run: run.clone(), corpus, withheld, preprocessing, params, encoder })
    }

    /// The run in a folder, with the weights of its newest checkpoint. `data` replaces the dataset's
    /// folder that the run file names.
    ///
    /// # Errors
    /// If there is no checkpoint there, or its data cannot be read.
    pub fn of_checkpoint(out: &Path, data: Option<&Path>) -> Result<Self> {
        let mut run = RunFile::read(&out.join(RUN_COPY))?;
        if let Some(data) = data {
            run.data.folder = data.to_path_buf();
        }
        let newest = Checkpoints::new(out, run.cadence.keep).newest()?;
        let newest = newest.ok_or_else(|| Error::checkpoint(out, "there is none"))?;
        let training = Self::open(&run)?;
        newest.restore(&training.params.vars())?;
        Ok(training)
    }

    /// The loader of a stage. Stages draw from generators of their own.
    ///
    /// # Errors
    /// If there is too little to train on.
    pub fn loader(&self, stage: usize) -> Result<Loader> {
        let seed = rand::Rng::random(&mut generator(self.run.seed, &[stage as u64]));
        Loader::new(
            (Arc::clone(&self.corpus), &self.withheld),
            Arc::clone(&self.preprocessing),
            self.run.stages[stage].augment.as_ref().unwrap_or(&self.run.augment).clone(),
            self.run.stages[stage].batch,
            (seed, self.run.data.shuffle_buffer),
        )
    }

    /// What an objective may read.
    #[must_use]
    pub fn context(&self) -> Context<'_> {
        Context {
            encoder: &self.encoder,
            heads: &self.run.model.heads,
            corpus: &self.corpus,
            image_size: self.run.model.image_tower.size(),
            seed: self.run.seed,
        }
    }
}
