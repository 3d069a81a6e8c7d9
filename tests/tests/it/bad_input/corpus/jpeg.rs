//! JPEG (ITU-T T.81), segment by segment.

use diptych_tests::files::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Case, Told, limited, refused};

const CORRUPT: &str = "IMAGE_CORRUPT";
const PERHAPS: Told = Told::Perhaps(&[CORRUPT, "IMAGE_FORMAT_UNSUPPORTED", "IMAGE_TOO_LARGE"]);

/// Start of a baseline frame, of a Huffman table, of a quantisation table, of a scan.
const FRAME: u8 = 0xC0;
const HUFFMAN: u8 = 0xC4;
const QUANTISATION: u8 = 0xDB;
const SCAN: u8 = 0xDA;

fn corrupt() -> Told {
    refused(CORRUPT, "image")
}

pub(super) fn cases() -> Vec<Case> {
    [kinds(), frames(), tables(), order(), turned(), cuts(), flips()].concat()
}

fn kinds() -> Vec<Case> {
    let names = [
        "baseline",
        "progressive",
        "grey",
        "cmyk",
        "restarts",
        "odd",
        "odd-progressive",
        "odd-halved-across",
        "odd-whole",
    ];
    let case = |name| {
        Case::picture(format!("jpeg: {name}"), fixture(&format!("{name}.jpg")), Told::Answered)
    };
    names.into_iter().map(case).collect()
}

/// The fixture with bytes of its frame's segment set: places count from the marker on.
fn framed(changes: &[(usize, u8)]) -> Vec<u8> {
    jpeg(|marker, mut part| {
        if marker == FRAME {
            changes.iter().for_each(|(place, byte)| part[*place] = *byte);
        }
        Some(part)
    })
}

/// Frames that no picture has: precision at 4, height at 5, width at 7, components at 9, the first one's sampling at 11.
fn frames() -> Vec<Case> {
    let changed = |what: &str, changes: &[(usize, u8)], told| {
        Case::picture(format!("jpeg frame: {what}"), framed(changes), told)
    };
    vec![
        changed("no rows", &[(5, 0), (6, 0)], corrupt()),
        changed("no columns", &[(7, 0), (8, 0)], corrupt()),
        changed(
            "65,535 x 65,535",
            &[(5, 255), (6, 255), (7, 255), (8, 255)],
            limited("IMAGE_TOO_LARGE", "image", 12_000),
        ),
        changed("12 bits", &[(4, 12)], corrupt()),
        changed("0 bits", &[(4, 0)], corrupt()),
        changed("no components", &[(9, 0)], corrupt()),
        changed("two components", &[(9, 2)], corrupt()),
        changed("255 components", &[(9, 255)], corrupt()),
        changed("no samples", &[(11, 0)], corrupt()),
        changed("15 x 15 samples", &[(11, 0xFF)], corrupt()),
        changed("three samples across", &[(11, 0x31)], PERHAPS),
        changed("a table that is not there", &[(12, 3)], corrupt()),
        changed("two components of one name", &[(13, 1)], PERHAPS),
        changed("a length of 2", &[(2, 0), (3, 2)], corrupt()),
        changed("a length of 0", &[(2, 0), (3, 0)], corrupt()),
        changed("a length beyond the file", &[(2, 255), (3, 255)], corrupt()),
        changed("lossless", &[(1, 0xC3)], corrupt()),
        changed("arithmetic coding, which it is not", &[(1, 0xC9)], PERHAPS),
        changed("hierarchical", &[(1, 0xC5)], corrupt()),
        changed("progressive, which it is not", &[(1, 0xC2)], PERHAPS),
    ]
}

fn tables() -> Vec<Case> {
    let without = |gone: u8| jpeg(|marker, part| (marker != gone).then_some(part));
    let zeroed = |which: u8| {
        jpeg(|marker, mut part| {
            if marker == which {
                part[4..].fill(0);
            }
            Some(part)
        })
    };
    let full = |which: u8| {
        jpeg(|marker, mut part| {
            if marker == which {
                part[4..].fill(0xFF);
            }
            Some(part)
        })
    };
    vec![
        Case::picture("jpeg: no quantisation", without(QUANTISATION), corrupt()),
        Case::picture("jpeg: no Huffman tables", without(HUFFMAN), PERHAPS),
        Case::picture("jpeg: no frame", without(FRAME), corrupt()),
        Case::picture("jpeg: no JFIF", without(0xE0), Told::Answered),
        Case::picture("jpeg: quantisation of zeros", zeroed(QUANTISATION), PERHAPS),
        Case::picture("jpeg: quantisation of ones", full(QUANTISATION), PERHAPS),
        Case::picture("jpeg: Huffman tables of zeros", zeroed(HUFFMAN), PERHAPS),
        Case::picture("jpeg: Huffman tables of ones", full(HUFFMAN), PERHAPS),
        Case::picture("jpeg: JFIF of ones", full(0xE0), PERHAPS),
        Case::picture(
            "jpeg: a restart interval of 1",
            jpeg_with(&[segment(0xDD, &[0, 1])]),
            PERHAPS,
        ),
    ]
}

fn order() -> Vec<Case> {
    let (parts, rest) = segments(&fixture("baseline.jpg"));
    let all: Vec<u8> = parts.iter().flat_map(|(_, part)| part.clone()).collect();
    let begun = |parts: &[&[u8]]| [[0xFF, 0xD8].as_slice(), &parts.concat()].concat();
    let scan = &rest[..rest.len() - 2];
    let end = &rest[rest.len() - 2..];
    let comments = segment(0xFE, &vec![b'c'; 65_000]).repeat(100);
    vec![
        Case::picture("jpeg: start and end", vec![0xFF, 0xD8, 0xFF, 0xD9], corrupt()),
        Case::picture("jpeg: the start alone", vec![0xFF, 0xD8, 0xFF], corrupt()),
        Case::picture(
            "jpeg: two bytes",
            vec![0xFF, 0xD8],
            refused("IMAGE_FORMAT_UNSUPPORTED", "image"),
        ),
        Case::picture("jpeg: the scan before the frame", begun(&[&rest]), corrupt()),
        Case::picture("jpeg: no scan", begun(&[&all, end]), corrupt()),
        Case::picture("jpeg: a scan without data", begun(&[&all, &rest[..14], end]), PERHAPS),
        Case::picture("jpeg: two frames", begun(&[&all, &all, &rest]), PERHAPS),
        Case::picture("jpeg: the scan twice", begun(&[&all, scan, scan, end]), PERHAPS),
        Case::picture(
            "jpeg: 51 scans",
            begun(&[&all, &scan.repeat(51), end]),
            limited("IMAGE_TOO_LARGE", "image", 50),
        ),
        Case::picture(
            "jpeg: 10,000 scans of nothing",
            begun(&[&all, &[0xFF, SCAN, 0, 2].repeat(10_000), end]),
            limited("IMAGE_TOO_LARGE", "image", 50),
        ),
        Case::picture("jpeg: 6 MB of comments", jpeg_with(&[comments]), Told::Answered),
        Case::picture(
            "jpeg: an unknown segment",
            jpeg_with(&[segment(0xEF, &[1; 50])]),
            Told::Answered,
        ),
        Case::picture("jpeg: fill bytes", jpeg_with(&[vec![0xFF; 1000]]), PERHAPS),
        Case::picture(
            "jpeg: nothing but 0xFF",
            vec![0xFF, 0xD8].into_iter().chain([0xFF; 100_000]).collect(),
            corrupt(),
        ),
        Case::picture(
            "jpeg: zeros",
            [[0xFF, 0xD8, 0xFF].as_slice(), &[0; 10_000]].concat(),
            corrupt(),
        ),
        Case::picture(
            "jpeg: a profile of 250 parts that are not there",
            jpeg_with(&[segment(0xE2, b"ICC_PROFILE\0\x01\xFAxx")]),
            Told::Answered,
        ),
    ]
}

/// EXIF and its orientation; a picture whose EXIF is broken is still a picture.
fn turned() -> Vec<Case> {
    let block =
        |content: &[u8]| jpeg_with(&[segment(0xE1, &[b"Exif\0\0".as_slice(), content].concat())]);
    let blocks: [(&str, Vec<u8>); 11] = [
        ("turned 6", exif(8, 1, 6)),
        ("turned 0", exif(8, 1, 0)),
        ("turned 9", exif(8, 1, 9)),
        ("turned 65,535", exif(8, 1, u16::MAX)),
        ("that begins beyond its end", exif(4000, 1, 6)),
        ("that begins beyond any file", exif(u32::MAX, 1, 6)),
        ("that begins within its own head", exif(0, 1, 6)),
        ("of no values", exif(8, 0, 6)),
        ("of 4,294,967,295 values", exif(8, u32::MAX, 6)),
        ("cut", exif(8, 1, 6)[..14].to_vec()),
        ("of zeros", vec![0; 200]),
    ];
    let case = |(what, content): (&str, Vec<u8>)| {
        Case::picture(format!("jpeg: EXIF {what}"), block(&content), Told::Answered)
    };
    let mut cases: Vec<Case> = blocks.into_iter().map(case).collect();
    let mut long = block(&exif(8, 1, 6));
    long[4..6].fill(0xFF);
    cases.push(Case::picture("jpeg: EXIF longer than the file", long, corrupt()));
    cases
}

fn cuts() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["baseline", "progressive", "restarts"] {
        let file = fixture(&format!("{name}.jpg"));
        for eighth in 1..8 {
            let cut = file[..file.len() * eighth / 8].to_vec();
            cases.push(Case::picture(format!("jpeg: {eighth} eighths of {name}"), cut, corrupt()));
        }
        let cut = file[..file.len() - 2].to_vec();
        cases.push(Case::picture(format!("jpeg: {name} without its end"), cut, corrupt()));
        let long = [file, vec![0; 1 << 20]].concat();
        cases.push(Case::picture(format!("jpeg: a megabyte behind {name}"), long, Told::Answered));
    }
    cases
}

/// A byte at a time, anywhere: nothing tells but what the bytes mean.
fn flips() -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut cases = Vec::new();
    for name in ["baseline", "progressive", "restarts", "cmyk"] {
        let file = fixture(&format!("{name}.jpg"));
        for number in 0..6 {
            let mut flipped = file.clone();
            flipped[rng.random_range(2..file.len())] ^= 1 << rng.random_range(0..8);
            cases.push(Case::picture(format!("jpeg: flip {number} in {name}"), flipped, PERHAPS));
        }
    }
    cases
}
