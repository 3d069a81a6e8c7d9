//! GIF (version 89a) and WebP (RFC 9649).

use diptych_tests::files::*;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Case, Told, limited, refused};

const CORRUPT: &str = "IMAGE_CORRUPT";
const PERHAPS: Told = Told::Perhaps(&[CORRUPT, "IMAGE_FORMAT_UNSUPPORTED", "IMAGE_TOO_LARGE"]);

fn corrupt() -> Told {
    refused(CORRUPT, "image")
}

pub(super) fn cases() -> Vec<Case> {
    [gif(), webp_kinds(), webp_parts_wrong(), cuts_and_flips()].concat()
}

/// A GIF of one frame of 2 x 2 pixels, with these bytes: the screen's size, the frame's size, the least code size.
fn small_gif(screen: [u8; 4], frame: [u8; 4], code: u8) -> Vec<u8> {
    let colours = [0, 0, 0, 255, 255, 255];
    let parts: [&[u8]; 8] = [
        b"GIF89a",
        &screen,
        &[0x80, 0, 0],
        &colours,
        &[0x2C, 0, 0, 0, 0],
        &frame,
        &[0, code],
        &[2, 0x84, 0x51, 0, 0x3B],
    ];
    parts.concat()
}

fn gif() -> Vec<Case> {
    let (two, huge) = ([2, 0, 2, 0], [255; 4]);
    let file = fixture("plain.gif");
    let extension = [&[0x21, 0xFE], [255; 256].repeat(4000).as_slice(), &[0]].concat();
    let with_comment =
        [&file[..13 + palette(&file)], &extension, &file[13 + palette(&file)..]].concat();
    vec![
        Case::picture("gif: sound", file.clone(), Told::Answered),
        Case::picture("gif: animated", fixture("animated.gif"), Told::Answered),
        Case::picture("gif: 2 x 2", small_gif(two, two, 2), Told::Answered),
        Case::picture("gif: a screen of 0 x 0", small_gif([0; 4], two, 2), PERHAPS),
        Case::picture(
            "gif: a screen of 65,535 x 65,535",
            small_gif(huge, two, 2),
            limited("IMAGE_TOO_LARGE", "image", 12_000),
        ),
        Case::picture("gif: a frame larger than the screen", small_gif(two, huge, 2), PERHAPS),
        Case::picture("gif: a frame of 0 x 0", small_gif(two, [0; 4], 2), PERHAPS),
        Case::picture("gif: a code size of 0", small_gif(two, two, 0), corrupt()),
        Case::picture("gif: a code size of 12", small_gif(two, two, 12), PERHAPS),
        Case::picture("gif: a code size of 255", small_gif(two, two, 255), corrupt()),
        Case::picture("gif: the magic alone", b"GIF89a".to_vec(), corrupt()),
        Case::picture("gif: the screen alone", file[..13].to_vec(), corrupt()),
        Case::picture("gif: an end without a frame", [&file[..13], &[0x3B]].concat(), corrupt()),
        Case::picture(
            "gif: version 90z",
            [b"GIF90z", &file[6..]].concat(),
            refused("IMAGE_FORMAT_UNSUPPORTED", "image"),
        ),
        Case::picture("gif: version 87a", [b"GIF87a", &file[6..]].concat(), Told::Answered),
        Case::picture("gif: a comment of a megabyte", with_comment, Told::Answered),
        Case::picture(
            "gif: a megabyte behind the end",
            [file, vec![7; 1 << 20]].concat(),
            Told::Answered,
        ),
    ]
}

/// Bytes of a GIF's common palette.
fn palette(file: &[u8]) -> usize {
    if file[10] & 0x80 == 0 { 0 } else { 3 << ((file[10] & 7) + 1) }
}

fn webp_kinds() -> Vec<Case> {
    let names = ["lossy", "lossless", "animated"];
    let case = |name| {
        Case::picture(format!("webp: {name}"), fixture(&format!("{name}.webp")), Told::Answered)
    };
    names.into_iter().map(case).collect()
}

/// An extended head: flags, then the canvas less one, 24 bits each.
fn extended(flags: u8, canvas: [u8; 6]) -> Vec<u8> {
    riff(b"VP8X", &[[flags, 0, 0, 0].as_slice(), &canvas].concat())
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn webp_parts_wrong() -> Vec<Case> {
    let lossy = webp_parts(&fixture("lossy.webp"));
    let lossless = fixture("lossless.webp");
    let plain = |what: &str, parts: &[Vec<u8>], told| {
        Case::picture(format!("webp: {what}"), webp(parts), told)
    };
    let sized = |length: u32| {
        let mut file = fixture("lossy.webp");
        file[4..8].copy_from_slice(&length.to_le_bytes());
        file
    };
    let size = [47, 0, 0, 39, 0, 0];
    let mut unsigned = webp_parts(&lossless);
    unsigned[8] ^= 0xFF;
    let still = |flags, more: &[Vec<u8>]| {
        [vec![extended(flags, size), lossy.clone()], more.to_vec()].concat()
    };
    vec![
        Case::picture("webp: the magic alone", b"RIFF\0\0\0\0WEBP".to_vec(), corrupt()),
        Case::picture("webp: a length of 0", sized(0), PERHAPS),
        Case::picture("webp: a length of 4 GiB", sized(u32::MAX), PERHAPS),
        plain("no parts", &[], corrupt()),
        plain("an unknown part", &[riff(b"ABCD", b"x")], corrupt()),
        plain("an empty frame", &[riff(b"VP8 ", b"")], corrupt()),
        plain("an empty lossless frame", &[riff(b"VP8L", b"")], corrupt()),
        plain("a lossless frame without its signature", &[unsigned], corrupt()),
        plain(
            "a frame of 0 x 0",
            &[riff(b"VP8 ", &[0x10, 0, 0, 0x9D, 1, 0x2A, 0, 0, 0, 0])],
            corrupt(),
        ),
        plain(
            "a lossless frame of 16,384 x 16,384",
            &[riff(b"VP8L", &[0x2F, 255, 255, 255, 15, 0, 0])],
            corrupt(),
        ),
        plain(
            "a canvas of 16,777,216 x 16,777,216",
            &[extended(0, [255; 6]), lossy.clone()],
            PERHAPS,
        ),
        plain("a canvas of other size", &[extended(0, [9, 0, 0, 9, 0, 0]), lossy.clone()], PERHAPS),
        plain("a canvas without a frame", &[extended(0, size)], corrupt()),
        plain(
            "an animation without frames",
            &[extended(2, size), riff(b"ANIM", &[0; 6])],
            corrupt(),
        ),
        plain(
            "an animation of empty frames",
            &[extended(2, size), riff(b"ANIM", &[0; 6]), riff(b"ANMF", b"")],
            corrupt(),
        ),
        plain(
            "alpha of garbage",
            &[extended(0x10, size), riff(b"ALPH", &[0xFF; 40]), lossy.clone()],
            PERHAPS,
        ),
        plain("alpha that is not there", &still(0x10, &[]), PERHAPS),
        plain("EXIF of garbage", &still(8, &[riff(b"EXIF", &[0xFF; 99])]), Told::Answered),
        plain("EXIF turned 9", &still(8, &[riff(b"EXIF", &exif(8, 1, 9))]), Told::Answered),
        plain(
            "EXIF that begins beyond its end",
            &still(8, &[riff(b"EXIF", &exif(u32::MAX, 1, 6))]),
            Told::Answered,
        ),
        plain(
            "a profile of garbage",
            &[extended(0x20, size), riff(b"ICCP", &[0xFF; 99]), lossy.clone()],
            Told::Answered,
        ),
        plain(
            "a part longer than the file",
            &[lossy.clone(), [b"XMP ".as_slice(), &[255; 4]].concat()],
            PERHAPS,
        ),
        Case::picture(
            "webp: RIFF of sound",
            b"RIFF\x24\0\0\0WAVEfmt ".to_vec(),
            refused("IMAGE_FORMAT_UNSUPPORTED", "image"),
        ),
    ]
}

fn cuts_and_flips() -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut cases = Vec::new();
    for name in ["plain.gif", "lossy.webp", "lossless.webp", "animated.webp"] {
        let file = fixture(name);
        for eighth in [1, 3, 5, 7] {
            let cut = file[..file.len() * eighth / 8].to_vec();
            // Of an animation the first frame may be whole.
            let told = if name.starts_with("animated") { PERHAPS } else { corrupt() };
            cases.push(Case::picture(format!("{name}: {eighth} eighths of it"), cut, told));
        }
        for number in 0..5 {
            let mut flipped = file.clone();
            flipped[rng.random_range(0..file.len())] ^= 1 << rng.random_range(0..8);
            cases.push(Case::picture(format!("{name}: flip {number}"), flipped, PERHAPS));
        }
    }
    cases
}
