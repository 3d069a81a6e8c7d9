//! Checkpoints that cannot be served: each is refused by the name of what is at fault.

use std::fs;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{change, copied, store, tensors};
use crate::bundle::Bundle;
use crate::error::Kind;
use crate::infer::Encoder;

#[test]
fn pickled_weights_are_refused_with_what_converts_them() {
    let (_temp, dir) = copied("clip");
    fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    let error = Bundle::open(&dir).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin: "), "{error}");
    assert!(error.contains(&format!("diptych-train import --from {}", dir.display())), "{error}");
}

#[test]
fn a_sentencepiece_vocabulary_alone_is_refused_with_what_writes_the_other() {
    let (_temp, dir) = copied("siglip");
    fs::rename(dir.join("tokenizer.json"), dir.join("spiece.model")).unwrap();
    let error = Bundle::open(&dir).unwrap_err().to_string();
    assert!(error.contains("spiece.model: ") && error.contains("save_pretrained"), "{error}");
}

/// Whatever a settings file says: an error that names the file and the word, and no panic.
#[test]
fn settings_that_cannot_be_served_are_refused_by_name() {
    type Change = fn(&mut Value);
    let cases: [(&str, &str, &str, Change); 16] = [
        ("clip", "config.json", "model_type `other`", |c| c["model_type"] = json!("other")),
        ("clip", "config.json", "neither a `model_type`", |c| c["model_type"] = json!(null)),
        ("clip", "config.json", "hidden_act", |c| c["text_config"]["hidden_act"] = json!("mish")),
        ("clip", "config.json", "image_tower.blocks.heads", |c| {
            c["vision_config"]["num_attention_heads"] = json!(5);
        }),
        ("clip", "config.json", "form", |c| c["text_config"]["hidden_size"] = json!(-1)),
        ("clip", "config.json", "image_tower.patch", |c| {
            c["vision_config"]["patch_size"] = json!(7);
        }),
        ("clip", "config.json", "image_tower.patch", |c| {
            c["vision_config"]["patch_size"] = json!(0);
        }),
        ("clip", "config.json", "px", |c| c["vision_config"]["image_size"] = json!(64)),
        ("clip", "config.json", "heads.shared", |c| c["projection_dim"] = json!(1_000_000)),
        ("clip", "preprocessor_config.json", "resample", |c| c["resample"] = json!(5)),
        ("clip", "preprocessor_config.json", "crops to more", |c| c["crop_size"] = json!(64)),
        ("clip", "preprocessor_config.json", "do_resize", |c| c["do_resize"] = json!(false)),
        ("siglip", "config.json", "text_tower.positions", |c| {
            c["text_config"]["max_position_embeddings"] = json!(0);
        }),
        ("bert", "config.json", "relative positions", |c| {
            c["position_embedding_type"] = json!("relative_key");
        }),
        ("bert", "modules.json", "Dense", |c| c[2]["type"] = json!("x.Dense")),
        ("bert", "1_Pooling/config.json", "max_tokens", |c| {
            c["pooling_mode_max_tokens"] = json!(true);
        }),
    ];
    for (fixture, file, word, alter) in cases {
        let (_temp, dir) = copied(fixture);
        change(&dir.join(file), alter);
        let error = Bundle::open(&dir).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(word), "{file} {word}: {text}");
        assert_ne!(error.kind(), Kind::Internal, "{text}");
    }
}

#[test]
fn files_that_are_missing_or_cut_are_refused_by_name() {
    for file in ["preprocessor_config.json", "tokenizer.json", "model.safetensors", "config.json"] {
        let (_temp, dir) = copied("siglip");
        let whole = fs::read(dir.join(file)).unwrap();
        fs::write(dir.join(file), &whole[..whole.len() - 3]).unwrap();
        let open = || Bundle::open(&dir).and_then(|bundle| Encoder::open(&bundle)).unwrap_err();
        let cut = open().to_string();
        assert!(cut.contains(file), "{file}: {cut}");
        fs::remove_file(dir.join(file)).unwrap();
        let missing = open().to_string();
        assert!(missing.contains("is missing"), "{file}: {missing}");
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    type Change = fn(&mut Vec<(String, Tensor)>);
    let cases: [(&str, &str, Change); 5] = [
        ("text_projection", "missing", |all| {
            all.retain(|(name, _)| name != "text_projection.weight");
        }),
        ("extra.weight", "no part", |all| {
            let one = Tensor::ones(1, candle_core::DType::F32, &Device::Cpu).unwrap();
            all.push(("extra.weight".to_owned(), one));
        }),
        ("q_proj.weight", "shape", |all| {
            let at = all.iter().position(|(name, _)| name.ends_with("0.self_attn.q_proj.weight"));
            let weight = &mut all[at.unwrap()].1;
            *weight = weight.narrow(0, 0, 3).unwrap();
        }),
        ("post_layernorm.weight", "not finite", |all| {
            let at = all.iter().position(|(name, _)| name.ends_with("post_layernorm.weight"));
            all[at.unwrap()].1 = Tensor::full(f32::NAN, 32, &Device::Cpu).unwrap();
        }),
        ("visual_projection.weight", "I64", |all| {
            let at = all.iter().position(|(name, _)| name == "visual_projection.weight");
            all[at.unwrap()].1 =
                Tensor::ones((20, 32), candle_core::DType::I64, &Device::Cpu).unwrap();
        }),
    ];
    for (name, word, alter) in cases {
        let (_temp, dir) = copied("clip");
        let mut all = tensors(&dir);
        alter(&mut all);
        store(&all, &dir.join("model.safetensors"));
        let opened = Bundle::open(&dir).and_then(|bundle| Encoder::open(&bundle));
        let error = opened.unwrap_err();
        let text = error.to_string();
        let name = name.replace("text_projection", "text.shared.weight");
        assert!(text.contains(&name) && text.contains(word), "{name} {word}: {text}");
        assert_eq!(error.kind(), Kind::Corrupt, "{text}");
    }
}
