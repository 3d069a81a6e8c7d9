//! What a run trains, opened: data, model, preprocessing.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use diptych_model::{DualEncoder, Params};

use crate::augment::generator;
use crate::checkpoint::Checkpoints;
use crate::corpus::{Corpus, Withheld};
use crate::error::{Error, Result};
use crate::import;
use crate::loader::Loader;
use crate::objective::Context;
use crate::preprocessing::Preprocessing;
use crate::run_file::RunFile;

/// The run file's copy in a run's folder.
pub(crate) const RUN_COPY: &str = "run.toml";

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
    /// Reads the data and makes the model with its initial weights on `device`.
    ///
    /// # Errors
    /// If the data cannot be used, or the model not be built.
    pub fn open(run: &RunFile, device: &Device) -> Result<Self> {
        let preprocessing = Arc::new(Preprocessing::new(&run.preprocessing)?);
        let corpus = Arc::new(Corpus::open(&run.data.folder, &preprocessing, run.data.memory)?);
        if corpus.pairs_pictures() != run.model.counterpart_tower.is_some() {
            let message =
                "is for data that pairs pictures with pictures, and needed for them alone";
            return Err(Error::setting("model.counterpart_tower", message));
        }
        let withheld = run.data.hold_out.map(|rule| rule.draw(&corpus)).unwrap_or_default();
        let params = Params::seeded(run.seed, device);
        let encoder = DualEncoder::new(&run.model, &params)?;
        Ok(Self { run: run.clone(), corpus, withheld, preprocessing, params, encoder })
    }

    /// The run in a folder on `device`, with the weights of its newest checkpoint. `data` replaces the dataset's
    /// folder that the run file names.
    ///
    /// # Errors
    /// If there is no checkpoint there, or its data cannot be read.
    pub fn of_checkpoint(out: &Path, data: Option<&Path>, device: &Device) -> Result<Self> {
        let mut run = RunFile::read(&out.join(RUN_COPY))?;
        if let Some(data) = data {
            run.data.folder = data.to_path_buf();
        }
        let newest = Checkpoints::new(out, run.cadence.keep).newest()?;
        let newest = newest.ok_or_else(|| Error::checkpoint(out, "there is none"))?;
        let training = Self::open(&run, device)?;
        newest.restore(&training.params.vars())?;
        Ok(training)
    }

    /// Takes weights from a bundle, or from the newest checkpoint of a run, where name and shape agree.
    ///
    /// # Errors
    /// If the source is neither, or one of its towers or heads fits in no weight.
    pub(super) fn begin_with(&self, source: &Path) -> Result<()> {
        let given = import::weights(source)?;
        let vars = self.params.vars();
        let fits = |name: &str| {
            vars.get(name)
                .zip(given.get(name))
                .is_some_and(|(var, given)| var.dims() == given.dims())
        };
        for part in ["image.tower.", "text.tower.", "image.shared.", "text.shared."] {
            if !vars.keys().any(|name| name.starts_with(part) && fits(name)) {
                let message = format!(
                    "no weight `{part}*` of {} has the name and shape of this model's",
                    source.display()
                );
                return Err(Error::setting("initial_weights", message));
            }
        }
        for (name, var) in vars.iter().filter(|(name, _)| fits(name)) {
            var.set(&given[name].to_device(var.device())?)?;
        }
        Ok(())
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
            withheld: &self.withheld,
            image_size: self.run.image_size(),
            seed: self.run.seed,
        }
    }
}
