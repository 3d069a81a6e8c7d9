//! A folder of pictures with captions, and the program.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{ImageFormat, Rgb, RgbImage};

/// Colours and their names in two languages.
pub(crate) const COLOURS: [(&str, &str, [u8; 3]); 12] = [
    ("red", "rot", [220, 20, 20]),
    ("green", "grün", [20, 180, 20]),
    ("blue", "blau", [20, 20, 220]),
    ("yellow", "gelb", [240, 220, 20]),
    ("purple", "lila", [140, 20, 160]),
    ("black", "schwarz", [10, 10, 10]),
    ("white", "weiß", [250, 250, 250]),
    ("orange", "Apfelsine", [250, 130, 10]),
    ("pink", "rosa", [250, 150, 200]),
    ("brown", "braun", [120, 70, 20]),
    ("turquoise", "türkis", [60, 220, 210]),
    ("beige", "sandfarben", [230, 210, 170]),
];

/// A picture of one colour as a PNG file.
pub(crate) fn picture(colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(20, 16, Rgb(colour)).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Writes the pictures and `captions.jsonl` into `folder`.
pub(crate) fn write_pairs(folder: &Path) {
    let mut captions = String::new();
    for (name, german, colour) in COLOURS {
        std::fs::write(folder.join(format!("{name}.png")), picture(colour)).unwrap();
        for (text, lang) in [(name, "en"), (german, "de")] {
            let row =
                serde_json::json!({"image": format!("{name}.png"), "text": text, "lang": lang});
            captions.push_str(&format!("{row}\n"));
        }
    }
    std::fs::write(folder.join("captions.jsonl"), captions).unwrap();
}

/// The program with arguments.
pub(crate) fn trainer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diptych-train"));
    command.args(["--threads", "1"]).args(arguments);
    command
}

/// Runs the program to its end, which must be a success, and returns what it wrote to its output.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = trainer(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Prepares the pairs in `folder` and writes a run file of `steps` steps over them; its path.
pub(crate) fn prepared(folder: &Path, steps: u64) -> PathBuf {
    write_pairs(folder);
    let data = folder.join("data");
    succeed(&[
        "prepare",
        "folder",
        "--images",
        folder.to_str().unwrap(),
        "--captions",
        folder.join("captions.jsonl").to_str().unwrap(),
        "--out",
        data.to_str().unwrap(),
    ]);
    let run = folder.join("run.toml");
    std::fs::write(&run, run_file(&data, steps)).unwrap();
    run
}

fn run_file(data: &Path, steps: u64) -> String {
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
steps = {steps}
ema_decay = 0.9
batch = {{ concepts = 6, texts_per_concept = 2, second_pictures = 4, second_texts = 4 }}
objective = {{ kind = "split" }}
groups = [{{ prefixes = [""], learning_rate = 1e-3 }}]
"#,
        data.display()
    )
}
