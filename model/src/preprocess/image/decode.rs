//! Bytes of a file to RGB pixels, within limits.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, RgbImage};

use super::ImageLimits;
use super::jpeg::Jpeg;
use crate::error::{Error, Result};

/// The picture formats that are read, told apart by their first bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// Baseline or progressive JPEG; grey, YCbCr, CMYK.
    Jpeg,
    /// PNG of any depth and colour type; of an animation the default image.
    Png,
    /// WebP, lossy or lossless; of an animation the first frame.
    WebP,
    /// GIF, the first frame.
    Gif,
}

/// The format of a file by its first bytes, or `None` if it is none of those read here.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<ImageFormat> {
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        Some(ImageFormat::Jpeg)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some(ImageFormat::Png)
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some(ImageFormat::WebP)
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some(ImageFormat::Gif)
    } else {
        None
    }
}

/// Decodes a picture to 8-bit RGB: upright by its EXIF orientation, on white where it is
/// transparent. Grey, palette, CMYK and 16-bit pictures are converted; colour profiles are ignored,
/// all values are taken as sRGB.
///
/// # Errors
/// [`Error::Empty`] for no bytes, [`Error::UnsupportedImage`] for another format,
/// [`Error::Limit`] for a file, side or area beyond `limits` (before pixels are decoded), and
/// [`Error::DamagedImage`] for a file that is cut off or broken.
pub fn decode(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    let format = check_file(bytes, limits)?;
    guarded(|| decode_as(format, bytes, limits))
}

fn check_file(bytes: &[u8], limits: &ImageLimits) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(Error::Empty { field: "image" });
    }
    let length = bytes.len() as u64;
    if length > limits.max_bytes {
        return Err(Error::limit("image bytes", limits.max_bytes, length));
    }
    sniff(bytes).ok_or(Error::UnsupportedImage)
}

/// The decoders are not ours and read hostile bytes: should one of them panic, that is one bad
/// picture, not the end of the thread that decodes everybody's.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(damaged("the decoder gave up on it")))
}

/// The most bytes that [`decode`] and fitting take for this file, known from its header alone.
///
/// # Errors
/// As [`decode`], as far as the header tells.
pub fn decode_memory(bytes: &[u8], limits: &ImageLimits) -> Result<u64> {
    let format = check_file(bytes, limits)?;
    let (width, height) = guarded(|| match of_library(format) {
        None => Ok(Jpeg::open(bytes, limits)?.dimensions()),
        // Its decoder unpacks a colour profile on the way to the first pixel, which may take long; the head is enough.
        Some(format) => match stated_by_png(format, bytes) {
            Some((width, height)) => {
                check_dimensions(width, height, limits)?;
                Ok((width, height))
            }
            None => Ok(open(format, bytes, limits)?.dimensions()),
        },
    })?;
    Ok(limits.decode_memory(u64::from(width) * u64::from(height)))
}

/// The library's decoder at the first pixel, the picture's size checked.
fn open<'a>(
    format: image::ImageFormat,
    bytes: &'a [u8],
    limits: &ImageLimits,
) -> Result<impl ImageDecoder + 'a> {
    if let Some((width, height)) = stated_by_png(format, bytes) {
        check_dimensions(width, height, limits)?;
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = image::Limits::no_limits();
    allocation.max_alloc = Some(limits.decoder_bytes());
    reader.limits(allocation);
    let decoder = reader.into_decoder().map_err(|error| from_library(&error, limits))?;
    let (width, height) = decoder.dimensions();
    check_dimensions(width, height, limits)?;
    Ok(decoder)
}

fn decode_as(format: ImageFormat, bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage> {
    let (picture, orientation) = match of_library(format) {
        None => {
            let jpeg = Jpeg::open(bytes, limits)?;
            let orientation = jpeg.orientation();
            (jpeg.decode()?, orientation)
        }
        Some(format) => {
            let mut decoder = open(format, bytes, limits)?;
            // A picture whose EXIF block is broken is still a picture.
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            let picture = DynamicImage::from_decoder(decoder);
            (picture.map_err(|error| from_library(&error, limits))?, orientation)
        }
    };
    // Three bytes a pixel first: what is turned lies in memory twice.
    let mut picture = DynamicImage::ImageRgb8(on_white(picture));
    picture.apply_orientation(orientation);
    Ok(picture.into_rgb8())
}

/// What the whole head of a PNG says. Its decoder refuses what is too large before it tells how large that is, and then as a limit
/// of its own memory. A damaged head says nothing.
fn stated_by_png(format: image::ImageFormat, bytes: &[u8]) -> Option<(u32, u32)> {
    let head = bytes.get(8..33).filter(|_| format == image::ImageFormat::Png)?;
    let (content, checksum) = head.strip_prefix(b"\0\0\0\x0d")?.split_last_chunk::<4>()?;
    if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let (width, rest) = content.strip_prefix(b"IHDR")?.split_first_chunk::<4>()?;
    let (height, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// The format as the library names it that reads all but JPEG.
fn of_library(format: ImageFormat) -> Option<image::ImageFormat> {
    match format {
        ImageFormat::Jpeg => None,
        ImageFormat::Png => Some(image::ImageFormat::Png),
        ImageFormat::WebP => Some(image::ImageFormat::WebP),
        ImageFormat::Gif => Some(image::ImageFormat::Gif),
    }
}

pub(super) fn check_dimensions(width: u32, height: u32, limits: &ImageLimits) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(damaged("it has no pixels"));
    }
    let side = width.max(height);
    if side > limits.max_side {
        return Err(Error::limit("image side in pixels", limits.max_side.into(), side.into()));
    }
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        return Err(Error::limit("image pixels", limits.max_pixels, pixels));
    }
    Ok(())
}

/// Composites transparent pixels on white and drops the alpha channel: `c a + 255 (1 - a)`, rounded.
fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    match picture {
        // Pixel by pixel: a copy of all of it with 8 bits would stand beside both.
        DynamicImage::ImageRgba16(deep) => {
            for (out, pixel) in rgb.pixels_mut().zip(deep.pixels()) {
                out.0 = blended(pixel.0.map(|value| ((u32::from(value) + 128) / 257) as u8));
            }
        }
        other => {
            for (out, pixel) in rgb.pixels_mut().zip(other.into_rgba8().pixels()) {
                out.0 = blended(pixel.0);
            }
        }
    }
    rgb
}

fn blended([red, green, blue, alpha]: [u8; 4]) -> [u8; 3] {
    [red, green, blue].map(|channel| {
        let (channel, alpha) = (u32::from(channel), u32::from(alpha));
        ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    })
}

/// The decoder's own words stay out of the message: they may quote the file.
fn from_library(error: &ImageError, limits: &ImageLimits) -> Error {
    match error {
        ImageError::Limits(_) => Error::limit(
            "image bytes when decoded",
            limits.decoder_bytes(),
            limits.decoder_bytes().saturating_add(1),
        ),
        ImageError::Unsupported(_) => {
            damaged("it uses a feature of its format that is not read here")
        }
        ImageError::IoError(_) => damaged("it ends before the picture does"),
        _ => damaged("its bytes do not follow the format they begin with"),
    }
}

pub(super) fn damaged(reason: &'static str) -> Error {
    Error::DamagedImage { reason }
}
