//! Bundles with untrained weights: for tests of what uses a bundle, and for a first start before
//! one is trained. Their vectors are deterministic and mean nothing.

use candle_core::Device;
use image::{Rgb, RgbImage};

use crate::bundle::{Bundle, BundleBuilder, DataSource, Training};
use crate::calibration::{self, Calibration, Curve, Knot};
use crate::config::{
    ConvConfig, HeadsConfig, ImageTowerConfig, ModelConfig, NgramBagConfig, TextTowerConfig,
};
use crate::dual_encoder::DualEncoder;
use crate::error::{Error, Result};
use crate::params::Params;
use crate::preprocess::text::HashedNgrams;
use crate::preprocess::{ImagePreprocessing, TokenizerConfig};

/// A bundle small enough for any test: 16 px, shared vectors of 32 with prefixes 8 and 16,
/// exclusive ones of 8 (pictures) and 12 (texts).
///
/// # Errors
/// None is expected; what [`untrained_bundle`] answers.
pub fn tiny_bundle(seed: u64) -> Result<Bundle> {
    untrained_bundle(tiny_model(), seed)
}

/// The configuration of [`tiny_bundle`].
#[must_use]
pub fn tiny_model() -> ModelConfig {
    ModelConfig {
        image_tower: Some(ImageTowerConfig::Conv(ConvConfig {
            size: 16,
            widths: vec![8, 16],
            groups: 4,
            ..ConvConfig::default()
        })),
        text_tower: Some(TextTowerConfig::NgramBag(NgramBagConfig {
            buckets: 512,
            width: 16,
            gate: 4,
            hidden: 32,
            manner: 0,
        })),
        counterpart_tower: None,
        heads: HeadsConfig {
            shared: 32,
            matryoshka: vec![8, 16],
            exclusive_image: 8,
            exclusive_text: 12,
            exclusive_hidden: 16,
            ..HeadsConfig::default()
        },
    }
}

/// A bundle of this configuration whose weights are the initial values of `seed`.
///
/// # Errors
/// [`Error::Invalid`] for a configuration out of range.
pub fn untrained_bundle(model: ModelConfig, seed: u64) -> Result<Bundle> {
    untrained(model, seed)?.build()
}

/// [`tiny_bundle`] with a calibration that turns a score of -1 into 0.1 and one of 1 into 0.9, both
/// ways, in a straight line.
///
/// # Errors
/// As [`untrained_bundle`].
pub fn calibrated_bundle(seed: u64) -> Result<Bundle> {
    let knot = |score, probability| Knot { score, probability };
    let knots = vec![knot(-1.0, 0.1), knot(1.0, 0.9)];
    let curve = Curve { knots, pairs: 1, non_pairs: 1, expected_calibration_error: None };
    let calibration = Calibration {
        version: calibration::VERSION,
        prior: 0.5,
        text_to_image: curve.clone(),
        image_to_text: curve,
    };
    let mut builder = untrained(tiny_model(), seed)?;
    builder.calibration = Some(calibration.to_json()?);
    builder.build()
}

fn untrained(model: ModelConfig, seed: u64) -> Result<BundleBuilder> {
    let params = Params::seeded(seed, &Device::Cpu);
    // Building the networks asks for every weight, and asking makes it.
    DualEncoder::new(&model, &params)?;
    let image =
        ImagePreprocessing { size: model.image_size()? as u32, ..ImagePreprocessing::default() };
    let text = TokenizerConfig::HashedNgrams(HashedNgrams {
        buckets: model.vocabulary()? as u32,
        ..HashedNgrams::default()
    });
    let mut builder = BundleBuilder::new(model, image, text, params.tensors()?);
    builder.name = "untrained".to_owned();
    builder.domain = "nothing (untrained)".to_owned();
    builder.training = Training {
        data: vec![DataSource {
            name: "none".to_owned(),
            version: String::new(),
            licence: "Apache-2.0".to_owned(),
        }],
        licence: "Apache-2.0".to_owned(),
        seed,
        ..Training::default()
    };
    builder.golden_images = vec![disc(24, 24)?, disc(40, 12)?];
    builder.golden_texts = vec!["a red disc".to_owned(), "赤い円".to_owned()];
    Ok(builder)
}

/// A PNG file of a red disc on a blue ground.
///
/// # Errors
/// [`Error::Internal`] if it cannot be encoded.
pub fn disc(width: u32, height: u32) -> Result<Vec<u8>> {
    let radius = f64::from(width.min(height)) / 3.0;
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let from_centre = |at: u32, side: u32| f64::from(at) + 0.5 - f64::from(side) / 2.0;
        let inside = from_centre(x, width).hypot(from_centre(y, height)) < radius;
        if inside { Rgb([200, 30, 40]) } else { Rgb([40, 60, 180]) }
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|error| Error::Internal { message: error.to_string() })?;
    Ok(bytes.into_inner())
}
