//! What is evaluated: a model, how its inputs are made, and the data to ask it about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use diptych_model::DualEncoder;
use diptych_model::bundle::Bundle;

use crate::corpus::{Corpus, PictureMemory, Withheld};
use crate::error::{Error, Result};
use crate::fit::Training;
use crate::generate::Generator;
use crate::preprocessing::{Preprocessing, PreprocessingConfig};
use crate::run_file::RunFile;

/// A model, how its inputs are made, and the data to ask it about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The model.
    pub encoder: &'a DualEncoder,
    /// From bytes to what the towers read.
    pub preprocessing: &'a Preprocessing,
    /// The data.
    pub corpus: &'a Corpus,
    /// Side of the image tower's input, in pixels.
    pub image_size: usize,
}

impl<'a> Subject<'a> {
    /// The model of a run, as it is now.
    #[must_use]
    pub fn of_training(training: &'a Training) -> Self {
        Self {
            encoder: &training.encoder,
            preprocessing: &training.preprocessing,
            corpus: &training.corpus,
            image_size: training.run.image_size(),
        }
    }
}

/// A model from disk with the data to ask it about.
#[derive(Debug)]
pub struct Opened {
    model: Model,
    /// What its training did not see of the data.
    pub withheld: Withheld,
    /// The dataset's folder.
    pub data: PathBuf,
}

/// Where a model on disk comes from.
#[derive(Debug)]
enum Model {
    /// A run, and its folder.
    Run(Box<Training>, PathBuf),
    Bundle {
        encoder: Box<DualEncoder>,
        preprocessing: Arc<Preprocessing>,
        corpus: Arc<Corpus>,
        image_size: usize,
    },
}

impl Opened {
    /// The newest checkpoint of the run in a folder, on `device`.
    ///
    /// # Errors
    /// As [`Training::of_checkpoint`].
    pub fn run(folder: &Path, data: Option<&Path>, device: &Device) -> Result<Self> {
        let training = Training::of_checkpoint(folder, data, device)?;
        Ok(Self {
            withheld: training.withheld.clone(),
            data: training.run.data.folder.clone(),
            model: Model::Run(Box::new(training), folder.to_path_buf()),
        })
    }

    /// A bundle or a checkpoint of both modalities on `device`, with its stored weights. What was withheld
    /// from it says the run file of `fit`; where it has none of these, `data` is needed.
    ///
    /// # Errors
    /// If the bundle or the data cannot be read.
    pub fn bundle(folder: &Path, data: Option<&Path>, device: &Device) -> Result<Self> {
        let bundle = Bundle::open(folder)?;
        let manifest = bundle.manifest();
        let run = RunFile::parse(&manifest.training.run_file, &folder.join("bundle.json")).ok();
        let named = run.as_ref().map(|run| run.data.folder.clone());
        let data = data.map(Path::to_path_buf).or(named);
        let data = data.ok_or_else(|| {
            let message = format!("is needed: {} does not name its data", folder.display());
            Error::setting("--data", message)
        })?;
        let config = PreprocessingConfig {
            image: manifest.image()?.clone(),
            text: manifest.text()?.clone(),
        };
        let preprocessing = Preprocessing::with_tokenizer(&config, bundle.tokenizer_json())?;
        let preprocessing = Arc::new(preprocessing);
        let corpus = Corpus::open(&data, &preprocessing, PictureMemory::default())?;
        let params = bundle.params(device);
        let encoder = DualEncoder::new(&manifest.model, &params)?;
        params.finish()?;
        let hold_out = run.and_then(|run| run.data.hold_out);
        Ok(Self {
            withheld: hold_out.map(|rule| rule.draw(&corpus)).unwrap_or_default(),
            model: Model::Bundle {
                image_size: manifest.model.image_size()?,
                encoder: Box::new(encoder),
                preprocessing,
                corpus: Arc::new(corpus),
            },
            data,
        })
    }

    /// What [`super::evaluate`] takes.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        match &self.model {
            Model::Run(training, _) => Subject::of_training(training),
            Model::Bundle { encoder, preprocessing, corpus, image_size } => {
                Subject { encoder, preprocessing, corpus, image_size: *image_size }
            }
        }
    }

    /// The way back from its codes, if it is a run whose objective has one.
    ///
    /// # Errors
    /// As [`Generator::of_run`].
    pub fn generator(&self) -> Result<Option<Generator<'_>>> {
        match &self.model {
            Model::Run(training, folder) => Generator::of_run(folder, training),
            Model::Bundle { .. } => Ok(None),
        }
    }
}
