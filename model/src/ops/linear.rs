//! Products of row vectors with a matrix.

use candle_core::{Result, Tensor};

use super::conv2d::{Conv2d, Geometry};
use super::real::native;

/// `x` (N, I) times the transpose of `w` (O, I), plus `bias` (O) if given: (N, O).
///
/// Strided inputs are made contiguous first: candle's product is silently wrong for some of them.
/// In half precision the weights are cast to the type of `x`.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = similarity(x, w)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.to_dtype(y.dtype())?),
        None => Ok(y),
    }
}

/// All dot products between the rows of `a` (N, D) and of `b` (M, D): (N, M). In half precision `b`
/// is cast to the type of `a`.
///
/// # Errors
/// If the widths differ.
pub fn similarity(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (rows, inputs) = a.dims2()?;
    let (outputs, width) = b.dims2()?;
    if inputs != width || inputs == 0 || outputs == 0 {
        candle_core::bail!("linear: inputs of width {inputs}, weights {outputs} x {width}");
    }
    if !native(a) {
        return composed(a, &b.to_dtype(a.dtype())?);
    }
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    a.apply_op2(&b, Conv2d(Geometry::linear(rows, inputs, outputs)))
}

/// The same function from candle's operations.
fn composed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.contiguous()?.matmul(&b.t()?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;
    use proptest::prelude::*;

    use super::{composed, linear, similarity};
    use crate::ops::gradcheck::{largest_error, values};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn equals_the_definition_and_has_its_gradient(
            rows in 1..9_usize, inputs in 1..6_usize, outputs in 1..6_usize,
        ) {
            let x = values(1, &[rows, inputs]).unwrap();
            let w = values(2, &[outputs, inputs]).unwrap();
            let bias = values(3, &[outputs]).unwrap();
            let y = linear(&x, &w, Some(&bias)).unwrap().to_vec2::<f64>().unwrap();
            let [xs, ws] = [&x, &w].map(|t| t.to_vec2::<f64>().unwrap());
            let bs = bias.to_vec1::<f64>().unwrap();
            for (row, y) in xs.iter().zip(&y) {
                for ((w, bias), y) in ws.iter().zip(&bs).zip(y) {
                    let dot: f64 = row.iter().zip(w).map(|(x, w)| x * w).sum();
                    prop_assert!((dot + bias - y).abs() < 1e-12);
                }
            }
            let layer = |t: &[Tensor]| linear(&t[0], &t[1], Some(&t[2]));
            let inputs = [x, w, bias];
            prop_assert!(largest_error(&inputs, layer).unwrap() < 1e-8);
            let slow = composed(&inputs[0], &inputs[1]).unwrap().to_vec2::<f64>().unwrap();
            let ours = similarity(&inputs[0], &inputs[1]).unwrap().to_vec2::<f64>().unwrap();
            for (slow, ours) in slow.concat().iter().zip(&ours.concat()) {
                prop_assert!((slow - ours).abs() < 1e-12);
            }
            let slow = |t: &[Tensor]| composed(&t[0], &t[1]);
            prop_assert!(largest_error(&inputs[..2], slow).unwrap() < 1e-8);
        }
    }

    #[test]
    fn reads_a_transposed_input() {
        let x = values(1, &[3, 5]).unwrap();
        let strided = similarity(&x.t().unwrap(), &values(2, &[4, 3]).unwrap()).unwrap();
        let copied = x.t().unwrap().contiguous().unwrap();
        let copied = similarity(&copied, &values(2, &[4, 3]).unwrap()).unwrap();
        assert_eq!(strided.to_vec2::<f64>().unwrap(), copied.to_vec2::<f64>().unwrap());
    }

    #[test]
    fn refuses_widths_that_differ() {
        assert!(similarity(&values(1, &[3, 5]).unwrap(), &values(2, &[4, 3]).unwrap()).is_err());
    }
}
