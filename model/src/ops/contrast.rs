//! Unit vectors and the softmax over candidates that contrastive losses are made of.

use candle_core::{D, Result, Tensor};

/// Added to the squared length before its root: a zero row stays zero, with a finite gradient.
const LENGTH_EPSILON: f64 = 1e-12;
/// What a forbidden logit becomes: its exponential is 0 in f32 and f64, and, unlike minus
/// infinity, no product with 0 makes it NaN.
const FORBIDDEN: f64 = -1e9;

/// The rows of `x` (N, D) at unit length: x / sqrt(|x|² + 1e-12).
///
/// # Errors
/// If `x` has no last dimension.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + LENGTH_EPSILON)?.sqrt()?;
    x.broadcast_div(&length)
}

/// Log-softmax over the last dimension of `logits` (N, M), finite for logits of any size.
///
/// # Errors
/// If the logits have no last dimension.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    // The shift cancels, so it takes no part in the gradient; candle's gradient of a maximum
    // counts ties more than once.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// [`log_softmax`] over the entries that are not forbidden: where `forbidden` (N, M), u8, is not 0,
/// the entry takes no part, neither in the sum nor in any gradient. A row needs one entry at least.
///
/// # Errors
/// If the shapes differ.
pub fn masked_log_softmax(logits: &Tensor, forbidden: &Tensor) -> Result<Tensor> {
    let floor = logits.zeros_like()?.affine(0.0, FORBIDDEN)?;
    log_softmax(&forbidden.where_cond(&floor, logits)?)
}

/// Mean over rows of minus the log-probability of the right entry: `log_probabilities` (N, M),
/// `labels` (N) u32, each below M. A scalar.
///
/// # Errors
/// If the shapes do not fit or a label is out of range.
pub fn cross_entropy(log_probabilities: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let right = log_probabilities.gather(&labels.unsqueeze(1)?, 1)?;
    right.mean_all()?.neg()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};

    use super::{cross_entropy, l2_normalize, log_softmax, masked_log_softmax};
    use crate::ops::gradcheck::{largest_error, values};

    #[test]
    fn gradients_equal_differences() {
        let x = [values(1, &[4, 5]).unwrap()];
        assert!(largest_error(&x, |t| l2_normalize(&t[0])).unwrap() < 1e-8);
        assert!(largest_error(&x, |t| log_softmax(&t[0])).unwrap() < 1e-8);
        let labels = Tensor::new(&[0_u32, 4, 2, 2], &Device::Cpu).unwrap();
        let loss = |t: &[Tensor]| cross_entropy(&log_softmax(&t[0])?, &labels);
        assert!(largest_error(&x, loss).unwrap() < 1e-8);
    }

    #[test]
    fn a_zero_row_stays_zero_with_a_finite_gradient() {
        let x = Var::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let y = l2_normalize(&x).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), vec![vec![0.0; 3]; 2]);
        let gradients = y.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(gradient.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn log_softmax_is_finite_at_extreme_logits() {
        let logits = Tensor::new(&[[1e4_f32, -1e4, 0.0]], &Device::Cpu).unwrap();
        let y = log_softmax(&logits).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(y[0], [0.0, -2e4, -1e4]);
    }

    #[test]
    fn a_forbidden_entry_takes_no_part() {
        let logits = Tensor::new(&[[1.0_f64, 50.0, 2.0]], &Device::Cpu).unwrap();
        let forbidden = Tensor::new(&[[0_u8, 1, 0]], &Device::Cpu).unwrap();
        let masked = masked_log_softmax(&logits, &forbidden).unwrap().to_vec2::<f64>().unwrap();
        let without = Tensor::new(&[[1.0_f64, 2.0]], &Device::Cpu).unwrap();
        let without = log_softmax(&without).unwrap().to_vec2::<f64>().unwrap();
        assert!((masked[0][0] - without[0][0]).abs() < 1e-12);
        assert!((masked[0][2] - without[0][1]).abs() < 1e-12);
        let labels = Tensor::new(&[2_u32], &Device::Cpu).unwrap();
        let loss = |t: &[Tensor]| cross_entropy(&masked_log_softmax(&t[0], &forbidden)?, &labels);
        assert!(largest_error(&[logits], loss).unwrap() < 1e-8);
    }
}
