//! Small networks that are fitted fast: linear ones, and perceptrons with one hidden layer.

use rand::seq::SliceRandom;

use crate::augment::{generator, normal};
use crate::error::Result;
use crate::eval::matrix::Matrix;

/// Units of the hidden layer.
const HIDDEN: usize = 128;

/// Steps of a fit, each on [`BATCH`] rows.
const STEPS: usize = 800;

/// Rows of a step.
const BATCH: usize = 256;

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

/// What a network is to give for each row.
#[derive(Debug, Clone, Copy)]
pub(super) enum Targets<'a> {
    /// A class, by cross-entropy.
    Classes(&'a [u32]),
    /// Values (n, m), by squared error.
    Values(&'a Matrix),
}

/// Layers of weights and biases; all but the last are followed by a rectifier.
pub(super) struct Network {
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
    pub(super) fn new(kind: Kind, inputs: usize, outputs: usize, seed: u64) -> Self {
        let (widths, rate) = match kind {
            Kind::Linear => (vec![inputs, outputs], 2e-2),
            Kind::Mlp => (vec![inputs, HIDDEN, outputs], 3e-3),
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

    /// Learns from inputs (n, d) and what they are to give.
    pub(super) fn fit(
        &mut self,
        inputs: &Matrix,
        targets: Targets<'_>,
        penalty: f32,
        seed: u64,
    ) -> Result<()> {
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
            let share = 0.5 + 0.5 * (std::f32::consts::PI * step as f32 / STEPS as f32).cos();
            let inputs = inputs.select(chosen);
            let rates = (penalty, share, step);
            match targets {
                Targets::Classes(classes) => {
                    let classes: Vec<u32> = chosen.iter().map(|at| classes[*at]).collect();
                    self.step(inputs, Targets::Classes(&classes), rates)?;
                }
                Targets::Values(values) => {
                    self.step(inputs, Targets::Values(&values.select(chosen)), rates)?;
                }
            }
        }
        Ok(())
    }

    /// One step of Adam on the mean loss and the penalty.
    fn step(
        &mut self,
        inputs: Matrix,
        targets: Targets<'_>,
        (penalty, share, step): (f32, f32, usize),
    ) -> Result<()> {
        let mut values = self.forward(inputs)?;
        let mut slope = values.pop().unwrap_or_default();
        match targets {
            Targets::Classes(classes) => softmax_slope(&mut slope, classes),
            Targets::Values(values) => square_slope(&mut slope, values),
        }
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

    /// The inputs of each layer, and the outputs.
    pub(super) fn forward(&self, inputs: Matrix) -> Result<Vec<Matrix>> {
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

/// Values to the slope of the mean squared error of a row, halved: the difference over the rows.
fn square_slope(values: &mut Matrix, targets: &Matrix) {
    let rows = values.rows().max(1) as f32;
    for (value, target) in values.values_mut().iter_mut().zip(targets.values()) {
        *value = (*value - target) / rows;
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
