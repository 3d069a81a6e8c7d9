//! Whole evaluations of an untrained model on a dataset of sixteen colours in two styles.

use std::io::Cursor;
use std::path::Path;

use candle_core::Device;
use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;

use super::*;
use crate::fit::Training;
use crate::run_file::RunFile;
use crate::shards::{DatasetWriter, ImageRow, TextKind, TextRow};
use crate::testing::colours_toml;

/// A model to evaluate. The folder goes when this does.
pub(super) struct Toy {
    pub(super) training: Training,
    pub(super) folder: TempDir,
}

const CONCEPTS: u8 = 16;

/// Whose first name is `caption`, all of one split.
pub(super) fn toy(caption: &str) -> Toy {
    made(caption, &[Split::Train])
}

/// The concepts take turns among the splits.
fn made(caption: &str, splits: &[Split]) -> Toy {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut writer = DatasetWriter::create(&data, "toys", &["style", "warmth"]).unwrap();
    for concept in 0..CONCEPTS {
        let split = splits[usize::from(concept) % splits.len()];
        let group = format!("colour-{concept:02}");
        for style in ["plain", "framed"] {
            let label = if concept % 4 < 2 { "warm" } else { "cold" };
            writer
                .push_image(ImageRow {
                    bytes: picture(concept, style == "framed"),
                    path: format!("{style}/{concept}.png"),
                    group: group.clone(),
                    split,
                    labels: vec![Some(style.to_owned()), Some(label.to_owned())],
                })
                .unwrap();
        }
        for lang in ["de", "en"] {
            let first = concept == 0 && lang == "de";
            let text = if first { caption.to_owned() } else { format!("{lang} colour {concept}") };
            let (lang, group) = (lang.to_owned(), group.clone());
            writer.push_text(TextRow { text, lang, kind: TextKind::Name, group, split }).unwrap();
        }
    }
    writer.finish().unwrap();
    // The model of the colours, untrained: what is asked here does not depend on the weights.
    let run = RunFile::parse(&colours_toml(&data, 1, 1, 1e-3), Path::new("run.toml")).unwrap();
    Toy { training: Training::open(&run, &Device::Cpu).unwrap(), folder }
}

fn picture(concept: u8, framed: bool) -> Vec<u8> {
    let colour = Rgb([concept * 16, 255 - concept * 15, (concept % 4) * 80]);
    let picture = RgbImage::from_fn(16, 16, |x, y| {
        let border = [x, y].iter().any(|at| *at < 3 || *at > 12);
        if framed && border { Rgb([0; 3]) } else { colour }
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn one_split_gives_every_figure() {
    let Toy { training, folder: _folder } = toy("de colour 0");
    let subject = Subject::of_training(&training);
    let tables = evaluate(&subject, &Questions::all(&training.withheld)).unwrap();
    assert_eq!(tables.split, "all");
    let found = tables.retrieval.as_ref().unwrap();
    assert_eq!((found.pictures, found.names), (32, 32));
    assert_eq!(found.all.picture_to_text.queries, 32);
    let factors: Vec<(&str, &str)> =
        tables.probes.iter().map(|probe| (&*probe.modality, &*probe.factor)).collect();
    // Names have no style: the pictures of a concept differ in it.
    let expected = [
        ("image", "style"),
        ("image", "warmth"),
        ("image", "concept"),
        ("text", "warmth"),
        ("text", "language"),
        ("text", "concept"),
    ];
    assert_eq!(factors, expected);
    assert!((tables.probes[0].chance - 0.5).abs() < 1e-12);
    assert_eq!((tables.probes[2].fitted, tables.probes[2].scored), (16, 16));
    let exclusive = tables.exclusive_retrieval.as_ref().unwrap();
    assert_eq!(exclusive.rule, division::Rule::Concepts);
    assert!(exclusive.text_to_picture.unfitted.is_some());
    let calibrated = tables.calibration.as_ref().unwrap();
    assert_eq!(calibrated.fitted_on, "all, half of the concepts");
    // What programs read is what was found.
    let json = serde_json::to_string(&tables).unwrap();
    let read: Tables = serde_json::from_str(&json).unwrap();
    let (read, found) = (read.figures(), tables.figures());
    assert!(read.keys().eq(found.keys()));
    // Text to number may be off by a last bit.
    assert!(read.values().zip(found.values()).all(|(read, found)| (read - found).abs() < 1e-9));
    assert!(tables.to_string().contains("probes"));
    assert!(dev_rsum(&subject).is_err());
}

#[test]
fn splits_are_kept_apart() {
    let Toy { training, folder: _folder } =
        made("de colour 0", &[Split::Train, Split::Dev, Split::Test]);
    let subject = Subject::of_training(&training);
    let tables = evaluate(&subject, &Questions::all(&training.withheld)).unwrap();
    assert_eq!(tables.split, "test");
    // Concepts 2, 5, 8, 11 and 14.
    let found = tables.retrieval.unwrap();
    assert_eq!((found.pictures, found.names), (10, 10));
    assert_eq!(tables.text_to_picture["en"].queries, 5);
    let style = &tables.probes[0];
    assert_eq!((style.rule, style.fitted, style.scored), (division::Rule::Splits, 12, 10));
    let calibrated = tables.calibration.unwrap();
    assert_eq!((&*calibrated.fitted_on, &*calibrated.scored_on), ("dev", "test"));
    let of = |scope| {
        let questions = Questions { scope, in_full: true, ..Questions::default() };
        evaluate(&subject, &questions).unwrap().retrieval.unwrap()
    };
    assert_eq!(of(Scope::All).pictures, 32);
    let dev = of(Scope::Watch);
    assert_eq!(dev.pictures, 10);
    let rsum = dev_rsum(&subject).unwrap();
    assert!((rsum - dev.all.rsum).abs() < 1e-9 && (0.0..=600.0).contains(&rsum));
}

#[test]
fn a_calibration_goes_into_the_bundle_and_leaves_the_vectors_alone() {
    let Toy { training, folder } = toy("de colour 0");
    let subject = Subject::of_training(&training);
    let questions = Questions { calibration: true, ..Questions::default() };
    let with = evaluate(&subject, &questions).unwrap();
    let without = Tables { calibration: None, ..with.clone() };
    let export = |tables: &Tables, name: &str| {
        let to = folder.path().join(name);
        crate::export::export(&training, tables, &to).unwrap();
        diptych_model::Bundle::open(&to).unwrap()
    };
    let (plain, calibrated) = (export(&without, "plain"), export(&with, "calibrated"));
    assert!(plain.calibration().is_none());
    let read = diptych_model::Calibration::parse(calibrated.calibration().unwrap()).unwrap();
    assert!((read.prior - 0.5).abs() < 1e-12);
    assert!(read.text_to_image.knots.len() <= 64);
    assert_eq!(read.text_to_image.pairs, with.calibration.unwrap().calibration.text_to_image.pairs);
    assert_eq!(plain.embedding_digest(), calibrated.embedding_digest());
    assert_ne!(plain.bundle_digest(), calibrated.bundle_digest());
}
