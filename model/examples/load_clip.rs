//! Time and memory of loading a checkpoint of the size of CLIP ViT-B/32, with random weights:
//! `cargo run --release -p diptych-model --example load_clip [DIR]`.
//!
//! Without a folder it writes one of 605 MB below the system's temporary folder and starts itself anew on it, so
//! that the peak of memory is that of loading alone. Linux tells the peak (`VmHWM`).

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use diptych_model::preprocess::ImageLimits;
use diptych_model::{Bundle, Encoder};
use serde_json::{Map, json};

/// Names and shapes of the weights of one tower's blocks.
fn blocks(tower: &str, width: usize, weights: &mut Vec<(String, Vec<usize>)>) {
    for layer in 0..12 {
        let mut both = |name: &str, shape: Vec<usize>| {
            let name = format!("{tower}.encoder.layers.{layer}.{name}");
            weights.push((format!("{name}.bias"), vec![shape[0]]));
            weights.push((format!("{name}.weight"), shape));
        };
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            both(&format!("self_attn.{name}"), vec![width, width]);
        }
        both("mlp.fc1", vec![4 * width, width]);
        both("mlp.fc2", vec![width, 4 * width]);
        both("layer_norm1", vec![width]);
        both("layer_norm2", vec![width]);
    }
}

/// The weights of CLIP ViT-B/32, in the order of their names.
fn weights() -> Vec<(String, Vec<usize>)> {
    let mut weights = Vec::new();
    blocks("vision_model", 768, &mut weights);
    blocks("text_model", 512, &mut weights);
    for (name, shape) in [
        ("logit_scale", vec![]),
        ("visual_projection.weight", vec![512, 768]),
        ("text_projection.weight", vec![512, 512]),
        ("vision_model.embeddings.class_embedding", vec![768]),
        ("vision_model.embeddings.patch_embedding.weight", vec![768, 3, 32, 32]),
        ("vision_model.embeddings.position_embedding.weight", vec![50, 768]),
        ("vision_model.pre_layrnorm.weight", vec![768]),
        ("vision_model.pre_layrnorm.bias", vec![768]),
        ("vision_model.post_layernorm.weight", vec![768]),
        ("vision_model.post_layernorm.bias", vec![768]),
        ("text_model.embeddings.token_embedding.weight", vec![49_408, 512]),
        ("text_model.embeddings.position_embedding.weight", vec![77, 512]),
        ("text_model.final_layer_norm.weight", vec![512]),
        ("text_model.final_layer_norm.bias", vec![512]),
    ] {
        weights.push((name.to_owned(), shape));
    }
    weights.sort();
    weights
}

/// Writes the checkpoint, with the tokenizer of the tiny one under `tests/fixtures`.
fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints/clip");
    std::fs::copy(fixture.join("tokenizer.json"), dir.join("tokenizer.json"))?;
    let preprocessor = json!({"size": 224, "crop_size": 224, "resample": 3});
    std::fs::write(dir.join("preprocessor_config.json"), preprocessor.to_string())?;
    let config = json!({"model_type": "clip", "text_config": {"eos_token_id": 573}});
    std::fs::write(dir.join("config.json"), config.to_string())?;
    let (mut header, mut end) = (Map::new(), 0);
    let weights = weights();
    for (name, shape) in &weights {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = BufWriter::new(std::fs::File::create(dir.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    let mut state = 1_u32;
    for (name, shape) in &weights {
        let scale = if shape.len() > 1 { 0.05 } else { 1.0 };
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let even = (state >> 8) as f32 / 16_777_216.0 - 0.5;
            let value = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { even };
            file.write_all(&(value * scale).to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}

/// Peak of this process's memory in bytes.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Milliseconds of one run.
fn median<T>(mut run: impl FnMut() -> diptych_model::Result<T>) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        drop(run()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn measure(dir: &Path) -> Result<(), Box<dyn Error>> {
    let size = std::fs::metadata(dir.join("model.safetensors"))?.len();
    let start = Instant::now();
    let bundle = Bundle::open(dir)?;
    let opened = start.elapsed().as_secs_f64();
    let encoder = Encoder::open(&bundle)?;
    let loaded = start.elapsed().as_secs_f64();
    let peak = peak().ok_or("the system does not tell the peak of memory")?;
    println!("file {:.0} MB", size as f64 / 1e6);
    println!("headers and digests {opened:.2} s, with weights {loaded:.2} s");
    println!(
        "peak memory {:.0} MB, {:.3} of the file",
        peak as f64 / 1e6,
        peak as f64 / size as f64
    );
    let picture = diptych_model::testing::disc(640, 480)?;
    let image = encoder.prepare_image(&picture, &ImageLimits::default())?;
    let text = encoder.prepare_text("a photo of a red heart", true)?;
    let image = median(|| encoder.encode_images(std::slice::from_ref(&image)))?;
    let text = median(|| encoder.encode_texts(std::slice::from_ref(&text)))?;
    println!("one picture {image:.1} ms, one text {text:.1} ms (median of 7)");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return measure(&PathBuf::from(dir));
    }
    let dir = tempfile::tempdir()?;
    write(dir.path())?;
    let status = std::process::Command::new(std::env::current_exe()?).arg(dir.path()).status()?;
    if status.success() { Ok(()) } else { Err("loading failed".into()) }
}
