//! `import`: a bundle from weights at hand, without training: a run's checkpoint, or another bundle, with
//! its heads or with those of a second one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use diptych_model::ModelConfig;
use diptych_model::bundle::{Bundle, BundleBuilder, Training as Provenance};
use diptych_model::preprocess::{ImagePreprocessing, TokenizerConfig};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::error::{Error, Result};
use crate::export::{self, ExportReport, golden_images, golden_texts, licences, sources};
use crate::fit::RUN_COPY;
use crate::run_file::RunFile;
use crate::shards::Dataset;

/// Beginnings of the names of weights that are heads; the rest are towers.
const HEADS: [&str; 5] =
    ["image.shared.", "image.exclusive.", "text.shared.", "text.exclusive.", "logit_scale"];

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The towers, and the heads if no others are named: a run's folder, one of its checkpoints, or a
    /// bundle.
    #[arg(long)]
    pub from: PathBuf,
    /// Heads to put in place of those: a run's folder, one of its checkpoints, or a bundle.
    #[arg(long)]
    pub heads: Option<PathBuf>,
    /// The prepared dataset of a run, in place of the one that its run file names. Golden inputs are taken
    /// from it.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The bundle's name; absent: as in its source.
    #[arg(long)]
    pub name: Option<String>,
    /// The bundle's folder.
    #[arg(long)]
    pub to: PathBuf,
}

/// Writes the bundle.
///
/// # Errors
/// If a source is neither of the three, heads do not fit the towers, or the disk refuses.
pub fn run(args: &ImportArgs) -> Result<ExportReport> {
    let mut parts = Parts::open(&args.from, args.data.as_deref())?;
    if let Some(heads) = &args.heads {
        parts.replace_heads(Parts::open(heads, args.data.as_deref())?);
    }
    let mut builder = BundleBuilder::new(parts.model, parts.image, parts.text, parts.weights);
    builder.name = args.name.clone().unwrap_or(parts.name);
    builder.domain = parts.domain;
    builder.tokenizer_json = parts.tokenizer_json;
    builder.training = parts.training;
    builder.golden_images = parts.golden_images;
    builder.golden_texts = parts.golden_texts;
    ExportReport::write(&builder.build()?, &args.to)
}

/// The weights of a bundle, or of the newest checkpoint of a run, by name.
///
/// # Errors
/// If the folder is neither.
pub(crate) fn weights(source: &Path) -> Result<BTreeMap<String, Tensor>> {
    if source.join("bundle.json").is_file() {
        return Ok(Bundle::open(source)?.weights()?);
    }
    let newest = Checkpoints::new(source, 1).newest()?;
    let newest = newest
        .ok_or_else(|| Error::checkpoint(source, "is neither a bundle nor a run's folder"))?;
    Ok(newest.weights)
}

/// Where the weights of a bundle, or of a run whose data is at hand, come from.
///
/// # Errors
/// If the folder is neither, or its data is gone.
pub(crate) fn provenance(source: &Path) -> Result<Provenance> {
    if source.join("bundle.json").is_file() {
        return Ok(Bundle::open(source)?.manifest().training.clone());
    }
    let run = RunFile::read(&source.join(RUN_COPY))?;
    let dataset = Dataset::open(&run.data.folder)?;
    let mut own = Provenance {
        data: sources(dataset.manifest()),
        licence: licences(dataset.manifest()),
        ..Provenance::default()
    };
    if let Some(earlier) = &run.initial_weights {
        export::inherit(&mut own, &provenance(earlier)?);
    }
    Ok(own)
}

/// What a bundle is built from.
struct Parts {
    name: String,
    domain: String,
    model: ModelConfig,
    image: ImagePreprocessing,
    text: TokenizerConfig,
    tokenizer_json: Option<Vec<u8>>,
    weights: BTreeMap<String, Tensor>,
    training: Provenance,
    golden_images: Vec<Vec<u8>>,
    golden_texts: Vec<String>,
}

impl Parts {
    fn open(source: &Path, data: Option<&Path>) -> Result<Self> {
        if source.join("bundle.json").is_file() {
            return Self::of_bundle(source);
        }
        if source.join(RUN_COPY).is_file() {
            let run = RunFile::read(&source.join(RUN_COPY))?;
            let newest = Checkpoints::new(source, run.cadence.keep).newest()?;
            let newest = newest.ok_or_else(|| Error::checkpoint(source, "there is none"))?;
            return Self::of_checkpoint(run, newest, data);
        }
        // RUN/checkpoints/000600
        let run = source.parent().and_then(Path::parent).map(|run| run.join(RUN_COPY));
        match run.filter(|run| run.is_file()) {
            Some(run) => Self::of_checkpoint(RunFile::read(&run)?, Checkpoint::open(source)?, data),
            None => {
                let message = "is neither a run's folder, nor a checkpoint in one, nor a bundle";
                Err(Error::checkpoint(source, message))
            }
        }
    }

    fn of_bundle(folder: &Path) -> Result<Self> {
        let bundle = Bundle::open(folder)?;
        let golden = |kind: &str| -> Vec<Vec<u8>> {
            let named = bundle.files().iter().filter(|(path, _)| path.starts_with(kind));
            named.map(|(_, bytes)| bytes.to_vec()).collect()
        };
        let texts = golden("golden/text-").into_iter();
        let manifest = bundle.manifest();
        Ok(Self {
            name: manifest.name.clone(),
            domain: manifest.domain.clone(),
            model: manifest.model.clone(),
            image: manifest.image.clone(),
            text: manifest.text.clone(),
            tokenizer_json: bundle.tokenizer_json().map(<[u8]>::to_vec),
            weights: bundle.weights()?,
            training: manifest.training.clone(),
            golden_images: golden("golden/image-"),
            golden_texts: texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect(),
        })
    }

    fn of_checkpoint(run: RunFile, checkpoint: Checkpoint, data: Option<&Path>) -> Result<Self> {
        let dataset = Dataset::open(data.unwrap_or(&run.data.folder))?;
        let training = Provenance {
            data: sources(dataset.manifest()),
            licence: licences(dataset.manifest()),
            run_file: run.to_toml()?,
            seed: run.seed,
            ..Provenance::default()
        };
        let mut weights = checkpoint.weights;
        // Networks that only an objective has are not served.
        weights.retain(|name, _| !name.starts_with("objective."));
        Ok(Self {
            name: run.name,
            domain: run.domain,
            model: run.model,
            image: run.preprocessing.image,
            text: run.preprocessing.text,
            tokenizer_json: None,
            weights,
            training,
            golden_images: golden_images(&dataset)?,
            golden_texts: golden_texts(&dataset)?,
        })
    }

    fn replace_heads(&mut self, other: Self) {
        let is_head = |name: &str| HEADS.iter().any(|head| name.starts_with(head));
        self.weights.retain(|name, _| !is_head(name));
        self.weights.extend(other.weights.into_iter().filter(|(name, _)| is_head(name)));
        self.model.heads = other.model.heads;
        export::inherit(&mut self.training, &other.training);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{colours_run, trained};

    fn args(from: &Path, heads: Option<&Path>, to: &Path) -> ImportArgs {
        ImportArgs {
            from: from.to_path_buf(),
            heads: heads.map(Path::to_path_buf),
            data: None,
            name: None,
            to: to.to_path_buf(),
        }
    }

    #[test]
    fn a_run_a_checkpoint_and_a_bundle_give_the_same_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let out = trained(&colours_run(folder.path(), 2, 1), &folder.path().join("out"));
        let to = |name: &str| folder.path().join(name);
        let of_run = run(&args(&out, None, &to("a"))).unwrap();
        let of_checkpoint = run(&args(&out.join("checkpoints/00000003"), None, &to("b"))).unwrap();
        let of_bundle = run(&args(&to("a"), None, &to("c"))).unwrap();
        assert_eq!(of_run.embedding_digest, of_checkpoint.embedding_digest);
        assert_eq!(of_run.embedding_digest, of_bundle.embedding_digest);
    }

    #[test]
    fn replaced_heads_are_those_of_the_other_source() {
        let folder = tempfile::tempdir().unwrap();
        let run_file = colours_run(folder.path(), 2, 1);
        let (one, mut other) = (trained(&run_file, &folder.path().join("one")), run_file);
        other.seed += 1;
        let other = trained(&other, &folder.path().join("other"));
        let to = folder.path().join("bundle");
        run(&args(&one, Some(&other), &to)).unwrap();
        let weights = Bundle::open(&to).unwrap().weights().unwrap();
        for (source, name) in
            [(&one, "image.tower.stem.conv.weight"), (&other, "image.shared.weight")]
        {
            let expected = Checkpoint::open(&source.join("checkpoints/00000003")).unwrap();
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (ours, theirs) = (values(&weights[name]), values(&expected.weights[name]));
            assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-3 * b.abs() + 1e-6));
        }
    }

    #[test]
    fn a_folder_that_is_none_of_the_three_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(&args(folder.path(), None, &folder.path().join("to"))).unwrap_err();
        assert!(error.to_string().contains("nor a bundle"), "{error}");
    }
}
