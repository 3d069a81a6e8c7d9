//! Pictures at and beyond the limits: sides of 12,000 pixels, 25 million pixels, 10 MiB; small files that say they are huge.

use diptych_tests::files::*;
use diptych_tests::inputs::black_png;

use super::{Case, Told, limited};

const SIDE: u64 = 12_000;
const PIXELS: u64 = 25_000_000;
const BYTES: u64 = 10 << 20;

fn beyond(limit: u64) -> Told {
    limited("IMAGE_TOO_LARGE", "image", limit)
}

pub(super) fn cases() -> Vec<Case> {
    [claims(), bombs(), bytes()].concat()
}

/// Heads of huge pictures before a few bytes.
fn claims() -> Vec<Case> {
    let sizes = [
        (12_001, 1, SIDE),
        (1, 12_001, SIDE),
        (i32::MAX as u32, 1, SIDE),
        (u32::MAX, 1, SIDE),
        (1, i32::MAX as u32, SIDE),
        (i32::MAX as u32, i32::MAX as u32, SIDE),
        (65_535, 65_535, SIDE),
        (12_000, 12_000, PIXELS),
        (5001, 5000, PIXELS),
    ];
    let mut cases = Vec::new();
    for (width, height, limit) in sizes {
        for (kind, depth, colour) in [("one bit", 1, 0), ("64 bits", 16, 6)] {
            let head = Head { width, height, depth, colour, ..Head::default() };
            let file = png(&[head.chunk(), chunk(b"IDAT", &zlib(&[0; 100]))]);
            let what = format!("png: {width} x {height} of {kind} a pixel");
            cases.push(Case::picture(what, file, beyond(limit)));
        }
    }
    let low = |side: u16| side.to_le_bytes();
    for (width, height, limit) in [(12_001, 1, SIDE), (1, 65_535, SIDE), (6000, 6000, PIXELS)] {
        let mut file = fixture("plain.gif");
        file[6..8].copy_from_slice(&low(width));
        file[8..10].copy_from_slice(&low(height));
        cases.push(Case::picture(format!("gif: {width} x {height}"), file, beyond(limit)));
        let framed = jpeg(|marker, mut part| {
            if marker == 0xC0 {
                part[5..7].copy_from_slice(&height.to_be_bytes());
                part[7..9].copy_from_slice(&width.to_be_bytes());
            }
            Some(part)
        });
        cases.push(Case::picture(format!("jpeg: {width} x {height}"), framed, beyond(limit)));
    }
    for (width, height, limit) in [(16_383, 1, SIDE), (1, 12_001, SIDE), (6000, 6000, PIXELS)] {
        let mut file = fixture("lossy.webp");
        file[26..28].copy_from_slice(&low(width));
        file[28..30].copy_from_slice(&low(height));
        cases.push(Case::picture(format!("webp: {width} x {height}"), file, beyond(limit)));
    }
    cases
}

/// Few bytes that are many pixels, and the most that is taken.
fn bombs() -> Vec<Case> {
    vec![
        Case::picture("png: 8,000 x 8,000 in 8 kB", black_png(8000, 8000), beyond(PIXELS)),
        Case::picture("png: 5,000 x 5,000", black_png(5000, 5000), Told::Answered),
        Case::picture("png: 12,000 x 1", black_png(12_000, 1), Told::Answered),
        Case::picture("png: 1 x 12,000", black_png(1, 12_000), Told::Answered),
        Case::picture("png: 2 x 12,000", black_png(2, 12_000), Told::Answered),
    ]
}

/// Files of just so many bytes.
fn bytes() -> Vec<Case> {
    let padded = |length: u64| {
        let whole = Head::default().file(&[chunk(b"zzZz", b"")]).len() as u64;
        Head::default().file(&[chunk(b"zzZz", &vec![0; (length - whole) as usize])])
    };
    vec![
        Case::picture("png: of 10 MiB", padded(BYTES), Told::Answered),
        Case::picture("png: of a byte more", padded(BYTES + 1), beyond(BYTES)),
        Case::picture("no picture: of a byte more", vec![0; BYTES as usize + 1], beyond(BYTES)),
    ]
}
