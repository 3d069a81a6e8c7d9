//! Multinomial logistic regression and a perceptron with one hidden layer, for probes.

use rand::seq::SliceRandom;

use crate::augment::generator;
use crate::error::Result;
use crate::eval::matrix::Matrix;
use crate::eval::ridge::normal;

/// Units of the hidden layer.
const HIDDEN: usize = 128;

/// Steps of a fit, each on [`BATCH`] rows.
const STEPS: usize = 800;

/// Rows of a step.
const BATCH: usize = 256;

/// The weights of the squared norm that are tried; the best on a tenth of the rows is kept.
const PENALTIES: [f32; 2] = [1e-4, 1e-2];

/// Constants of Adam (Kingma and Ba, 2015).
const BETAS: (f32, f32) = (0.9, 0.999);

/// What a probe computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Logits linear in the inputs.
    Linear,
    /// One hidden layer of 128 rectified units.
    Mlp,
}

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
        network.fit(&learn.0, &learn.1, penalty, seed)?;
        let right = network.right(&choose.0, &choose.1)?;
        if best.as_ref().is_none_or(|(most, _)| right > *most) {
            best = Some((right, network));
        }
    }
    let inputs = scored.inputs.standardised(&moments);
    best.map_or(Ok(0.0), |(_, network)| network.right(&inputs, scored.classes))
}

/// Layers of weights and biases; all but the last are followed by a rectifier.
struct Network {
    layers: Vec<Layer>,
    rate: f32,
}

struct Layer {
    weights: Parameter,
    bias: Parameter,
}

/// Values with Adam's moments.
struct Parameter {
    values: Matrix,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Network {
    fn new(kind: Kind, inputs: usize, classes: usize, seed: u64) -> Self {
        let (widths, rate) = match kind {
            Kind::Linear => (vec![inputs, classes], 2e-2),
            Kind::Mlp => (vec![inputs, HIDDEN, classes], 3e-3),
        };
        let mut rng = generator(seed, &[2]);
        let layers = widths.windows(2).map(|two| {
            // He et al., 2015: the variance that rectifiers preserve.
            let deviation = (2.0 / two[0].max(1) as f32).sqrt();
            let count = two[0] * two[1];
            let values = (0..count).map(|_| deviation * normal(&mut rng)).collect();
            Layer {
                weights: Parameter::new(Matrix::new(values, two[1])),
                bias: Parameter::new(Matrix::zeros(1, two[1])),
            }
        });
        Self { layers: layers.collect(), rate }
    }

    fn fit(&mut self, inputs: &Matrix, classes: &[u32], penalty: f32, seed: u64) -> Result<()> {
        if inputs.rows() == 0 {
            return Ok(());
        }
        let mut rng = generator(seed, &[3]);
        let mut order: Vec<usize> = (0..inputs.rows()).collect();
        let batch = BATCH.min(order.len());
        let mut at = order.len();
        for step in 0..STEPS {
            if at + batch > order.len() {
                order.shuffle(&mut rng);
                at = 0;
            }
            let chosen = &order[at..at + batch];
            at += batch;
            let classes: Vec<u32> = chosen.iter().map(|at| classes[*at]).collect();
            let share = 0.5 + 0.5 * (std::f32::consts::PI * step as f32 / STEPS as f32).cos();
            self.step(inputs.select(chosen), &classes, (penalty, share, step))?;
        }
        Ok(())
    }

    /// One step of Adam on the mean cross-entropy and the penalty.
    fn step(
        &mut self,
        inputs: Matrix,
        classes: &[u32],
        (penalty, share, step): (f32, f32, usize),
    ) -> Result<()> {
        let mut values = self.forward(inputs)?;
        let mut slope = values.pop().unwrap_or_default();
        softmax_slope(&mut slope, classes);
        for (number, input) in values.iter().enumerate().rev() {
            let layer = &mut self.layers[number];
            let mut weights = input.transposed_times(&slope)?;
            let own = layer.weights.values.values();
            weights.values_mut().iter_mut().zip(own).for_each(|(s, w)| *s += penalty * w);
            let rows = slope.rows() as f64;
            let bias: Vec<f32> = slope.mean().iter().map(|mean| (mean * rows) as f32).collect();
            if number > 0 {
                let mut before = slope.times_transposed(&layer.weights.values)?;
                for (slope, value) in before.values_mut().iter_mut().zip(input.values()) {
                    *slope = if *value > 0.0 { *slope } else { 0.0 };
                }
                slope = before;
            }
            let rate = self.rate * share;
            layer.weights.update(weights.values(), rate, step);
            layer.bias.update(&bias, rate, step);
        }
        Ok(())
    }

    /// The inputs of each layer, and the logits.
    fn forward(&self, inputs: Matrix) -> Result<Vec<Matrix>> {
        let mut values = vec![inputs];
        for (number, layer) in self.layers.iter().enumerate() {
            let mut out = values[number].times(&layer.weights.values)?;
            let width = out.columns().max(1);
            for row in out.values_mut().chunks_mut(width) {
                for (value, bias) in row.iter_mut().zip(layer.bias.values.values()) {
                    *value += bias;
                    if number + 1 < self.layers.len() {
                        *value = value.max(0.0);
                    }
                }
            }
            values.push(out);
        }
        Ok(values)
    }

    /// The share of rows whose class has the highest logit; of equal ones the first.
    fn right(&self, inputs: &Matrix, classes: &[u32]) -> Result<f64> {
        if classes.is_empty() {
            return Ok(0.0);
        }
        let logits = self.forward(inputs.clone())?.pop().unwrap_or_default();
        let says = |row: &[f32]| {
            let best =
                (0..row.len()).reduce(|best, at| if row[at] > row[best] { at } else { best });
            best.map(|best| best as u32)
        };
        let right = logits.iter().zip(classes).filter(|(row, class)| says(row) == Some(**class));
        Ok(right.count() as f64 / classes.len() as f64)
    }
}

/// Logits to the slope of the mean cross-entropy: softmax less one at the class, over the rows.
fn softmax_slope(logits: &mut Matrix, classes: &[u32]) {
    let (rows, width) = (logits.rows() as f32, logits.columns().max(1));
    for (row, class) in logits.values_mut().chunks_mut(width).zip(classes) {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for value in row.iter_mut() {
            *value = (*value - most).exp();
            sum += *value;
        }
        row.iter_mut().for_each(|value| *value /= sum * rows);
        row[*class as usize] -= 1.0 / rows;
    }
}

impl Parameter {
    fn new(values: Matrix) -> Self {
        let count = values.values().len();
        Self { values, first: vec![0.0; count], second: vec![0.0; count] }
    }

    fn update(&mut self, slopes: &[f32], rate: f32, step: usize) {
        let correction = |beta: f32| 1.0 - beta.powi(step as i32 + 1);
        let (one, two) = (correction(BETAS.0), correction(BETAS.1));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((value, slope), (first, second)) in
            self.values.values_mut().iter_mut().zip(slopes).zip(moments)
        {
            *first += (1.0 - BETAS.0) * (slope - *first);
            *second += (1.0 - BETAS.1) * (slope * slope - *second);
            *value -= rate * (*first / one) / ((*second / two).sqrt() + 1e-8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
