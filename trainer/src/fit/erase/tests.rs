use candle_core::Device;

use super::*;
use crate::augment::{generator, normal};

/// Unit rows in which a class (of three) moves one direction and the concept all of them, with classes and concepts.
fn rows(count: usize, dims: usize) -> (Matrix, Matrix, Vec<u32>) {
    let mut rng = generator(7, &[]);
    let means: Vec<f32> = (0..count * dims).map(|_| normal(&mut rng)).collect();
    let (mut values, mut classes, mut concepts) = (Vec::new(), Vec::new(), Vec::new());
    for concept in 0..count {
        for class in 0..3_u32 {
            for dim in 0..dims {
                let moved = if dim == 0 {
                    1.5 * class as f32
                } else {
                    0.4 * class as f32 * f32::from(dim == 1)
                };
                values.push(means[concept * dims + dim] + moved + 0.1 * normal(&mut rng));
            }
            classes.extend([f32::from(class == 1), f32::from(class == 2)]);
            concepts.push(concept as u32);
        }
    }
    let mut vectors = Matrix::new(values, dims);
    vectors.normalise();
    (vectors, Matrix::new(classes, 2), concepts)
}

/// The largest covariance of a column of vectors and one of indicators, within concepts.
fn covariance(vectors: &Matrix, indicators: &Matrix, concepts: &[u32]) -> f32 {
    let centred_indicators = centred(indicators, Some(concepts));
    let product = centred(vectors, Some(concepts)).transposed_times(&centred_indicators).unwrap();
    let most = product.values().iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    most / vectors.rows() as f32
}

#[test]
fn vectors_and_factor_are_uncorrelated_and_the_rest_stays() {
    let (vectors, indicators, concepts) = rows(200, 8);
    let before = covariance(&vectors, &indicators, &concepts);
    let p = projection((&vectors, &concepts), &indicators, 8).unwrap();
    let mut after = vectors.times_transposed(&Matrix::new(p, 8)).unwrap();
    let left = covariance(&after, &indicators, &concepts);
    assert!(before > 0.03 && left < 1e-3 * before, "{before} {left}");
    // Unit length brings a little back.
    after.normalise();
    let left = covariance(&after, &indicators, &concepts);
    assert!(left < 0.3 * before, "{before} {left}");
    // Two of eight directions are taken, one of them the longest of all.
    let kept: f32 = vectors
        .iter()
        .zip(after.iter())
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
        .sum();
    assert!(kept / vectors.rows() as f32 > 0.65, "{kept}");
}

#[test]
fn the_projection_is_the_closed_form_of_two_dimensions() {
    // S = [[2, 1], [1, 2]], C = (1, 0)': S^-1 = [[2, -1], [-1, 2]] / 3, C' S^-1 = (2, -1) / 3, C' S^-1 C = 2 / 3,
    // P = I - (1, 0)' (1, -1/2) = [[0, 1/2], [0, 1]]. By hand.
    let p = oblique(vec![2.0, 1.0, 1.0, 2.0], &[1.0, 0.0], 2).unwrap();
    for (value, expected) in p.values().iter().zip([0.0, 0.5, 0.0, 1.0]) {
        assert!((value - expected).abs() < 1e-4, "{p:?}");
    }
}

#[test]
fn a_layer_gives_the_projected_vectors_and_an_anchor_stays_outside() {
    let (vectors, indicators, concepts) = rows(50, 4);
    // Outputs are three of the columns; the fourth is an anchor's.
    let (features, dims) = (5, 3);
    let weight =
        Var::from_tensor(&Tensor::rand(-1.0_f32, 1.0, (dims, features), &Device::Cpu).unwrap())
            .unwrap();
    let bias = Var::from_tensor(&Tensor::rand(-1.0_f32, 1.0, dims, &Device::Cpu).unwrap()).unwrap();
    let (old_weight, old_bias) =
        (weight.as_tensor().copy().unwrap(), bias.as_tensor().copy().unwrap());
    fold((&vectors, &concepts), &indicators, (&weight, &bias)).unwrap();
    let p = projection((&vectors, &concepts), &indicators, dims).unwrap();
    let p = Tensor::from_vec(p, (dims, dims), &Device::Cpu).unwrap();
    let x = Tensor::rand(-1.0_f32, 1.0, (features, 1), &Device::Cpu).unwrap();
    let through = |weight: &Tensor, bias: &Tensor| {
        (weight.matmul(&x).unwrap() + bias.unsqueeze(1).unwrap()).unwrap()
    };
    let expected = p.matmul(&through(&old_weight, &old_bias)).unwrap();
    let difference = (through(weight.as_tensor(), bias.as_tensor()) - expected).unwrap();
    let most = difference.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!(most < 1e-5, "{most}");
}

#[test]
fn a_factor_that_concepts_agree_in_is_taken_out_between_them() {
    let (vectors, _, concepts) = rows(120, 6);
    // Two kinds of concepts by the sign of a column's mean.
    let own = |concept: u32| {
        let sum: f32 = vectors
            .iter()
            .zip(&concepts)
            .filter(|(_, c)| **c == concept)
            .map(|(row, _)| row[2])
            .sum();
        f32::from(sum > 0.0)
    };
    let kinds = Matrix::new(concepts.iter().map(|concept| own(*concept)).collect(), 1);
    let between = |vectors: &Matrix| {
        let product = centred(vectors, None).transposed_times(&centred(&kinds, None)).unwrap();
        product.values().iter().fold(0.0_f32, |most, value| most.max(value.abs()))
            / vectors.rows() as f32
    };
    let p = projection((&vectors, &concepts), &kinds, 6).unwrap();
    let after = vectors.times_transposed(&Matrix::new(p, 6)).unwrap();
    assert!(
        between(&after) < 0.02 * between(&vectors),
        "{} {}",
        between(&after),
        between(&vectors)
    );
}
