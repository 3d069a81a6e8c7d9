//! Whole runs on the tiny checkpoints, whose weights are random, and on coloured squares in twelve places.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use diptych_model::bundle::{Bundle, WeightType};
use diptych_model::preprocess::ImageLimits;
use diptych_model::{Encoder, Vectors};
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::*;
use crate::shards::{DatasetWriter, ImageRow, TextKind, TextRow};

const COLOURS: [(&str, [u8; 3]); 12] = [
    ("red", [220, 20, 20]),
    ("green", [20, 180, 20]),
    ("blue", [20, 20, 220]),
    ("yellow", [240, 220, 20]),
    ("purple", [140, 20, 160]),
    ("black", [10, 10, 10]),
    ("white", [250, 250, 250]),
    ("orange", [250, 130, 10]),
    ("pink", [250, 150, 200]),
    ("brown", [120, 70, 20]),
    ("turquoise", [60, 220, 210]),
    ("grey", [110, 110, 110]),
];
const PLACES: [&str; 12] = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth",
];

/// A square of a colour in one of twelve places of a grey picture.
fn picture(colour: [u8; 3], place: usize) -> Vec<u8> {
    let (left, top) = (place % 4 * 8, place / 4 * 10);
    let picture = RgbImage::from_fn(32, 32, |x, y| {
        let inside =
            (left..left + 8).contains(&(x as usize)) && (top..top + 10).contains(&(y as usize));
        if inside { Rgb(colour) } else { Rgb([60, 90, 120]) }
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// 144 concepts, a quarter for dev; with `noise`, each picture has the text of some other concept.
fn write_data(folder: &Path, noise: bool) -> PathBuf {
    let data = folder.join("data");
    let mut writer = DatasetWriter::create(&data, "squares", &["colour"]).unwrap();
    let mut said: Vec<(usize, usize)> =
        (0..144).map(|concept| (concept / 12, concept % 12)).collect();
    if noise {
        use rand::seq::SliceRandom;
        said.shuffle(&mut crate::augment::generator(3, &[]));
    }
    for (concept, (colour, place)) in said.into_iter().enumerate() {
        let split = if concept % 4 == 1 { Split::Dev } else { Split::Train };
        let group = format!("{concept:03}");
        let (name, rgb) = COLOURS[concept / 12];
        writer
            .push_image(ImageRow {
                bytes: picture(rgb, concept % 12),
                path: format!("{group}.png"),
                group: group.clone(),
                split,
                labels: vec![Some(name.to_owned())],
            })
            .unwrap();
        let text = format!("{} {}", COLOURS[colour].0, PLACES[place]);
        let (lang, kind) = ("en".to_owned(), TextKind::Name);
        writer.push_text(TextRow { text, lang, kind, group, split }).unwrap();
    }
    writer.finish().unwrap();
    data
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints").join(name)
}

/// A folder with data, and arguments over it with settings of few steps.
fn prepared(noise: bool, two: bool) -> (TempDir, HeadsArgs) {
    let folder = tempfile::tempdir().unwrap();
    let data = write_data(folder.path(), noise);
    let name = if two { "heads-two-towers.toml" } else { "heads.toml" };
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let text = fs::read_to_string(configs.join(name)).unwrap();
    let text = text
        .replace("steps = 600", "steps = 60")
        .replace("steps = 2000", "steps = 600")
        .replace("steps = 4000", "steps = 600")
        .replace("learning_rate = 3e-4", "learning_rate = 3e-3");
    let settings = folder.path().join("heads.toml");
    fs::write(&settings, text).unwrap();
    let args = HeadsArgs {
        checkpoint: fixture("clip"),
        text_checkpoint: two.then(|| fixture("bert")),
        data,
        settings: Some(settings),
        out: folder.path().join("out"),
        cache: None,
        name: None,
        to: folder.path().join("bundle"),
    };
    (folder, args)
}

fn opened(folder: &Path) -> Encoder {
    Encoder::open(&Bundle::open(folder).unwrap()).unwrap()
}

/// The vectors of a picture and of a text.
fn vectors(encoder: &Encoder) -> [Vectors; 2] {
    let image = encoder.prepare_image(&picture([1, 200, 90], 5), &ImageLimits::default()).unwrap();
    let text = encoder.prepare_text("blue third", false).unwrap();
    [encoder.encode_images(&[image]).unwrap(), encoder.encode_texts(&[text]).unwrap()]
        .map(|mut vectors| vectors.remove(0))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// No recall of the bundle is below the checkpoint's.
fn assert_not_worse(report: &HeadsReport) {
    let (own, new) = (report.own_on_dev.unwrap(), report.on_dev);
    for (own, new) in
        [(own.text_to_picture, new.text_to_picture), (own.picture_to_text, new.picture_to_text)]
    {
        assert!(new.at_1 >= own.at_1 && new.at_10 >= own.at_10, "{report}");
    }
}

#[test]
fn pairs_make_better_shared_vectors_and_exclusive_ones_on_towers_that_stay() {
    let (folder, args) = prepared(false, false);
    let report = run(&args).unwrap();
    let Outcome::Taken { comparison: Some(comparison), .. } = &report.outcome else {
        panic!("{report}")
    };
    assert!(comparison.is_gain(), "{report}");
    assert_not_worse(&report);
    assert!(report.on_dev.rsum > report.own_on_dev.unwrap().rsum + 20.0, "{report}");
    assert_eq!(report.computed, 2 * 144);

    let bundle = Bundle::open(&args.to).unwrap();
    let encoder = Encoder::open(&bundle).unwrap();
    assert!(encoder.proved());
    assert!(vectors(&encoder).iter().all(|v| v.exclusive.as_ref().unwrap().len() == 64));
    assert!(bundle.calibration().is_some());
    // The towers are the checkpoint's, to the bit.
    let (own, new) = (Bundle::open(&args.checkpoint).unwrap().weights(), bundle.weights());
    let (own, new) = (own.unwrap(), new.unwrap());
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let towers: Vec<_> = own.iter().filter(|(name, _)| name.contains(".tower.")).collect();
    assert!(!towers.is_empty() && towers.iter().all(|(name, t)| values(&new[*name]) == values(t)));

    // Again: the towers do not run, and the result is the same.
    let again = run(&args).unwrap();
    assert_eq!(again.computed, 0);
    assert_eq!(again.bundle.embedding_digest, report.bundle.embedding_digest);

    // A damaged file of features is noticed and made again.
    let cache = fs::read_dir(folder.path().join("out/features")).unwrap();
    let file = cache.map(|entry| entry.unwrap().path().join("texts-00000.features"));
    let file = file.filter(|file| file.is_file()).last().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&file, bytes).unwrap();
    let repaired = run(&args).unwrap();
    assert_eq!(repaired.computed, 144);
    assert_eq!(repaired.bundle.embedding_digest, report.bundle.embedding_digest);
}

#[test]
fn pairs_that_are_noise_leave_the_checkpoints_shared_vectors_and_it_says_so() {
    let (_folder, args) = prepared(true, false);
    let report = run(&args).unwrap();
    assert!(matches!(report.outcome, Outcome::Kept { .. }), "{report}");
    assert!(report.to_string().contains("shared vectors: kept"), "{report}");
    assert_eq!(report.own_on_dev.unwrap(), report.on_dev);
    let (own, new) = (vectors(&opened(&args.checkpoint)), vectors(&opened(&args.to)));
    for (own, new) in own.iter().zip(&new) {
        assert_eq!(own.shared, new.shared);
        assert!(own.exclusive.is_none() && new.exclusive.is_some());
    }
    let (own, new) = (Bundle::open(&args.checkpoint).unwrap(), Bundle::open(&args.to).unwrap());
    assert!((own.manifest().logit_scale - new.manifest().logit_scale).abs() < 1e-4);
}

#[test]
fn heads_begin_as_the_checkpoints_own_shared_vectors() {
    let (folder, args) = prepared(false, false);
    for name in ["clip", "siglip"] {
        let backbone = Backbone::open(&fixture(name), None).unwrap();
        let preprocessing = Arc::new(backbone.preprocessing().unwrap());
        let corpus = Corpus::open(&args.data, &preprocessing, PictureMemory::default()).unwrap();
        let cache = folder.path().join("cache");
        let from = (&corpus, &*preprocessing);
        let inputs = Inputs::open(&backbone, from, &cache, &mut |_| Ok(())).unwrap();
        let settings = HeadsSettings::read(None, false).unwrap();
        let heads = Heads::new(backbone.heads(&settings), &inputs, &corpus, (1, 0.2)).unwrap();
        begin(&heads, &backbone).unwrap();
        let all = vec![true; corpus.concepts.len()];
        let encoded = inputs.encoded(&heads.model, &corpus, &all).unwrap();
        let encoder = opened(&fixture(name));
        for at in [0, 77, 143] {
            let file = corpus.file(encoded.pictures.rows[at]).unwrap();
            let image = encoder.prepare_image(&file, &ImageLimits::default()).unwrap();
            let own = encoder.encode_images(&[image]).unwrap().remove(0).shared;
            assert!(cosine(&own, encoded.pictures.shared.row(at)) > 1.0 - 1e-6, "{name} {at}");
            let text = encoder.prepare_text(&encoded.texts[at].text, true).unwrap();
            let own = encoder.encode_texts(&[text]).unwrap().remove(0).shared;
            assert!(cosine(&own, encoded.names.shared.row(at)) > 1.0 - 1e-6, "{name} {at}");
        }
    }
}

#[test]
fn a_checkpoint_in_half_precision_stays_so() {
    let (folder, mut args) = prepared(false, false);
    let half = folder.path().join("half");
    fs::create_dir(&half).unwrap();
    for entry in fs::read_dir(fixture("clip")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), half.join(entry.file_name())).unwrap();
    }
    let file = half.join("model.safetensors");
    let weights = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let halved = weights.iter().map(|(name, tensor)| {
        let float = tensor.dtype() == DType::F32;
        let dtype = if float { DType::F16 } else { tensor.dtype() };
        (name.as_str(), tensor.to_dtype(dtype).unwrap())
    });
    let halved: std::collections::HashMap<&str, Tensor> = halved.collect();
    candle_core::safetensors::save(&halved, &file).unwrap();
    args.checkpoint = half;
    let report = run(&args).unwrap();
    let bundle = Bundle::open(&args.to).unwrap();
    assert_eq!(bundle.weight_type(), WeightType::F16);
    assert_not_worse(&report);
    assert!(vectors(&opened(&args.to))[0].exclusive.is_some());
}

#[test]
fn two_checkpoints_of_one_modality_each_become_one_bundle() {
    let (_folder, args) = prepared(false, true);
    let report = run(&args).unwrap();
    assert!(matches!(report.outcome, Outcome::Taken { comparison: None, .. }), "{report}");
    let chance = 10.0 / 36.0;
    assert!(report.on_dev.text_to_picture.at_10 > 1.5 * chance, "{report}");
    let encoder = opened(&args.to);
    let [image, text] = vectors(&encoder);
    assert_eq!((image.shared.len(), text.shared.len()), (256, 256));
    assert!(image.exclusive.is_some() && text.exclusive.is_some());
}

#[test]
fn what_heads_cannot_stand_on_is_refused_by_name() {
    let (_folder, mut args) = prepared(false, false);
    args.checkpoint = fixture("bert");
    let message = run(&args).unwrap_err().to_string();
    assert!(message.contains("--checkpoint") && message.contains("no pictures"), "{message}");
    args.checkpoint = fixture("clip");
    let data = args.data.with_file_name("colours");
    crate::testing::write_colours(&data, &[]);
    args.data = data;
    let message = run(&args).unwrap_err().to_string();
    assert!(message.contains("no dev split"), "{message}");
}
