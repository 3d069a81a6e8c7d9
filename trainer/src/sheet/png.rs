//! The pictures of a sheet, side by side.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::{Block, Cell};
use crate::error::{Error, Result};

/// Side of a picture on the sheet in pixels.
const SIDE: u32 = 64;

/// White between pictures, and between blocks.
const GAP: u32 = 4;
const BETWEEN: u32 = 28;

/// Blocks below one another, as a PNG file; texts have no place in it.
pub(super) fn sheet(blocks: &[Block]) -> Result<Vec<u8>> {
    let mut width = GAP;
    let mut height = BETWEEN;
    let mut places: Vec<(u32, u32, &RgbImage)> = Vec::new();
    for block in blocks {
        for row in &block.rows {
            let mut left = GAP;
            let mut any = false;
            for cell in row {
                if let Cell::Picture(picture) = cell {
                    places.push((left, height, picture));
                    any = true;
                }
                left += SIDE + GAP;
            }
            if any {
                width = width.max(left);
                height += SIDE + GAP;
            }
        }
        height += BETWEEN;
    }
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255; 3]));
    for (left, top, picture) in places {
        let drawn = imageops::resize(picture, SIDE, SIDE, FilterType::Nearest);
        imageops::replace(&mut sheet, &drawn, i64::from(left), i64::from(top));
    }
    let mut bytes = Cursor::new(Vec::new());
    let written = sheet.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| Error::data("sheet.png", error.to_string()))?;
    Ok(bytes.into_inner())
}
