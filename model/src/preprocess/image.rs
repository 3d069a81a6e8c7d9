//! Pictures: decoding within limits, then fitting to the square that an image tower reads.

mod decode;
mod fit;
mod jpeg;
#[cfg(test)]
mod tests;

pub use ::image::RgbImage;

pub use self::decode::{ImageFormat, decode, decode_memory, sniff};
pub use self::fit::{Alpha, ColourSpace, Fit, ImagePreprocessing, ResizeFilter};

/// How large a picture may be. Checked on the file's length and on its header, before any pixel is
/// decoded.
///
/// The defaults take a 24 megapixel photograph (6,000 x 4,000) and refuse a "bomb": 8,000 x 8,000
/// pixels of one colour are under 10 kB as PNG but 64 megapixels, 256 MB once decoded. A decode
/// holds at most [`ImageLimits::decoder_bytes`] for the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Longest file in bytes. Default 10 MiB.
    pub max_bytes: u64,
    /// Most pixels, width times height. Default 25,000,000.
    pub max_pixels: u64,
    /// Longest side in pixels. Default 12,000: a panorama of 12,000 x 2,000 is still taken.
    pub max_side: u32,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { max_bytes: 10 * 1024 * 1024, max_pixels: 25_000_000, max_side: 12_000 }
    }
}

impl ImageLimits {
    /// The bytes one decode may allocate: the widest pixel (RGBA with 16 bits, 8 bytes) at
    /// `max_pixels`, and 16 MiB for the decoder's own tables and chunks.
    #[must_use]
    pub fn decoder_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(8).saturating_add(16 * 1024 * 1024)
    }

    /// The most bytes that decoding a picture of so many pixels and fitting it take together, its file not counted: 12 a pixel,
    /// and 4 MiB for tables, lines and what is fitted.
    ///
    /// The widest are a progressive CMYK JPEG (two bytes for each coefficient, four channels) and an RGBA PNG of 16 bits, each
    /// beside the three bytes of the result.
    #[must_use]
    pub const fn decode_memory(&self, pixels: u64) -> u64 {
        pixels.saturating_mul(12).saturating_add(4 << 20)
    }
}
