//! What a load asks with: queries of a file or a folder, or made up.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use image::codecs::jpeg::JpegEncoder;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde::Deserialize;

use super::super::args::{BenchArgs, BenchCall};

/// Pictures and vectors that are made up; texts are without end.
const MADE_UP: usize = 256;
const QUALITY: u8 = 85;
/// Endings of files that are pictures.
const PICTURES: [&str; 5] = ["jpg", "jpeg", "png", "webp", "gif"];
/// Syllables of made-up words.
const SYLLABLES: [&str; 16] = [
    "ba", "co", "di", "fe", "ga", "hu", "jo", "ka", "li", "me", "no", "pu", "ra", "so", "ti", "ve",
];

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Input {
    Text(String),
    Image(Bytes),
    Vector(Vec<f32>),
}

/// A query, and what is right to find by it, if that is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) input: Input,
    pub(super) truth: Truth,
}

/// What is right to find.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) ids: BTreeSet<String>,
    pub(super) groups: BTreeSet<String>,
}

/// All queries of a load.
#[derive(Debug)]
pub(super) enum Queries {
    /// Asked in turn, again and again.
    Known(Vec<Query>),
    /// A new text each time.
    MadeUpTexts { words: u32, seed: u64 },
}

/// A line of a file of queries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    /// A file, relative to the file of queries.
    image: Option<PathBuf>,
    vector: Option<Vec<f32>>,
    #[serde(default)]
    relevant: BTreeSet<String>,
    #[serde(default)]
    relevant_groups: BTreeSet<String>,
}

impl Queries {
    /// Those of `args`; `dimension` is that of made-up vectors.
    pub(super) fn load(args: &BenchArgs, dimension: u32) -> Result<Self> {
        let Some(path) = &args.queries else { return made_up(args, dimension) };
        let mut queries = read(path)?;
        ensure!(!queries.is_empty(), "{} holds no query", path.display());
        for (place, query) in queries.iter().enumerate() {
            let fits = matches!(
                (args.call, &query.input),
                (BenchCall::EmbedText | BenchCall::TextToImage, Input::Text(_))
                    | (BenchCall::EmbedImage | BenchCall::ImageToText, Input::Image(_))
                    | (BenchCall::Vector, Input::Vector(_))
            );
            ensure!(fits, "{}: query {} is not what this call takes", path.display(), place + 1);
        }
        queries.shuffle(&mut StdRng::seed_from_u64(args.seed));
        Ok(Self::Known(queries))
    }

    /// The input of the call with this number, and what is right to find by it.
    pub(super) fn nth(&self, number: u64) -> (Input, Option<&Truth>) {
        match self {
            Self::Known(queries) => {
                let place = number % queries.len() as u64;
                let query = &queries[usize::try_from(place).unwrap_or(0)];
                let truth = &query.truth;
                let known = !truth.ids.is_empty() || !truth.groups.is_empty();
                (query.input.clone(), known.then_some(truth))
            }
            Self::MadeUpTexts { words, seed } => (Input::Text(text(*words, *seed, number)), None),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Query>> {
    let of = |input| Query { input, truth: Truth::default() };
    let picture = |path: &Path| Ok(of(Input::Image(bytes(path)?)));
    if path.is_dir() {
        let files = walkdir::WalkDir::new(path).sort_by_file_name().into_iter();
        let files = files.filter_map(Result::ok).map(walkdir::DirEntry::into_path);
        return files.filter(|file| is_picture(file)).map(|file| picture(&file)).collect();
    }
    if is_picture(path) {
        return Ok(vec![picture(path)?]);
    }
    let content = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the queries {}", path.display()))?;
    let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if !has_ending(path, &["jsonl", "json", "ndjson"]) {
        return Ok(lines.map(|(_, line)| of(Input::Text(line.trim().to_owned()))).collect());
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let query = |(number, line): (usize, &str)| {
        parse(line, folder).with_context(|| format!("{}, line {}", path.display(), number + 1))
    };
    lines.map(query).collect()
}

fn parse(line: &str, folder: &Path) -> Result<Query> {
    let line: Line = serde_json::from_str(line)?;
    let input = match (line.text, line.image, line.vector) {
        (Some(text), None, None) => Input::Text(text),
        (None, Some(image), None) => Input::Image(bytes(&folder.join(image))?),
        (None, None, Some(vector)) => Input::Vector(vector),
        _ => bail!("needs one of text, image and vector"),
    };
    Ok(Query { input, truth: Truth { ids: line.relevant, groups: line.relevant_groups } })
}

fn bytes(path: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes.into())
}

fn is_picture(path: &Path) -> bool {
    has_ending(path, &PICTURES)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    endings.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

fn made_up(args: &BenchArgs, dimension: u32) -> Result<Queries> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut input = || match args.call {
        BenchCall::EmbedImage | BenchCall::ImageToText => picture(args.side, &mut random),
        _ => Ok(Input::Vector(unit(dimension, &mut random))),
    };
    if matches!(args.call, BenchCall::EmbedText | BenchCall::TextToImage) {
        return Ok(Queries::MadeUpTexts { words: args.words, seed: args.seed });
    }
    let query = |_| Ok(Query { input: input()?, truth: Truth::default() });
    Ok(Queries::Known((0..MADE_UP).map(query).collect::<Result<_>>()?))
}

/// Words of two to four syllables: hardly two texts are the same.
fn text(words: u32, seed: u64, number: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed.rotate_left(32) ^ number);
    let mut text = String::new();
    for word in 0..words {
        if word > 0 {
            text.push(' ');
        }
        for _ in 0..random.random_range(2..=4) {
            text.push_str(SYLLABLES[random.random_range(0..SYLLABLES.len())]);
        }
    }
    text
}

/// A JPEG of a slope of colours with some noise, so that it is neither empty nor as large as noise alone.
fn picture(side: u32, random: &mut StdRng) -> Result<Input> {
    let slope: [f32; 6] = std::array::from_fn(|_| random.random::<f32>() * 255.0);
    let picture = image::RgbImage::from_fn(side, side, |x, y| {
        let (x, y) = (x as f32 / side as f32, y as f32 / side as f32);
        let noise = random.random::<f32>() * 16.0;
        let level = |channel: usize| {
            let level = slope[channel] * x + slope[channel + 3] * (1.0 - y) * 0.5 + noise;
            // Saturates.
            level as u8
        };
        image::Rgb([level(0), level(1), level(2)])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY))?;
    Ok(Input::Image(bytes.into_inner().into()))
}

/// A direction, all alike: three uniform numbers add up to nearly a normal one.
fn unit(dimension: u32, random: &mut StdRng) -> Vec<f32> {
    let mut normal = || (0..3).map(|_| random.random::<f32>() - 0.5).sum::<f32>();
    let vector: Vec<f32> = (0..dimension).map(|_| normal()).collect();
    let length =
        vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.into_iter().map(|value| value / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn lines_of_json_bring_their_truth() {
        let content = "{\"text\": \"a\", \"relevant\": [\"x\", \"y\"]}\n\n{\"vector\": [1, 0], \"relevant_groups\": [\"g\"]}\n";
        let (_folder, path) = file("q.jsonl", content);
        let queries = read(&path).unwrap();
        assert_eq!(queries[0].input, Input::Text("a".to_owned()));
        assert_eq!(queries[0].truth.ids.len(), 2);
        assert_eq!(queries[1].input, Input::Vector(vec![1.0, 0.0]));
        assert!(queries[1].truth.groups.contains("g"));
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for line in [
            "{}",
            "{\"text\": \"a\", \"vector\": [1]}",
            "{\"txet\": \"a\"}",
            "[",
            "{\"image\": \"no.png\"}",
        ] {
            let (_folder, path) = file("q.jsonl", &format!("{{\"text\": \"a\"}}\n{line}\n"));
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains("line 2"), "{line}: {error}");
        }
    }

    #[test]
    fn other_files_are_texts_by_line_and_folders_are_pictures() {
        let (folder, path) = file("q.txt", "one\n\n two \n");
        let queries = read(&path).unwrap();
        assert_eq!(queries[1].input, Input::Text("two".to_owned()));
        std::fs::write(folder.path().join("p.JPG"), b"jpeg").unwrap();
        let pictures = read(folder.path()).unwrap();
        assert_eq!(
            (pictures.len(), &pictures[0].input),
            (1, &Input::Image(b"jpeg".as_slice().into()))
        );
    }

    #[test]
    fn made_up_queries_are_those_of_their_seed() {
        assert_eq!(text(3, 1, 5), text(3, 1, 5));
        assert_ne!(text(3, 1, 5), text(3, 1, 6));
        assert_eq!(text(4, 1, 5).split(' ').count(), 4);
        let vector = unit(64, &mut StdRng::seed_from_u64(1));
        assert!((vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
        let Input::Image(bytes) = picture(48, &mut StdRng::seed_from_u64(1)).unwrap() else {
            panic!()
        };
        assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 48);
    }
}
