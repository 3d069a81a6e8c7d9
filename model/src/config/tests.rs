use super::ModelConfig;

/// The default configuration with the value at `path` replaced.
fn with(path: &str, value: &str) -> String {
    let mut config = serde_json::to_value(ModelConfig::default()).unwrap();
    let (section, key) = path.split_once('.').unwrap();
    config[section][key] = serde_json::from_str(value).unwrap();
    config.to_string()
}

#[test]
fn the_default_is_valid_and_survives_writing() {
    let config = ModelConfig::default();
    config.validate().unwrap();
    let written = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ModelConfig>(&written).unwrap(), config);
}

#[test]
fn keys_and_kinds_that_do_not_exist_are_refused_by_name() {
    for (path, value) in [
        ("image_tower.colour", "1"),
        ("text_tower.colour", "1"),
        ("heads.colour", "1"),
        ("image_tower.kind", "\"colour\""),
    ] {
        let error = serde_json::from_str::<ModelConfig>(&with(path, value)).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (path, value) in [
        ("image_tower.size", "7"),
        ("image_tower.stem_stride", "0"),
        ("image_tower.widths", "[]"),
        ("image_tower.blocks_per_stage", "17"),
        ("image_tower.groups", "5"),
        ("image_tower.early_stages", "6"),
        ("image_tower.cells", "9"),
        ("image_tower.cells", "2"),
        ("image_tower.palette", "1"),
        ("heads.exclusive_anchor", "-1.0"),
        ("text_tower.buckets", "0"),
        ("text_tower.hidden", "0"),
        ("text_tower.manner", "5000"),
        ("heads.shared", "4097"),
        ("heads.matryoshka", "[64, 32]"),
        ("heads.matryoshka", "[0]"),
        ("heads.exclusive_reads", "[]"),
        ("heads.exclusive_reads", "[\"last\", \"last\"]"),
    ] {
        let config: ModelConfig = serde_json::from_str(&with(path, value)).unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{path}: ")), "{path} {value}: {error}");
    }
}
