//! One file of weights without settings: which network it is, told by its tensors.

use std::path::Path;

use serde_json::{Value, json};

use super::Weights;
use super::foreign::Checkpoint;
use crate::error::{Error, Result};

/// A network that is told by its tensors.
struct Known {
    /// What a `config.json` calls it.
    architecture: &'static str,
    /// Tensors that it has, with their shapes.
    has: &'static [(&'static str, &'static [usize])],
    /// Tensors that others of its family have, and it has not.
    lacks: &'static [&'static str],
    /// How its pictures are prepared, as `timm` notes it.
    pictures: Pictures,
}

struct Pictures {
    interpolation: &'static str,
    mean: [f32; 3],
    std: [f32; 3],
}

/// As torchvision trains its networks.
const TORCHVISION: Pictures =
    Pictures { interpolation: "bilinear", mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
/// As the weights of EfficientNet-Lite were trained in TensorFlow, from where every port of them comes; `timm` notes the same.
const TENSORFLOW: Pictures = Pictures { interpolation: "bicubic", mean: [0.5; 3], std: [0.5; 3] };

const KNOWN: [Known; 3] = [
    Known {
        architecture: "efficientnet_lite0",
        has: &[("_conv_stem.weight", &[32, 3, 3, 3]), ("_conv_head.weight", &[1280, 320, 1, 1])],
        lacks: &["_blocks.0._se_reduce.weight", "_blocks.16._project_conv.weight"],
        pictures: TENSORFLOW,
    },
    Known {
        architecture: "resnet18",
        has: &[("conv1.weight", &[64, 3, 7, 7]), ("layer4.1.conv2.weight", &[512, 512, 3, 3])],
        lacks: &["layer4.2.conv1.weight", "layer1.0.conv3.weight"],
        pictures: TORCHVISION,
    },
    Known {
        architecture: "resnet50",
        has: &[("conv1.weight", &[64, 3, 7, 7]), ("layer3.5.conv3.weight", &[1024, 256, 1, 1])],
        lacks: &["layer3.6.conv1.weight"],
        pictures: TORCHVISION,
    },
];

/// A checkpoint of the network that `weights`, out of `source`, are.
///
/// # Errors
/// If it is none that is known.
pub(super) fn read(source: &Path, weights: Weights) -> Result<Checkpoint> {
    let has = |(name, shape): &(&str, &[usize])| {
        weights.get(*name).is_some_and(|tensor| tensor.dims() == *shape)
    };
    let fits = |known: &&Known| {
        known.has.iter().all(has) && !known.lacks.iter().any(|name| weights.contains_key(*name))
    };
    let Some(known) = KNOWN.iter().find(fits) else {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.architecture).collect();
        let first: Vec<&str> = weights.keys().take(3).map(String::as_str).collect();
        let message = format!(
            "has tensors such as {}, which is none of {}; put its config.json beside it",
            first.join(", "),
            names.join(", ")
        );
        return Err(Error::checkpoint(source, message));
    };
    Ok(Checkpoint { settings: vec![("config.json", config(known))], copies: Vec::new(), weights })
}

fn config(known: &Known) -> Value {
    let Pictures { interpolation, mean, std } = known.pictures;
    json!({
        "architecture": known.architecture,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": interpolation,
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
        },
    })
}
