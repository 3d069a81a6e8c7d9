//! Convolutions with the batch normalisation behind them folded in. For towers that are served and not
//! trained: the fold and the packing happen once, when the layer is built.
//!
//! Pictures are (B, H, W, C).

use candle_core::{DType, Tensor};

use super::ConvShape;
use crate::error::{Error, Result};
use crate::ops::packed::{self, Act, Window};
use crate::params::{Init, Params};

/// The names of a convolution and of the normalisation behind it.
pub(crate) struct Names<'a> {
    pub(crate) conv: &'a str,
    pub(crate) norm: &'a str,
    /// Added to the variance.
    pub(crate) epsilon: f64,
}

/// A weight (O, I, k, k) scaled per output, and the shift (O) that remains: y = w' x + b'.
fn folded(params: &Params, names: &Names<'_>, shape: &[usize; 4]) -> Result<(Tensor, Tensor)> {
    let outputs = [shape[0]];
    let fan_in = shape[1..].iter().product();
    let weight = params.get(&format!("{}.weight", names.conv), shape, Init::Kaiming { fan_in })?;
    let part = |part: &str, init| params.get(&format!("{}.{part}", names.norm), &outputs, init);
    let (scale, shift) = (part("weight", Init::Ones)?, part("bias", Init::Zeros)?);
    let (mean, variance) = (part("running_mean", Init::Zeros)?, part("running_var", Init::Ones)?);
    if variance.min(0)?.to_dtype(DType::F64)?.to_scalar::<f64>()? < 0.0 {
        let name = format!("{}.running_var", names.norm);
        return Err(Error::corrupt(name, "has a negative variance; the checkpoint is damaged"));
    }
    let scale = (scale / (variance + names.epsilon)?.sqrt()?)?;
    let shift = (shift - (mean * &scale)?)?;
    let weight = weight.broadcast_mul(&scale.reshape((shape[0], 1, 1, 1))?)?;
    Ok((weight.detach(), shift.detach()))
}

/// A convolution with a square kernel, (B, H, W, C) to (B, H', W', O).
pub(crate) fn conv(
    params: &Params,
    names: &Names<'_>,
    shape: ConvShape,
    (window, act): (Window, Act),
) -> Result<packed::Conv> {
    let ConvShape { inputs, outputs, kernel, .. } = shape;
    let (weight, shift) = folded(params, names, &[outputs, inputs, kernel, kernel])?;
    Ok(packed::Conv::packed(&weight, Some(&shift), window, act)?)
}

/// A convolution of each channel by itself, (B, H, W, C) to (B, H', W', C).
pub(crate) fn depthwise(
    params: &Params,
    names: &Names<'_>,
    shape: ConvShape,
    (window, act): (Window, Act),
) -> Result<packed::Depthwise> {
    let ConvShape { inputs: channels, kernel, .. } = shape;
    let (weight, shift) = folded(params, names, &[channels, 1, kernel, kernel])?;
    Ok(packed::Depthwise::packed(&weight, Some(&shift), window, act)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::gradcheck::values;

    const SHAPE: ConvShape = ConvShape { inputs: 2, outputs: 2, kernel: 1, stride: 1 };
    const NAMES: Names<'_> = Names { conv: "conv", norm: "norm", epsilon: 0.5 };

    fn weights(variance: [f32; 2]) -> Params {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let tensors = [
            ("conv.weight", tensor(&[1.0, 2.0, 3.0, 4.0]).reshape((2, 2, 1, 1)).unwrap()),
            ("norm.weight", tensor(&[1.5, -1.0])),
            ("norm.bias", tensor(&[0.25, 0.5])),
            ("norm.running_mean", tensor(&[0.5, -2.0])),
            ("norm.running_var", tensor(&variance)),
        ];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor));
        Params::from_tensors(tensors.into_iter().collect(), &Device::Cpu)
    }

    #[test]
    fn folding_changes_nothing_but_the_order_of_operations() {
        let layer =
            conv(&weights([1.5, 3.5]), &NAMES, SHAPE, (Window::padded(1, 0), Act::Identity));
        let x = values(3, &[1, 4, 3, 2]).unwrap().to_dtype(DType::F32).unwrap();
        let y = layer.unwrap().forward(&x).unwrap().reshape(((), 2)).unwrap();
        let x = x.reshape(((), 2)).unwrap().to_vec2::<f32>().unwrap();
        for (x, y) in x.iter().zip(y.to_vec2::<f32>().unwrap()) {
            let plain = [x[0] + 2.0 * x[1], 3.0 * x[0] + 4.0 * x[1]];
            let first = (plain[0] - 0.5) / 2_f32.sqrt() * 1.5 + 0.25;
            let second = -(plain[1] + 2.0) / 4_f32.sqrt() + 0.5;
            assert!((y[0] - first).abs() < 1e-5 && (y[1] - second).abs() < 1e-5);
        }
    }

    #[test]
    fn a_negative_variance_is_refused_by_name() {
        let sizes = (Window::padded(1, 0), Act::Identity);
        let error = conv(&weights([1.0, -1.0]), &NAMES, SHAPE, sizes).unwrap_err();
        assert!(error.to_string().starts_with("norm.running_var: "), "{error}");
    }
}
