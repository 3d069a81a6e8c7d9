//! Behaviour of decoding and fitting. Pictures are made here; nothing is read from disk.

use std::io::Cursor;

use ::image::{DynamicImage, ImageEncoder, ImageFormat as Library, Rgb, Rgba};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::error::{Error, Kind, Result};

fn encoded(picture: &DynamicImage, format: Library) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A gradient, so that every place has its own colour.
fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 128])
    })
}

fn decode_default(bytes: &[u8]) -> Result<RgbImage> {
    decode(bytes, &ImageLimits::default())
}

/// A PNG that claims `width` x `height` of one bit; the pixels are all zero and compress well.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Vec::new();
    let pixels = vec![0_u8; (width as usize) * (height as usize)];
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::NoFilter)
        .write_image(&pixels, width, height, ::image::ExtendedColorType::L8)
        .unwrap();
    bytes
}

#[test]
fn reads_every_format_and_agrees_on_the_pixels() {
    let picture = gradient(20, 10);
    let dynamic = DynamicImage::ImageRgb8(picture.clone());
    for format in [Library::Png, Library::WebP] {
        assert_eq!(decode_default(&encoded(&dynamic, format)).unwrap(), picture, "{format:?}");
    }
    for format in [Library::Jpeg, Library::Gif] {
        let got = decode_default(&encoded(&dynamic, format)).unwrap();
        assert_eq!(got.dimensions(), (20, 10));
        let worst = got.as_raw().iter().zip(picture.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.unwrap() < 24, "{format:?} is lossy, but not by {worst:?}");
    }
}

#[test]
fn refuses_what_is_no_picture_with_the_reason() {
    let jpeg = encoded(&DynamicImage::ImageRgb8(gradient(64, 64)), Library::Jpeg);
    type Expected = fn(&Error) -> bool;
    let rows: [(&[u8], Expected); 5] = [
        (b"", |e| matches!(e, Error::Empty { field: "image" })),
        (b"a red heart, said the text", |e| matches!(e, Error::UnsupportedImage)),
        (b"BM not read here", |e| matches!(e, Error::UnsupportedImage)),
        (b"\x89PNG\r\n\x1a\n", |e| matches!(e, Error::DamagedImage { .. })),
        (&jpeg[..jpeg.len() / 2], |e| matches!(e, Error::DamagedImage { .. })),
    ];
    for (bytes, expected) in rows {
        let error = decode_default(bytes).unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn a_cut_file_is_an_error_or_already_whole() {
    let picture = DynamicImage::ImageRgb8(gradient(40, 30));
    for format in [Library::Jpeg, Library::Png, Library::WebP, Library::Gif] {
        let whole = encoded(&picture, format);
        let expected = decode_default(&whole).unwrap();
        for cut in 0..whole.len() {
            if let Ok(got) = decode_default(&whole[..cut]) {
                assert_eq!(got, expected, "{format:?} cut to {cut} of {} bytes", whole.len());
            }
        }
    }
}

#[test]
fn refuses_a_bomb_by_its_header() {
    let bytes = bomb(8000, 8000);
    assert!(bytes.len() < 100_000, "{} bytes", bytes.len());
    let Error::Limit { field, limit, actual } = decode_default(&bytes).unwrap_err() else {
        panic!("expected a limit")
    };
    assert_eq!((field.as_str(), limit, actual), ("image pixels", 25_000_000, 64_000_000));
}

#[test]
fn tells_the_side_of_a_png_that_no_memory_could_hold() {
    let mut bytes = bomb(1, 1);
    bytes[16..20].copy_from_slice(&(i32::MAX as u32).to_be_bytes());
    let checksum = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    let Error::Limit { field, limit, actual } = decode_default(&bytes).unwrap_err() else {
        panic!("expected a limit")
    };
    assert_eq!((field.as_str(), limit, actual), ("image side in pixels", 12_000, 2_147_483_647));
}

#[test]
fn applies_each_limit_at_its_edge() {
    let bytes = encoded(&DynamicImage::ImageRgb8(gradient(20, 10)), Library::Png);
    let exact = ImageLimits { max_bytes: bytes.len() as u64, max_pixels: 200, max_side: 20 };
    assert!(decode(&bytes, &exact).is_ok());
    let rows = [
        ("image bytes", ImageLimits { max_bytes: exact.max_bytes - 1, ..exact }),
        ("image pixels", ImageLimits { max_pixels: 199, ..exact }),
        ("image side in pixels", ImageLimits { max_side: 19, ..exact }),
    ];
    for (expected, limits) in rows {
        let error = decode(&bytes, &limits).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn refuses_a_jpeg_of_endless_scans() {
    let whole = encoded(&DynamicImage::ImageRgb8(gradient(16, 16)), Library::Jpeg);
    let start = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    let end = whole.len() - 2;
    let mut bytes = whole[..start].to_vec();
    for _ in 0..=jpeg::MAX_SCANS {
        bytes.extend_from_slice(&whole[start..end]);
    }
    bytes.extend_from_slice(&whole[end..]);
    let error = decode_default(&bytes).unwrap_err();
    assert!(matches!(&error, Error::Limit { field, actual: 51, .. } if field == "image scans"));
}

/// An animated WebP of these pictures, all of one size below 256 pixels: the container of RFC 9649,
/// section 2.7, around what the encoder gives for each.
fn animated_webp(frames: &[RgbImage]) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let padding = &[0][..body.len() % 2];
        [name, (body.len() as u32).to_le_bytes().as_slice(), body, padding].concat()
    };
    let (width, height) = frames[0].dimensions();
    let size = [width as u8 - 1, 0, 0, height as u8 - 1, 0, 0];
    let animated = 0x02;
    let mut body = b"WEBP".to_vec();
    body.extend(chunk(b"VP8X", &[[animated, 0, 0, 0].as_slice(), &size].concat()));
    body.extend(chunk(b"ANIM", &[0; 6]));
    for frame in frames {
        let whole = encoded(&DynamicImage::ImageRgb8(frame.clone()), Library::WebP);
        let placed = [[0; 6].as_slice(), &size, &[100, 0, 0, 0], &whole[12..]].concat();
        body.extend(chunk(b"ANMF", &placed));
    }
    chunk(b"RIFF", &body)
}

#[test]
fn takes_the_first_frame_of_an_animation() {
    let [red, blue] = [[255, 0, 0], [0, 0, 255]].map(|c| RgbImage::from_pixel(9, 6, Rgb(c)));
    let mut gif = Vec::new();
    let mut encoder = ::image::codecs::gif::GifEncoder::new(&mut gif);
    for frame in [&red, &blue] {
        let pixels = DynamicImage::ImageRgb8(frame.clone()).into_rgba8();
        encoder.encode_frame(::image::Frame::new(pixels)).unwrap();
    }
    drop(encoder);
    // Both are a level off: GIF by its palette, the animated WebP by how frames are blended.
    for file in [gif, animated_webp(&[red, blue])] {
        let first = decode_default(&file).unwrap();
        assert_eq!(first.dimensions(), (9, 6));
        assert!(first.pixels().all(|pixel| pixel[0] >= 254 && pixel[2] <= 1));
    }
}

/// A JPEG with an EXIF block whose only entry is the orientation.
fn jpeg_with_orientation(picture: &RgbImage, orientation: u8) -> Vec<u8> {
    let plain = encoded(&DynamicImage::ImageRgb8(picture.clone()), Library::Jpeg);
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() + 2) as u16;
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xE1];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&exif);
    bytes.extend_from_slice(&plain[2..]);
    bytes
}

#[test]
fn a_jpeg_is_what_pillow_reads_to_the_last_bit() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pictures");
    // By scripts/make-picture-fixtures.py, which names the versions.
    let digests = std::fs::read(folder.join("pillow.json")).unwrap();
    let digests: std::collections::BTreeMap<String, String> =
        serde_json::from_slice(&digests).unwrap();
    assert!(digests.len() >= 9);
    for (name, digest) in digests {
        let picture = decode_default(&std::fs::read(folder.join(&name)).unwrap()).unwrap();
        assert_eq!(hex::encode(Sha256::digest(picture.as_raw())), digest, "{name}");
    }
}

#[test]
fn turns_pictures_upright() {
    let mut picture = RgbImage::from_pixel(32, 16, Rgb([255; 3]));
    for (x, y) in (0..8).flat_map(|x| (0..8).map(move |y| (x, y))) {
        picture.put_pixel(x, y, Rgb([0; 3]));
    }
    // Where the dark upper left corner goes, by EXIF orientation (CIPA DC-008, tag 274).
    let corners = [
        (1, (32, 16), (2, 2)),
        (2, (32, 16), (29, 2)),
        (3, (32, 16), (29, 13)),
        (4, (32, 16), (2, 13)),
        (5, (16, 32), (2, 2)),
        (6, (16, 32), (13, 2)),
        (7, (16, 32), (13, 29)),
        (8, (16, 32), (2, 29)),
    ];
    for (orientation, size, (x, y)) in corners {
        let got = decode_default(&jpeg_with_orientation(&picture, orientation)).unwrap();
        assert_eq!(got.dimensions(), size, "orientation {orientation}");
        let dark = got.pixels().filter(|pixel| pixel[0] < 64).count();
        assert!(got.get_pixel(x, y)[0] < 64, "orientation {orientation}");
        assert!((48..=80).contains(&dark), "orientation {orientation}: {dark} dark pixels");
    }
}

#[test]
fn puts_transparency_on_white() {
    let mut picture = ::image::RgbaImage::from_pixel(3, 1, Rgba([10, 20, 30, 255]));
    picture.put_pixel(1, 0, Rgba([10, 20, 30, 0]));
    picture.put_pixel(2, 0, Rgba([0, 100, 255, 128]));
    let expected = [[10, 20, 30], [255, 255, 255], [127, 177, 255]];
    for format in [Library::Png, Library::WebP] {
        let got = decode_default(&encoded(&DynamicImage::ImageRgba8(picture.clone()), format));
        let got: Vec<_> = got.unwrap().pixels().map(|pixel| pixel.0).collect();
        assert_eq!(got, expected, "{format:?}");
    }
}

#[test]
fn transparency_of_sixteen_bits_is_put_on_white_like_that_of_eight() {
    let eight = ::image::RgbaImage::from_fn(64, 16, |x, y| {
        Rgba([(x * 4) as u8, (y * 16) as u8, 200, (x * 3 + y) as u8])
    });
    let deep = DynamicImage::ImageRgba16(DynamicImage::ImageRgba8(eight.clone()).into_rgba16());
    let [eight, deep] = [DynamicImage::ImageRgba8(eight), deep]
        .map(|picture| decode_default(&encoded(&picture, Library::Png)).unwrap());
    assert_eq!(eight, deep);
}

#[test]
fn the_memory_of_a_picture_is_known_from_its_header() {
    let limits = ImageLimits::default();
    for format in [Library::Jpeg, Library::Png, Library::WebP, Library::Gif] {
        let bytes = encoded(&DynamicImage::ImageRgb8(gradient(40, 30)), format);
        assert_eq!(decode_memory(&bytes, &limits).unwrap(), 12 * 1200 + (4 << 20), "{format:?}");
    }
    let refused = decode_memory(&bomb(8000, 8000), &limits).unwrap_err();
    assert!(matches!(&refused, Error::Limit { field, .. } if field == "image pixels"));
    assert!(matches!(decode_memory(b"", &limits), Err(Error::Empty { .. })));
    assert!(matches!(decode_memory(b"a text", &limits), Err(Error::UnsupportedImage)));
}

#[test]
fn converts_grey_and_sixteen_bit_pictures() {
    let rgb = gradient(9, 7);
    let deep = DynamicImage::ImageRgb16(DynamicImage::ImageRgb8(rgb.clone()).into_rgb16());
    assert_eq!(decode_default(&encoded(&deep, Library::Png)).unwrap(), rgb);
    let grey = DynamicImage::ImageRgb8(rgb).into_luma8();
    let got = decode_default(&encoded(&DynamicImage::ImageLuma8(grey.clone()), Library::Png));
    let got = got.unwrap();
    assert!(got.pixels().zip(grey.pixels()).all(|(a, b)| a.0 == [b[0]; 3]));
}

#[test]
fn one_pixel_becomes_a_square_of_its_colour() {
    let dot = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([200, 100, 0])));
    let picture = decode_default(&encoded(&dot, Library::Png)).unwrap();
    let square = ImagePreprocessing::default().to_square(&picture).unwrap();
    assert_eq!(square.dimensions(), (48, 48));
    assert!(square.pixels().all(|pixel| pixel.0 == [200, 100, 0]));
}

#[test]
fn pads_on_white_in_the_centre() {
    let square = ImagePreprocessing::default()
        .to_square(&RgbImage::from_pixel(96, 48, Rgb([0, 0, 0])))
        .unwrap();
    for (row, expected) in [(0, 255), (11, 255), (12, 0), (35, 0), (36, 255), (47, 255)] {
        assert_eq!(square.get_pixel(24, row)[0], expected, "row {row}");
    }
}

#[test]
fn crops_the_centre_and_squeezes_the_whole() {
    let mut picture = RgbImage::from_pixel(90, 30, Rgb([0, 0, 0]));
    for (x, y) in (30..60).flat_map(|x| (0..30).map(move |y| (x, y))) {
        picture.put_pixel(x, y, Rgb([255; 3]));
    }
    let settings = |fit| ImagePreprocessing { fit, ..ImagePreprocessing::default() };
    let cropped = settings(Fit::CropCentre).to_square(&picture).unwrap();
    // The filter may look across the edge, so the outermost columns are not asked.
    assert!((2..46).all(|x| cropped.get_pixel(x, 24).0 == [255; 3]));
    let squeezed = settings(Fit::Squeeze).to_square(&picture).unwrap();
    let (dark, light) = (squeezed.get_pixel(2, 24)[0], squeezed.get_pixel(24, 24)[0]);
    assert_eq!((dark, light), (0, 255));
}

#[test]
fn a_picture_of_the_right_size_is_taken_as_it_is() {
    let picture = gradient(48, 48);
    let settings = ImagePreprocessing::default();
    assert_eq!(settings.to_square(&picture).unwrap(), picture);
    let planes = settings.apply(&picture).unwrap();
    assert_eq!(planes.len(), 3 * 48 * 48);
    let at = |channel: usize, x: usize, y: usize| planes[channel * 48 * 48 + y * 48 + x];
    let expected = f32::from(picture.get_pixel(7, 30)[1]) / 255.0 * 2.0 - 1.0;
    assert!((at(1, 7, 30) - expected).abs() < 1e-6);
    assert!((at(2, 0, 0) - (128.0 / 255.0 * 2.0 - 1.0)).abs() < 1e-6);
}

#[test]
fn reducing_averages_and_does_not_alias() {
    // A fine checkerboard has the mean 127.5 everywhere; a filter without antialiasing finds
    // black or white.
    let board = RgbImage::from_fn(480, 480, |x, y| Rgb([((x + y) % 2 * 255) as u8; 3]));
    for filter in [ResizeFilter::Box, ResizeFilter::Bilinear, ResizeFilter::Bicubic] {
        let settings = ImagePreprocessing { filter, ..ImagePreprocessing::default() };
        let square = settings.to_square(&board).unwrap();
        assert!(square.pixels().all(|pixel| pixel[0].abs_diff(127) <= 2), "{filter:?}");
    }
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let good = ImagePreprocessing::default();
    assert!(good.validate().is_ok());
    let rows = [
        ("image.size", ImagePreprocessing { size: 0, ..good.clone() }),
        ("image.size", ImagePreprocessing { size: 1025, ..good.clone() }),
        ("image.std", ImagePreprocessing { std: [0.5, 0.0, 0.5], ..good.clone() }),
        ("image.mean", ImagePreprocessing { mean: [0.5, f32::NAN, 0.5], ..good }),
    ];
    for (field, settings) in rows {
        assert!(settings.validate().unwrap_err().to_string().starts_with(field));
    }
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(format in 0..5_usize, tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let magic: [&[u8]; 5] =
            [b"", b"\xFF\xD8\xFF\xE0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"RIFF\xF0\0\0\0WEBPVP8"];
        let bytes = [magic[format], &tail].concat();
        let limits = ImageLimits { max_pixels: 1_000_000, ..ImageLimits::default() };
        if let Ok(picture) = decode(&bytes, &limits) {
            prop_assert!(picture.width() > 0 && picture.height() > 0);
        }
    }

    #[test]
    fn any_flipped_byte_gives_an_answer(format in 0..4_usize, at in 0..2000_usize, bits in 1..=255_u8) {
        let format = [Library::Jpeg, Library::Png, Library::WebP, Library::Gif][format];
        let mut bytes = encoded(&DynamicImage::ImageRgb8(gradient(24, 17)), format);
        let at = at % bytes.len();
        bytes[at] ^= bits;
        let limits = ImageLimits { max_pixels: 1_000_000, ..ImageLimits::default() };
        if let Ok(picture) = decode(&bytes, &limits) {
            prop_assert!(u64::from(picture.width()) * u64::from(picture.height()) <= 1_000_000);
        }
    }

    #[test]
    fn any_size_fits_the_square(width in 1..200_u32, height in 1..200_u32, fit in 0..3_usize) {
        let fit = [Fit::PadWhite, Fit::Squeeze, Fit::CropCentre][fit];
        let settings = ImagePreprocessing { fit, ..ImagePreprocessing::default() };
        let planes = settings.apply(&gradient(width, height)).unwrap();
        prop_assert_eq!(planes.len(), 3 * 48 * 48);
        prop_assert!(planes.iter().all(|value| (-1.0..=1.0).contains(value)));
    }

    #[test]
    fn decoding_keeps_the_size(width in 1..200_u32, height in 1..200_u32) {
        let bytes = encoded(&DynamicImage::ImageRgb8(gradient(width, height)), Library::Png);
        prop_assert_eq!(decode_default(&bytes).unwrap().dimensions(), (width, height));
    }
}
