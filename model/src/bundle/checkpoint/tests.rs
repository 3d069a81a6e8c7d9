//! Checkpoints of others: what is read as `transformers` reads it, and what is refused. The fixtures are written by
//! `scripts/make-clip-fixtures.py`, which states its versions.

mod parity;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::config::Modality;
use crate::infer::Encoder;
use crate::preprocess::ImageLimits;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints")
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The least cosine to `transformers`, with preprocessing: a wrong filter or a token more is far below.
const LEAST: f64 = 0.99999;

fn image_vector(encoder: &Encoder, name: &str) -> Vec<f32> {
    let bytes = fs::read(fixtures().join("pictures").join(name)).unwrap();
    let image = encoder.prepare_image(&bytes, &ImageLimits::default()).unwrap();
    encoder.encode_images(&[image]).unwrap().remove(0).shared
}

fn text_vector(encoder: &Encoder, text: &str) -> Vec<f32> {
    let text = encoder.prepare_text(text, true).unwrap();
    encoder.encode_texts(&[text]).unwrap().remove(0).shared
}

/// Opens a directory and compares every expected vector; how many there were.
fn embeds_as_expected(dir: &Path, expected: &Value) -> (Encoder, usize) {
    let encoder = Encoder::open(&Bundle::open(dir).unwrap()).unwrap();
    let mut compared = 0;
    for (kind, modality) in [("images", Modality::Image), ("texts", Modality::Text)] {
        for (input, vector) in expected.get(kind).and_then(Value::as_object).into_iter().flatten() {
            let got = match modality {
                Modality::Image => image_vector(&encoder, input),
                Modality::Text => text_vector(&encoder, input),
            };
            let cosine = cosine(&got, &floats(vector));
            assert!(cosine >= LEAST, "{}: {input}: {cosine}", dir.display());
            compared += 1;
        }
    }
    (encoder, compared)
}

fn expected(name: &str) -> Value {
    json_of(&fixtures().join(name).join("expected.json"))
}

/// A copy of a fixture that may be changed.
fn copied(name: &str) -> (TempDir, PathBuf) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join(name);
    copy(&fixtures().join(name), &dir);
    (temp, dir)
}

fn change(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = json_of(path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// The tensors of a fixture as f32, by the names in its file.
fn tensors(dir: &Path) -> Vec<(String, Tensor)> {
    let path = dir.join("model.safetensors");
    let all = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn store(tensors: &[(String, Tensor)], path: &Path) {
    let map = tensors.iter().cloned().collect();
    candle_core::safetensors::save(&map, path).unwrap();
}
