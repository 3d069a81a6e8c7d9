//! RGB pixels of any size to the normalised square that an image tower reads.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a picture that is not square becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The whole picture, its longer side scaled to the size, centred on white.
    #[default]
    PadWhite,
    /// The whole picture, both sides scaled to the size; the aspect ratio is lost.
    Squeeze,
    /// The largest centred square, scaled to the size; what lies outside is lost.
    CropCentre,
    /// The whole picture scaled until its shorter side has so many pixels, then the square in the centre of
    /// that: how CLIP was trained. The longer side is rounded down, and so is where the square begins.
    ScaleThenCrop {
        /// Length of the shorter side after scaling, at least the size of the square and at most four
        /// times as much.
        shorter: u32,
    },
}

/// The resampling filter. Each is a convolution whose support grows with the reduction
/// (antialiased), except `Nearest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeFilter {
    /// The nearest pixel.
    Nearest,
    /// The mean of the covered pixels.
    Box,
    /// Triangle filter.
    Bilinear,
    /// Cubic convolution with a = -0.5 (Catmull-Rom), as Pillow and torchvision have it.
    #[default]
    Bicubic,
    /// Windowed sinc with three lobes.
    Lanczos3,
}

/// What the three channels mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColourSpace {
    /// Red, green, blue of 8 bits as sRGB has them; colour profiles in files are ignored.
    #[default]
    Srgb,
}

/// What becomes of transparency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alpha {
    /// Composited on white.
    #[default]
    OnWhite,
}

/// The way from a decoded picture to the tower's input. Written into the bundle in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePreprocessing {
    /// Side of the square in pixels, 1 to [`ImagePreprocessing::MAX_SIZE`].
    pub size: u32,
    /// How a picture that is not square becomes one.
    pub fit: Fit,
    /// The resampling filter.
    pub filter: ResizeFilter,
    /// Per channel, taken off the value in 0..=1.
    pub mean: [f32; 3],
    /// Per channel, what the rest is divided by; positive.
    pub std: [f32; 3],
    /// What the channels mean.
    #[serde(default)]
    pub colour: ColourSpace,
    /// What becomes of transparency.
    #[serde(default)]
    pub alpha: Alpha,
}

impl Default for ImagePreprocessing {
    fn default() -> Self {
        Self {
            size: 48,
            fit: Fit::default(),
            filter: ResizeFilter::default(),
            mean: [0.5; 3],
            std: [0.5; 3],
            colour: ColourSpace::default(),
            alpha: Alpha::default(),
        }
    }
}

impl ImagePreprocessing {
    /// Largest side of the square that is accepted from a configuration.
    pub const MAX_SIZE: u32 = 1024;

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.size == 0 || self.size > Self::MAX_SIZE {
            let message = format!("is {}, must be 1 to {}", self.size, Self::MAX_SIZE);
            return Err(Error::invalid("image.size", message));
        }
        if let Fit::ScaleThenCrop { shorter } = self.fit
            && !(self.size..=4 * self.size).contains(&shorter)
        {
            let message =
                format!("is {shorter}, must be {} to {}", self.size, 4 * u64::from(self.size));
            return Err(Error::invalid("image.fit.shorter", message));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return Err(Error::invalid("image.mean", "must be finite"));
        }
        if !self.std.iter().all(|std| std.is_finite() && *std > 0.0) {
            return Err(Error::invalid("image.std", "must be finite and positive"));
        }
        Ok(())
    }

    /// The tower's input: `(3, size, size)`, channel by channel and row by row, each value
    /// `(v / 255 - mean) / std`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a picture or a size of zero pixels.
    pub fn apply(&self, picture: &RgbImage) -> Result<Vec<f32>> {
        Ok(self.normalize(&self.to_square(picture)?))
    }

    /// The picture as a `size` by `size` square, before normalisation. Augmentation goes between
    /// this and [`ImagePreprocessing::normalize`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a picture or a size of zero pixels.
    pub fn to_square(&self, picture: &RgbImage) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 || self.size == 0 {
            return Err(Error::invalid("image", "has no pixels"));
        }
        match self.fit {
            Fit::PadWhite => self.pad(picture),
            Fit::Squeeze => {
                self.across_then_down(picture, (0.0, f64::from(width)), (0.0, f64::from(height)))
            }
            Fit::ScaleThenCrop { shorter } => self.scale_then_crop(picture, shorter),
            Fit::CropCentre => {
                let side = f64::from(width.min(height));
                let left = (f64::from(width) - side) / 2.0;
                let top = (f64::from(height) - side) / 2.0;
                let options = options(self.filter).crop(left, top, side, side);
                self.resize(picture, self.size, self.size, options)
            }
        }
    }

    /// Pixels to `(3, H, W)`, each value `(v / 255 - mean) / std`, for a picture of any size.
    #[must_use]
    pub fn normalize(&self, picture: &RgbImage) -> Vec<f32> {
        let mut planes = Vec::with_capacity(picture.as_raw().len());
        self.normalize_onto(picture, &mut planes);
        planes
    }

    /// [`ImagePreprocessing::normalize`] at the end of `planes`, for batches.
    pub fn normalize_onto(&self, picture: &RgbImage, planes: &mut Vec<f32>) {
        let pixels = picture.as_raw();
        for channel in 0..3 {
            let scale = 1.0 / (255.0 * self.std[channel]);
            let shift = self.mean[channel] / self.std[channel];
            planes.extend(
                pixels.iter().skip(channel).step_by(3).map(|&v| f32::from(v) * scale - shift),
            );
        }
    }

    /// Scales first and pads the small result: a long thin picture never becomes a huge square.
    fn pad(&self, picture: &RgbImage) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let scaled_width = scaled(width, self.size, width.max(height));
        let scaled_height = scaled(height, self.size, width.max(height));
        let inner = self.resize(picture, scaled_width, scaled_height, options(self.filter))?;
        if (scaled_width, scaled_height) == (self.size, self.size) {
            return Ok(inner);
        }
        let mut square = RgbImage::from_pixel(self.size, self.size, image::Rgb([255; 3]));
        let left = i64::from((self.size - scaled_width) / 2);
        let top = i64::from((self.size - scaled_height) / 2);
        image::imageops::replace(&mut square, &inner, left, top);
        Ok(square)
    }

    /// Only the part that is kept is computed: of a long thin picture the rest would be huge. The filter
    /// sees the picture's pixels beyond that part, so the values are those of scaling first.
    fn scale_then_crop(&self, picture: &RgbImage, shorter: u32) -> Result<RgbImage> {
        let (width, height) = picture.dimensions();
        let shortest = u64::from(width.min(height));
        // The part that is kept, along one axis: where it begins and its length, in pixels of the picture.
        let kept = |side: u32| {
            let scaled = u64::from(shorter) * u64::from(side) / shortest;
            let first = (scaled - u64::from(self.size)) / 2;
            let scale = f64::from(side) / scaled as f64;
            (first as f64 * scale, f64::from(self.size) * scale)
        };
        self.across_then_down(picture, kept(width), kept(height))
    }

    /// Resamples a part of the picture, (first, length) along each axis, to the square: rows first, then
    /// columns, rounded to whole levels between, as Pillow does. The library alone takes the cheaper order.
    fn across_then_down(
        &self,
        picture: &RgbImage,
        (left, width): (f64, f64),
        (top, height): (f64, f64),
    ) -> Result<RgbImage> {
        let rows = picture.height();
        let across = options(self.filter).crop(left, 0.0, width, f64::from(rows));
        let across = self.resize(picture, self.size, rows, across)?;
        let down = options(self.filter).crop(0.0, top, f64::from(self.size), height);
        self.resize(&across, self.size, self.size, down)
    }

    fn resize(
        &self,
        picture: &RgbImage,
        width: u32,
        height: u32,
        options: ResizeOptions,
    ) -> Result<RgbImage> {
        let fault = |error: &dyn std::error::Error| Error::invalid("image", error.to_string());
        let source =
            ImageRef::new(picture.width(), picture.height(), picture.as_raw(), PixelType::U8x3)
                .map_err(|error| fault(&error))?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        Resizer::new()
            .resize(&source, &mut target, Some(&options))
            .map_err(|error| fault(&error))?;
        RgbImage::from_raw(width, height, target.into_vec())
            .ok_or_else(|| Error::invalid("image", "was resized to an unexpected length"))
    }
}

/// `side * size / longest`, rounded, at least one.
fn scaled(side: u32, size: u32, longest: u32) -> u32 {
    let longest = u64::from(longest);
    let scaled = (u64::from(side) * u64::from(size) + longest / 2) / longest;
    u32::try_from(scaled).unwrap_or(size).clamp(1, size)
}

fn options(filter: ResizeFilter) -> ResizeOptions {
    let algorithm = match filter {
        ResizeFilter::Nearest => ResizeAlg::Nearest,
        ResizeFilter::Box => ResizeAlg::Convolution(FilterType::Box),
        ResizeFilter::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        ResizeFilter::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        ResizeFilter::Lanczos3 => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    ResizeOptions::new().resize_alg(algorithm)
}
