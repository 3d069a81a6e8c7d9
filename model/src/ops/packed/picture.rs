//! What stands at both ends of a tower of pictures: channels put last, and the mean over positions.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::Arch;

use super::{for_runs, no_gradient};
use crate::ops::real::elements;

/// Elements that one task handles.
const RUN: usize = 32 * 1024;

/// (B, C, H, W) to (B, H, W, C). On the CPU without a gradient.
///
/// # Errors
/// If `x` has not four dimensions; on the CPU if it is not f32.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    if !x.device().is_cpu() {
        return x.permute((0, 2, 3, 1))?.contiguous();
    }
    x.contiguous()?.apply_op1(ChannelsLast { channels, height, width })
}

/// The mean over positions of (B, H, W, C): (B, C). On the CPU without a gradient.
///
/// # Errors
/// If `x` has not four dimensions, or no positions; on the CPU if it is not f32.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    if height * width == 0 || channels == 0 {
        candle_core::bail!("mean: {:?} has no positions", x.dims());
    }
    if !x.device().is_cpu() {
        return crate::ops::mean_pool(x);
    }
    x.contiguous()?.apply_op1(Mean { positions: height * width, channels })
}

struct ChannelsLast {
    channels: usize,
    height: usize,
    width: usize,
}

impl CustomOp1 for ChannelsLast {
    fn name(&self) -> &'static str {
        "channels_last"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Self { channels, height, width } = *self;
        let x = elements::<f32>(x, layout)?;
        let batch = x.len() / (channels * height * width).max(1);
        let line = (width * channels).max(1);
        let lines = RUN.div_ceil(line);
        let mut y = vec![0.0; x.len()];
        for_runs(&mut y, lines * line, |index, y| {
            for (inner, y) in y.chunks_exact_mut(line).enumerate() {
                let at = index * lines + inner;
                let (sample, row) = (at / height, at % height);
                for channel in 0..channels {
                    let from = ((sample * channels + channel) * height + row) * width;
                    let to = y[channel..].iter_mut().step_by(channels);
                    for (to, from) in to.zip(&x[from..from + width]) {
                        *to = *from;
                    }
                }
            }
        });
        Ok((CpuStorage::F32(y), Shape::from((batch, height, width, channels))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        no_gradient("channels_last")
    }
}

struct Mean {
    positions: usize,
    channels: usize,
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Self { positions, channels } = *self;
        let x = elements::<f32>(x, layout)?;
        let sample = positions * channels;
        let mut y = vec![0.0; x.len() / positions];
        let arch = Arch::new();
        for_runs(&mut y, channels, |index, y| {
            let x = &x[index * sample..(index + 1) * sample];
            arch.dispatch(
                #[inline(always)]
                || {
                    for row in x.chunks_exact(channels) {
                        for (sum, x) in y.iter_mut().zip(row) {
                            *sum += *x;
                        }
                    }
                    for sum in y.iter_mut() {
                        *sum /= positions as f32;
                    }
                },
            );
        });
        let batch = y.len() / channels;
        Ok((CpuStorage::F32(y), Shape::from((batch, channels))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        no_gradient("mean")
    }
}
