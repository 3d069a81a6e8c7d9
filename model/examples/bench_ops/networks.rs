//! Networks of packed operations with the weights that `scripts/bench-onnx.py` wrote.

use std::collections::HashMap;

use candle_core::{Device, Error, Result, Tensor};
use diptych_model::config::ImageTowerConfig;
use diptych_model::ops::packed::{
    Act, Conv, Depthwise, Linear, Mask, Window, attention, channels_last, max_pool, mean, normalize,
};
use diptych_model::params::Params;
use diptych_model::tower::{self, ImageTower};
use serde_json::Value;

/// Weights by name.
pub(crate) struct Weights(pub(crate) HashMap<String, Tensor>);

impl Weights {
    fn get(&self, name: &str) -> Result<Tensor> {
        match self.0.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => candle_core::bail!("no weight {name}"),
        }
    }

    fn pair(&self, name: &str) -> Result<(Tensor, Tensor)> {
        Ok((self.get(&format!("{name}.weight"))?, self.get(&format!("{name}.bias"))?))
    }

    fn linear(&self, name: &str, act: Act) -> Result<Linear> {
        let (weight, bias) = self.pair(name)?;
        Linear::packed(&weight, Some(&bias), act)
    }

    fn conv(&self, name: &str, window: Window, act: Act) -> Result<Conv> {
        let (weight, bias) = self.pair(name)?;
        Conv::packed(&weight, Some(&bias), window, act)
    }
}

/// The image tower of the bundle that the server brings along, as it is served; answers all features.
struct Served(Box<dyn ImageTower>);

impl Served {
    fn new(weights: &Weights) -> Result<Self> {
        let manifest = include_str!("../../../server/sample/bundle/bundle.json");
        let manifest: Value = serde_json::from_str(manifest).map_err(Error::wrap)?;
        let config = manifest["model"]["image_tower"].clone();
        let config: ImageTowerConfig = serde_json::from_value(config).map_err(Error::wrap)?;
        let weights = weights.0.iter().map(|(name, weight)| (name.clone(), weight.clone()));
        let params = Params::from_tensors(weights.collect(), &Device::Cpu);
        Ok(Self(tower::image(&config, &params, "image.tower").map_err(Error::wrap)?))
    }
}

impl Network for Served {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let features = self.0.forward(x).map_err(Error::wrap)?;
        Tensor::cat(&[features.last, features.early], 1)
    }

    fn group(&self, _x: &Tensor) -> usize {
        self.0.group()
    }
}

/// A network from one tensor to one.
pub(crate) trait Network {
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// Samples of `x` that are computed together: few, so that what lies between two layers fits a
    /// cache, but enough rows of a product to read all weights for.
    fn group(&self, _x: &Tensor) -> usize {
        1
    }
}

/// The network of this name.
pub(crate) fn build(name: &str, weights: &Weights) -> Result<Box<dyn Network + Sync>> {
    match name {
        "resnet18" => Ok(Box::new(ResNet::new(weights)?)),
        "lite0" => Ok(Box::new(Lite::new(weights)?)),
        "vit-s16" => Ok(Box::new(Vit::new(weights)?)),
        "minilm" => Ok(Box::new(Bert::new(weights)?)),
        "default" => Ok(Box::new(Served::new(weights)?)),
        _ => candle_core::bail!("no network {name}"),
    }
}

/// He et al. 2016, 18 layers, batch norms folded.
struct ResNet {
    stem: Conv,
    /// First and second convolution, and what makes the shortcut fit.
    blocks: Vec<(Conv, Conv, Option<Conv>)>,
}

impl ResNet {
    fn new(weights: &Weights) -> Result<Self> {
        let stem = weights.conv("stem", Window::padded(2, 3), Act::Relu)?;
        let block = |index: usize| {
            let stride = if index > 0 && index.is_multiple_of(2) { 2 } else { 1 };
            let name = |part: &str| format!("blocks.{index}.{part}");
            let first = weights.conv(&name("first"), Window::padded(stride, 1), Act::Relu)?;
            let second = weights.conv(&name("second"), Window::padded(1, 1), Act::Relu)?;
            let window = Window::padded(stride, 0);
            let shortcut = (stride == 2)
                .then(|| weights.conv(&name("shortcut"), window, Act::Identity))
                .transpose()?;
            Ok((first, second, shortcut))
        };
        Ok(Self { stem, blocks: (0..8).map(block).collect::<Result<_>>()? })
    }
}

impl Network for ResNet {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.stem.forward(&channels_last(x)?)?;
        let mut x = max_pool(&x, 3, Window::padded(2, 1))?;
        for (first, second, shortcut) in &self.blocks {
            let inner = first.forward(&x)?;
            let residual = match shortcut {
                Some(shortcut) => shortcut.forward(&x)?,
                None => x,
            };
            x = second.forward_onto(&inner, &residual)?;
        }
        mean(&x)
    }

    /// The last stage has 49 positions a picture and half of all weights.
    fn group(&self, _x: &Tensor) -> usize {
        4
    }
}

/// Kernel, stride, expansion, outputs, repeats of EfficientNet-Lite0's stages.
pub(crate) const LITE0: [[usize; 5]; 7] = [
    [3, 1, 1, 16, 1],
    [3, 2, 6, 24, 2],
    [5, 2, 6, 40, 2],
    [3, 2, 6, 80, 3],
    [5, 1, 6, 112, 3],
    [5, 2, 6, 192, 4],
    [3, 1, 6, 320, 1],
];

struct Lite {
    stem: Conv,
    blocks: Vec<Inverted>,
    head: Conv,
}

struct Inverted {
    expand: Option<Conv>,
    depthwise: Depthwise,
    project: Conv,
    residual: bool,
}

impl Lite {
    fn new(weights: &Weights) -> Result<Self> {
        let point = Window::padded(1, 0);
        let stem = weights.conv("stem", Window::same(2, 3, [224, 224]), Act::Relu6)?;
        let (mut side, mut inputs, mut blocks) = (112, 32, Vec::new());
        for [kernel, stride, expansion, outputs, repeats] in LITE0 {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                let name = |part: &str| format!("blocks.{}.{part}", blocks.len());
                let (weight, bias) = weights.pair(&name("depthwise"))?;
                let window = Window::same(stride, kernel, [side, side]);
                let expand = (expansion > 1)
                    .then(|| weights.conv(&name("expand"), point, Act::Relu6))
                    .transpose()?;
                blocks.push(Inverted {
                    expand,
                    depthwise: Depthwise::packed(&weight, Some(&bias), window, Act::Relu6)?,
                    project: weights.conv(&name("project"), point, Act::Identity)?,
                    residual: stride == 1 && inputs == outputs,
                });
                (side, inputs) = (side.div_ceil(stride), outputs);
            }
        }
        Ok(Self { stem, blocks, head: weights.conv("head", point, Act::Relu6)? })
    }
}

impl Network for Lite {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.stem.forward(&channels_last(x)?)?;
        for block in &self.blocks {
            let wide = match &block.expand {
                Some(expand) => expand.forward(&x)?,
                None => x.clone(),
            };
            let wide = block.depthwise.forward(&wide)?;
            x = if block.residual {
                block.project.forward_onto(&wide, &x)?
            } else {
                block.project.forward(&wide)?
            };
        }
        mean(&self.head.forward(&x)?)
    }
}

/// What both transformers are made of: scale, shift and epsilon.
struct Norm(Tensor, Tensor, f64);

impl Norm {
    fn new(weights: &Weights, name: &str, epsilon: f64) -> Result<Self> {
        let (scale, shift) = weights.pair(name)?;
        Ok(Self(scale, shift, epsilon))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        normalize(x, &self.0, &self.1, self.2)
    }
}

struct Layer {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
}

impl Layer {
    fn new(weights: &Weights, index: usize, heads: usize, epsilon: f64) -> Result<Self> {
        let name = |part: &str| format!("layers.{index}.{part}");
        let norm = |part: &str| Norm::new(weights, &name(part), epsilon);
        Ok(Self {
            norms: [norm("norm1")?, norm("norm2")?],
            qkv: weights.linear(&name("qkv"), Act::Identity)?,
            out: weights.linear(&name("out"), Act::Identity)?,
            up: weights.linear(&name("up"), Act::Gelu)?,
            down: weights.linear(&name("down"), Act::Identity)?,
            heads,
        })
    }

    /// The attention's product, without the residual.
    fn mix(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.qkv.inputs();
        let parts = self.qkv.forward(x)?;
        let part = |index: usize| parts.narrow(2, index * width, width);
        attention(&part(0)?, &part(1)?, &part(2)?, self.heads, Mask::None)
    }
}

/// ViT-S/16 at 224 pixels (Dosovitskiy et al. 2021), normalisation first; answers the class token.
struct Vit {
    patch: Conv,
    class: Tensor,
    position: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
}

impl Vit {
    fn new(weights: &Weights) -> Result<Self> {
        Ok(Self {
            patch: weights.conv("patch", Window::padded(16, 0), Act::Identity)?,
            class: weights.get("class")?,
            position: weights.get("position")?,
            layers: (0..12).map(|i| Layer::new(weights, i, 6, 1e-6)).collect::<Result<_>>()?,
            norm: Norm::new(weights, "norm", 1e-6)?,
        })
    }
}

impl Network for Vit {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let patches = self.patch.forward(&channels_last(x)?)?;
        let (batch, height, width, channels) = patches.dims4()?;
        let patches = patches.reshape((batch, height * width, channels))?;
        let class = self.class.broadcast_as((batch, 1, channels))?;
        let mut x = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(&self.position)?;
        for layer in &self.layers {
            x = layer.out.forward_onto(&layer.mix(&layer.norms[0].forward(&x)?)?, &x)?;
            let wide = layer.up.forward(&layer.norms[1].forward(&x)?)?;
            x = layer.down.forward_onto(&wide, &x)?;
        }
        self.norm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}

/// MiniLM-L6 (Wang et al. 2020) from its embeddings on, normalisation last; answers the mean.
struct Bert {
    layers: Vec<Layer>,
}

impl Bert {
    fn new(weights: &Weights) -> Result<Self> {
        let layers = (0..6).map(|i| Layer::new(weights, i, 12, 1e-12)).collect::<Result<_>>()?;
        Ok(Self { layers })
    }
}

impl Network for Bert {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in &self.layers {
            x = layer.norms[0].forward(&layer.out.forward_onto(&layer.mix(&x)?, &x)?)?;
            let wide = layer.up.forward(&x)?;
            x = layer.norms[1].forward(&layer.down.forward_onto(&wide, &x)?)?;
        }
        x.mean(1)
    }

    fn group(&self, x: &Tensor) -> usize {
        128_usize.div_ceil(x.dims()[1].max(1))
    }
}
