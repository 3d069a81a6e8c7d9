//! Multinomial logistic regression and a perceptron with one hidden layer, for probes.

use rand::seq::SliceRandom;

pub use super::network::Kind;
use super::network::{Network, Targets};
use crate::augment::generator;
use crate::error::Result;
use crate::eval::matrix::Matrix;

/// The weights of the squared norm that are tried; the best on a tenth of the rows is kept.
pub(super) const PENALTIES: [f32; 2] = [1e-4, 1e-2];

/// Inputs (n, d) and their classes, n of them, below a common count.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Inputs, (n, d).
    pub inputs: &'a Matrix,
    /// Classes.
    pub classes: &'a [u32],
}

/// The share of `scored` rows whose class a probe fitted on `fitted` says. Both are standardised by the
/// moments of `fitted`. The same arguments give the same share.
///
/// # Errors
/// If a product fails.
pub fn accuracy(
    kind: Kind,
    fitted: Rows<'_>,
    scored: Rows<'_>,
    classes: usize,
    seed: u64,
) -> Result<f64> {
    let moments = fitted.inputs.moments();
    let inputs = fitted.inputs.standardised(&moments);
    let mut order: Vec<usize> = (0..inputs.rows()).collect();
    order.shuffle(&mut generator(seed, &[1]));
    // A tenth chooses the penalty.
    let (choose, learn) = order.split_at(order.len() / 10);
    let part = |chosen: &[usize]| {
        let classes: Vec<u32> = chosen.iter().map(|at| fitted.classes[*at]).collect();
        (inputs.select(chosen), classes)
    };
    let (choose, learn) = (part(choose), part(learn));
    let mut best: Option<(f64, Network)> = None;
    for penalty in PENALTIES {
        let mut network = Network::new(kind, inputs.columns(), classes, seed);
        network.fit(&learn.0, Targets::Classes(&learn.1), penalty, seed)?;
        let right = right(&network, &choose.0, &choose.1)?;
        if best.as_ref().is_none_or(|(most, _)| right > *most) {
            best = Some((right, network));
        }
    }
    let inputs = scored.inputs.standardised(&moments);
    best.map_or(Ok(0.0), |(_, network)| right(&network, &inputs, scored.classes))
}

/// The share of rows whose class has the highest logit; of equal ones the first.
fn right(network: &Network, inputs: &Matrix, classes: &[u32]) -> Result<f64> {
    if classes.is_empty() {
        return Ok(0.0);
    }
    let logits = network.forward(inputs.clone())?.pop().unwrap_or_default();
    let says = |row: &[f32]| {
        let best = (0..row.len()).reduce(|best, at| if row[at] > row[best] { at } else { best });
        best.map(|best| best as u32)
    };
    let right = logits.iter().zip(classes).filter(|(row, class)| says(row) == Some(**class));
    Ok(right.count() as f64 / classes.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::normal;

    /// Normal rows of two columns with a class of each.
    fn rows(count: usize, seed: u64, class: impl Fn(&[f32]) -> u32) -> (Matrix, Vec<u32>) {
        let mut rng = generator(seed, &[]);
        let inputs = Matrix::new((0..2 * count).map(|_| normal(&mut rng)).collect(), 2);
        let classes = inputs.iter().map(class).collect();
        (inputs, classes)
    }

    fn read(kind: Kind, classes: usize, class: impl Fn(&[f32]) -> u32) -> f64 {
        let (fitted, scored) = (rows(600, 1, &class), rows(600, 2, &class));
        let of = |rows: &(Matrix, Vec<u32>)| (rows.0.clone(), rows.1.clone());
        let (fitted, scored) = (of(&fitted), of(&scored));
        let fitted = Rows { inputs: &fitted.0, classes: &fitted.1 };
        let scored = Rows { inputs: &scored.0, classes: &scored.1 };
        accuracy(kind, fitted, scored, classes, 5).unwrap()
    }

    #[test]
    fn both_read_classes_that_lie_on_two_sides_of_a_line() {
        for kind in [Kind::Linear, Kind::Mlp] {
            let read = read(kind, 2, |row| u32::from(row[0] + row[1] > 0.3));
            assert!(read > 0.97, "{kind:?} {read}");
        }
    }

    #[test]
    fn only_the_perceptron_reads_an_exclusive_or() {
        let class = |row: &[f32]| u32::from((row[0] > 0.0) != (row[1] > 0.0));
        let (linear, mlp) = (read(Kind::Linear, 2, class), read(Kind::Mlp, 2, class));
        // A line reads a quarter to three quarters, as it happens to cut off one quadrant; a half if it
        // passes through the middle.
        assert!((0.25..0.7).contains(&linear), "{linear}");
        assert!(mlp > 0.95, "{mlp}");
    }

    #[test]
    fn noise_is_at_chance() {
        // The class is the parity of a late digit: nothing that a smooth function of the inputs says.
        let class = |row: &[f32]| ((row[0].abs() * 1e5) as u32) % 4;
        for kind in [Kind::Linear, Kind::Mlp] {
            let read = read(kind, 4, class);
            assert!((0.18..0.32).contains(&read), "{kind:?} {read}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_share() {
        let class = |row: &[f32]| u32::from(row[0] * row[1] > 0.2);
        let shares: Vec<u64> = (0..2).map(|_| read(Kind::Mlp, 2, class).to_bits()).collect();
        assert_eq!(shares[0], shares[1]);
    }
}
