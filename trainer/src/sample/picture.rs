//! A picture of the pack: small, on white, with a palette.

use std::borrow::Cow;

use image::imageops::FilterType;
use image::{Rgb, RgbImage};

use super::palette::{self, Indexed};

/// Decodes `bytes`, lays the picture on white, scales it to `size` x `size` pixels (padded to a
/// square) and writes it as an indexed PNG of at most `colors` colours.
///
/// On white, because that is where the model sees it, and because a palette that also held every
/// transparency of an edge would spend its colours there.
pub(super) fn shrink(bytes: &[u8], size: u32, colors: u16) -> Result<Vec<u8>, String> {
    let picture = image::load_from_memory(bytes).map_err(|e| format!("cannot be decoded: {e}"))?;
    let square = on_white_square(&picture.to_rgba8());
    let small = image::imageops::resize(&square, size, size, FilterType::CatmullRom);
    let pixels: Vec<[u8; 3]> = small.pixels().map(|pixel| pixel.0).collect();
    let indexed = palette::quantise(&pixels, usize::from(colors));
    smallest_png(&indexed, size as usize).map_err(|e| format!("cannot be written as PNG: {e}"))
}

/// Alpha-composites onto white, the picture centred in a square.
fn on_white_square(picture: &image::RgbaImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = width.max(height);
    let (left, top) = ((side - width) / 2, (side - height) / 2);
    let mut square = RgbImage::from_pixel(side, side, Rgb([255; 3]));
    for (x, y, pixel) in picture.enumerate_pixels() {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        let mix = |value: u32| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        square.put_pixel(left + x, top + y, Rgb([mix(red), mix(green), mix(blue)]));
    }
    square
}

/// Encodes with each PNG filter and keeps the smallest file.
fn smallest_png(indexed: &Indexed, side: usize) -> Result<Vec<u8>, png::EncodingError> {
    let filters = [png::Filter::NoFilter, png::Filter::Up, png::Filter::Sub, png::Filter::Paeth];
    let mut best = encode(indexed, side, filters[0])?;
    for filter in &filters[1..] {
        let bytes = encode(indexed, side, *filter)?;
        if bytes.len() < best.len() {
            best = bytes;
        }
    }
    Ok(best)
}

fn encode(
    indexed: &Indexed,
    side: usize,
    filter: png::Filter,
) -> Result<Vec<u8>, png::EncodingError> {
    let (depth, bits) = match indexed.palette.len() {
        0..=2 => (png::BitDepth::One, 1),
        3..=4 => (png::BitDepth::Two, 2),
        5..=16 => (png::BitDepth::Four, 4),
        _ => (png::BitDepth::Eight, 8),
    };
    let rows: Vec<u8> = indexed.indices.chunks(side).flat_map(|row| packed(row, bits)).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side as u32, side as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette(Cow::Owned(indexed.palette.concat()));
    encoder.set_deflate_compression(png::DeflateCompression::Level(9));
    encoder.set_filter(filter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rows)?;
    writer.finish()?;
    Ok(bytes)
}

/// One row of indices at `bits` a pixel, the leftmost pixel in the high bits, as PNG has it.
fn packed(row: &[u8], bits: usize) -> Vec<u8> {
    let pack = |pixels: &[u8]| {
        let shifted = pixels.iter().enumerate().map(|(at, &index)| index << (8 - bits * (at + 1)));
        shifted.fold(0, |byte, index| byte | index)
    };
    row.chunks(8 / bits).map(pack).collect()
}
