//! `conv`: a small residual network for pictures of a few dozen pixels.
//!
//! Basic blocks as in He et al. 2016, "Deep residual learning", figure 5 left, with group
//! normalisation (Wu and He 2018) in place of batch normalisation, so that the vector of a picture
//! does not depend on its neighbours in the batch.

use candle_core::{DType, Tensor};

use super::layers::{Conv as Convolution, ConvShape, Norm};
use super::{Entry, ImageFeatures, ImageTower};
use crate::config::ConvConfig;
use crate::error::Result;
use crate::ops::palette::palette;
use crate::ops::{self, Activation};
use crate::params::Params;

pub(super) const ENTRY: Entry = Entry {
    name: "conv",
    example: "kind = \"conv\"\nsize = 16\nwidths = [8, 16]\ngroups = 4\n",
    frozen: false,
};

/// Channels of a picture.
const COLOURS: usize = 3;
/// Mean, deviation and maximum of each channel.
const STATISTICS: usize = 3;

/// The tower. `last` is the mean over positions of the last stage, in each of its cells; `early` are statistics of the
/// pixels and, if asked for, their colours, of the stem before its normalisation takes contrast away, and of the first stages.
#[derive(Debug)]
pub(super) struct Conv {
    stem: Convolution,
    stem_norm: Norm,
    /// Blocks of each stage.
    stages: Vec<Vec<Block>>,
    early_stages: usize,
    cells: usize,
    palette: usize,
    last_width: usize,
    early_width: usize,
    compute_dtype: DType,
}

impl Conv {
    pub(super) fn new(config: &ConvConfig, params: &Params, prefix: &str) -> Result<Self> {
        let (widths, groups) = (&config.widths, config.groups);
        let stem = ConvShape {
            inputs: COLOURS,
            outputs: widths[0],
            kernel: 3,
            stride: config.stem_stride,
        };
        let mut stages = Vec::with_capacity(widths.len());
        let mut inputs = widths[0];
        for (stage, &outputs) in widths.iter().enumerate() {
            let mut blocks = Vec::with_capacity(config.blocks_per_stage);
            for block in 0..config.blocks_per_stage {
                let name = format!("{prefix}.stages.{stage}.{block}");
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let shape = ConvShape { inputs, outputs, kernel: 3, stride };
                blocks.push(Block::new(params, &name, shape, groups)?);
                inputs = outputs;
            }
            stages.push(blocks);
        }
        let early: usize = widths[..config.early_stages - 1].iter().sum();
        Ok(Self {
            stem: Convolution::new(params, &format!("{prefix}.stem.conv"), stem)?,
            stem_norm: Norm::new(params, &format!("{prefix}.stem.norm"), widths[0], groups)?,
            stages,
            early_stages: config.early_stages,
            cells: config.cells,
            palette: config.palette,
            last_width: inputs * config.cells * config.cells,
            early_width: STATISTICS * (COLOURS + widths[0] + early)
                + config.palette.pow(COLOURS as u32),
            compute_dtype: params.compute_dtype(),
        })
    }
}

impl ImageTower for Conv {
    fn forward(&self, pixels: &Tensor) -> Result<ImageFeatures> {
        let pixels = pixels.permute((0, 2, 3, 1))?.contiguous()?;
        let stem = self.stem.forward(&pixels.to_dtype(self.compute_dtype)?)?;
        let mut early = vec![ops::pool_statistics(&pixels)?, ops::pool_statistics(&stem)?];
        if self.palette > 0 {
            early.push(palette(&pixels, self.palette)?);
        }
        let mut x = self.stem_norm.group(&stem, Activation::Relu)?;
        for (stage, blocks) in self.stages.iter().enumerate() {
            for block in blocks {
                x = block.forward(&x)?;
            }
            if stage + 1 < self.early_stages {
                early.push(ops::pool_statistics(&x)?);
            }
        }
        Ok(ImageFeatures { last: cell_means(&x, self.cells)?, early: Tensor::cat(&early, 1)? })
    }

    fn last_width(&self) -> usize {
        self.last_width
    }

    fn early_width(&self) -> usize {
        self.early_width
    }

    /// The last stage has nine positions a picture of 48 pixels.
    fn group(&self) -> usize {
        8
    }
}

/// The means of (B, H, W, C) over each of `cells` times `cells` parts, row by row: (B, cells² C).
fn cell_means(x: &Tensor, cells: usize) -> Result<Tensor> {
    if cells == 1 {
        return Ok(ops::mean_pool(x)?);
    }
    let (_, height, width, _) = x.dims4()?;
    let (rows, columns) = (height / cells, width / cells);
    let mut means = Vec::with_capacity(cells * cells);
    for row in 0..cells {
        let band = x.narrow(1, row * rows, rows)?;
        for column in 0..cells {
            let cell = band.narrow(2, column * columns, columns)?.contiguous()?;
            means.push(ops::mean_pool(&cell)?);
        }
    }
    Ok(Tensor::cat(&means, 1)?)
}

/// Two convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    first: Convolution,
    first_norm: Norm,
    second: Convolution,
    second_norm: Norm,
    /// Where stride or width change, a 1 x 1 convolution makes the shortcut fit.
    shortcut: Option<(Convolution, Norm)>,
}

impl Block {
    fn new(params: &Params, name: &str, shape: ConvShape, groups: usize) -> Result<Self> {
        let ConvShape { inputs, outputs, stride, .. } = shape;
        let conv = |part: &str, shape| Convolution::new(params, &format!("{name}.{part}"), shape);
        let norm = |part: &str| Norm::new(params, &format!("{name}.{part}"), outputs, groups);
        let shortcut = if stride == 1 && inputs == outputs {
            None
        } else {
            let shape = ConvShape { kernel: 1, ..shape };
            Some((conv("shortcut.conv", shape)?, norm("shortcut.norm")?))
        };
        Ok(Self {
            first: conv("first.conv", shape)?,
            first_norm: norm("first.norm")?,
            second: conv("second.conv", ConvShape { inputs: outputs, stride: 1, ..shape })?,
            second_norm: norm("second.norm")?,
            shortcut,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inner = self.first_norm.group(&self.first.forward(x)?, Activation::Relu)?;
        let inner = self.second.forward(&inner)?;
        match &self.shortcut {
            None => self.second_norm.group_onto(&inner, x),
            Some((conv, norm)) => {
                let shortcut = norm.group(&conv.forward(x)?, Activation::Identity)?;
                self.second_norm.group_onto(&inner, &shortcut)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn cells_keep_apart_what_lies_apart() {
        // Two channels, the second ten times the first; values 0 to 15 row by row.
        let values: Vec<f32> = (0..16).flat_map(|at| [at as f32, 10.0 * at as f32]).collect();
        let x = Tensor::from_vec(values, (1, 4, 4, 2), &Device::Cpu).unwrap();
        let means = |cells| cell_means(&x, cells).unwrap().to_vec2::<f32>().unwrap()[0].clone();
        assert_eq!(means(1), [7.5, 75.0]);
        assert_eq!(means(2), [2.5, 25.0, 4.5, 45.0, 10.5, 105.0, 12.5, 125.0]);
    }
}
