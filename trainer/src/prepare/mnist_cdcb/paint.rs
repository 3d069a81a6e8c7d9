//! A grey digit in colour, as a file.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};

use super::digits::{PIXELS, SIDE};
use crate::error::{Error, Result};

/// On the side of coloured backgrounds, pixels darker than this take the colour; the others keep their
/// grey, so that a fringe stays around the strokes.
pub(super) const BACKGROUND_BELOW: u8 = 160;

/// On the side of coloured digits, pixels at least this bright take the colour; the others keep their
/// grey.
pub(super) const FOREGROUND_FROM: u8 = 70;

/// The two kinds of picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A white digit on a coloured background.
    Background,
    /// A coloured digit on black.
    Foreground,
}

impl Side {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Foreground => "foreground",
        }
    }

    const fn paints(self, grey: u8) -> bool {
        match self {
            Self::Background => grey < BACKGROUND_BELOW,
            Self::Foreground => grey >= FOREGROUND_FROM,
        }
    }
}

/// The digit in a colour, `size` pixels a side, as a PNG file.
pub(super) fn png(
    pixels: &[u8; PIXELS],
    side: Side,
    colour: [u8; 3],
    size: u32,
) -> Result<Vec<u8>> {
    let painted = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        let grey = pixels[y as usize * SIDE + x as usize];
        Rgb(if side.paints(grey) { colour } else { [grey; 3] })
    });
    let drawn = imageops::resize(&painted, size, size, FilterType::Triangle);
    let mut bytes = Cursor::new(Vec::new());
    let written = drawn.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| Error::data(side.as_str(), format!("no PNG: {error}")))?;
    Ok(bytes.into_inner())
}
