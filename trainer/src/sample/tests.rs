use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use image::{Rgb, Rgba, RgbaImage};

use super::{SampleArgs, run};
use crate::shards::{DatasetWriter, ImageRow, Source, Split, TextKind, TextRow};

/// A picture of 24 x 12 pixels: its left half red, its right half transparent.
fn half_red() -> Vec<u8> {
    let picture = RgbaImage::from_fn(24, 12, |x, _| {
        if x < 12 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 0]) }
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn dataset(folder: &Path, licence: &str, pictures: &[(&str, Vec<u8>)]) {
    let mut writer = DatasetWriter::create(folder, "emoji", &["style", "category"]).unwrap();
    writer.add_source(Source {
        gives: "pictures".to_owned(),
        package: "drawings 1.0.0".to_owned(),
        licence: licence.to_owned(),
        author: "A".to_owned(),
    });
    for (group, bytes) in pictures {
        writer
            .push_image(ImageRow {
                bytes: bytes.clone(),
                path: format!("noto/{group}.png"),
                group: (*group).to_owned(),
                split: Split::Train,
                labels: vec![Some("noto".to_owned()), None],
            })
            .unwrap();
    }
    for (text, kind) in [("red heart", TextKind::Name), ("love", TextKind::Keyword)] {
        let (text, lang, group) = (text.to_owned(), "en".to_owned(), "2764".to_owned());
        writer.push_text(TextRow { text, lang, kind, group, split: Split::Train }).unwrap();
    }
    writer.finish().unwrap();
}

fn args(folder: &Path) -> SampleArgs {
    SampleArgs {
        data: folder.to_path_buf(),
        out: folder.join("x/emoji.tar.gz"),
        size: 12,
        colors: 8,
    }
}

/// The files of a pack by path.
fn unpack(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    });
    entries.collect()
}

#[test]
fn a_pack_has_a_header_and_a_line_for_each_picture_and_name() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), "MIT", &[("2764", half_red())]);
    let report = run(&args(folder.path())).unwrap();
    assert_eq!((report.images, report.texts), (1, 1));
    let files = unpack(&report.path);
    let items = String::from_utf8(files["items.jsonl"].clone()).unwrap();
    let lines: Vec<serde_json::Value> =
        items.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!([
        {"format_version": 1, "collection": "emoji", "groups": 1, "images": 1, "texts": 1,
         "languages": ["en"], "licences": [{"gives": "pictures", "package": "drawings 1.0.0",
         "licence": "MIT", "author": "A"}]},
        {"id": "picture/noto/2764", "modality": "image", "group": "2764",
         "metadata": {"style": "noto"}, "file": "pictures/noto/2764.png"},
        {"id": "text/en/2764", "modality": "text", "group": "2764",
         "metadata": {"lang": "en"}, "text": "red heart"},
    ]);
    assert_eq!(serde_json::Value::from(lines), expected);
}

#[test]
fn a_picture_lies_on_white_in_a_square_of_the_size_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), "MIT", &[("2764", half_red())]);
    let files = unpack(&run(&args(folder.path())).unwrap().path);
    let png = &files["pictures/noto/2764.png"];
    assert_eq!(png[25], 3, "the colour type of an indexed PNG");
    let picture = image::load_from_memory(png).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (12, 12));
    let white = Rgb([255, 255, 255]);
    assert_eq!((picture.get_pixel(2, 6), picture.get_pixel(9, 6)), (&Rgb([255, 0, 0]), &white));
    assert_eq!((picture.get_pixel(2, 0), picture.get_pixel(2, 11)), (&white, &white));
}

#[test]
fn the_same_dataset_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), "MIT", &[("2764", half_red()), ("1f680", half_red())]);
    let read = || std::fs::read(run(&args(folder.path())).unwrap().path).unwrap();
    assert!(read() == read());
}

#[test]
fn what_may_not_be_shipped_or_cannot_be_read_is_refused_and_leaves_no_pack() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |licence: &str, pictures: &[(&str, Vec<u8>)]| {
        dataset(folder.path(), licence, pictures);
        let message = run(&args(folder.path())).unwrap_err().to_string();
        assert!(!args(folder.path()).out.exists());
        message
    };
    let message = refused("CC-BY-SA-4.0", &[("2764", half_red())]);
    assert!(message.contains("drawings 1.0.0 is under CC-BY-SA-4.0"), "{message}");
    let message = refused("MIT", &[("2764", b"no picture".to_vec())]);
    assert!(message.contains("picture `noto/2764.png`: cannot be decoded"), "{message}");
    let message = refused("MIT", &[("2764", half_red()), ("2764", half_red())]);
    assert!(message.contains("two items would be `picture/noto/2764`"), "{message}");
}
