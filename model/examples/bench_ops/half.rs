//! Weights in f16 beside the same ones widened, where all of them come from memory.

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use diptych_model::config::{ImageTowerConfig, TextTowerConfig};
use diptych_model::ops::gradcheck::values;
use diptych_model::params::Params;
use diptych_model::preprocess::{TokenBatch, Tokens};
use diptych_model::tower;
use serde_json::json;

use super::Result;

/// Bytes that are written between two runs: more than any cache holds.
const FLUSH: usize = 1 << 30;
const RUNS: usize = 15;

/// A forward pass of one input.
type Forward = Box<dyn Fn() -> Result<()>>;

/// Prints medians of CLIP ViT-B/32's towers, one picture and one text of eight tokens.
pub(crate) fn run() -> Result<()> {
    let image: ImageTowerConfig = serde_json::from_value(json!({
        "kind": "clip_vit", "size": 224, "patch": 32,
        "blocks": {"width": 768, "intermediate": 3072, "layers": 12, "heads": 12,
                   "activation": "quick_gelu", "epsilon": 1e-5},
    }))?;
    let pixels = values(1, &[1, 3, 224, 224])?.to_dtype(DType::F32)?;
    compare("ViT-B/32, one picture", |params| {
        let (tower, pixels) = (tower::image(&image, params, "image")?, pixels.clone());
        Ok(Box::new(move || Ok(tower.forward(&pixels).map(drop)?)))
    })?;
    let text: TextTowerConfig = serde_json::from_value(json!({
        "kind": "clip_text", "vocabulary": 49408, "positions": 77, "end": "largest",
        "blocks": {"width": 512, "intermediate": 2048, "layers": 12, "heads": 8,
                   "activation": "quick_gelu", "epsilon": 1e-5},
    }))?;
    let tokens = Tokens { ids: (1..8).chain([49_407]).collect(), ..Tokens::default() };
    compare("its text tower, eight tokens", |params| {
        let (tower, batch) = (tower::text(&text, params, "text")?, TokenBatch::collate(&[&tokens]));
        Ok(Box::new(move || Ok(tower.forward(&batch).map(drop)?)))
    })
}

fn compare(name: &str, build: impl Fn(&Params) -> Result<Forward>) -> Result<()> {
    let seeded = Params::seeded(1, &Device::Cpu);
    drop(build(&seeded)?);
    let tensors = seeded.tensors()?;
    let half = |(name, tensor): (&String, &Tensor)| -> Result<(String, Tensor)> {
        let matrix = tensor.rank() == 2;
        Ok((name.clone(), if matrix { tensor.to_dtype(DType::F16)? } else { tensor.clone() }))
    };
    let halved = tensors.iter().map(half).collect::<Result<BTreeMap<_, _>>>()?;
    let bits = [tensors, halved].map(|tensors| Params::from_tensors(tensors, &Device::Cpu));
    let towers = [build(&bits[0])?, build(&bits[1])?];
    drop((seeded, bits));
    let mut flush = vec![0_u8; FLUSH];
    for cold in [true, false] {
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..RUNS {
            for (tower, times) in towers.iter().zip(&mut times) {
                if cold {
                    flush.fill(run as u8);
                } else {
                    tower()?;
                }
                let start = Instant::now();
                tower()?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [full, half] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[RUNS / 2]
        });
        let caches = if cold { "cold" } else { "warm" };
        let ratio = half / full;
        println!("{name}, {caches}: f32 {full:.2} ms, f16 {half:.2} ms, ratio {ratio:.2}");
    }
    Ok(())
}
