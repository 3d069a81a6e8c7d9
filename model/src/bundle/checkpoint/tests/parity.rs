//! Vectors, ids and fitted pictures against what `transformers`, Pillow and plain torch modules give; files in other places and
//! under other names that mean the same.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    LEAST, change, copied, cosine, embeds_as_expected, expected, fixtures, floats, image_vector,
    json_of, store, tensors, text_vector,
};
use crate::bundle::Bundle;
use crate::config::{Modality, ModelConfig, Space};
use crate::dual_encoder::DualEncoder;
use crate::error::{Error, Kind};
use crate::infer::Encoder;
use crate::params::Params;
use crate::preprocess::image::{Fit, ImagePreprocessing, ResizeFilter};
use crate::preprocess::{ImageLimits, TextPreprocessor, decode};

#[test]
fn clip_embeds_as_transformers_does() {
    let expected = expected("clip");
    let (encoder, compared) = embeds_as_expected(&fixtures().join("clip"), &expected);
    assert_eq!(compared, 16);
    let scale = expected["logit_scale"].as_f64().unwrap() as f32;
    assert!((encoder.logit_scale() / scale - 1.0).abs() < 1e-3);
    assert_eq!(encoder.space(Modality::Image, Space::Shared).unwrap().dims, 20);
    assert!(encoder.space(Modality::Image, Space::Exclusive).is_none());
    assert!(!encoder.proved());
}

#[test]
fn siglip_embeds_as_transformers_does() {
    let expected = expected("siglip");
    let (encoder, compared) = embeds_as_expected(&fixtures().join("siglip"), &expected);
    assert_eq!(compared, 16);
    assert!(
        (encoder.logit_scale() - expected["logit_scale"].as_f64().unwrap() as f32).abs() < 1e-2
    );
    assert!((encoder.logit_bias() - expected["logit_bias"].as_f64().unwrap() as f32).abs() < 1e-6);
}

#[test]
fn a_sentence_encoder_embeds_as_transformers_does_and_says_that_it_sees_no_pictures() {
    let (encoder, compared) = embeds_as_expected(&fixtures().join("bert"), &expected("bert"));
    assert_eq!(compared, 7);
    let picture = fs::read(fixtures().join("pictures/wide.png")).unwrap();
    let refused = encoder.prepare_image(&picture, &ImageLimits::default()).unwrap_err();
    assert!(matches!(refused, Error::Absent { part: "image tower" }), "{refused}");
    assert_eq!(refused.kind(), Kind::Absent);
    assert!(encoder.has(Modality::Text) && !encoder.has(Modality::Image));
    assert!(encoder.image_preprocessing().is_none());
}

#[test]
fn ids_are_those_of_transformers_and_cuts_are_told() {
    for name in ["clip", "siglip", "bert"] {
        let bundle = Bundle::open(fixtures().join(name)).unwrap();
        let settings = bundle.manifest().text.clone().unwrap();
        let tokenizer = TextPreprocessor::new(&settings, bundle.tokenizer_json()).unwrap();
        for (text, ids) in expected(name)["ids"].as_object().unwrap() {
            let expected: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            let tokens = tokenizer.tokenize(text, true).unwrap();
            assert_eq!(tokens.ids, expected, "{name}: {text}");
            assert!(tokens.used_bytes <= text.len() && text.is_char_boundary(tokens.used_bytes));
            let whole = tokenizer.tokenize(text, false);
            assert_eq!(tokens.truncated, tokens.used_bytes < text.len(), "{name}: {text}");
            match whole {
                Ok(whole) => assert_eq!((whole.ids, tokens.truncated), (expected, false)),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Limit);
                    assert!(tokens.truncated && tokens.ids.len() == settings.max_ids());
                }
            }
        }
        for empty in ["", " \n\t "] {
            let error = tokenizer.tokenize(empty, true).unwrap_err();
            assert!(matches!(error, Error::Empty { field: "text" }), "{name}: {error}");
        }
        let endless = "heart ".repeat(100_000);
        assert!(tokenizer.tokenize(&endless, true).unwrap().ids.len() <= settings.max_ids());
        assert_eq!(tokenizer.tokenize(&endless, false).unwrap_err().kind(), Kind::Limit);
    }
}

#[test]
fn a_vector_does_not_depend_on_its_batch() {
    for name in ["clip", "siglip", "bert"] {
        let encoder = Encoder::open(&Bundle::open(fixtures().join(name)).unwrap()).unwrap();
        let expected = expected(name);
        let texts = expected["texts"].as_object().unwrap();
        let prepared: Vec<_> =
            texts.keys().map(|text| encoder.prepare_text(text, true).unwrap()).collect();
        for (vectors, text) in encoder.encode_texts(&prepared).unwrap().iter().zip(texts.keys()) {
            let cosine = cosine(&vectors.shared, &text_vector(&encoder, text));
            assert!(1.0 - cosine < 1e-5, "{name}: {text}: {cosine}");
        }
    }
}

/// Pillow's own pictures, value by value; what `CLIPImageProcessor` and a plain resize give.
#[test]
fn pictures_are_fitted_within_one_level_of_pillow() {
    let mut compared = 0;
    for entry in fs::read_dir(fixtures().join("fitted")).unwrap() {
        let path = entry.unwrap().path();
        let (picture, filter) =
            path.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap();
        let filter = match filter {
            "bicubic" => ResizeFilter::Bicubic,
            _ => ResizeFilter::Bilinear,
        };
        let open = |path: &Path| decode(&fs::read(path).unwrap(), &ImageLimits::default()).unwrap();
        let source = open(&fixtures().join(format!("pictures/{picture}.png")));
        let both = open(&path);
        for (left, fit) in [(0, Fit::ScaleThenCrop { shorter: 32 }), (24, Fit::Squeeze)] {
            let settings = ImagePreprocessing { size: 24, fit, filter, ..Default::default() };
            let square = settings.to_square(&source).unwrap();
            for (x, y, pixel) in square.enumerate_pixels() {
                let pillow = both.get_pixel(x + left, y);
                let far = pixel.0.iter().zip(pillow.0).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                assert!(far <= 1, "{}: {fit:?} at {x}, {y}: {far}", path.display());
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 28);
}

#[test]
fn vocabulary_and_merges_do_in_place_of_a_tokenizer_json() {
    let (_temp, dir) = copied("clip");
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    let (_, compared) = embeds_as_expected(&dir, &expected("clip"));
    assert_eq!(compared, 16);
}

#[test]
fn the_end_of_a_text_is_its_largest_id_where_the_configuration_says_two() {
    let (_temp, dir) = copied("clip");
    change(&dir.join("config.json"), |config| config["text_config"]["eos_token_id"] = json!(2));
    embeds_as_expected(&dir, &expected("clip"));
}

#[test]
fn sizes_stated_as_numbers_mean_the_same() {
    let (_temp, dir) = copied("clip");
    change(&dir.join("preprocessor_config.json"), |config| {
        config["size"] = json!(32);
        config["crop_size"] = json!(32);
        let object = config.as_object_mut().unwrap();
        object.remove("do_rescale");
        object.remove("rescale_factor");
    });
    embeds_as_expected(&dir, &expected("clip"));
    let processor = json_of(&dir.join("preprocessor_config.json"));
    fs::remove_file(dir.join("preprocessor_config.json")).unwrap();
    let newer = json!({"image_processor": processor}).to_string();
    fs::write(dir.join("processor_config.json"), newer).unwrap();
    embeds_as_expected(&dir, &expected("clip"));
}

#[test]
fn weights_in_several_files_are_one_checkpoint() {
    let (_temp, dir) = copied("clip");
    let all = tensors(&dir);
    let (first, second) = all.split_at(all.len() / 2);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut map = serde_json::Map::new();
    for (part, name) in [first, second].into_iter().zip(names) {
        store(part, &dir.join(name));
        map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), json!(name))));
    }
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    let index = json!({"metadata": {}, "weight_map": map});
    fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
    embeds_as_expected(&dir, &expected("clip"));
    fs::remove_file(dir.join(names[1])).unwrap();
    let error = Bundle::open(&dir).unwrap_err().to_string();
    assert!(error.contains(names[1]) && error.contains("is missing"), "{error}");
    change(&dir.join("model.safetensors.index.json"), |index| {
        index["weight_map"]["logit_scale"] = json!("../clip/model.safetensors");
    });
    let error = Bundle::open(&dir).unwrap_err().to_string();
    assert!(error.contains("index.json"), "{error}");
}

#[test]
fn digests_follow_every_file_that_is_read_and_no_other() {
    let (_temp, dir) = copied("clip");
    let digests = || {
        let bundle = Bundle::open(&dir).unwrap();
        (bundle.embedding_digest().to_owned(), bundle.bundle_digest().to_owned())
    };
    let before = digests();
    fs::write(dir.join("README.md"), "other words").unwrap();
    fs::rename(dir.join("expected.json"), dir.join("elsewhere.json")).unwrap();
    assert_eq!(digests(), before);
    assert_ne!(before.0, before.1);
    let mut all = tensors(&dir);
    let at = all.iter().position(|(name, _)| name == "logit_scale").unwrap();
    all[at].1 = Tensor::new(3_f32, &Device::Cpu).unwrap();
    store(&all, &dir.join("model.safetensors"));
    assert_ne!(digests(), before);
    let weights = digests();
    change(&dir.join("preprocessor_config.json"), |config| config["resample"] = json!(2));
    assert_ne!(digests(), weights);
}

#[test]
fn what_is_written_is_read_back_with_the_same_digests() {
    for name in ["clip", "siglip", "bert"] {
        let temp = TempDir::new().unwrap();
        let bundle = Bundle::open(fixtures().join(name)).unwrap();
        let to = temp.path().join("kept");
        bundle.write(&to).unwrap();
        // Once more, over what is there.
        bundle.write(&to).unwrap();
        let kept = Bundle::open(&to).unwrap();
        assert_eq!(kept.embedding_digest(), bundle.embedding_digest());
        assert_eq!(kept.bundle_digest(), bundle.bundle_digest());
        embeds_as_expected(&to, &expected(name));
        fs::write(to.join("mine.txt"), "precious").unwrap();
        assert!(bundle.write(&to).is_err());
        assert!(to.join("mine.txt").is_file());
    }
}

/// Weights that need no file, as `Made` in `scripts/make-clip-fixtures.py` makes them: each value follows
/// from the tensor's name and its place.
fn made(name: &str, shape: &[usize]) -> Tensor {
    let seed = u32::from_le_bytes(*Sha256::digest(name).first_chunk().unwrap());
    let count: usize = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let scale = (24.0 / fan_in as f64).sqrt() as f32;
    let value = |place: usize| {
        let mixed = (place as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519);
        let even = (f64::from(mixed) / 4_294_967_296.0 - 0.5) as f32;
        match shape.len() {
            1 if name.ends_with("running_var") => 1.0 + even,
            1 if name.ends_with("weight") => 1.0 + 0.4 * even,
            1 => even,
            _ => even * scale,
        }
    };
    Tensor::from_vec((0..count).map(value).collect(), shape, &Device::Cpu).unwrap()
}

/// A directory with an image tower alone, its weights made up.
fn tower_directory(architecture: &str) -> TempDir {
    let temp = TempDir::new().unwrap();
    let config = json!({
        "architecture": architecture, "width": 16,
        "pretrained_cfg": {
            "input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        },
    });
    fs::write(temp.path().join("config.json"), config.to_string()).unwrap();
    store(&[("fc.bias".to_owned(), made("fc.bias", &[3]))], &temp.path().join("model.safetensors"));
    let model: ModelConfig = Bundle::open(temp.path()).unwrap().manifest().model.clone();
    // Building the network asks for every weight, and so tells its names and shapes.
    let asked = Params::seeded(0, &Device::Cpu);
    DualEncoder::new(&model, &asked).unwrap();
    let mut weights: Vec<(String, Tensor)> = asked
        .vars()
        .iter()
        .map(|(name, var)| {
            let name = name.strip_prefix("image.tower.").unwrap();
            (name.to_owned(), made(name, var.dims()))
        })
        .collect();
    weights.push(("fc.weight".to_owned(), made("fc.weight", &[3, 128])));
    weights.push(("bn1.num_batches_tracked".to_owned(), made("x", &[1])));
    store(&weights, &temp.path().join("model.safetensors"));
    temp
}

#[test]
fn image_towers_alone_see_as_torch_does_and_say_that_they_read_no_texts() {
    let expected = expected("towers");
    for architecture in ["resnet18", "resnet50", "efficientnet_lite0"] {
        let dir = tower_directory(architecture);
        let encoder = Encoder::open(&Bundle::open(dir.path()).unwrap()).unwrap();
        for (picture, first) in expected[architecture].as_object().unwrap() {
            let picture = format!("../towers/{picture}");
            let (got, first) = (image_vector(&encoder, &picture), floats(first));
            let cosine = cosine(&got[..first.len()], &first);
            assert!(cosine >= LEAST, "{architecture}: {picture}: {cosine}");
            let scale = (first[0] - got[0]).abs();
            assert!(scale < 1e-3, "{architecture}: {picture}: {scale}");
        }
        let refused = encoder.prepare_text("a red heart", false).unwrap_err();
        assert!(matches!(refused, Error::Absent { part: "text tower" }), "{refused}");
        assert!(encoder.tokenizer().is_none());
    }
}

/// For real weights, which no test brings along: `DIPTYCH_CHECKPOINT` is a directory with an `expected.json` in
/// the form of the fixtures'.
#[test]
#[ignore = "needs a checkpoint and what it must give"]
fn the_checkpoint_that_the_environment_names_embeds_as_expected() {
    let dir = PathBuf::from(std::env::var_os("DIPTYCH_CHECKPOINT").unwrap());
    let (_, compared) = embeds_as_expected(&dir, &json_of(&dir.join("expected.json")));
    assert!(compared > 0);
}
