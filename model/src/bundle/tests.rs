//! Behaviour of bundles on disk and in memory.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::error::Kind;
use crate::infer::{Encoder, Vectors};
use crate::testing::tiny_bundle;

fn written() -> (TempDir, PathBuf) {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("bundle");
    tiny_bundle(1).unwrap().write(&dir).unwrap();
    (temp, dir)
}

/// All files of a tiny bundle, the weights among them.
fn whole(seed: u64) -> Files {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("bundle");
    let bundle = tiny_bundle(seed).unwrap();
    bundle.write(&dir).unwrap();
    let mut files = bundle.files().clone();
    files.insert(WEIGHTS.to_owned(), Cow::Owned(fs::read(dir.join(WEIGHTS)).unwrap()));
    files
}

/// The files of a tiny bundle after a change to `bundle.json`.
fn with_manifest(change: impl FnOnce(&mut Value)) -> Files {
    let mut files = whole(1);
    let mut value: Value = serde_json::from_slice(&files[MANIFEST]).unwrap();
    change(&mut value);
    files.insert(MANIFEST.to_owned(), Cow::Owned(serde_json::to_vec(&value).unwrap()));
    files
}

/// The files of a tiny bundle after a change to one of them, with a list that says so.
fn with_file(path: &str, content: Vec<u8>) -> Files {
    let mut files = with_manifest(|value| {
        let entry = serde_json::to_value(digest::entry(path, &content)).unwrap();
        let listed = value["files"].as_array_mut().unwrap();
        listed.retain(|file| file["path"] != path);
        listed.push(entry);
    });
    files.insert(path.to_owned(), Cow::Owned(content));
    files
}

#[test]
fn what_is_written_is_read_back() {
    let (_temp, dir) = written();
    let bundle = tiny_bundle(1).unwrap();
    let read = Bundle::open(&dir).unwrap();
    assert_eq!(read.manifest(), bundle.manifest());
    assert_eq!(read.files(), bundle.files());
    assert!(!read.files().contains_key(WEIGHTS), "weights stay on disk");
    assert_eq!(read.bytes(), whole(1).values().map(|content| content.len() as u64).sum::<u64>());
    let (read_weights, weights) = (read.weights().unwrap(), bundle.weights().unwrap());
    assert!(read_weights.keys().eq(weights.keys()));
    for (name, tensor) in &weights {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&read_weights[name]), values(tensor), "{name}");
    }
    let again = Bundle::from_files(whole(1)).unwrap();
    assert_eq!(again.bundle_digest(), bundle.bundle_digest());
    assert_eq!(read.embedding_digest(), bundle.embedding_digest());
    assert_eq!(read.bundle_digest(), bundle.bundle_digest());
    assert_eq!(read.embedding_digest().len(), 64);
}

#[test]
fn writing_replaces_a_bundle_and_nothing_else() {
    let (temp, dir) = written();
    tiny_bundle(2).unwrap().write(&dir).unwrap();
    assert_eq!(
        Bundle::open(&dir).unwrap().embedding_digest(),
        tiny_bundle(2).unwrap().embedding_digest()
    );
    let left: Vec<_> = fs::read_dir(temp.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside the bundle: {left:?}");

    let foreign = temp.path().join("photos");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("cat.jpg"), b"...").unwrap();
    assert_eq!(tiny_bundle(1).unwrap().write(&foreign).unwrap_err().kind(), Kind::Invalid);
    assert!(foreign.join("cat.jpg").exists());
}

#[test]
fn each_damaged_file_is_named() {
    let (_temp, dir) = written();
    for path in whole(1).keys() {
        let full = dir.join(path);
        let good = fs::read(&full).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [&flipped, &good[..good.len() - 1].to_vec(), &Vec::new()] {
            fs::write(&full, bad).unwrap();
            if path == MANIFEST {
                // A flip inside a text of provenance is still a bundle, with another digest.
                if let Ok(bundle) = Bundle::open(&dir) {
                    assert_ne!(bundle.bundle_digest(), tiny_bundle(1).unwrap().bundle_digest());
                }
                continue;
            }
            let error = Bundle::open(&dir).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt);
            let message = error.to_string();
            assert!(message.contains(path) && message.contains("again"), "{message}");
        }
        fs::remove_file(&full).unwrap();
        assert!(Bundle::open(&dir).unwrap_err().to_string().contains("is missing"));
        fs::write(&full, &good).unwrap();
    }
    assert!(Bundle::open(&dir).is_ok());
}

#[test]
fn a_directory_that_is_no_bundle_is_told_so() {
    let temp = TempDir::new().unwrap();
    let rows = [temp.path().to_owned(), temp.path().join("nowhere")];
    for dir in rows {
        let error = Bundle::open(&dir).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("bundle.json: is missing"), "{error}");
    }
}

#[test]
fn a_path_may_not_lead_out_of_the_bundle() {
    let bad = ["../secret", "/etc/passwd", "golden/../../x", "golden/", "golden/.hid", "golden\\x"];
    for path in bad {
        let files = with_manifest(|value| {
            value["files"][0]["path"] = json!(path);
        });
        let error = Bundle::from_files(files).unwrap_err().to_string();
        assert!(error.contains("which no bundle has"), "{path}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_may_not_lead_out_of_the_bundle() {
    let (temp, dir) = written();
    let outside = temp.path().join("outside");
    fs::rename(dir.join(WEIGHTS), &outside).unwrap();
    std::os::unix::fs::symlink(&outside, dir.join(WEIGHTS)).unwrap();
    assert!(Bundle::open(&dir).unwrap_err().to_string().contains("leads out of the bundle"));
}

#[test]
fn a_manifest_that_does_not_fit_is_refused_with_the_reason() {
    type Change = fn(&mut Value);
    let rows: [(&str, Change); 10] = [
        ("update the program", |v| v["min_reader"] = json!(2)),
        ("has no `min_reader`", |v| v["min_reader"] = json!("one")),
        ("unknown field", |v| v["model"]["heads"]["sharde"] = json!(3)),
        ("unknown field", |v| v["text"]["bucket"] = json!(3)),
        ("to a tower of 16 px", |v| v["image"]["size"] = json!(17)),
        ("to a tower of 512", |v| v["text"]["buckets"] = json!(513)),
        ("text_tower.manner", |v| v["text"]["letters"] = json!(4)),
        ("spaces other than", |v| v["spaces"]["shared"]["dims"] = json!(33)),
        ("logit scale", |v| v["logit_scale"] = json!(-1.0)),
        ("twice", |v| {
            let entry = v["files"][0].clone();
            v["files"].as_array_mut().unwrap().push(entry);
        }),
    ];
    for (expected, change) in rows {
        let error = Bundle::from_files(with_manifest(change)).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn what_a_newer_writer_adds_is_ignored() {
    let files = with_manifest(|value| value["colour_of_the_box"] = json!("blue"));
    assert!(Bundle::from_files(files).is_ok());
}

#[test]
fn only_what_determines_vectors_is_in_the_embedding_digest() {
    let base = tiny_bundle(1).unwrap();
    let same = [
        with_manifest(|value| value["domain"] = json!("other words")),
        with_manifest(|value| value["training"]["metrics"] = json!({"recall": 0.9})),
        with_file(CALIBRATION, b"{}".to_vec()),
    ];
    for files in same {
        let bundle = Bundle::from_files(files).unwrap();
        assert_eq!(bundle.embedding_digest(), base.embedding_digest());
        assert_ne!(bundle.bundle_digest(), base.bundle_digest());
    }
    let other = [
        with_manifest(|value| value["image"]["filter"] = json!("box")),
        with_manifest(|value| value["text"]["max"] = json!(4)),
        whole(2),
    ];
    for files in other {
        let bundle = Bundle::from_files(files).unwrap();
        assert_ne!(bundle.embedding_digest(), base.embedding_digest());
    }
}

#[test]
fn canonical_json_sorts_keys_and_has_no_space() {
    let value: Value =
        serde_json::from_str(r#"{ "b": [1, 2.50, "ä\n"], "a": { "z": null, "y": true } }"#)
            .unwrap();
    assert_eq!(digest::canonical(&value), r#"{"a":{"y":true,"z":null},"b":[1,2.5,"ä\n"]}"#);
}

#[test]
fn weights_survive_storing_within_their_type() {
    let values = [0.1_f32, -2.5, 3.0e-5, 1000.3];
    let matrix = Tensor::new(&[values], &Device::Cpu).unwrap();
    let vector = Tensor::new(&values, &Device::Cpu).unwrap();
    let tensors = BTreeMap::from([("m".to_owned(), matrix), ("v".to_owned(), vector)]);
    for (kind, tolerance) in [(WeightType::F32, 0.0), (WeightType::F16, 1e-3)] {
        let bytes = weights::encode(&tensors, kind).unwrap();
        assert_eq!(bytes, weights::encode(&tensors, kind).unwrap());
        let read = weights::decode("w", &bytes).unwrap();
        assert_eq!(read["v"].to_vec1::<f32>().unwrap(), values, "one axis stays f32");
        let row = read["m"].to_vec2::<f32>().unwrap().remove(0);
        for (got, expected) in row.iter().zip(values) {
            assert!((got - expected).abs() <= expected.abs() * tolerance, "{got} {expected}");
        }
    }
}

#[test]
fn weights_that_cannot_be_stored_are_refused() {
    for value in [f32::NAN, f32::INFINITY, 70_000.0] {
        let tensor = Tensor::new(&[[value]], &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("w".to_owned(), tensor)]);
        let error = weights::encode(&tensors, WeightType::F16).unwrap_err();
        assert!(error.to_string().starts_with("weight w"), "{error}");
    }
}

/// Opening a bundle whose weights were changed in this way.
fn open_with_weights(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> Result<Encoder> {
    let mut tensors = tiny_bundle(1).unwrap().weights().unwrap();
    change(&mut tensors);
    let content = weights::encode(&tensors, WeightType::F32).unwrap();
    Encoder::open(&Bundle::from_files(with_file(WEIGHTS, content)).unwrap())
}

#[test]
fn weights_that_do_not_fit_the_networks_are_named() {
    let first = tiny_bundle(1).unwrap().weights().unwrap().into_keys().next().unwrap();
    type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, Tensor>);
    let missing: Change = &|tensors| drop(tensors.remove(&first));
    let left_over: Change =
        &|tensors| drop(tensors.insert("spare".into(), tensors[&first].clone()));
    let misshapen: Change = &|tensors| {
        let column = Tensor::new(&[[1.0_f32]], &Device::Cpu).unwrap();
        tensors.insert(first.clone(), column);
    };
    for (name, change) in [(first.as_str(), missing), ("spare", left_over), (&first, misshapen)] {
        let error = open_with_weights(change).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(open_with_weights(|_| {}).is_ok());
}

#[test]
fn a_bundle_that_does_not_give_its_golden_vectors_is_refused() {
    let other_weights = whole(2)[WEIGHTS].to_vec();
    let bundle = Bundle::from_files(with_file(WEIGHTS, other_weights)).unwrap();
    let error = Encoder::open(&bundle).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains("golden shared vector"), "{error}");

    let other_filter = with_manifest(|value| value["image"]["filter"] = json!("nearest"));
    let bundle = Bundle::from_files(other_filter).unwrap();
    assert!(Encoder::open(&bundle).unwrap_err().to_string().contains("golden/image-"));
}

#[test]
fn golden_inputs_come_with_their_vectors_and_tell_how_far_others_are_from_them() {
    let bundle = tiny_bundle(1).unwrap();
    let encoder = Encoder::open(&bundle).unwrap();
    let inputs = bundle.golden_inputs().unwrap();
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let pictures = ["golden/image-000.png", "golden/image-001.png"];
    assert_eq!(names, [&pictures[..], &["golden/text-000.txt", "golden/text-001.txt"]].concat());
    let text = std::str::from_utf8(&inputs[2].bytes).unwrap();
    let prepared = encoder.prepare_text(text, false).unwrap();
    let got = encoder.encode_texts(&[prepared]).unwrap().remove(0);
    assert!(inputs[2].cosine(&got) >= LEAST_COSINE);
    // The worse of the two spaces counts, and vectors that do not fit never pass.
    let turned = got.exclusive.clone().map(|vector| vector.iter().map(|value| -value).collect());
    assert!(inputs[2].cosine(&Vectors { exclusive: turned, ..got.clone() }) < -0.9);
    let short = Vectors { shared: got.shared[1..].to_vec(), ..got.clone() };
    for unfit in [short, Vectors { exclusive: None, ..got }] {
        assert!(inputs[2].cosine(&unfit).is_nan());
    }
}

#[test]
fn an_encoder_knows_what_its_weights_take() {
    let bundle = tiny_bundle(1).unwrap();
    let weights = bundle.weights().unwrap();
    let bytes: usize = weights.values().map(|tensor| tensor.elem_count() * 4).sum();
    assert_eq!(Encoder::open(&bundle).unwrap().weight_bytes(), bytes as u64);
}

#[test]
fn a_file_that_is_no_safetensors_is_refused() {
    let huge_header = [u64::MAX.to_le_bytes().to_vec(), vec![0; 32]].concat();
    for content in [Vec::new(), b"short".to_vec(), huge_header, vec![0; 64]] {
        let error = Bundle::from_files(with_file(WEIGHTS, content)).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().starts_with(WEIGHTS), "{error}");
    }
}

#[test]
fn a_bundle_may_bring_its_tokenizer() {
    let tokenizer = br#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
        "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,
        "decoder":null,"model":{"type":"WordLevel","unk_token":"?","vocab":{"?":0,"red":1}}}"#;
    let tiny = tiny_bundle(1).unwrap();
    let text = json!({"kind": "huggingface", "vocabulary": 512});
    let mut builder = BundleBuilder::new(
        tiny.manifest().model.clone(),
        tiny.manifest().image.clone(),
        serde_json::from_value::<crate::preprocess::TokenizerConfig>(text).unwrap(),
        tiny.weights().unwrap(),
    );
    builder.golden_images = vec![crate::testing::disc(20, 20).unwrap()];
    builder.golden_texts = vec!["red heart".to_owned()];
    assert_eq!(builder.clone().build().unwrap_err().kind(), Kind::Invalid, "no tokenizer.json");
    builder.tokenizer_json = Some(tokenizer.to_vec());
    let bundle = builder.build().unwrap();
    assert!(bundle.files().contains_key(TOKENIZER));
    assert_ne!(bundle.embedding_digest(), tiny.embedding_digest());
    let encoder = Encoder::open(&bundle).unwrap();
    assert_eq!(encoder.prepare_text("red heart", false).unwrap().token_count(), 2);
}
