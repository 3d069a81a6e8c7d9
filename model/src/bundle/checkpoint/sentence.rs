//! Sentence encoders of the BERT family, alone or with what `sentence-transformers` writes beside them.

use serde::Deserialize;
use serde_json::Value;

use super::source::Source;
use super::{CONFIG, Described, Sizes, shared_only, tokenizer, typed};
use crate::config::{
    BertConfig, BlocksConfig, FeedForward, ModelConfig, Pooling, Projection, TextTowerConfig,
};
use crate::error::{Error, Result};
use crate::preprocess::TokenizerConfig;

const MODULES: &str = "modules.json";
const LENGTH: &str = "sentence_bert_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";

#[derive(Deserialize)]
struct Bert {
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    #[serde(flatten)]
    sizes: Sizes,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

pub(super) fn describe(source: &mut Source, config: &Value) -> Result<Described> {
    let bert: Bert = typed(CONFIG, config)?;
    if bert.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
        let message = "has relative positions, which no tower here has; take another checkpoint";
        return Err(Error::corrupt(CONFIG, message));
    }
    let own = BlocksConfig {
        width: 768,
        intermediate: 3072,
        layers: 12,
        heads: 12,
        activation: FeedForward::Gelu,
        epsilon: 1e-12,
    };
    // RoBERTa counts its positions from behind the padding's.
    let bert_itself = config.get("model_type").and_then(Value::as_str) == Some("bert");
    let first_position = if bert_itself { 0 } else { bert.pad_token_id.unwrap_or(1) + 1 };
    let tower = BertConfig {
        vocabulary: bert.vocab_size.unwrap_or(30_522),
        positions: bert.max_position_embeddings.unwrap_or(512),
        first_position,
        types: bert.type_vocab_size.unwrap_or(2),
        pooling: pooling(source)?,
        blocks: bert.sizes.blocks(&own)?,
    };
    let longest = tower.positions.saturating_sub(first_position);
    let longest = max_length(source)?.map_or(longest, |own| own.min(longest));
    let (mut settings, json) = tokenizer::plain(source, (tower.vocabulary, longest))?;
    if let TokenizerConfig::Huggingface(settings) = &mut settings {
        settings.prefix = prefix(source)?;
    }
    let shared = tower.blocks.width;
    Ok(Described {
        image: None,
        text: Some((settings, json)),
        model: ModelConfig {
            image_tower: None,
            text_tower: Some(TextTowerConfig::Bert(tower)),
            counterpart_tower: None,
            heads: shared_only(shared, Projection::Identity),
        },
        named,
    })
}

/// What `modules.json` says; without it the mean, as most have it.
fn pooling(source: &mut Source) -> Result<Pooling> {
    let Some(modules) = source.json(MODULES)? else { return Ok(Pooling::Mean) };
    let modules: Vec<Module> = typed(MODULES, &modules)?;
    let mut pooling = None;
    for module in &modules {
        match module.kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" if module.path.is_empty() => {}
            // Vectors are brought to unit length in any case.
            "Normalize" => {}
            "Pooling" => pooling = Some(pooling_of(source, &module.path)?),
            _ => {
                let message = format!(
                    "has the module `{}` in `{}`; served are a transformer in the directory itself, \
                     pooling and normalisation",
                    module.kind, module.path
                );
                return Err(Error::corrupt(MODULES, message));
            }
        }
    }
    pooling.ok_or_else(|| Error::corrupt(MODULES, "has no pooling; tokens are not a vector"))
}

fn pooling_of(source: &mut Source, folder: &str) -> Result<Pooling> {
    if !folder.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) {
        return Err(Error::corrupt(MODULES, format!("names the folder {folder:?}")));
    }
    let file = format!("{folder}/config.json");
    let config = source.required_json(&file)?;
    let on: Vec<&str> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, on)| key.starts_with("pooling_mode_") && on.as_bool() == Some(true))
        .map(|(key, _)| key.as_str())
        .collect();
    match on.as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::First),
        other => {
            let message = format!("pools by {other:?}; served are mean_tokens and cls_token alone");
            Err(Error::corrupt(file, message))
        }
    }
}

fn max_length(source: &mut Source) -> Result<Option<usize>> {
    let Some(config) = source.json(LENGTH)? else { return Ok(None) };
    if config.get("do_lower_case").and_then(Value::as_bool) == Some(true) {
        let message = "has `do_lower_case`; let tokenizer.json do it, and take it out";
        return Err(Error::corrupt(LENGTH, message));
    }
    let length = config.get("max_seq_length").and_then(Value::as_u64);
    Ok(length.and_then(|length| usize::try_from(length).ok()))
}

/// What stands before every text: the default prompt, else the one for queries. Items and queries are the
/// same kind of text here.
fn prefix(source: &mut Source) -> Result<String> {
    let Some(config) = source.json(PROMPTS)? else { return Ok(String::new()) };
    let default = config.get("default_prompt_name").and_then(Value::as_str).unwrap_or("query");
    let prompt = config.get("prompts").and_then(|prompts| prompts.get(default));
    Ok(prompt.and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// What the network calls a tensor. Parts for other tasks are left out.
fn named(stored: &str) -> Option<String> {
    let name = ["bert.", "roberta.", "model."]
        .iter()
        .find_map(|prefix| stored.strip_prefix(prefix))
        .unwrap_or(stored);
    let other_task = ["pooler.", "cls.", "lm_head.", "classifier."];
    if name.ends_with("position_ids") || other_task.iter().any(|part| name.starts_with(part)) {
        return None;
    }
    Some(format!("text.tower.{name}"))
}
