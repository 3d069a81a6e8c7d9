//! Layers with packed weights against their definitions, and what all of them promise.

use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::conv::composed;
use super::*;
use crate::ops::gradcheck::values;

const ACTS: [Act; 4] = [Act::Identity, Act::Relu, Act::Relu6, Act::Gelu];

fn f32s(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).unwrap()
}

fn list(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference relative to 1 + |expected|.
fn difference(y: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(y.dims(), expected.dims());
    let expected = expected.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let error = |(y, e): (f32, &f64)| (f64::from(y) - e).abs() / (1.0 + e.abs());
    list(y).into_iter().zip(&expected).map(error).fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn linear_equals_the_definition(
        rows in 1..60_usize, inputs in 1..700_usize, outputs in 1..130_usize,
        act in 0..4_usize, biased: bool, onto: bool,
    ) {
        let act = ACTS[act];
        let x = values(1, &[rows, inputs]).unwrap();
        let w = (values(2, &[outputs, inputs]).unwrap() * 0.1).unwrap();
        let (bias, residual) =
            (values(3, &[outputs]).unwrap(), values(4, &[rows, outputs]).unwrap());
        let bias = biased.then_some(bias);
        let mut expected = x.matmul(&w.t().unwrap()).unwrap();
        if let Some(bias) = &bias {
            expected = expected.broadcast_add(bias).unwrap();
        }
        if onto {
            expected = (expected + &residual).unwrap();
        }
        let expected = activate_composed(&expected, act).unwrap();
        let layer = Linear::packed(&w, bias.as_ref(), act).unwrap();
        let y = if onto {
            layer.forward_onto(&f32s(&x), &f32s(&residual)).unwrap()
        } else {
            layer.forward(&f32s(&x)).unwrap()
        };
        prop_assert!(difference(&y, &expected) < 1e-5);
    }

    #[test]
    fn conv_equals_the_definition(
        (batch, height, width) in (1..3_usize, 3..12_usize, 3..12_usize),
        (channels, outputs) in (1..32_usize, 1..70_usize),
        (kernel_height, kernel_width) in (1..4_usize, 1..4_usize),
        stride in 1..4_usize, padding: [u8; 4], act in 0..4_usize, onto: bool,
    ) {
        let window = Window { stride, padding: padding.map(|p| usize::from(p % 3)) };
        let x = values(1, &[batch, height, width, channels]).unwrap();
        let w = values(2, &[outputs, channels, kernel_height, kernel_width]).unwrap();
        let w = (w * 0.1).unwrap();
        let bias = values(3, &[outputs]).unwrap();
        let mut expected = composed(&x, &w, Some(&bias), window, 1).unwrap();
        let residual = values(4, expected.dims()).unwrap();
        if onto {
            expected = (expected + &residual).unwrap();
        }
        let expected = activate_composed(&expected, ACTS[act]).unwrap();
        let layer = Conv::packed(&w, Some(&bias), window, ACTS[act]).unwrap();
        let y = if onto {
            layer.forward_onto(&f32s(&x), &f32s(&residual)).unwrap()
        } else {
            layer.forward(&f32s(&x)).unwrap()
        };
        prop_assert!(difference(&y, &expected) < 1e-5);
    }

    #[test]
    fn depthwise_equals_the_definition(
        (batch, height, width) in (1..3_usize, 5..14_usize, 5..14_usize),
        channels in 1..40_usize, kernel in 1..6_usize, stride in 1..3_usize,
        padding: [u8; 4], act in 0..4_usize,
    ) {
        let window = Window { stride, padding: padding.map(|p| usize::from(p % 3)) };
        let x = values(1, &[batch, height, width, channels]).unwrap();
        let w = values(2, &[channels, 1, kernel, kernel]).unwrap();
        let bias = values(3, &[channels]).unwrap();
        let expected = composed(&x, &w, Some(&bias), window, channels).unwrap();
        let expected = activate_composed(&expected, ACTS[act]).unwrap();
        let layer = Depthwise::packed(&w, Some(&bias), window, ACTS[act]).unwrap();
        let y = layer.forward(&f32s(&x)).unwrap();
        prop_assert!(difference(&y, &expected) < 1e-5);
    }
}

/// Pictures wide enough, with channels enough, for products over lines in place of patches.
#[test]
fn wide_conv_equals_the_definition() {
    for (padding, stride, kernel) in
        [([1, 1, 1, 1], 1, 3), ([0, 0, 1, 1], 2, 3), ([0; 4], 2, 1), ([2, 0, 1, 3], 1, 4)]
    {
        let window = Window { stride, padding };
        let x = values(1, &[2, 5, 47, 100]).unwrap();
        let w = (values(2, &[70, 100, kernel, kernel]).unwrap() * 0.1).unwrap();
        let bias = values(3, &[70]).unwrap();
        let expected = composed(&x, &w, Some(&bias), window, 1).unwrap();
        let residual = values(4, expected.dims()).unwrap();
        let expected = (expected + &residual).unwrap();
        for act in [Act::Relu, Act::Silu] {
            let expected = activate_composed(&expected, act).unwrap();
            let layer = Conv::packed(&w, Some(&bias), window, act).unwrap();
            let y = layer.forward_onto(&f32s(&x), &f32s(&residual)).unwrap();
            assert!(difference(&y, &expected) < 1e-5, "{window:?} {kernel} {act:?}");
        }
    }
}

/// Channels and outputs of convolutions by transformed tiles, of 4 x 4 and of 2 x 2 outputs.
const TRANSFORMED: [[usize; 2]; 2] = [[48, 80], [144, 160]];

fn transformed([channels, outputs]: [usize; 2], act: Act) -> (Tensor, Tensor, Conv) {
    let w = (values(2, &[outputs, channels, 3, 3]).unwrap() * 0.1).unwrap();
    let bias = values(3, &[outputs]).unwrap();
    let window = Window { stride: 1, padding: [1, 0, 2, 1] };
    let layer = Conv::packed(&w, Some(&bias), window, act).unwrap();
    (w, bias, layer)
}

/// Sides that tiles fill, sides that they reach beyond, and pictures smaller than one.
#[test]
fn transformed_conv_equals_the_definition() {
    let window = Window { stride: 1, padding: [1, 0, 2, 1] };
    for sizes in TRANSFORMED {
        for (height, width) in [(13, 17), (8, 9), (1, 2)] {
            for act in [Act::Identity, Act::Relu, Act::Gelu] {
                let (w, bias, layer) = transformed(sizes, act);
                let x = values(1, &[2, height, width, sizes[0]]).unwrap();
                let expected = composed(&x, &w, Some(&bias), window, 1).unwrap();
                let residual = values(4, expected.dims()).unwrap();
                let plain = activate_composed(&expected, act).unwrap();
                assert!(difference(&layer.forward(&f32s(&x)).unwrap(), &plain) < 2e-5, "{sizes:?}");
                let onto = activate_composed(&(expected + &residual).unwrap(), act).unwrap();
                let y = layer.forward_onto(&f32s(&x), &f32s(&residual)).unwrap();
                assert!(difference(&y, &onto) < 2e-5, "{sizes:?} {height} x {width} {act:?}");
            }
        }
    }
}

#[test]
fn transformed_conv_gives_the_same_bits_on_any_number_of_threads_and_in_any_batch() {
    for sizes in TRANSFORMED {
        let (_, _, layer) = transformed(sizes, Act::Silu);
        let x = f32s(&values(7, &[5, 22, 19, sizes[0]]).unwrap());
        let on = |x: &Tensor, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            list(&pool.install(|| layer.forward(x)).unwrap())
        };
        let together = on(&x, 1);
        for threads in [2, 3, 8] {
            assert!(together == on(&x, threads), "{threads} threads");
        }
        let alone: Vec<f32> = (0..5).flat_map(|at| on(&x.narrow(0, at, 1).unwrap(), 2)).collect();
        assert!(together == alone, "{sizes:?}");
    }
}

/// Cut by lines and by channels, with channels that fill no vector.
#[test]
fn depthwise_gives_the_same_bits_on_any_number_of_threads() {
    for [side, channels] in [[40, 100], [7, 1003]] {
        let kernel = f32s(&values(2, &[channels, 1, 5, 5]).unwrap());
        let layer = Depthwise::packed(&kernel, None, Window::padded(1, 2), Act::Relu6).unwrap();
        let x = f32s(&values(7, &[1, side, side, channels]).unwrap());
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            list(&pool.install(|| layer.forward(&x)).unwrap())
        };
        let alone = on(1);
        for threads in [2, 3, 8] {
            assert!(alone == on(threads), "{threads} threads, {channels} channels");
        }
    }
}

#[test]
fn both_ends_of_a_tower_of_pictures_equal_their_definitions() {
    let x = values(5, &[2, 3, 130, 97]).unwrap();
    let last = channels_last(&f32s(&x)).unwrap();
    assert!(difference(&last, &x.permute((0, 2, 3, 1)).unwrap()) < 1e-7);
    let mean = mean(&last).unwrap();
    assert!(difference(&mean, &x.mean((2, 3)).unwrap()) < 1e-5);
    let empty = Tensor::zeros((0, 3, 4, 4), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(channels_last(&empty).unwrap().dims(), [0, 4, 4, 3]);
}

/// f16 has 11 significant bits, which is all that may be lost.
#[test]
fn half_weights_keep_half_the_bytes_and_the_product() {
    let w = values(1, &[70, 400]).unwrap().to_dtype(DType::F16).unwrap();
    let x = values(2, &[9, 400]).unwrap();
    let layer = Linear::packed(&w, None, Act::Identity).unwrap();
    let full = Linear::packed(&f32s(&w), None, Act::Identity).unwrap();
    assert_eq!(layer.bytes() * 2, full.bytes());
    assert!(list(&layer.forward(&f32s(&x)).unwrap()) == list(&full.forward(&f32s(&x)).unwrap()));
}

/// A small network of all layers, on `threads` threads.
fn network(x: &Tensor, threads: usize) -> Vec<f32> {
    let weight = |seed: u64, shape: &[usize]| f32s(&values(seed, shape).unwrap());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let window = Window::padded(2, 1);
        let conv = Conv::packed(&weight(1, &[48, 3, 3, 3]), None, window, Act::Silu).unwrap();
        let depthwise = weight(2, &[48, 1, 3, 3]);
        let depthwise = Depthwise::packed(&depthwise, None, window, Act::Relu6).unwrap();
        let linear = Linear::packed(&weight(3, &[144, 48]), None, Act::Gelu).unwrap();
        let x = depthwise.forward(&conv.forward(x).unwrap()).unwrap();
        let x = max_pool(&x, 3, window).unwrap();
        let (batch, height, width, channels) = x.dims4().unwrap();
        let x = x.reshape((batch, height * width, channels)).unwrap();
        let x = normalize(&x, &weight(4, &[48]), &weight(5, &[48]), 1e-5).unwrap();
        let x = linear.forward(&x).unwrap();
        let part = |i: usize| x.narrow(2, i * 48, 48).unwrap();
        list(&softmax(&attention(&part(0), &part(1), &part(2), 3, Mask::None).unwrap()).unwrap())
    })
}

#[test]
fn gives_the_same_bits_on_any_number_of_threads_and_in_any_batch() {
    let x = f32s(&values(7, &[3, 97, 83, 3]).unwrap());
    let alone = network(&x, 1);
    for threads in [2, 3, 8] {
        assert!(alone == network(&x, threads), "{threads} threads");
    }
    let last = network(&x.narrow(0, 2, 1).unwrap(), 2);
    assert!(alone[alone.len() - last.len()..] == last);
}

#[test]
fn packed_weights_refuse_a_backward_pass() {
    let x = Var::from_tensor(&f32s(&values(1, &[1, 4, 4, 8]).unwrap())).unwrap();
    let (w, kernel) = (values(2, &[8, 8, 1, 1]).unwrap(), values(3, &[8, 1, 3, 3]).unwrap());
    let window = Window::padded(1, 1);
    let linear = Linear::packed(&w.reshape((8, 8)).unwrap(), None, Act::Identity).unwrap();
    let conv = Conv::packed(&w, None, window, Act::Identity).unwrap();
    let depthwise = Depthwise::packed(&kernel, None, window, Act::Identity).unwrap();
    for y in [linear.forward(&x), conv.forward(&x), depthwise.forward(&x)] {
        let error = y.unwrap().sum_all().unwrap().backward().unwrap_err().to_string();
        assert!(error.contains("no gradient"), "{error}");
    }
}

#[test]
fn same_padding_puts_the_larger_half_behind() {
    assert_eq!(Window::same(2, 3, [224, 224]).padding, [0, 0, 1, 1]);
    assert_eq!(Window::same(1, 5, [7, 9]).padding, [2, 2, 2, 2]);
    assert_eq!(Window::same(2, 5, [112, 113]).padding, [1, 2, 2, 2]);
    assert_eq!(Window::same(2, 1, [8, 8]).padding, [0, 0, 0, 0]);
}

#[test]
fn layers_refuse_what_does_not_fit() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(Linear::packed(&zeros(&[3, 4]), Some(&zeros(&[4])), Act::Relu).is_err(), "bias");
    let linear = Linear::packed(&zeros(&[3, 4]), None, Act::Relu).unwrap();
    assert!(linear.forward(&zeros(&[2, 3])).is_err(), "width");
    assert!(linear.forward_onto(&zeros(&[2, 4]), &zeros(&[2, 4])).is_err(), "residual");
    assert!(linear.forward(&zeros(&[2, 4]).to_dtype(DType::F64).unwrap()).is_err(), "type");
    let window = Window::padded(1, 0);
    let conv = Conv::packed(&zeros(&[2, 3, 3, 3]), None, window, Act::Relu).unwrap();
    assert!(conv.forward(&zeros(&[1, 2, 5, 3])).is_err(), "kernel beyond the picture");
    assert!(conv.forward(&zeros(&[1, 5, 5, 4])).is_err(), "channels");
    assert!(max_pool(&zeros(&[1, 4, 4, 1]), 2, Window::padded(1, 2)).is_err(), "only padding");
}
