//! Whole runs on a dataset of eight colours: small enough for seconds, real enough to learn.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use candle_core::Tensor;
use image::{ImageFormat, Rgb, RgbImage};

use super::*;
use crate::checkpoint::Position;
use crate::eval::{self, Questions, Subject};
use crate::shards::{DatasetWriter, ImageRow, TextKind, TextRow};

const COLOURS: [(&str, &str, [u8; 3]); 8] = [
    ("red", "rot", [220, 20, 20]),
    ("green", "grün", [20, 180, 20]),
    ("blue", "blau", [20, 20, 220]),
    ("yellow", "gelb", [240, 220, 20]),
    ("purple", "lila", [140, 20, 160]),
    ("black", "schwarz", [10, 10, 10]),
    ("white", "weiß", [250, 250, 250]),
    ("orange", "Apfelsine", [250, 130, 10]),
];

/// Two pictures of each colour, and its name in two languages.
fn write_colours(folder: &Path) {
    let mut writer = DatasetWriter::create(folder, "colours", &["style"]).unwrap();
    for (name, german, colour) in COLOURS {
        for (style, border) in [("plain", 0), ("framed", 2)] {
            let mut picture = RgbImage::from_pixel(16, 16, Rgb([128; 3]));
            for (x, y, pixel) in picture.enumerate_pixels_mut() {
                let inside = |at: u32| (border..16 - border).contains(&at);
                if inside(x) && inside(y) {
                    *pixel = Rgb(colour);
                }
            }
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            writer
                .push_image(ImageRow {
                    bytes: bytes.into_inner(),
                    path: format!("{style}/{name}.png"),
                    group: name.to_owned(),
                    labels: vec![Some(style.to_owned())],
                })
                .unwrap();
        }
        for (text, lang) in [(name, "en"), (german, "de")] {
            let (text, lang, group) = (text.to_owned(), lang.to_owned(), name.to_owned());
            writer.push_text(TextRow { text, lang, kind: TextKind::Name, group }).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// A run of two stages over the colours; `joint` steps, then `texts` steps.
fn run(data: &Path, joint: u64, texts: u64, rate: f64) -> RunFile {
    let text = format!(
        r#"
name = "colours"
domain = "colours"
seed = 5
[data]
folder = "{}"
[preprocessing.image]
size = 16
fit = "pad_white"
filter = "bilinear"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[preprocessing.text]
kind = "hashed_ngrams"
buckets = 512
[model.image_tower]
kind = "conv"
size = 16
stem_stride = 2
widths = [8, 16]
groups = 4
[model.text_tower]
kind = "ngram_bag"
buckets = 512
width = 16
hidden = 32
[model.heads]
shared = 16
matryoshka = [8]
exclusive_image = 8
exclusive_text = 8
exclusive_hidden = 16
[cadence]
checkpoint_every = 3
[[stages]]
name = "joint"
steps = {joint}
batch = {{ concepts = 8, texts_per_concept = 2, second_pictures = 4, second_texts = 4 }}
objective = {{ kind = "split" }}
groups = [{{ prefixes = [""], learning_rate = {rate:e} }}]
[[stages]]
name = "texts"
steps = {texts}
batch = {{ concepts = 8, texts_per_concept = 2, pictures = false }}
objective = {{ kind = "centroid" }}
groups = [{{ prefixes = ["text."], learning_rate = {rate:e} }}]
"#,
        data.display()
    );
    RunFile::parse(&text, Path::new("run.toml")).unwrap()
}

/// Breaks off after a number of steps, and keeps what was reported.
struct Until {
    steps: u64,
    reports: Vec<Report>,
}

impl Until {
    fn new(steps: u64) -> Self {
        Self { steps, reports: Vec::new() }
    }

    fn end() -> Self {
        Self::new(u64::MAX)
    }
}

impl Watch for Until {
    fn opened(&mut self, _: &Training) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, report: &Report) -> Result<ControlFlow<()>> {
        self.reports.push(report.clone());
        let enough = self.reports.len() as u64 >= self.steps;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn evaluate(&mut self, _: &Training, _: &Position) -> Result<()> {
        Ok(())
    }
}

fn options(out: &Path, resume: bool) -> FitOptions {
    FitOptions { out: out.to_path_buf(), resume, device: Device::Cpu }
}

/// Every weight, to the bit.
fn bits(training: &Training) -> BTreeMap<String, Vec<u32>> {
    let of = |tensor: Tensor| -> Vec<u32> {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    let tensors = training.params.tensors().unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, of(tensor))).collect()
}

#[test]
fn a_run_learns_what_belongs_together() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 60, 10, 1e-2);
    let out = folder.path().join("out");
    let trained = fit(&run, &options(&out, false), &mut Until::end()).unwrap();
    let untrained = Training::open(&run, &Device::Cpu).unwrap();
    let at_1 = |training: &Training| {
        let tables =
            eval::evaluate(&Subject::of_training(training), &Questions::default()).unwrap();
        tables.text_to_picture["en"].at_1
    };
    assert!(at_1(&untrained) < 0.5, "{}", at_1(&untrained));
    assert!(at_1(&trained) >= 0.9, "{}", at_1(&trained));
}

#[test]
fn a_run_broken_off_anywhere_and_resumed_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 5, 4, 1e-3);
    let whole = folder.path().join("whole");
    let expected = bits(&fit(&run, &options(&whole, false), &mut Until::end()).unwrap());
    // Within the first stage, at its end, within the second, and at the very end.
    for steps in [1, 4, 5, 7, 9] {
        let out = folder.path().join(format!("cut-{steps}"));
        fit(&run, &options(&out, false), &mut Until::new(steps)).unwrap();
        let mut rest = Until::end();
        let resumed = fit(&run, &options(&out, true), &mut rest).unwrap();
        assert_eq!(rest.reports.len() as u64, 9 - steps);
        assert!(bits(&resumed) == expected, "cut after {steps} steps");
    }
}

#[test]
fn what_was_done_since_the_last_checkpoint_is_done_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 5, 4, 1e-3);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let expected = bits(&fit(&run, &options(&whole, false), &mut Until::end()).unwrap());
    fit(&run, &options(&killed, false), &mut Until::new(4)).unwrap();
    // As a kill at step 4 leaves it: the checkpoint of step 3, and one half written.
    let checkpoints = killed.join("checkpoints");
    std::fs::rename(checkpoints.join("00000004"), checkpoints.join("00000004.unfinished")).unwrap();
    let resumed = fit(&run, &options(&killed, true), &mut Until::end()).unwrap();
    assert!(bits(&resumed) == expected);
}

#[test]
fn threads_do_not_change_the_result() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 3, 2, 1e-3);
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let out = folder.path().join(format!("threads-{threads}"));
        let trained = pool.install(|| fit(&run, &options(&out, false), &mut Until::end()));
        bits(&trained.unwrap())
    };
    assert!(with(1) == with(3));
}

#[test]
fn a_stage_moves_only_what_its_groups_name() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 3, 3, 1e-3);
    let out = folder.path().join("out");
    let joint = bits(&fit(&run, &options(&out, false), &mut Until::new(3)).unwrap());
    let whole = bits(&fit(&run, &options(&out, true), &mut Until::end()).unwrap());
    for (name, before) in &joint {
        let trained = name.starts_with("text.tower.") || name.starts_with("text.shared.");
        assert_eq!(whole[name] != *before, trained, "{name}");
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let run = run(folder.path(), 20, 1, 1e30);
    let out = folder.path().join("out");
    let error = fit(&run, &options(&out, false), &mut Until::end()).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::NonFiniteLoss { .. }), "{message}");
    assert!(message.contains("stage `joint`") && message.contains("purple"), "{message}");
}

#[test]
fn a_folder_with_a_run_is_not_overwritten_and_another_run_does_not_go_on_there() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path());
    let (first, other) = (run(folder.path(), 2, 1, 1e-3), run(folder.path(), 3, 1, 1e-3));
    let out = folder.path().join("out");
    fit(&first, &options(&out, false), &mut Until::new(1)).unwrap();
    let again = fit(&first, &options(&out, false), &mut Until::end()).unwrap_err().to_string();
    assert!(again.contains("--resume"), "{again}");
    let another = fit(&other, &options(&out, true), &mut Until::end()).unwrap_err().to_string();
    assert!(another.contains("another run file"), "{another}");
    // The refusal leaves the first run as it was.
    fit(&first, &options(&out, true), &mut Until::end()).unwrap();
}
