//! JPEG as libjpeg-turbo decodes it, to the last bit: the decoder that most checkpoints saw their pictures through.
//!
//! What must be known of a file before it is decoded comes from a walk over its markers (ITU-T T.81, annex B): what is missing
//! from a cut file the decoder fills with grey and reports success, and each of a progressive file's scans visits every block of
//! the picture.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, Image, JpegError, PixelFormat};

use super::ImageLimits;
use super::decode::{check_dimensions, damaged};
use crate::error::{Error, Result};

/// Most scans a file may have. Encoders write about ten; a file that repeats tiny scans thousands
/// of times is small to send and takes minutes to decode.
pub(super) const MAX_SCANS: usize = 50;

/// A file whose head was read and found within limits.
pub(super) struct Jpeg<'a>(Decoder<'a>);

impl<'a> Jpeg<'a> {
    /// Reads all but the pixels. What a decoder takes follows from the size, which is checked here: at most 12 bytes a pixel.
    ///
    /// # Errors
    /// A side, an area or scans beyond the limits; a file that is cut off, or whose head is damaged or of a kind that is not
    /// read here.
    pub(super) fn open(bytes: &'a [u8], limits: &ImageLimits) -> Result<Self> {
        let outline = outline(bytes);
        if outline.scans > MAX_SCANS {
            return Err(Error::limit("image scans", MAX_SCANS as u64, outline.scans as u64));
        }
        if !outline.complete {
            return Err(damaged(CUT_OFF));
        }
        let most = DecodeLimits { max_scans: MAX_SCANS, ..DecodeLimits::default() };
        let jpeg = Self(Decoder::new_with_limits(bytes, most).map_err(|error| failed(&error))?);
        let (width, height) = jpeg.dimensions();
        check_dimensions(width, height, limits)?;
        let head = jpeg.0.header();
        if head.precision != 8 || head.is_lossless {
            return Err(damaged(UNSUPPORTED));
        }
        Ok(jpeg)
    }

    /// Width and height in pixels, as they lie.
    pub(super) fn dimensions(&self) -> (u32, u32) {
        let head = self.0.header();
        (u32::from(head.width), u32::from(head.height))
    }

    /// How the picture is to be turned.
    pub(super) fn orientation(&self) -> Orientation {
        let told = self.0.exif_orientation().and_then(Orientation::from_exif);
        told.unwrap_or(Orientation::NoTransforms)
    }

    /// Decodes the pixels.
    ///
    /// # Errors
    /// A file that is broken.
    pub(super) fn decode(mut self) -> Result<DynamicImage> {
        self.0.set_output_format(match self.0.header().components.len() {
            1 => PixelFormat::Grayscale,
            4 => PixelFormat::Cmyk,
            _ => PixelFormat::Rgb,
        });
        let Image { width, height, pixel_format, data, .. } =
            self.0.decode_image().map_err(|error| failed(&error))?;
        let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(damaged(BROKEN));
        };
        let picture = match pixel_format {
            PixelFormat::Grayscale => {
                GrayImage::from_raw(width, height, data).map(DynamicImage::from)
            }
            PixelFormat::Rgb => RgbImage::from_raw(width, height, data).map(DynamicImage::from),
            _ => RgbImage::from_raw(width, height, from_inks(data)).map(DynamicImage::from),
        };
        picture.ok_or_else(|| damaged(BROKEN))
    }
}

const UNSUPPORTED: &str = "it uses a feature of its format that is not read here";
const CUT_OFF: &str = "it ends before the picture does";
const BROKEN: &str = "its bytes do not follow the format they begin with";

/// The decoder's own words stay out of the message: they may quote the file.
fn failed(error: &JpegError) -> Error {
    match error {
        JpegError::Unsupported(_) => damaged(UNSUPPORTED),
        JpegError::UnexpectedEof => damaged(CUT_OFF),
        _ => damaged(BROKEN),
    }
}

/// Cyan, magenta, yellow and black, stored inverted as all who write such files do, to red, green and blue, in place: light is
/// what the black lets through less what the ink takes from it, rounded as Pillow rounds it.
fn from_inks(mut pixels: Vec<u8>) -> Vec<u8> {
    let count = pixels.len() / 4;
    for at in 0..count {
        let light = u32::from(pixels[4 * at + 3]);
        for channel in 0..3 {
            let ink = 255 - u32::from(pixels[4 * at + channel]);
            let taken = ink * light + 128;
            pixels[3 * at + channel] = (light - ((taken + (taken >> 8)) >> 8)) as u8;
        }
    }
    pixels.truncate(3 * count);
    pixels
}

/// What the markers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outline {
    /// Number of scans begun.
    scans: usize,
    /// Whether the end-of-image marker was reached.
    complete: bool,
}

/// Walks the markers of `bytes`, a file that begins with start-of-image.
fn outline(bytes: &[u8]) -> Outline {
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut scans = 0;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some((marker, after)) = next_marker(rest) {
        if marker == END_OF_IMAGE {
            return Outline { scans, complete: true };
        }
        if marker == START_OF_SCAN {
            scans += 1;
        }
        let Some((high, low)) = after.first().zip(after.get(1)) else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = after.get(length..) else { break };
        rest = next;
    }
    Outline { scans, complete: false }
}

/// The next marker that has a segment or ends the image, and what follows it. Stuffed zeros,
/// restart markers, fill bytes and the other markers without a segment are stepped over, so this
/// also crosses entropy-coded data.
fn next_marker(mut rest: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let at = memchr::memchr(0xFF, rest)?;
        let code = *rest.get(at + 1)?;
        match code {
            0xFF => rest = &rest[at + 1..],
            0x00 | 0x01 | 0xD0..=0xD8 => rest = &rest[at + 2..],
            _ => return Some((code, &rest[at + 2..])),
        }
    }
}
