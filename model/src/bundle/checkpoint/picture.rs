//! Image towers alone: a `config.json` as `timm` writes it, with torchvision's names of weights (which are
//! `timm`'s too), or those of `efficientnet-lite-pytorch`.

use serde_json::Value;

use super::source::Source;
use super::{CONFIG, Described, image, shared_only};
use crate::config::{
    EfficientnetLiteConfig, ImageTowerConfig, ModelConfig, Projection, ResnetConfig, ResnetDepth,
};
use crate::error::{Error, Result};

pub(super) fn describe(
    source: &mut Source,
    config: &Value,
    architecture: &str,
) -> Result<Described> {
    let image = image::of_picture(source, config)?;
    let size = image.size as usize;
    let base = config.get("width").and_then(Value::as_u64).unwrap_or(64);
    let width = usize::try_from(base).unwrap_or(usize::MAX);
    let resnet = |depth| ImageTowerConfig::Resnet(ResnetConfig { size, depth, width });
    let (tower, features) = match architecture {
        "resnet18" => (resnet(ResnetDepth::Eighteen), width.saturating_mul(8)),
        "resnet50" => (resnet(ResnetDepth::Fifty), width.saturating_mul(32)),
        "efficientnet_lite0" | "efficientnet-lite0" => {
            (ImageTowerConfig::EfficientnetLite(EfficientnetLiteConfig { size }), 1280)
        }
        other => {
            let message = format!(
                "has the architecture `{other}`; served are resnet18, resnet50 and efficientnet_lite0"
            );
            return Err(Error::corrupt(CONFIG, message));
        }
    };
    Ok(Described {
        image: Some(image),
        text: None,
        model: ModelConfig {
            image_tower: Some(tower),
            text_tower: None,
            counterpart_tower: None,
            heads: shared_only(features, Projection::Identity),
        },
        named,
    })
}

/// What the network calls a tensor. The classifier is left out.
fn named(stored: &str) -> Option<String> {
    let other = ["fc.", "_fc.", "classifier."].iter().any(|part| stored.starts_with(part));
    if other || stored.ends_with("num_batches_tracked") {
        return None;
    }
    Some(format!("image.tower.{stored}"))
}
