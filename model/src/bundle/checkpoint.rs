//! A checkpoint of others as a bundle: a directory in Hugging Face layout.
//!
//! | file | what is read from it |
//! |---|---|
//! | `config.json` | which networks, and their sizes |
//! | `preprocessor_config.json` | how pictures are fitted |
//! | `tokenizer.json`, or `vocab.json` and `merges.txt` | how texts become ids |
//! | `model.safetensors`, or `model.safetensors.index.json` and what it names | weights |
//!
//! Such a bundle has a shared space alone and no golden inputs; its digests are over the files that are
//! read. Weights stay in their files until the networks are built.

mod image;
mod pair;
mod picture;
mod sentence;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use self::source::Source;
use super::manifest::{Manifest, Spaces, Training};
use super::{Bundle, FORMAT_VERSION, digest, verify};
use crate::bundle::stored::StoredTensors;
use crate::config::{BlocksConfig, FeedForward, HeadsConfig, ModelConfig, Projection};
use crate::error::{Error, Result};
use crate::preprocess::{ImagePreprocessing, TokenizerConfig};

const CONFIG: &str = "config.json";

/// What a checkpoint has besides what a bundle of ours has.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// As the file has it, or made from `vocab.json` and `merges.txt`.
    pub(super) tokenizer_json: Option<Vec<u8>>,
}

/// What the files of a checkpoint say, before its weights are looked at.
struct Described {
    model: ModelConfig,
    image: Option<ImagePreprocessing>,
    /// With the content of a `tokenizer.json`.
    text: Option<(TokenizerConfig, Vec<u8>)>,
    /// From a name in the files to the one that the networks ask for; `None` for what they do not need.
    named: fn(&str) -> Option<String>,
}

/// Whether `dir` looks like a checkpoint of others.
pub(super) fn is_here(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

/// Opens the checkpoint in `dir`. Errors name files as they are called in it.
///
/// # Errors
/// [`Error::Io`]; [`Error::Corrupt`] naming the file that is missing, damaged or says what is not served.
pub(super) fn open(dir: &Path) -> Result<Bundle> {
    let mut source = Source::new(dir);
    let config = source.required_json(CONFIG)?;
    let Described { model, image, text, named } = describe(&mut source, &config)?;
    let mut tensors = StoredTensors::open(source.weights()?, named)?;
    tensors.as_scalar("logit_scale");
    let logit_bias = tensors.take_scalar("logit_bias")?.unwrap_or(0.0);
    let logit_scale = match tensors.read("logit_scale")? {
        Some(scale) if scale.rank() == 0 => scale.to_scalar::<f32>()?.exp(),
        _ => 1.0,
    };
    if !(logit_scale.is_finite() && logit_scale > 0.0) {
        return Err(Error::corrupt("logit_scale", "is out of range; the checkpoint is damaged"));
    }
    let (settings, tokenizer_json) = text.unzip();
    let entries = source.entries(tensors.files())?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        min_reader: 1,
        name: name(dir, &config),
        domain: "unknown".to_owned(),
        spaces: Spaces::of(&model),
        model,
        image,
        text: settings,
        logit_scale,
        logit_bias,
        training: Training::default(),
        files: entries,
    };
    verify::towers(&manifest).map_err(|wrong| Error::corrupt(CONFIG, wrong))?;
    let embedding_digest = digest::list("diptych checkpoint digest 1", manifest.files.iter());
    let bundle_digest = digest::list("diptych checkpoint bundle digest 1", manifest.files.iter());
    Ok(Bundle {
        manifest,
        files: source.into_files(),
        tensors: Arc::new(tensors),
        checkpoint: Some(Arc::new(Checkpoint { tokenizer_json })),
        embedding_digest,
        bundle_digest,
    })
}

fn describe(source: &mut Source, config: &Value) -> Result<Described> {
    let kind = config.get("model_type").and_then(Value::as_str);
    let architecture = config.get("architecture").and_then(Value::as_str);
    match (kind, architecture) {
        (Some("clip"), _) => pair::clip(source, config),
        (Some("siglip"), _) => pair::siglip(source, config),
        (Some("bert" | "roberta" | "xlm-roberta"), _) => sentence::describe(source, config),
        (None, Some(architecture)) => picture::describe(source, config, architecture),
        (Some(other), _) => Err(Error::corrupt(
            CONFIG,
            format!(
                "has the model_type `{other}`; served are clip, siglip, bert, roberta and xlm-roberta, \
                 and as an `architecture` resnet18, resnet50 and efficientnet_lite0"
            ),
        )),
        (None, None) => {
            let message = "has neither a `model_type` nor an `architecture`; is this a checkpoint?";
            Err(Error::corrupt(CONFIG, message))
        }
    }
}

/// What the checkpoint calls itself, else the directory's name.
fn name(dir: &Path, config: &Value) -> String {
    let own = config.get("_name_or_path").and_then(Value::as_str);
    let own = own.filter(|own| !own.is_empty() && !own.starts_with(['/', '.', '~']));
    let folder = || dir.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned);
    own.map(str::to_owned).or_else(folder).unwrap_or_else(|| "checkpoint".to_owned())
}

/// Heads that make shared vectors of `shared` numbers and no others.
fn shared_only(shared: usize, projection: Projection) -> HeadsConfig {
    HeadsConfig {
        shared,
        projection,
        matryoshka: Vec::new(),
        exclusive_image: 0,
        exclusive_text: 0,
        ..HeadsConfig::default()
    }
}

/// The sizes of a transformer, under the keys that `transformers` has for CLIP, SigLIP and BERT.
#[derive(serde::Deserialize)]
struct Sizes {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
}

impl Sizes {
    /// What is not said is as in `default`.
    fn blocks(self, default: &BlocksConfig) -> Result<BlocksConfig> {
        Ok(BlocksConfig {
            width: self.hidden_size.unwrap_or(default.width),
            intermediate: self.intermediate_size.unwrap_or(default.intermediate),
            layers: self.num_hidden_layers.unwrap_or(default.layers),
            heads: self.num_attention_heads.unwrap_or(default.heads),
            activation: match self.hidden_act.as_deref() {
                None => default.activation,
                Some("quick_gelu") => FeedForward::QuickGelu,
                Some("gelu") => FeedForward::Gelu,
                Some("gelu_pytorch_tanh" | "gelu_new") => FeedForward::GeluTanh,
                Some("relu") => FeedForward::Relu,
                Some(other) => {
                    let message = format!(
                        "has the hidden_act `{other}`; known are quick_gelu, gelu, \
                         gelu_pytorch_tanh, gelu_new and relu"
                    );
                    return Err(Error::corrupt(CONFIG, message));
                }
            },
            epsilon: self.layer_norm_eps.unwrap_or(default.epsilon),
        })
    }
}

/// Reads what is typed out of JSON.
fn typed<T: serde::de::DeserializeOwned>(file: &str, value: &Value) -> Result<T> {
    T::deserialize(value)
        .map_err(|error| Error::corrupt(file, format!("does not have the form it should: {error}")))
}
