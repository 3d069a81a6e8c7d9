use candle_core::{DType, Tensor, Var};
use proptest::prelude::*;

use super::{Activation, composed, group_norm, layer_norm};
use crate::ops::gradcheck::{largest_error, values};

/// Batch, height, width, groups and channels per group.
fn shapes() -> impl Strategy<Value = ([usize; 4], usize)> {
    (1..4_usize, 1..5_usize, 1..5_usize, 1..4_usize, 1..4_usize)
        .prop_map(|(b, h, w, groups, width)| ([b, h, w, groups * width], groups))
}

fn inputs(shape: &[usize; 4]) -> Vec<Tensor> {
    let affine = values(2, &[2, shape[3]]).unwrap();
    vec![values(1, shape).unwrap(), affine, values(3, shape).unwrap()]
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equals_the_composition_with_and_without_residual((shape, groups) in shapes()) {
        let t = inputs(&shape);
        for residual in [None, Some(&t[2])] {
            for activation in [Activation::Identity, Activation::Relu] {
                let ours = group_norm(&t[0], &t[1], groups, residual, activation).unwrap();
                let slow = composed(&t[0], &t[1], groups, residual, activation).unwrap();
                prop_assert!(largest_difference(&ours, &slow) < 1e-10);
            }
        }
    }

    #[test]
    fn gradients_equal_differences((shape, groups) in shapes()) {
        let t = inputs(&shape);
        // A group of one element has a constant output, whose slope at the root is steep.
        prop_assume!(shape[1] * shape[2] * shape[3] / groups > 2);
        for norm in [group_norm, composed] {
            let plain = |t: &[Tensor]| norm(&t[0], &t[1], groups, None, Activation::Identity);
            prop_assert!(largest_error(&t[..2], plain).unwrap() < 1e-5);
            let sum = |t: &[Tensor]| norm(&t[0], &t[1], groups, Some(&t[2]), Activation::Identity);
            prop_assert!(largest_error(&t, sum).unwrap() < 1e-5);
        }
    }
}

#[test]
fn a_rectified_sum_has_the_gradients_of_its_positive_part() {
    let t = inputs(&[2, 3, 3, 4]);
    for norm in [group_norm, composed] {
        let rectified = |t: &[Tensor]| norm(&t[0], &t[1], 2, Some(&t[2]), Activation::Relu);
        assert!(largest_error(&t, rectified).unwrap() < 1e-6);
    }
}

/// 4,608 elements a group: in bf16 their sum would end at 256 times the mean.
#[test]
fn half_precision_is_normalised_in_f32() {
    let t = inputs(&[2, 24, 24, 16]);
    let t: Vec<Tensor> = t.iter().map(|t| (t + 1.0).unwrap()).collect();
    for (dtype, tolerance) in [(DType::BF16, 0.1), (DType::F16, 0.01)] {
        let [x, residual] = [0, 2].map(|at| t[at].to_dtype(dtype).unwrap());
        let affine = Var::from_tensor(&t[1].to_dtype(DType::F32).unwrap()).unwrap();
        let y = group_norm(&x, &affine, 2, Some(&residual), Activation::Relu).unwrap();
        assert_eq!(y.dtype(), dtype);
        // What rounding the input does is no fault of the normalisation.
        let [x, residual] = [&x, &residual].map(|half| half.to_dtype(DType::F64).unwrap());
        let exact = group_norm(&x, &t[1], 2, Some(&residual), Activation::Relu).unwrap();
        let difference = largest_difference(&y.to_dtype(DType::F64).unwrap(), &exact);
        assert!(difference < tolerance, "{dtype:?}: {difference}");
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&affine).unwrap().dtype(), DType::F32);
    }
}

#[test]
fn layer_norm_rows_have_mean_0_and_deviation_1() {
    let x = values(4, &[5, 16]).unwrap();
    let affine = Tensor::stack(
        &[
            Tensor::ones(16, DType::F64, x.device()).unwrap(),
            Tensor::zeros(16, DType::F64, x.device()).unwrap(),
        ],
        0,
    )
    .unwrap();
    let y = layer_norm(&x, &affine).unwrap();
    let mean = y.mean(1).unwrap();
    let square = y.sqr().unwrap().mean(1).unwrap();
    assert!(largest_difference(&mean, &mean.zeros_like().unwrap()) < 1e-12);
    assert!(largest_difference(&square, &square.ones_like().unwrap()) < 1e-3);
    let error = largest_error(&[x, values(5, &[2, 16]).unwrap()], |t| layer_norm(&t[0], &t[1]));
    assert!(error.unwrap() < 1e-7);
}

#[test]
fn a_flat_sample_stays_finite() {
    let x = Tensor::zeros((1, 4, 4, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let x = Var::from_tensor(&x).unwrap();
    let affine = values(6, &[2, 8]).unwrap().to_dtype(DType::F32).unwrap();
    let y = group_norm(&x, &affine, 2, None, Activation::Identity).unwrap();
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(gradient.iter().all(|value| value.is_finite()));
}

#[test]
fn gives_the_same_bits_for_any_number_of_threads() {
    let step = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let [x, affine, residual] =
                [(7, vec![67, 12, 12, 24]), (8, vec![2, 24]), (9, vec![67, 12, 12, 24])].map(
                    |(seed, shape)| values(seed, &shape).unwrap().to_dtype(DType::F32).unwrap(),
                );
            let (x, affine) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&affine).unwrap());
            let y = group_norm(&x, &affine, 8, Some(&residual), Activation::Relu).unwrap();
            let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            [&y, gradients.get(&x).unwrap(), gradients.get(&affine).unwrap()]
                .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        })
    };
    let alone = step(1);
    assert!(alone == step(2) && alone == step(5));
}

#[test]
fn refuses_what_does_not_fit() {
    let x = values(1, &[1, 2, 2, 6]).unwrap();
    let norm = |affine: &[usize], groups| {
        group_norm(&x, &values(2, affine).unwrap(), groups, None, Activation::Identity)
    };
    assert!(norm(&[2, 6], 4).is_err(), "groups do not divide the channels");
    assert!(norm(&[2, 6], 0).is_err(), "no groups");
    assert!(norm(&[2, 5], 3).is_err(), "affine of another width");
}
