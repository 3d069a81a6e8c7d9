//! CLIP and SigLIP: `config.json` as `transformers` writes it. What it leaves out has the value that
//! `transformers` would take.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::source::Source;
use super::{CONFIG, Described, Sizes, image, shared_only, tokenizer, typed};
use crate::config::{
    BlocksConfig, ClipTextConfig, EndOfText, FeedForward, ImageTowerConfig, ModelConfig,
    Projection, SiglipTextConfig, TextTowerConfig, VitConfig,
};
use crate::error::{Error, Result};

#[derive(Deserialize)]
struct Text {
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    eos_token_id: Option<u32>,
    pad_token_id: Option<u32>,
    projection_size: Option<usize>,
    #[serde(flatten)]
    sizes: Sizes,
}

#[derive(Deserialize)]
struct Vision {
    image_size: Option<usize>,
    patch_size: Option<usize>,
    num_channels: Option<usize>,
    #[serde(flatten)]
    sizes: Sizes,
}

/// A part of the configuration. Early checkpoints have it twice, and what `{name}_dict` says holds.
fn part<T: serde::de::DeserializeOwned>(config: &Value, name: &str) -> Result<T> {
    let object = |key: &str| config.get(key).and_then(Value::as_object).cloned();
    let mut merged: Map<String, Value> = object(name).unwrap_or_default();
    merged.extend(object(&format!("{name}_dict")).unwrap_or_default());
    typed(CONFIG, &Value::Object(merged))
}

impl Vision {
    fn tower(self, patch: usize, default: &BlocksConfig) -> Result<VitConfig> {
        if let Some(channels) = self.num_channels.filter(|&channels| channels != 3) {
            let message = format!("has {channels} channels; pictures have 3");
            return Err(Error::corrupt(CONFIG, message));
        }
        Ok(VitConfig {
            size: self.image_size.unwrap_or(224),
            patch: self.patch_size.unwrap_or(patch),
            blocks: self.sizes.blocks(default)?,
        })
    }
}

fn blocks(width: usize, heads: usize, (activation, epsilon): (FeedForward, f64)) -> BlocksConfig {
    BlocksConfig { width, intermediate: 4 * width, layers: 12, heads, activation, epsilon }
}

pub(super) fn clip(source: &mut Source, config: &Value) -> Result<Described> {
    let (text, vision): (Text, Vision) =
        (part(config, "text_config")?, part(config, "vision_config")?);
    let own = (FeedForward::QuickGelu, 1e-5);
    let tower = ClipTextConfig {
        vocabulary: text.vocab_size.unwrap_or(49_408),
        positions: text.max_position_embeddings.unwrap_or(77),
        // 2 stands in the configurations of the first checkpoints, whose end of a text is another id.
        end: match text.eos_token_id.unwrap_or(49_407) {
            2 => EndOfText::Largest,
            id => EndOfText::Id(id),
        },
        blocks: text.sizes.blocks(&blocks(512, 8, own))?,
    };
    let vit = vision.tower(32, &blocks(768, 12, own))?;
    let shared = config.get("projection_dim").and_then(Value::as_u64).unwrap_or(512) as usize;
    let limits = (tower.vocabulary, tower.positions);
    Ok(Described {
        image: Some(image::preprocessing(source, image::Family::Clip)?),
        text: Some(tokenizer::clip(source, limits)?),
        model: ModelConfig {
            image_tower: Some(ImageTowerConfig::ClipVit(vit)),
            text_tower: Some(TextTowerConfig::ClipText(tower)),
            counterpart_tower: None,
            heads: shared_only(shared, Projection::Linear),
        },
        named,
    })
}

pub(super) fn siglip(source: &mut Source, config: &Value) -> Result<Described> {
    let (text, vision): (Text, Vision) =
        (part(config, "text_config")?, part(config, "vision_config")?);
    let own = (FeedForward::GeluTanh, 1e-6);
    let default = BlocksConfig { intermediate: 3072, ..blocks(768, 12, own) };
    let vit = vision.tower(16, &default)?;
    let blocks = text.sizes.blocks(&default)?;
    let vocabulary = text.vocab_size.unwrap_or(32_000);
    let positions = text.max_position_embeddings.unwrap_or(64);
    let (settings, json) = tokenizer::sentencepiece(source, (vocabulary, positions))?;
    let pad = tokenizer::pad(source, &json)?.or(text.pad_token_id).unwrap_or(1);
    let output = text.projection_size.unwrap_or(blocks.width);
    if output != vit.blocks.width {
        let width = vit.blocks.width;
        let message = format!("has texts of {output} numbers and pictures of {width}");
        return Err(Error::corrupt(CONFIG, message));
    }
    let tower = SiglipTextConfig { vocabulary, positions, pad, output, blocks };
    Ok(Described {
        image: Some(image::preprocessing(source, image::Family::Siglip)?),
        text: Some((settings, json)),
        model: ModelConfig {
            image_tower: Some(ImageTowerConfig::SiglipVit(vit)),
            text_tower: Some(TextTowerConfig::SiglipText(tower)),
            counterpart_tower: None,
            heads: shared_only(output, Projection::Identity),
        },
        named,
    })
}

/// What the networks call a tensor. One that they do not know keeps its name, and is refused by it.
fn named(stored: &str) -> Option<String> {
    if stored.ends_with(".position_ids") {
        return None;
    }
    Some(match stored {
        "visual_projection.weight" => "image.shared.weight".to_owned(),
        "text_projection.weight" => "text.shared.weight".to_owned(),
        name if name.starts_with("vision_model.") => format!("image.tower.{name}"),
        name if name.starts_with("text_model.") => format!("text.tower.{name}"),
        name => name.to_owned(),
    })
}
