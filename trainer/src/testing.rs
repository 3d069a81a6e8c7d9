//! Whole runs on a dataset of eight colours, for tests: small enough for seconds, real enough to learn.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::Device;
use image::{ImageFormat, Rgb, RgbImage};

use crate::checkpoint::Position;
use crate::error::Result;
use crate::fit::{FitOptions, Report, Training, Watch, fit};
use crate::run_file::RunFile;
use crate::shards::{DatasetWriter, ImageRow, PairedPictures, Split, TextKind, TextRow};

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

/// Writes two pictures of each colour, and its name in two languages; `dev` are held out.
pub(crate) fn write_colours(folder: &Path, dev: &[&str]) {
    let mut writer = DatasetWriter::create(folder, "colours", &["style"]).unwrap();
    for (name, german, colour) in COLOURS {
        let split = if dev.contains(&name) { Split::Dev } else { Split::Train };
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
                    split,
                    labels: vec![Some(style.to_owned())],
                })
                .unwrap();
        }
        for (text, lang) in [(name, "en"), (german, "de")] {
            let (text, lang, group) = (text.to_owned(), lang.to_owned(), name.to_owned());
            writer.push_text(TextRow { text, lang, kind: TextKind::Name, group, split }).unwrap();
        }
    }
    writer.finish().unwrap();
}

/// A run of two stages over the colours; `joint` steps, then `texts` steps.
pub(crate) fn colours_toml(data: &Path, joint: u64, texts: u64, rate: f64) -> String {
    format!(
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
gate = 8
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
batch = {{ order = "groups", concepts = 8, texts_per_concept = 2, second_pictures = 4, second_texts = 8 }}
objective = {{ kind = "split" }}
groups = [{{ prefixes = [""], learning_rate = {rate:e} }}]
[[stages]]
name = "texts"
steps = {texts}
batch = {{ order = "groups", concepts = 8, texts_per_concept = 2, pictures = false }}
objective = {{ kind = "centroid" }}
groups = [{{ prefixes = ["text."], learning_rate = {rate:e} }}]
"#,
        data.display()
    )
}

/// Writes the colours and reads the run file over them.
pub(crate) fn colours_run(folder: &Path, joint: u64, texts: u64) -> RunFile {
    write_colours(folder, &[]);
    RunFile::parse(&colours_toml(folder, joint, texts, 1e-3), Path::new("run.toml")).unwrap()
}

/// A run of one stage of an objective over the colours, opened. `objective` has its settings as TOML.
pub(crate) fn colours_with(folder: &Path, objective: &str) -> Training {
    let run = colours_run(folder, 2, 1);
    one_stage(run, objective)
}

/// Writes eight squares, each with a colour of its own around it and in another colour, as pairs of
/// pictures, and opens a run of one stage of an objective over them.
pub(crate) fn write_digit_pairs(folder: &Path, objective: &str) -> Training {
    write_pairs(folder);
    let toml = digit_pairs_toml(folder);
    one_stage(RunFile::parse(&toml, Path::new("run.toml")).unwrap(), objective)
}

/// A run of one stage over what [`write_pairs`] wrote.
pub(crate) fn digit_pairs_toml(folder: &Path) -> String {
    let toml = colours_toml(folder, 2, 1, 1e-3);
    let at = |what: &str| toml.find(what).unwrap();
    let [image, text, heads] =
        ["[model.image_tower]", "[model.text_tower]", "[model.heads]"].map(at);
    let tower = toml[image..text].replace("image_tower", "counterpart_tower");
    let rest = &toml[heads..toml.rfind("[[stages]]").unwrap()];
    let rest = rest.replace("texts_per_concept = 2", "texts_per_concept = 1");
    let rest = rest.replace("second_texts = 8", "second_texts = 4");
    [&toml[..text], &tower, &rest].concat()
}

/// The first stage of a run, with another objective, opened.
pub(crate) fn one_stage(mut run: RunFile, objective: &str) -> Training {
    run.stages.truncate(1);
    run.stages[0].objective = toml::from_str(objective).unwrap();
    run.check().unwrap();
    Training::open(&run, &Device::Cpu).unwrap()
}

/// Eight squares of different sizes, half of them to report on: dark on a colour, and in a colour on black.
pub(crate) fn write_pairs(folder: &Path) {
    let mut writer = DatasetWriter::create(folder, "squares", &["side", "size", "red"]).unwrap();
    writer.pair(PairedPictures { label: "side".to_owned(), counterpart: "ink".to_owned() });
    writer.numeric("colour", &["red"]);
    for (number, (_, _, colour)) in COLOURS.into_iter().enumerate() {
        let split = if number % 4 == 3 { Split::Test } else { Split::Train };
        for (side, red) in [("paper", colour[0]), ("ink", colour[2])] {
            let within = |at: u32| (2..4 + number as u32).contains(&at);
            let picture = RgbImage::from_fn(16, 16, |x, y| {
                let ink = within(x) && within(y);
                Rgb(if ink == (side == "ink") { [red, 90, 90] } else { [0; 3] })
            });
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
            let size = if number < 4 { "small" } else { "large" };
            let labels = [side, size, &red.to_string()].map(|label| Some(label.to_owned()));
            writer
                .push_image(ImageRow {
                    bytes: bytes.into_inner(),
                    path: format!("{side}/{number}.png"),
                    group: number.to_string(),
                    split,
                    labels: labels.into(),
                })
                .unwrap();
        }
    }
    writer.finish().unwrap();
}

/// Trains to the end in the folder `out`, which it returns.
pub(crate) fn trained(run: &RunFile, out: &Path) -> PathBuf {
    let options = FitOptions { out: out.to_path_buf(), resume: false, device: Device::Cpu };
    fit(run, &options, &mut Silent).unwrap();
    out.to_path_buf()
}

/// Watches nothing.
struct Silent;

impl Watch for Silent {
    fn opened(&mut self, _: &Training) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, _: &Report) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    fn evaluate(&mut self, _: &Training, _: &Position) -> Result<()> {
        Ok(())
    }
}
