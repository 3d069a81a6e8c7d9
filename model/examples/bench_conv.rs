//! What owning the convolution gains: our `conv2d` beside candle's, on the shapes of the default
//! image tower, and the share of a whole training step.
//!
//! `cargo run --release -p diptych-model --example bench_conv -- [batch] [rounds]`
//! (256 and 3 unless given). Both sides of a ratio run one after the other in every round, and the
//! fastest round counts, so that other load on the machine hits both.

#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor, Var};
use diptych_model::preprocess::TokenBatch;
use diptych_model::{DualEncoder, ModelConfig, Params, ops};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Side, input channels, output channels, kernel, stride; the picture is 48 x 48.
const SHAPES: [[usize; 5]; 12] = [
    [48, 3, 24, 3, 2],
    [24, 24, 24, 3, 1],
    [24, 24, 24, 3, 1],
    [24, 24, 48, 3, 2],
    [12, 48, 48, 3, 1],
    [24, 24, 48, 1, 2],
    [12, 48, 96, 3, 2],
    [6, 96, 96, 3, 1],
    [12, 48, 96, 1, 2],
    [6, 96, 192, 3, 2],
    [3, 192, 192, 3, 1],
    [6, 96, 192, 1, 2],
];

/// Forward alone, and forward with backward.
#[derive(Clone, Copy)]
struct Times {
    forward: Duration,
    step: Duration,
}

impl Times {
    const WORST: Self = Self { forward: Duration::MAX, step: Duration::MAX };

    fn keep_fastest(&mut self, other: Self) {
        self.forward = self.forward.min(other.forward);
        self.step = self.step.min(other.step);
    }
}

/// Times `forward`, then `forward` with the backward pass to `vars`.
fn time(forward: impl Fn() -> Result<Tensor>) -> Result<Times> {
    let start = Instant::now();
    let y = forward()?;
    let elapsed = start.elapsed();
    drop(y);
    let start = Instant::now();
    let gradients = forward()?.sum_all()?.backward()?;
    let step = start.elapsed();
    drop(gradients);
    Ok(Times { forward: elapsed, step })
}

fn noise(shape: &[usize]) -> Result<Tensor> {
    Ok(ops::gradcheck::values(1, shape)?.to_dtype(DType::F32)?)
}

fn convolutions(batch: usize, rounds: usize) -> Result<()> {
    println!("side   in  out k s |  ours fwd  step | candle fwd  step | ratio fwd  step (ms)");
    let (mut ours_total, mut stock_total) = (0.0, 0.0);
    for [side, inputs, outputs, kernel, stride] in SHAPES {
        let x = Var::from_tensor(&noise(&[batch, side, side, inputs])?)?;
        let w = Var::from_tensor(&noise(&[outputs, inputs, kernel, kernel])?)?;
        let channels_first = Var::from_tensor(&x.permute((0, 3, 1, 2))?.contiguous()?)?;
        let (mut ours, mut stock) = (Times::WORST, Times::WORST);
        for _ in 0..rounds {
            ours.keep_fastest(time(|| Ok(ops::conv2d(&x, &w, stride, kernel / 2)?))?);
            stock
                .keep_fastest(time(|| Ok(channels_first.conv2d(&w, kernel / 2, stride, 1, 1)?))?);
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        println!(
            "{side:4} {inputs:4} {outputs:4} {kernel} {stride} | {:9.1} {:5.1} | {:10.1} {:5.0} | \
             {:9.1} {:5.1}",
            ms(ours.forward),
            ms(ours.step),
            ms(stock.forward),
            ms(stock.step),
            ms(stock.forward) / ms(ours.forward),
            ms(stock.step) / ms(ours.step),
        );
        ours_total += ms(ours.step);
        stock_total += ms(stock.step);
    }
    println!(
        "all twelve: {ours_total:.0} ms against {stock_total:.0} ms, ratio {:.1}",
        stock_total / ours_total
    );
    Ok(())
}

/// A whole step of the default model on random pictures and three texts for each.
fn whole_step(batch: usize, rounds: usize) -> Result<()> {
    let params = Params::seeded(1, &Device::Cpu);
    let model = DualEncoder::new(&ModelConfig::default(), &params)?;
    let weights: usize = params.vars().values().map(|var| var.elem_count()).sum();
    let pixels = noise(&[batch, 3, 48, 48])?;
    let ids = (0..batch as u32 * 3 * 40).map(|i| i.wrapping_mul(2_654_435_761) % 65_536).collect();
    let every = |step: u32| (0..=batch as u32 * 3).map(move |i| step * i).collect();
    let words = (0..=batch as u32 * 12).map(|i| i * 10).collect();
    let tokens =
        TokenBatch { ids, word_offsets: words, text_offsets: every(4), ..Default::default() };
    let mut parts = [Times::WORST; 2];
    for _ in 0..rounds {
        parts[0].keep_fastest(time(|| {
            let encoding = model.encode_images(&pixels)?;
            Ok(Tensor::cat(&[&encoding.shared, encoding.exclusive()?], 1)?)
        })?);
        parts[1].keep_fastest(time(|| {
            let encoding = model.encode_texts(&tokens)?;
            Ok(Tensor::cat(&[&encoding.shared, encoding.exclusive()?], 1)?)
        })?);
    }
    println!("default model, {weights} weights, batch {batch}, without the optimizer:");
    for (name, times) in ["pictures", "texts (3 each)"].iter().zip(parts) {
        println!(
            "{name:14} forward {:.3?}, forward and backward {:.3?}",
            times.forward, times.step
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        Some(argument) => argument.parse(),
        None => Ok(default),
    };
    let (batch, rounds) = (number(256)?, number(3)?);
    whole_step(batch, rounds)?;
    convolutions(batch, rounds)
}
