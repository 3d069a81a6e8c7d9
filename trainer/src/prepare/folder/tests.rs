use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::super::pairs::tests::args as pair_args;
use super::{FolderArgs, run};
use crate::shards::{Dataset, ImageRow, Split, TextRow};

/// Columns of the fixture; an empty value is none.
const COLUMNS: [&str; 7] = ["image", "text", "lang", "group", "id", "colour", "remark"];
type Row = [&'static str; 7];

/// Rows with what becomes of each: the sort of fault, or nothing where it is used. `LONG` and `TORN`
/// stand for a caption of 100 kB and for bytes that are not UTF-8.
const LONG: &str = "<LONG>";
const TORN: &str = "<TORN>";
const ROWS: [(Row, Option<&str>); 19] = [
    (["red.png", "a red thing", "en", "red", "1", "red", "kept"], None),
    (["red.png", "ein rotes Ding", "de", "red", "2", "", ""], None),
    (["./sub//green.png", "a green thing", "en", "", "3", "green", ""], None),
    (["corrupt.png", "a torn picture", "en", "", "4", "", ""], Some("picture unusable")),
    (["corrupt.png", "the same again", "en", "", "5", "", ""], Some("picture unusable")),
    (["absent.png", "not there", "en", "", "6", "", ""], Some("picture missing")),
    (["blue.png", "  ", "en", "", "7", "", ""], Some("no text")),
    (["blue.png", LONG, "en", "", "8", "", ""], Some("text too long")),
    (["blue.png", "a blue thing", "en", "", "1", "", ""], Some("id repeated")),
    (["", "of nothing", "en", "", "10", "", ""], Some("no picture")),
    (["../outside.png", "outside", "en", "", "11", "", ""], Some("path refused")),
    (["/etc/hostname", "outside", "en", "", "12", "", ""], Some("path refused")),
    (["sub", "a folder", "en", "", "13", "", ""], Some("path refused")),
    (["blue.png", TORN, "en", "", "14", "", ""], Some("not UTF-8")),
    (["blue.png", "a thing", "not a tag", "", "15", "", ""], Some("wrong value")),
    (["red.png", "in another group", "en", "blue", "16", "", ""], Some("group differs")),
    (["red.png", "of another colour", "en", "", "17", "blue", ""], Some("label differs")),
    (["blue.png", "a blue thing", "en", "", "18", "blue", ""], None),
    (["text.png", "not a picture", "en", "", "19", "", ""], Some("picture unusable")),
];

fn png(path: &Path, colour: [u8; 3]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(4, 3, Rgb(colour)).save(path).unwrap();
}

/// The folder of pictures, with a picture beside it that is not of it.
fn pictures(root: &Path) -> PathBuf {
    let images = root.join("images");
    png(&images.join("red.png"), [255, 0, 0]);
    png(&images.join("sub/green.png"), [0, 255, 0]);
    png(&images.join("blue.png"), [0, 0, 255]);
    png(&root.join("outside.png"), [0, 0, 0]);
    let whole = std::fs::read(images.join("red.png")).unwrap();
    std::fs::write(images.join("corrupt.png"), &whole[..whole.len() - 20]).unwrap();
    std::fs::write(images.join("text.png"), "not a picture").unwrap();
    images
}

fn value(value: &str) -> Vec<u8> {
    match value {
        LONG => vec![b'x'; 100_000],
        TORN => b"\xff\xfe".to_vec(),
        value => value.as_bytes().to_vec(),
    }
}

/// Writes rows as one of the formats; the number of row 0 in it.
fn captions(path: &Path, rows: &[Row]) -> u64 {
    match path.extension().unwrap().to_str().unwrap() {
        "csv" => {
            let mut writer = csv::Writer::from_path(path).unwrap();
            writer.write_record(COLUMNS).unwrap();
            for row in rows {
                writer.write_record(row.iter().map(|text| value(text))).unwrap();
            }
            writer.flush().unwrap();
            2
        }
        "jsonl" => {
            let mut lines = Vec::new();
            for row in rows {
                let filled = COLUMNS.iter().zip(row).filter(|(_, text)| !text.is_empty());
                let object: BTreeMap<&str, &str> =
                    filled.map(|(name, text)| (*name, *text)).collect();
                let line = serde_json::to_string(&object).unwrap();
                let long = String::from_utf8(value(LONG)).unwrap();
                let line = line.replace(LONG, &long).into_bytes();
                let torn = line.windows(TORN.len()).position(|part| part == TORN.as_bytes());
                lines.extend(match torn {
                    None => line,
                    Some(at) => [&line[..at], b"\xff\xfe", &line[at + TORN.len()..]].concat(),
                });
                lines.push(b'\n');
            }
            std::fs::write(path, lines).unwrap();
            1
        }
        _ => {
            let columns: String =
                COLUMNS.iter().map(|name| format!("optional binary {name} (UTF8);")).collect();
            let schema = Arc::new(parse_message_type(&format!("message s {{{columns}}}")).unwrap());
            let file = std::fs::File::create(path).unwrap();
            let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
            let mut group = writer.next_row_group().unwrap();
            for column in 0..COLUMNS.len() {
                let cells = || rows.iter().map(|row| row[column]);
                let defs: Vec<i16> = cells().map(|text| i16::from(!text.is_empty())).collect();
                let values = cells().filter(|text| !text.is_empty());
                let values: Vec<ByteArray> = values.map(|text| value(text).into()).collect();
                let mut writer = group.next_column().unwrap().unwrap();
                writer.typed::<ByteArrayType>().write_batch(&values, Some(&defs), None).unwrap();
                writer.close().unwrap();
            }
            group.close().unwrap();
            writer.close().unwrap();
            1
        }
    }
}

fn args(root: &Path, captions: &Path) -> FolderArgs {
    let mut pairs = pair_args(&root.join("out"));
    pairs.labels = vec!["colour".to_owned()];
    FolderArgs { images: root.join("images"), captions: captions.to_path_buf(), pairs }
}

fn read(folder: &Path) -> (Vec<ImageRow>, Vec<TextRow>) {
    let dataset = Dataset::open(folder).unwrap();
    let images = dataset.images().map(Result::unwrap).collect();
    (images, dataset.texts().map(Result::unwrap).collect())
}

#[test]
fn every_row_is_in_the_dataset_or_named_once_in_each_format() {
    for format in ["jsonl", "csv", "parquet"] {
        let root = tempfile::tempdir().unwrap();
        pictures(root.path());
        let file = root.path().join(format!("captions.{format}"));
        let first = captions(&file, &ROWS.map(|(row, _)| row));
        let report = run(&args(root.path(), &file)).unwrap();
        let mut named: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for skipped in &report.manifest.skipped {
            named.entry(skipped.what.clone()).or_default().push(skipped.sort());
        }
        let (images, texts) = read(&report.folder);
        for (number, (row, fault)) in ROWS.iter().enumerate() {
            let place = format!("captions.{format}:{}", first + number as u64);
            let named = named.remove(&place).unwrap_or_default();
            assert_eq!(named, Vec::from_iter(*fault), "{place}");
            let there = texts.iter().any(|text| text.text == row[1] && text.lang == row[2]);
            assert!(there == fault.is_none() || row[1] == "a blue thing", "{place}: {texts:?}");
        }
        assert!(named.is_empty(), "{named:?}");
        let pictures: Vec<(&str, &str, Option<&str>)> = images
            .iter()
            .map(|i| (i.path.as_str(), i.group.as_str(), i.labels[0].as_deref()))
            .collect();
        let expected = [
            ("red.png", "red", Some("red")),
            ("sub/green.png", "sub/green.png", Some("green")),
            ("blue.png", "blue.png", Some("blue")),
        ];
        assert_eq!(pictures, expected);
        assert_eq!(images[0].bytes, std::fs::read(root.path().join("images/red.png")).unwrap());
        let splits: BTreeSet<Split> = images.iter().map(|image| image.split).collect();
        assert_eq!(splits, BTreeSet::from(Split::ALL));
        for text in &texts {
            assert!(images.iter().any(|i| i.group == text.group && i.split == text.split));
        }
        let shown = report.to_string();
        assert!(shown.contains("skipped: 15 (path refused 3, picture unusable 3, "), "{shown}");
        assert!(shown.contains("columns not read: remark"), "{shown}");
        assert!(!shown.contains("xxxx") && shown.contains("all in dataset.json"), "{shown}");
    }
}

#[test]
fn a_link_out_of_the_folder_is_refused_and_one_within_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let images = pictures(root.path());
    std::os::unix::fs::symlink("../outside.png", images.join("out.png")).unwrap();
    std::os::unix::fs::symlink("red.png", images.join("in.png")).unwrap();
    let file = root.path().join("a.csv");
    std::fs::write(&file, "file_name,caption\nout.png,a\nin.png,b\nred.png,c\nblue.png,d\n")
        .unwrap();
    let mut args = args(root.path(), &file);
    args.pairs.labels.clear();
    (args.pairs.dev, args.pairs.test) = (Some(0.0), Some(0.4));
    let report = run(&args).unwrap();
    assert_eq!(report.manifest.skipped.len(), 1);
    let told = &report.manifest.skipped[0];
    assert_eq!(told.reason, "path refused: `out.png` is a link out of the folder of pictures");
    // The link and what it leads to are one picture in two groups: they stay in one split.
    assert!(report.to_string().contains("because they share a picture: 2"), "{report}");
    let (images, _) = read(&report.folder);
    assert_eq!(images[0].split, images[1].split);
}

#[test]
fn what_is_wrong_with_the_whole_is_one_error_and_an_earlier_dataset_stays() {
    let root = tempfile::tempdir().unwrap();
    pictures(root.path());
    let file = root.path().join("a.csv");
    let told = |content: &str, labels: &[&str]| {
        std::fs::write(&file, content).unwrap();
        let mut args = args(root.path(), &file);
        args.pairs.labels = labels.iter().map(|&label| label.to_owned()).collect();
        run(&args).map(|_| ()).map_err(|error| error.to_string())
    };
    let good = "image,text\nred.png,a\nsub/green.png,b\nblue.png,c\n";
    assert_eq!(told(good, &[]), Ok(()));
    let message = told(good, &["colour"]).unwrap_err();
    assert!(message.contains("no column `colour`; there are image, text"), "{message}");
    let message = told("picture,text\nred.png,a\n", &[]).unwrap_err();
    assert!(message.contains("no column of pictures"), "{message}");
    let message = told("image,text\nred.png,a\nblue.png,b\n", &[]).unwrap_err();
    assert!(message.contains("2 separate groups are too few for 3 splits"), "{message}");
    let message = told("image,text\nabsent.png,a\n", &[]).unwrap_err();
    assert!(
        message.contains("the first being a.csv:2: picture missing: `absent.png`"),
        "{message}"
    );
    assert_eq!(read(&root.path().join("out")).0.len(), 3, "the earlier dataset");
    let mut args = args(root.path(), &file);
    args.images = root.path().join("nowhere");
    assert!(run(&args).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn lists_of_captions_lose_only_those_that_are_wrong() {
    let root = tempfile::tempdir().unwrap();
    pictures(root.path());
    let file = root.path().join("a.jsonl");
    let lines = r#"{"image": "red.png", "captions": ["one", "", "two", 3], "colour": 7}
{"image": "blue.png", "captions": ["", 4]}
{"image": "blue.png", "captions": [], "colour": 0.5}
{"image": "blue.png", "captions": "three", "colour": true}
{"image": 5, "captions": "four"}
"#;
    std::fs::write(&file, lines).unwrap();
    let mut args = args(root.path(), &file);
    (args.pairs.dev, args.pairs.test) = (Some(0.0), Some(0.0));
    let report = run(&args).unwrap();
    let told: Vec<String> =
        report.manifest.skipped.iter().map(|s| format!("{} {}", s.what, s.sort())).collect();
    let expected = [
        "a.jsonl:1 no text",
        "a.jsonl:1 wrong type",
        "a.jsonl:2 no text",
        "a.jsonl:2 wrong type",
        "a.jsonl:3 wrong type",
        "a.jsonl:5 wrong type",
    ];
    assert_eq!(told, expected);
    let (images, texts) = read(&report.folder);
    let texts: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    let labels: Vec<Option<&str>> = images.iter().map(|i| i.labels[0].as_deref()).collect();
    assert_eq!(labels, [Some("7"), Some("true")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever rows there are and in whatever order: a group is in one split, the same in any order,
    /// and the same files give the same bytes.
    #[test]
    fn splits_go_by_group_and_not_by_order(
        rows in prop::collection::vec((0_u8..30, 0_u8..12), 12..60),
        seed: u64,
    ) {
        let root = tempfile::tempdir().unwrap();
        for picture in 0..30 {
            // Each picture is of one group, and no two are equal.
            png(&root.path().join(format!("images/{picture}.png")), [picture, 1, 2]);
        }
        let file = root.path().join("a.csv");
        let line = |(picture, text): &(u8, u8)| {
            format!("{picture}.png,text {text},g{}\n", picture % 10)
        };
        let prepare = |rows: Vec<String>| {
            std::fs::write(&file, format!("image,text,group\n{}", rows.concat())).unwrap();
            let mut args = args(root.path(), &file);
            args.pairs.labels.clear();
            args.pairs.seed = seed;
            run(&args).ok().map(|report| (report.manifest, read(&report.folder)))
        };
        let forth = prepare(rows.iter().map(line).collect());
        let again = prepare(rows.iter().map(line).collect());
        let back = prepare(rows.iter().rev().map(line).collect());
        prop_assert_eq!(&forth, &again);
        prop_assert_eq!(forth.is_some(), back.is_some());
        let (Some((_, (images, texts))), Some((_, (turned, _)))) = (forth, back) else { return Ok(()) };
        let mut splits: BTreeMap<&str, Split> = BTreeMap::new();
        let in_images = images.iter().chain(&turned).map(|row| (&row.group, row.split));
        for (group, split) in in_images.chain(texts.iter().map(|row| (&row.group, row.split))) {
            prop_assert_eq!(*splits.entry(group).or_insert(split), split);
        }
        let of: BTreeSet<Split> = splits.values().copied().collect();
        prop_assert_eq!(of, BTreeSet::from(Split::ALL));
    }
}
