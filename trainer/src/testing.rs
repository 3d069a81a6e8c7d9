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
use crate::shards::{DatasetWriter, ImageRow, Split, TextKind, TextRow};

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
batch = {{ order = "groups", concepts = 8, texts_per_concept = 2, second_pictures = 4, second_texts = 4 }}
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
