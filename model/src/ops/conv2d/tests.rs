use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::{Geometry, conv2d};
use crate::ops::gradcheck::{largest_error, values};

/// The definition, position by position: the independent source.
fn naive(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Vec<f64> {
    let (batch, height, width, channels) = x.dims4().unwrap();
    let (outputs, _, kh, kw) = w.dims4().unwrap();
    let x = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let w = w.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let out_height = (height + 2 * padding - kh) / stride + 1;
    let out_width = (width + 2 * padding - kw) / stride + 1;
    let mut y = Vec::new();
    for (b, oy, ox, o) in itertools(batch, out_height, out_width, outputs) {
        let mut sum = 0.0;
        for (c, ky, kx, _) in itertools(channels, kh, kw, 1) {
            let (iy, ix) = (oy * stride + ky, ox * stride + kx);
            let inside = iy >= padding && ix >= padding;
            if inside && iy - padding < height && ix - padding < width {
                let at = ((b * height + iy - padding) * width + ix - padding) * channels + c;
                sum += x[at] * w[((o * channels + c) * kh + ky) * kw + kx];
            }
        }
        y.push(sum);
    }
    y
}

/// All index quadruples in row-major order.
fn itertools(
    a: usize,
    b: usize,
    c: usize,
    d: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

#[derive(Clone, Debug)]
struct Case {
    x: [usize; 4],
    w: [usize; 4],
    stride: usize,
    padding: usize,
}

impl Case {
    fn tensors(&self) -> (Tensor, Tensor) {
        (values(1, &self.x).unwrap(), values(2, &self.w).unwrap())
    }
}

/// Pictures from 1 x 1 on, of any proportion, with kernels that fit when padded.
fn cases() -> impl Strategy<Value = Case> {
    let picture = (1..4_usize, 1..8_usize, 1..8_usize, 1..4_usize);
    let kernel = (1..5_usize, 1..4_usize, 1..4_usize);
    (picture, kernel, 1..4_usize, 0..3_usize).prop_filter_map(
        "the kernel fits",
        |((b, h, w, c), (o, kh, kw), stride, padding)| {
            let fits = kh <= h + 2 * padding && kw <= w + 2 * padding;
            fits.then_some(Case { x: [b, h, w, c], w: [o, c, kh, kw], stride, padding })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_definition(case in cases()) {
        let (x, w) = case.tensors();
        let expected = naive(&x, &w, case.stride, case.padding);
        for conv2d in [conv2d, composed] {
            let y = conv2d(&x, &w, case.stride, case.padding).unwrap();
            let y = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            prop_assert_eq!(y.len(), expected.len());
            for (y, expected) in y.iter().zip(&expected) {
                prop_assert!((y - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn gradients_equal_differences(case in cases()) {
        let (x, w) = case.tensors();
        let inputs = [x, w];
        for conv2d in [conv2d, composed] {
            let conv = |t: &[Tensor]| conv2d(&t[0], &t[1], case.stride, case.padding);
            prop_assert!(largest_error(&inputs, conv).unwrap() < 1e-7);
        }
    }
}

/// As `conv2d` computes it on devices that have no operation of ours.
fn composed(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> candle_core::Result<Tensor> {
    let geometry = Geometry::new(x.dims4()?, w.dims4()?, stride, padding)?;
    super::composed(&geometry, x, w)
}

/// Output and both gradients in f32, for a batch that spans several chunks and lanes.
fn step(threads: usize) -> [Vec<f32>; 3] {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let var = |seed, shape: &[usize]| {
            Var::from_tensor(&values(seed, shape).unwrap().to_dtype(DType::F32).unwrap()).unwrap()
        };
        let (x, w) = (var(3, &[37, 13, 9, 24]), var(4, &[16, 24, 3, 3]));
        let y = conv2d(&x, &w, 2, 1).unwrap();
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        [&y, gradients.get(&x).unwrap(), gradients.get(&w).unwrap()]
            .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    })
}

#[test]
fn gives_the_same_bits_for_any_number_of_threads() {
    let alone = step(1);
    for threads in [2, 3, 8] {
        assert!(alone == step(threads), "{threads} threads");
    }
}

#[test]
fn reads_strided_inputs() {
    let x = values(7, &[2, 3, 6, 5]).unwrap().permute((0, 2, 3, 1)).unwrap();
    let w = values(8, &[3, 3, 4, 2]).unwrap().transpose(0, 1).unwrap();
    let y = conv2d(&x, &w, 1, 1).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    for (y, expected) in y.iter().zip(naive(&x, &w, 1, 1)) {
        assert!((y - expected).abs() < 1e-12);
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let zeros = |shape: [usize; 4]| Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
    let x = zeros([1, 4, 4, 3]);
    assert!(conv2d(&x, &zeros([2, 4, 3, 3]), 1, 1).is_err(), "channels differ");
    assert!(conv2d(&x, &zeros([2, 3, 5, 5]), 1, 0).is_err(), "kernel beyond the picture");
    assert!(conv2d(&x, &zeros([2, 3, 3, 3]), 0, 1).is_err(), "stride 0");
}

/// Half precision has 8 (bf16) or 11 (f16) significant bits; patches sum 36 products below 1.
#[test]
fn half_precision_is_close_to_f64_and_reaches_both_gradients() {
    let (x, w) = (values(9, &[2, 7, 6, 4]).unwrap(), values(10, &[5, 4, 3, 3]).unwrap());
    let expected = conv2d(&x, &w, 2, 1).unwrap();
    for (dtype, tolerance) in [(DType::BF16, 0.1), (DType::F16, 0.01)] {
        let x = Var::from_tensor(&x.to_dtype(dtype).unwrap()).unwrap();
        let w = Var::from_tensor(&w.to_dtype(DType::F32).unwrap()).unwrap();
        let y = conv2d(&x, &w, 2, 1).unwrap();
        assert_eq!(y.dtype(), dtype);
        let difference = (y.to_dtype(DType::F64).unwrap() - &expected).unwrap().abs().unwrap();
        let difference = difference.max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(difference < tolerance, "{dtype:?}: {difference}");
        let gradients = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().dtype(), dtype);
        assert_eq!(gradients.get(&w).unwrap().dtype(), DType::F32, "weights keep theirs");
    }
}
