use candle_core::{Device, Var};
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn random(seed: u64, rows: usize, columns: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..rows * columns).map(|_| rng.random_range(-2.0..2.0)).collect()
}

fn tensor(values: &[f64], rows: usize, columns: usize) -> Tensor {
    Tensor::from_slice(values, (rows, columns), &Device::Cpu).unwrap()
}

/// Central differences in f64 against backward, for a loss of one matrix.
fn check_gradient(values: &[f64], shape: (usize, usize), loss: impl Fn(&Tensor) -> Tensor) {
    let var = Var::from_tensor(&tensor(values, shape.0, shape.1)).unwrap();
    let grads = loss(&var).backward().unwrap();
    let analytic: Vec<f64> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let step = 1e-5;
    for (index, analytic) in analytic.iter().enumerate() {
        let at = |moved: f64| {
            let mut values = values.to_vec();
            values[index] += moved;
            loss(&tensor(&values, shape.0, shape.1)).to_scalar::<f64>().unwrap()
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        // Relative to steep slopes: the error of a difference grows with the third derivative.
        let tolerance = 1e-7 * numeric.abs().max(1.0);
        assert!(
            (analytic - numeric).abs() < tolerance,
            "element {index}: {analytic} and {numeric}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn gradients_equal_finite_differences(seed in 0_u64..1000, rows in 1_usize..5, columns in 1_usize..6) {
        let values = random(seed, rows, columns);
        let groups = |count: usize| (0..count as u32).map(|i| i % 3).collect::<Vec<_>>();
        let (row_groups, column_groups) = (groups(rows), groups(columns));
        check_gradient(&values, (rows, columns), |logits| {
            symmetric_info_nce(logits, &row_groups, &column_groups).unwrap()
        });
        let classes: Vec<u32> = (0..rows as u32).map(|row| row % columns as u32).collect();
        check_gradient(&values, (rows, columns), |logits| cross_entropy(logits, &classes).unwrap());
        check_gradient(&values, (rows, columns), |x| {
            (prefix(x, columns.div_ceil(2)).unwrap() * 3.0).unwrap().exp().unwrap().sum_all().unwrap()
        });
    }

    #[test]
    fn alignment_has_right_gradients_into_both(seed in 0_u64..1000, rows in 3_usize..6) {
        let (left, right) = (random(seed, rows, 3), random(seed + 1, rows, 2));
        let (fixed_left, fixed_right) = (tensor(&left, rows, 3), tensor(&right, rows, 2));
        check_gradient(&left, (rows, 3), |left| alignment(left, &fixed_right).unwrap());
        check_gradient(&right, (rows, 2), |right| alignment(&fixed_left, right).unwrap());
    }
}

#[test]
fn with_one_positive_a_row_it_is_cross_entropy() {
    let logits = tensor(&random(7, 3, 3), 3, 3);
    let groups = [0, 1, 2];
    let matches = Matches::new(&groups, &groups, &logits).unwrap();
    let nce = info_nce(&logits, &matches).unwrap().to_scalar::<f64>().unwrap();
    let plain = cross_entropy(&logits, &groups).unwrap().to_scalar::<f64>().unwrap();
    assert!((nce - plain).abs() < 1e-12);
}

#[test]
fn names_of_one_concept_are_no_negatives_of_each_other() {
    // Row 0 has columns 0 and 1 as positives, column 2 as its only negative:
    // (log(1 + e^(0-2)) + log(1 + e^(0-1))) / 2 = (0.126928 + 0.313262) / 2.
    let logits = tensor(&[2.0, 1.0, 0.0], 1, 3);
    let matches = Matches::new(&[5], &[5, 5, 9], &logits).unwrap();
    let loss = info_nce(&logits, &matches).unwrap().to_scalar::<f64>().unwrap();
    assert!((loss - 0.220_095).abs() < 1e-6, "{loss}");
}

#[test]
fn a_row_without_a_positive_counts_for_nothing() {
    let both = tensor(&[2.0, 0.0, 1.0, 3.0], 2, 2);
    let one = tensor(&[2.0, 0.0], 1, 2);
    let loss = |logits: &Tensor, rows: &[u32]| {
        let matches = Matches::new(rows, &[1, 2], logits).unwrap();
        info_nce(logits, &matches).unwrap().to_scalar::<f64>().unwrap()
    };
    assert!((loss(&both, &[1, 7]) - loss(&one, &[1])).abs() < 1e-12);
}

#[test]
fn stays_finite_at_extreme_logits() {
    let logits = Tensor::new(&[[500_f32, -500.0], [-500.0, 500.0]], &Device::Cpu).unwrap();
    for logits in [logits.clone(), logits.neg().unwrap()] {
        let loss = symmetric_info_nce(&logits, &[0, 1], &[0, 1]).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_finite());
    }
}

#[test]
fn alignment_is_one_for_a_rotation_and_zero_for_uncorrelated_vectors() {
    let left = tensor(&[1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, -1.0], 4, 2);
    let turned = tensor(&[0.0, 2.0, 0.0, -2.0, -2.0, 0.0, 2.0, 0.0], 4, 2);
    let other = tensor(&[1.0, 1.0, -1.0, -1.0], 4, 1);
    let value = |right: &Tensor| alignment(&left, right).unwrap().to_scalar::<f64>().unwrap();
    assert!((value(&turned) - 1.0).abs() < 1e-9);
    assert!(value(&other) < 1e-9);
}

/// Section E of the project's reference values: two sets of four rows of three numbers, of any length.
fn sets() -> [Tensor; 2] {
    [
        tensor(&[1., 2., 2., 2., -1., 2., 0., 3., 4., 4., -3., 0.], 4, 3),
        tensor(&[2., 2., 1., 1., 2., -2., 3., 4., 0., 0., 0., 1.], 4, 3),
    ]
}

#[test]
fn overlap_is_that_of_an_independent_computation_over_the_rows() {
    // |n(Z)^T n(S)| = 2.357861 there, of 4 rows: .589465.
    let [left, right] = sets().map(|rows| diptych_model::ops::l2_normalize(&rows).unwrap());
    let found = overlap(&left, &right).unwrap().to_scalar::<f64>().unwrap();
    assert!((found - 0.589_465).abs() < 1e-6, "{found}");
    // Twice the rows change nothing.
    let twice = |rows: &Tensor| Tensor::cat(&[rows, rows], 0).unwrap();
    let again = overlap(&twice(&left), &twice(&right)).unwrap().to_scalar::<f64>().unwrap();
    assert!((again - found).abs() < 1e-9, "{again}");
}

#[test]
fn alignment_is_the_cross_covariance_over_both_covariances() {
    // There the squared norm of the centred Z^T S / 4 is 29.156250; the rest is the definition.
    let [left, right] = sets();
    let centred = |x: &Tensor| x.broadcast_sub(&x.mean_keepdim(0).unwrap()).unwrap();
    let squares = |a: &Tensor, b: &Tensor| -> f64 {
        let (a, b) = (a.to_vec2::<f64>().unwrap(), b.to_vec2::<f64>().unwrap());
        let product = |i: usize, j: usize| (0..4).map(|row| a[row][i] * b[row][j]).sum::<f64>();
        (0..3).flat_map(|i| (0..3).map(move |j| (i, j))).map(|(i, j)| product(i, j).powi(2)).sum()
    };
    let (l, r) = (centred(&left), centred(&right));
    assert!((squares(&l, &r) / 16.0 - 29.156_250).abs() < 1e-9);
    let expected = squares(&l, &r) / (squares(&l, &l) * squares(&r, &r)).sqrt();
    let found = alignment(&left, &right).unwrap().to_scalar::<f64>().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} and {expected}");
}

#[test]
fn a_weighted_sum_leaves_out_what_weighs_nothing() {
    let [a, b] = [2.0, f64::NAN].map(|value| Tensor::new(value, &Device::Cpu).unwrap());
    let total = weighted(&[(&a, 0.5), (&b, 0.0), (&a, 3.0)]).unwrap();
    assert!((total.to_scalar::<f64>().unwrap() - 7.0).abs() < 1e-12);
}
