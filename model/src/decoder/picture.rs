//! Codes to pixels.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::ops::{self, Activation};
use crate::params::{Init, Params};
use crate::tower::layers::{Conv, ConvShape, Linear, Norm};

/// Channels of a picture.
const COLOURS: usize = 3;

/// The least side of the grid that a picture grows from.
const GRID: usize = 4;

/// Groups of every group normalisation.
const GROUPS: usize = 8;

/// Standard deviation of the weights that make scales and shifts of an exclusive code: small, so that
/// training begins near a decoder of the shared code, and not zero, so that it has a gradient.
const MODULATION: f64 = 0.1;

/// Sizes of a [`PictureDecoder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureDecoderShape {
    /// Width of the shared code.
    pub shared: usize,
    /// Width of the exclusive code.
    pub exclusive: usize,
    /// Side of the picture in pixels: 4 to 7 times a power of two, at least 8.
    pub size: usize,
    /// Channels of every layer, a multiple of 8.
    pub width: usize,
}

/// Codes to a picture: the shared code becomes a small grid, which is doubled until it has the picture's
/// size, by convolutions whose outputs are laid out as four times the positions (Shi et al., 2016,
/// "Real-time single image and video super-resolution", section 3.2). The exclusive code scales and
/// shifts the channels of every layer (Perez et al., 2018, "FiLM", eq. 1 to 3): what holds for the whole
/// picture, such as a colour, then need not be painted position by position.
#[derive(Debug)]
pub struct PictureDecoder {
    grid: Linear,
    side: usize,
    layers: Vec<Layer>,
    last: Conv,
    width: usize,
}

#[derive(Debug)]
struct Layer {
    /// None for the grid itself.
    grow: Option<Conv>,
    norm: Norm,
    scale: Linear,
    shift: Linear,
}

impl PictureDecoder {
    /// A decoder whose weights are named `{name}.*`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a size or a width that cannot be made; what [`Params::get`] answers.
    pub fn new(params: &Params, name: &str, shape: PictureDecoderShape) -> Result<Self> {
        let PictureDecoderShape { shared, exclusive, size, width } = shape;
        if width == 0 || !width.is_multiple_of(GROUPS) {
            let message = format!("{width} is not a multiple of {GROUPS}");
            return Err(Error::invalid("decoder.width", message));
        }
        let doublings = (size / GRID).max(1).ilog2() as usize;
        if doublings == 0 || !size.is_multiple_of(1 << doublings) {
            let message = format!("{size} px is not 4 to 7 times a power of two, 8 or more");
            return Err(Error::invalid("decoder.size", message));
        }
        let side = size >> doublings;
        let layer = |number: usize| {
            let name = format!("{name}.layers.{number}");
            let grow = ConvShape { inputs: width, outputs: 4 * width, kernel: 3, stride: 1 };
            let grow = (number > 0).then(|| Conv::new(params, &format!("{name}.grow"), grow));
            Ok(Layer {
                grow: grow.transpose()?,
                norm: Norm::new(params, &format!("{name}.norm"), width, GROUPS)?,
                scale: modulation(params, &format!("{name}.scale"), [exclusive, width])?,
                shift: modulation(params, &format!("{name}.shift"), [exclusive, width])?,
            })
        };
        let layers = (0..doublings).map(layer).collect::<Result<_>>()?;
        let last = ConvShape { inputs: width, outputs: 4 * COLOURS, kernel: 3, stride: 1 };
        Ok(Self {
            grid: Linear::new(params, &format!("{name}.grid"), [shared, side * side * width])?,
            side,
            layers,
            last: Conv::new(params, &format!("{name}.last"), last)?,
            width,
        })
    }

    /// Pictures (B, 3, size, size), in the units that the towers read, of shared codes (B, S) and
    /// exclusive codes (B, E), both with coordinates of about unit variance.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a width does not fit.
    pub fn forward(&self, shared: &Tensor, exclusive: &Tensor) -> Result<Tensor> {
        let grid = self.grid.forward(shared)?;
        let mut x = grid.reshape((shared.dim(0)?, self.side, self.side, self.width))?;
        for Layer { grow, norm, scale, shift } in &self.layers {
            if let Some(grow) = grow {
                x = doubled(&grow.forward(&x)?)?;
            }
            let along = |layer: &Linear| -> Result<Tensor> {
                Ok(layer.forward(exclusive)?.unsqueeze(1)?.unsqueeze(1)?)
            };
            let plain = norm.group(&x, Activation::Identity)?;
            x = plain.broadcast_mul(&(along(scale)? + 1.0)?)?.broadcast_add(&along(shift)?)?;
            x = ops::relu(&x)?;
        }
        let pixels = doubled(&self.last.forward(&x)?)?;
        Ok(pixels.permute((0, 3, 1, 2))?.contiguous()?)
    }
}

fn modulation(params: &Params, name: &str, widths: [usize; 2]) -> Result<Linear> {
    Linear::with_init(params, name, widths, Init::Normal { std: MODULATION })
}

/// (B, H, W, 4 C) to (B, 2 H, 2 W, C): channel `(2 a + b) C + c` of a position goes to row a and column
/// b of the four positions that it becomes.
fn doubled(x: &Tensor) -> Result<Tensor> {
    let (batch, height, width, channels) = x.dims4()?;
    let channels = channels / 4;
    let x = x.reshape(&[batch, height, width, 2, 2, channels][..])?;
    let x = x.permute(&[0, 1, 3, 2, 4, 5][..])?.contiguous()?;
    Ok(x.reshape((batch, 2 * height, 2 * width, channels))?)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::{PictureDecoder, PictureDecoderShape, doubled};
    use crate::ops::gradcheck::{largest_error, values};
    use crate::params::Params;

    const SHAPE: PictureDecoderShape =
        PictureDecoderShape { shared: 3, exclusive: 2, size: 8, width: 8 };

    #[test]
    fn four_channels_become_four_positions() {
        let x = Tensor::arange(0_f32, 8.0, &Device::Cpu).unwrap().reshape((1, 1, 2, 4)).unwrap();
        let y = doubled(&x).unwrap().squeeze(3).unwrap().squeeze(0).unwrap();
        let rows = y.to_vec2::<f32>().unwrap();
        assert_eq!(rows, [[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]);
    }

    #[test]
    fn gradients_into_both_codes_equal_differences() {
        let params = Params::seeded(3, &Device::Cpu).with_dtype(DType::F64);
        let decoder = PictureDecoder::new(&params, "decoder", SHAPE).unwrap();
        let codes = [values(1, &[2, 3]).unwrap(), values(2, &[2, 2]).unwrap()];
        let error = largest_error(&codes, |codes| {
            let pixels = decoder.forward(&codes[0], &codes[1]).unwrap();
            assert_eq!(pixels.dims(), [2, 3, 8, 8]);
            Ok(pixels)
        });
        assert!(error.unwrap() < 1e-6);
    }

    #[test]
    fn sizes_that_cannot_be_doubled_to_are_refused_by_name() {
        let params = Params::seeded(3, &Device::Cpu);
        for (shape, named) in [
            (PictureDecoderShape { size: 6, ..SHAPE }, "decoder.size"),
            (PictureDecoderShape { size: 50, ..SHAPE }, "decoder.size"),
            (PictureDecoderShape { width: 12, ..SHAPE }, "decoder.width"),
        ] {
            let error = PictureDecoder::new(&params, "decoder", shape).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
        for size in [8, 16, 32, 48, 56, 64, 128] {
            let shape = PictureDecoderShape { size, ..SHAPE };
            let decoder = PictureDecoder::new(&params, &format!("of{size}"), shape).unwrap();
            let code = |width| Tensor::zeros((1, width), DType::F32, &Device::Cpu).unwrap();
            let pixels = decoder.forward(&code(3), &code(2)).unwrap();
            assert_eq!(pixels.dims(), [1, 3, size, size]);
        }
    }
}
