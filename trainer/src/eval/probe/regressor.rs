//! Linear regression and a perceptron with one hidden layer, for factors that are numbers.

use rand::seq::SliceRandom;

use super::classifier::PENALTIES;
use super::network::{Kind, Network, Targets};
use crate::augment::generator;
use crate::error::Result;
use crate::eval::matrix::Matrix;

/// Inputs (n, d) and values (n, m) that belong to them.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Inputs, (n, d).
    pub inputs: &'a Matrix,
    /// Values, (n, m).
    pub values: &'a Matrix,
}

/// The coefficient of determination of `scored` values as a probe fitted on `fitted` says them: one less
/// the squared error over the squared distance from the mean, averaged over the m columns. 1 is right
/// everywhere, 0 as good as the mean; what is worse than the mean counts as 0. Inputs and values are
/// standardised by the moments of `fitted`. The same arguments give the same number.
///
/// # Errors
/// If a product fails.
pub fn determination(kind: Kind, fitted: Rows<'_>, scored: Rows<'_>, seed: u64) -> Result<f64> {
    let (moments, scale) = (fitted.inputs.moments(), fitted.values.moments());
    let inputs = fitted.inputs.standardised(&moments);
    let values = fitted.values.standardised(&scale);
    let mut order: Vec<usize> = (0..inputs.rows()).collect();
    order.shuffle(&mut generator(seed, &[1]));
    // A tenth chooses the penalty.
    let (choose, learn) = order.split_at(order.len() / 10);
    let part = |chosen: &[usize]| (inputs.select(chosen), values.select(chosen));
    let (choose, learn) = (part(choose), part(learn));
    let mut best: Option<(f64, Network)> = None;
    for penalty in PENALTIES {
        let mut network = Network::new(kind, inputs.columns(), values.columns(), seed);
        network.fit(&learn.0, Targets::Values(&learn.1), penalty, seed)?;
        let explained = explained(&network, &choose.0, &choose.1)?;
        if best.as_ref().is_none_or(|(most, _)| explained > *most) {
            best = Some((explained, network));
        }
    }
    let inputs = scored.inputs.standardised(&moments);
    let values = scored.values.standardised(&scale);
    best.map_or(Ok(0.0), |(_, network)| Ok(explained(&network, &inputs, &values)?.max(0.0)))
}

/// The mean over columns of what a network explains of their variance.
fn explained(network: &Network, inputs: &Matrix, values: &Matrix) -> Result<f64> {
    let said = network.forward(inputs.clone())?.pop().unwrap_or_default();
    let columns = values.columns();
    if values.rows() == 0 || columns == 0 {
        return Ok(0.0);
    }
    let mut errors = vec![0.0_f64; columns];
    let mut spreads = vec![0.0_f64; columns];
    let means = values.mean();
    for (said, value) in said.iter().zip(values.iter()) {
        for (at, (said, value)) in said.iter().zip(value).enumerate() {
            errors[at] += f64::from(said - value).powi(2);
            spreads[at] += (f64::from(*value) - means[at]).powi(2);
        }
    }
    let each = errors.iter().zip(&spreads).map(|(error, spread)| 1.0 - error / spread.max(1e-12));
    Ok(each.sum::<f64>() / columns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::normal;

    /// How much a probe reads of two numbers of a row of three normal ones.
    fn read(kind: Kind, of: impl Fn(&[f32]) -> [f32; 2]) -> f64 {
        let rows = |seed| {
            let mut rng = generator(seed, &[]);
            let inputs = Matrix::new((0..1_800).map(|_| normal(&mut rng)).collect(), 3);
            let values = Matrix::new(inputs.iter().flat_map(&of).collect(), 2);
            (inputs, values)
        };
        let (fitted, scored) = (rows(1), rows(2));
        let fitted = Rows { inputs: &fitted.0, values: &fitted.1 };
        let scored = Rows { inputs: &scored.0, values: &scored.1 };
        determination(kind, fitted, scored, 5).unwrap()
    }

    #[test]
    fn both_read_what_is_linear_in_the_inputs() {
        for kind in [Kind::Linear, Kind::Mlp] {
            let read = read(kind, |row| [100.0 + 20.0 * row[0], row[1] - row[2]]);
            assert!(read > 0.97, "{kind:?} {read}");
        }
    }

    #[test]
    fn only_the_perceptron_reads_a_square() {
        let of = |row: &[f32]| [row[0] * row[0], row[1].abs()];
        let (linear, mlp) = (read(Kind::Linear, of), read(Kind::Mlp, of));
        assert!(linear < 0.1, "{linear}");
        assert!(mlp > 0.9, "{mlp}");
    }

    #[test]
    fn noise_is_explained_by_nothing() {
        // Late digits of a number are nothing that a smooth function of it says.
        let digits = |value: f32| ((value.abs() * 1e4) as u32 % 100) as f32;
        for kind in [Kind::Linear, Kind::Mlp] {
            let read = read(kind, |row| [digits(row[0]), digits(row[1])]);
            assert!(read < 0.05, "{kind:?} {read}");
        }
    }
}
