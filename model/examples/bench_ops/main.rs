//! The operations of frozen towers, timed alone and as whole networks.
//!
//! `cargo run --release -p diptych-model --example bench_ops -- ops [THREADS]` times each operation.
//! `... -- half [THREADS]` compares weights in f16 with the same ones in f32, from memory and from caches.
//! `... -- served BUNDLE [THREADS]` times a bundle's encoders through the door that the server uses.
//! `... -- serve FOLDER THREADS` answers `scripts/bench-onnx.py`: every line on its input is a network
//! and a case, whose weights and input lie in FOLDER; it answers with the milliseconds that each of
//! the runs asked for took.

#![expect(clippy::print_stdout, reason = "the figures are the program's output")]

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Tensor};
use diptych_model::ops::gradcheck::values;
use diptych_model::ops::packed::{
    Act, Conv, Depthwise, Linear, Mask, Window, activate, attention, attentive, max_pool,
    normalize, softmax,
};
use rayon::prelude::*;

use self::networks::{Network, Weights, build};

mod half;
mod networks;
mod served;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = |text: Option<&String>| text.map_or(Ok(1), |text| text.parse());
    let pool = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    match arguments.first().map(String::as_str) {
        Some("ops") => pool(threads(arguments.get(1))?)?.install(operations),
        Some("half") => pool(threads(arguments.get(1))?)?.install(half::run),
        Some("served") if arguments.len() >= 2 => {
            served::run(Path::new(&arguments[1]), threads(arguments.get(2))?)
        }
        Some("serve") if arguments.len() == 3 => {
            let folder = Path::new(&arguments[1]).to_owned();
            pool(threads(arguments.get(2))?)?.install(|| serve(&folder))
        }
        _ => Err("usage: bench_ops ops [THREADS] | half [THREADS] | served BUNDLE [THREADS] | serve FOLDER THREADS".into()),
    }
}

/// Reads `NETWORK CASE RUNS` lines until the input ends.
fn serve(folder: &Path) -> Result<()> {
    let mut networks: HashMap<String, Box<dyn Network + Sync>> = HashMap::new();
    let mut inputs: HashMap<String, Tensor> = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, case, runs] = words[..] else {
            return Err(format!("not NETWORK CASE RUNS: {line}").into());
        };
        if !networks.contains_key(name) {
            let weights = Tensor::read_npz(folder.join(format!("{name}.npz")))?;
            networks.insert(name.to_owned(), build(name, &Weights(weights.into_iter().collect()))?);
        }
        let file = format!("{name}-{case}");
        if !inputs.contains_key(&file) {
            let x = Tensor::read_npy(folder.join(format!("{file}.npy")))?;
            inputs.insert(file.clone(), x);
        }
        let (network, x) = (&*networks[name], &inputs[&file]);
        let mut times = Vec::new();
        for run in 0..runs.parse::<usize>()? {
            let start = Instant::now();
            let y = forward(network, x)?;
            let wall = start.elapsed().as_secs_f64() * 1e3;
            times.push(format!("{wall:.4}"));
            if run == 0 {
                y.write_npy(folder.join(format!("{file}-ours.npy")))?;
            }
        }
        println!("{}", times.join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// A batch, a few samples at a time on all threads.
fn forward(network: &(dyn Network + Sync), x: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let group = network.group(x);
    let groups = batch.div_ceil(group);
    if groups < rayon::current_num_threads().max(2) {
        return Ok(attentive(|| network.forward(x))?);
    }
    let parts: Vec<Tensor> = (0..groups)
        .into_par_iter()
        .with_max_len(1)
        .map(|index| {
            let first = index * group;
            network.forward(&x.narrow(0, first, group.min(batch - first))?)
        })
        .collect::<candle_core::Result<_>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Prints the fastest of some runs of `run`, and what that makes of `work` multiply-adds.
fn time(name: &str, work: usize, run: impl Fn() -> candle_core::Result<Tensor>) -> Result<()> {
    let mut fastest = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_millis() < 200 {
        let start = Instant::now();
        let y = run()?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
        drop(y);
    }
    let rate = 2.0 * work as f64 / fastest / 1e9;
    println!("{name:44} {:9.3} ms {rate:7.1} GFLOP/s", fastest * 1e3);
    Ok(())
}

fn noise(shape: &[usize]) -> candle_core::Result<Tensor> {
    values(1, shape)?.to_dtype(DType::F32)
}

fn operations() -> Result<()> {
    for (rows, inputs, outputs, act) in [
        (1, 384, 1536, Act::Gelu),
        (8, 384, 1536, Act::Gelu),
        (128, 384, 1536, Act::Gelu),
        (128, 1536, 384, Act::Identity),
        (2048, 384, 1536, Act::Gelu),
    ] {
        let (x, weight) = (noise(&[rows, inputs])?, noise(&[outputs, inputs])?);
        for weight in [weight.clone(), weight.to_dtype(DType::F16)?] {
            let layer = Linear::packed(&weight, None, act)?;
            let name = format!("linear {rows}x{inputs} to {outputs} {act:?} {:?}", weight.dtype());
            time(&name, rows * inputs * outputs, || layer.forward(&x))?;
        }
    }
    for (side, inputs, outputs, kernel, stride) in [
        (224, 3, 64, 7, 2),
        (56, 64, 64, 3, 1),
        (28, 128, 128, 3, 1),
        (56, 64, 128, 3, 2),
        (7, 512, 512, 3, 1),
        (56, 64, 256, 1, 1),
    ] {
        let (x, weight) =
            (noise(&[1, side, side, inputs])?, noise(&[outputs, inputs, kernel, kernel])?);
        let layer = Conv::packed(&weight, None, Window::padded(stride, kernel / 2), Act::Relu)?;
        let name = format!("conv {side}x{side}x{inputs} to {outputs} k{kernel} s{stride}");
        let work = (side / stride).pow(2) * inputs * outputs * kernel * kernel;
        time(&name, work, || layer.forward(&x))?;
    }
    for (side, channels, kernel, stride) in
        [(112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 5, 2), (14, 480, 5, 1), (7, 1152, 5, 1)]
    {
        let (x, weight) =
            (noise(&[1, side, side, channels])?, noise(&[channels, 1, kernel, kernel])?);
        let window = Window::padded(stride, kernel / 2);
        let layer = Depthwise::packed(&weight, None, window, Act::Relu6)?;
        let name = format!("depthwise {side}x{side}x{channels} k{kernel} s{stride}");
        let work = (side / stride).pow(2) * channels * kernel * kernel;
        time(&name, work, || layer.forward(&x))?;
    }
    for (len, heads, head) in [(8, 12, 32), (128, 12, 32), (197, 6, 64), (577, 12, 64)] {
        let x = noise(&[1, len, 3 * heads * head])?;
        let part = |index: usize| x.narrow(2, index * heads * head, heads * head);
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let name = format!("attention {len} tokens, {heads} heads of {head}");
        let work = 2 * heads * len * len * head;
        time(&name, work, || attention(&q, &k, &v, heads, Mask::None))?;
    }
    let x = noise(&[128, 384])?;
    let (scale, shift) = (noise(&[384])?, noise(&[384])?);
    time("normalize 128x384", 0, || normalize(&x, &scale, &shift, 1e-5))?;
    time("softmax 128x384", 0, || softmax(&x))?;
    time("gelu 128x384", 0, || activate(&x, Act::Gelu))?;
    let x = noise(&[1, 112, 112, 64])?;
    time("max_pool 112x112x64 k3 s2", 0, || max_pool(&x, 3, Window::padded(2, 1)))
}
