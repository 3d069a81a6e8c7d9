//! `resnet`: ResNet-18 and ResNet-50 (He et al. 2016) with the names of torchvision. The bottleneck has
//! its stride in the 3 x 3 convolution, as torchvision's has.

use candle_core::Tensor;

use super::layers::ConvShape;
use super::layers::folded::{self, Names};
use super::{Entry, ImageFeatures, ImageTower};
use crate::config::{ResnetConfig, ResnetDepth};
use crate::error::Result;
use crate::ops::packed::{self, Act, Window};
use crate::params::Params;

pub(super) const ENTRY: Entry = Entry {
    name: "resnet",
    example: "kind = \"resnet\"\nsize = 32\ndepth = \"18\"\nwidth = 4\n",
    frozen: true,
};

/// Added to variances.
const EPSILON: f64 = 1e-5;

/// The tower. `last` is the mean of the last stage, `early` that of the first.
#[derive(Debug)]
pub(super) struct Resnet {
    stem: packed::Conv,
    stages: Vec<Vec<Block>>,
    early_width: usize,
    last_width: usize,
}

/// Convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    /// All but the last.
    inner: Vec<packed::Conv>,
    /// Onto the shortcut.
    last: packed::Conv,
    /// Where stride or width change, a convolution makes the shortcut fit.
    shortcut: Option<packed::Conv>,
}

impl Resnet {
    pub(super) fn new(config: &ResnetConfig, params: &Params, prefix: &str) -> Result<Self> {
        let (counts, expansion) = match config.depth {
            ResnetDepth::Eighteen => ([2, 2, 2, 2], 1),
            ResnetDepth::Fifty => ([3, 4, 6, 3], 4),
        };
        let (stem, norm) = (format!("{prefix}.conv1"), format!("{prefix}.bn1"));
        let stem = folded::conv(
            params,
            &Names { conv: &stem, norm: &norm, epsilon: EPSILON },
            ConvShape { inputs: 3, outputs: config.width, kernel: 7, stride: 2 },
            (Window::padded(2, 3), Act::Relu),
        )?;
        let mut inputs = config.width;
        let mut stages = Vec::with_capacity(counts.len());
        for (stage, count) in counts.into_iter().enumerate() {
            let width = config.width << stage;
            let mut blocks = Vec::with_capacity(count);
            for block in 0..count {
                let name = format!("{prefix}.layer{}.{block}", stage + 1);
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let outputs = width * expansion;
                blocks.push(Block::new(params, &name, [inputs, width, outputs], stride)?);
                inputs = outputs;
            }
            stages.push(blocks);
        }
        Ok(Self { stem, stages, early_width: config.width * expansion, last_width: inputs })
    }
}

impl Block {
    /// A basic block where `width` is that of the outputs, else a bottleneck.
    fn new(
        params: &Params,
        name: &str,
        [inputs, width, outputs]: [usize; 3],
        stride: usize,
    ) -> Result<Self> {
        let conv = |conv: &str, norm: &str, shape: ConvShape, act| {
            let (conv, norm) = (format!("{name}.{conv}"), format!("{name}.{norm}"));
            let names = Names { conv: &conv, norm: &norm, epsilon: EPSILON };
            let window = Window::padded(shape.stride, shape.kernel / 2);
            folded::conv(params, &names, shape, (window, act))
        };
        let shape = |inputs, outputs, kernel, stride| ConvShape { inputs, outputs, kernel, stride };
        let relu = Act::Relu;
        // The activation of the last one comes after the sum with the shortcut.
        let (inner, last) = if width == outputs {
            let first = conv("conv1", "bn1", shape(inputs, width, 3, stride), relu)?;
            (vec![first], conv("conv2", "bn2", shape(width, width, 3, 1), relu)?)
        } else {
            let first = conv("conv1", "bn1", shape(inputs, width, 1, 1), relu)?;
            let second = conv("conv2", "bn2", shape(width, width, 3, stride), relu)?;
            (vec![first, second], conv("conv3", "bn3", shape(width, outputs, 1, 1), relu)?)
        };
        let fits = stride == 1 && inputs == outputs;
        let shape = shape(inputs, outputs, 1, stride);
        let shortcut = (!fits).then(|| conv("downsample.0", "downsample.1", shape, Act::Identity));
        Ok(Self { inner, last, shortcut: shortcut.transpose()? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.inner.iter().try_fold(x.clone(), |x, conv| conv.forward(&x))?;
        Ok(match &self.shortcut {
            Some(conv) => self.last.forward_onto(&inner, &conv.forward(x)?)?,
            None => self.last.forward_onto(&inner, x)?,
        })
    }
}

impl ImageTower for Resnet {
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let pixels = packed::channels_last(pixels)?;
        let mut x = packed::max_pool(&self.stem.forward(&pixels)?, 3, Window::padded(2, 1))?;
        let mut early = None;
        for blocks in &self.stages {
            x = blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
            if early.is_none() {
                early = Some(packed::mean(&x)?);
            }
        }
        let last = packed::mean(&x)?;
        Ok(ImageFeatures { early: early.unwrap_or_else(|| last.clone()), last })
    }

    fn last_width(&self) -> usize {
        self.last_width
    }

    fn early_width(&self) -> usize {
        self.early_width
    }

    /// The last stage has 49 positions a picture of 224 pixels and half of all weights.
    fn group(&self) -> usize {
        4
    }
}
