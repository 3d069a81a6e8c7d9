//! Seeded pictures and texts, and pictures that should not be.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use rand::Rng;

/// A picture of `side` x `side` pixels: a few coloured rectangles on white.
pub fn picture(rng: &mut impl Rng, side: u32) -> RgbImage {
    let mut picture = RgbImage::from_pixel(side, side, Rgb([255; 3]));
    for _ in 0..4 {
        let (left, top) = (rng.random_range(0..side), rng.random_range(0..side));
        let (right, bottom) = (rng.random_range(left..side), rng.random_range(top..side));
        let colour = Rgb(rng.random());
        for (x, y) in (left..=right).flat_map(|x| (top..=bottom).map(move |y| (x, y))) {
            picture.put_pixel(x, y, colour);
        }
    }
    picture
}

/// Something like a photograph: two colours that run into each other, a shape before them, and grain.
pub fn photograph(rng: &mut impl Rng, width: u32, height: u32) -> RgbImage {
    let (from, to): ([u8; 3], [u8; 3]) = (rng.random(), rng.random());
    let shape: [u8; 3] = rng.random();
    let (left, top) = (rng.random_range(0..width), rng.random_range(0..height));
    let radius = rng.random_range(height / 8..height / 2);
    let whole = width + height;
    RgbImage::from_fn(width, height, |x, y| {
        let inside = x.abs_diff(left).pow(2) + y.abs_diff(top).pow(2) < radius.pow(2);
        let mut pixel = [0; 3];
        for (channel, value) in pixel.iter_mut().enumerate() {
            let [from, to, shape] = [from, to, shape].map(|colour| u32::from(colour[channel]));
            let ground = (from * (whole - x - y) + to * (x + y)) / whole;
            let colour = if inside { shape } else { ground } + rng.random_range(0..24);
            *value = u8::try_from(colour.saturating_sub(12)).unwrap_or(u8::MAX);
        }
        Rgb(pixel)
    })
}

/// The picture as a file.
///
/// # Panics
/// When the format cannot hold it.
pub fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A seeded picture as a PNG file.
pub fn png(rng: &mut impl Rng) -> Vec<u8> {
    encoded(&picture(rng, 24), ImageFormat::Png)
}

/// A PNG that does not compress: `side` x `side` pixels of noise, about 3 bytes each.
pub fn noise_png(rng: &mut impl Rng, side: u32) -> Vec<u8> {
    encoded(&RgbImage::from_fn(side, side, |_, _| Rgb(rng.random())), ImageFormat::Png)
}

/// A PNG of one bit a pixel, all black: a large one is a bomb of a few kilobytes.
///
/// # Panics
/// When it cannot be written.
pub fn black_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_deflate_compression(png::DeflateCompression::Level(9));
    encoder.set_filter(png::Filter::NoFilter);
    let rows = vec![0; width.div_ceil(8) as usize * height as usize];
    encoder.write_header().unwrap().write_image_data(&rows).unwrap();
    bytes
}

/// A few words that no other seed and number gives: some of a small vocabulary, then the number in letters.
pub fn words(rng: &mut impl Rng, number: u64) -> String {
    const VOCABULARY: [&str; 16] = [
        "red",
        "heart",
        "house",
        "Katze",
        "rouge",
        "árbol",
        "солнце",
        "犬",
        "고양이",
        "moon",
        "running",
        "two",
        "happy",
        "small",
        "green",
        "نجمة",
    ];
    let mut words: Vec<&str> = Vec::new();
    for _ in 0..rng.random_range(2..6) {
        words.push(VOCABULARY[rng.random_range(0..VOCABULARY.len())]);
    }
    let letters: String =
        number.to_string().bytes().map(|digit| char::from(b'k' + (digit - b'0'))).collect();
    format!("{} {letters}", words.join(" "))
}
