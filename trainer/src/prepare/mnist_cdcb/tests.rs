use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::RgbImage;

use super::digits::{Digits, PIXELS, SIDE};
use super::paint::Side;
use super::*;
use crate::shards::Dataset;

/// A digit whose left half is ink, and whose pixel (20, 3) is half dark.
fn pixels() -> [u8; PIXELS] {
    let mut pixels = std::array::from_fn(|at| if at % SIDE < SIDE / 2 { 255 } else { 0 });
    pixels[3 * SIDE + 20] = 100;
    pixels
}

fn write_package(folder: &Path, each: usize) {
    for class in 0..10 {
        let values: Vec<String> = (0..each)
            .flat_map(|number| {
                let mut pixels = pixels();
                pixels[class * 40] = number as u8;
                pixels.map(|value| format!("{:.4}", f64::from(value) / 255.0))
            })
            .collect();
        let content = format!("{{\"data\": [{}]}}", values.join(","));
        std::fs::write(folder.join(format!("{class}.json")), content).unwrap();
    }
}

fn idx(dimensions: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dimensions.len() as u8];
    dimensions.iter().for_each(|size| file.extend(size.to_be_bytes()));
    file.extend(bytes);
    file
}

fn write_idx(folder: &Path, train: u32, test: u32) {
    for (name, count) in [("train", train), ("t10k", test)] {
        let images = idx(&[count, 28, 28], &pixels().repeat(count as usize));
        let labels: Vec<u8> = (0..count).map(|at| (at % 10) as u8).collect();
        // One of them gzipped, the other not.
        let file =
            std::fs::File::create(folder.join(format!("{name}-images-idx3-ubyte.gz"))).unwrap();
        let mut packed = GzEncoder::new(file, Compression::fast());
        packed.write_all(&images).unwrap();
        packed.finish().unwrap();
        let labels = idx(&[count], &labels);
        std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
}

fn args(source: &Path, out: &Path) -> MnistCdcbArgs {
    MnistCdcbArgs { source: source.to_path_buf(), out: out.to_path_buf(), size: 28, colourings: 2 }
}

#[test]
fn each_side_is_painted_in_its_own_colour_by_its_own_threshold() {
    let colour = [10, 200, 30];
    let decoded = |side| -> RgbImage {
        let png = paint::png(&pixels(), side, colour, 28).unwrap();
        image::load_from_memory(&png).unwrap().to_rgb8()
    };
    let (background, foreground) = (decoded(Side::Background), decoded(Side::Foreground));
    // Ink is white on the one side and coloured on the other; paper is coloured and black.
    assert_eq!(background.get_pixel(2, 5).0, [255; 3]);
    assert_eq!(background.get_pixel(25, 5).0, colour);
    assert_eq!(foreground.get_pixel(2, 5).0, colour);
    assert_eq!(foreground.get_pixel(25, 5).0, [0; 3]);
    // Grey 100 is below 160 and above 70: paper to the one side, ink to the other.
    assert_eq!(background.get_pixel(20, 3).0, colour);
    assert_eq!(foreground.get_pixel(20, 3).0, colour);
}

#[test]
fn digits_without_a_split_are_divided_by_digit_and_always_the_same_way() {
    let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_package(source.path(), 16);
    let report = run(&args(source.path(), out.path())).unwrap();
    let counts = &report.manifest.counts;
    // 160 digits: 32 to report on, 8 of the other 128 to choose by, 120 to train on, painted twice.
    let by_split: Vec<u64> = counts.images_by_split.values().copied().collect();
    assert_eq!((counts.groups, by_split), (160, vec![480, 16, 64]));
    let dataset = Dataset::open(out.path()).unwrap();
    let mut groups: BTreeMap<String, Vec<ImageRow>> = BTreeMap::new();
    for row in dataset.images() {
        let row = row.unwrap();
        groups.entry(row.group.clone()).or_default().push(row);
    }
    for rows in groups.values() {
        assert!(
            rows.iter().all(|row| row.split == rows[0].split && row.labels[1] == rows[0].labels[1])
        );
        let sides =
            rows.iter().filter(|row| row.labels[0].as_deref() == Some("background")).count();
        assert_eq!(2 * sides, rows.len());
    }
    let again = tempfile::tempdir().unwrap();
    let repeated = run(&args(source.path(), again.path())).unwrap();
    assert_eq!(repeated.manifest.files, report.manifest.files);
    // The split of the 10,000 digits of the package is part of what is published with this: its draw
    // must never change.
    let digits = Digits {
        all: vec![Digit { class: 0, pixels: [0; PIXELS] }; 10_000],
        test_from: None,
        package: "",
        licence: "",
    };
    let splits = splits(&digits);
    let first: Vec<usize> = (0..10_000).filter(|at| splits[*at] == Split::Test).take(8).collect();
    let count = |split| splits.iter().filter(|own| **own == split).count();
    assert_eq!([Split::Train, Split::Dev, Split::Test].map(count), [7_500, 500, 2_000]);
    assert_eq!(first, FIRST_OF_TEST);
}

/// The first digits to report on among the 10,000 of the package.
const FIRST_OF_TEST: [usize; 8] = [4, 5, 10, 14, 19, 21, 31, 36];

#[test]
fn idx_files_keep_their_own_split() {
    let (source, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_idx(source.path(), 32, 10);
    let counts = run(&args(source.path(), out.path())).unwrap().manifest.counts;
    let by_split: Vec<u64> = counts.images_by_split.values().copied().collect();
    assert_eq!(by_split, [120, 4, 20]);
    assert_eq!(counts.images_by_label["digit"].len(), 10);
    assert!(!counts.images_by_label.contains_key("red"));
}

#[test]
fn damaged_files_are_refused_by_name() {
    let source = tempfile::tempdir().unwrap();
    let refused = |named: &str| {
        let error = Digits::open(source.path()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    };
    refused("0.json");
    let images = source.path().join("train-images-idx3-ubyte");
    let labels = source.path().join("train-labels-idx1-ubyte");
    std::fs::write(&images, idx(&[2, 28, 28], &[0; 2 * PIXELS])).unwrap();
    refused("train-labels-idx1-ubyte");
    std::fs::write(&labels, idx(&[3], &[0; 3])).unwrap();
    refused("3 classes for 2 pictures");
    std::fs::write(&labels, idx(&[2], &[0, 12])).unwrap();
    refused("class 12");
    std::fs::write(&images, idx(&[2, 28, 28], &[0; PIXELS])).unwrap();
    refused("promises 1568 bytes and has 784");
    std::fs::write(&images, idx(&[1, 20, 20], &[0; 400])).unwrap();
    refused("[20, 20]");
    std::fs::write(&images, b"GIF89a").unwrap();
    refused("no idx file");
    std::fs::remove_file(&images).unwrap();
    write_package(source.path(), 1);
    std::fs::write(source.path().join("4.json"), "{\"data\": [0.5, 2.0]}").unwrap();
    refused("4.json");
}
