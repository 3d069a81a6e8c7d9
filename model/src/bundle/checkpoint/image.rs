//! `preprocessor_config.json`: how a checkpoint's pictures are fitted.

use serde::Deserialize;
use serde_json::Value;

use super::source::{Source, missing};
use super::{CONFIG, typed};
use crate::error::{Error, Result};
use crate::preprocess::ImagePreprocessing;
use crate::preprocess::image::{Fit, ResizeFilter};

const PREPROCESSOR: &str = "preprocessor_config.json";
/// Where newer versions of `transformers` put it.
const PROCESSOR: &str = "processor_config.json";

/// Whose defaults hold for what a file does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Clip,
    Siglip,
}

#[derive(Deserialize)]
struct Preprocessor {
    do_resize: Option<bool>,
    size: Option<Size>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(u32),
    Shorter { shortest_edge: u32 },
    Both { height: u32, width: u32 },
}

/// The settings in `preprocessor_config.json`, or under `image_processor` in `processor_config.json`.
pub(super) fn preprocessing(source: &mut Source, family: Family) -> Result<ImagePreprocessing> {
    if let Some(value) = source.json(PREPROCESSOR)? {
        return typed::<Preprocessor>(PREPROCESSOR, &value)?.read(PREPROCESSOR, family);
    }
    let newer = source.json(PROCESSOR)?;
    let value = newer.as_ref().and_then(|value| value.get("image_processor"));
    let value = value.ok_or_else(|| missing(PREPROCESSOR))?;
    typed::<Preprocessor>(PROCESSOR, value)?.read(PROCESSOR, family)
}

impl Preprocessor {
    fn read(self, file: &str, family: Family) -> Result<ImagePreprocessing> {
        let refused = |message: String| Error::corrupt(file, message);
        let clip = family == Family::Clip;
        if self.do_resize == Some(false) || self.do_rescale == Some(false) {
            let message = "turns do_resize or do_rescale off; pictures come in any size, in bytes";
            return Err(refused(message.to_owned()));
        }
        let factor = self.rescale_factor.unwrap_or(1.0 / 255.0);
        if (factor * 255.0 - 1.0).abs() > 1e-6 {
            return Err(refused(format!("has the rescale_factor {factor}; 1/255 is served")));
        }
        let cropped = self.do_center_crop.unwrap_or(clip);
        let (fit, size) = fit(self.size.unwrap_or(Size::Side(224)), clip, {
            cropped.then(|| self.crop_size.unwrap_or(Size::Side(224)))
        })
        .map_err(|wrong| refused(wrong.to_owned()))?;
        let (mean, std) = if clip {
            // Radford et al. 2021: the statistics of their training pictures.
            ([0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1])
        } else {
            ([0.5; 3], [0.5; 3])
        };
        let normalized = self.do_normalize.unwrap_or(true);
        Ok(ImagePreprocessing {
            size,
            fit,
            filter: filter(self.resample.unwrap_or(3)).map_err(refused)?,
            mean: if normalized { self.image_mean.unwrap_or(mean) } else { [0.0; 3] },
            std: if normalized { self.image_std.unwrap_or(std) } else { [1.0; 3] },
            ..ImagePreprocessing::default()
        })
    }
}

/// How a picture becomes a square, and its side. A bare number is the shorter side for CLIP.
fn fit(
    size: Size,
    clip: bool,
    crop: Option<Size>,
) -> std::result::Result<(Fit, u32), &'static str> {
    let crop = match crop {
        None => None,
        Some(Size::Side(side) | Size::Shorter { shortest_edge: side }) => Some(side),
        Some(Size::Both { height, width }) if height == width => Some(width),
        Some(Size::Both { .. }) => return Err("crops to what is no square"),
    };
    let shorter = match size {
        Size::Shorter { shortest_edge } => Some(shortest_edge),
        Size::Side(side) if clip => Some(side),
        Size::Side(_) | Size::Both { .. } => None,
    };
    match (size, shorter, crop) {
        (_, Some(shorter), Some(crop)) if crop <= shorter => {
            Ok((Fit::ScaleThenCrop { shorter }, crop))
        }
        (_, Some(_), Some(_)) => Err("crops to more than it scales to"),
        (_, Some(_), None) => Err("scales the shorter side without cropping; towers take squares"),
        (Size::Side(side), None, crop) if crop.is_none_or(|crop| crop == side) => {
            Ok((Fit::Squeeze, side))
        }
        (Size::Both { height, width }, None, crop)
            if height == width && crop.is_none_or(|crop| crop == width) =>
        {
            Ok((Fit::Squeeze, width))
        }
        _ => Err("scales to what is no square, or crops after it"),
    }
}

/// The filters by their numbers in Pillow.
fn filter(resample: u32) -> std::result::Result<ResizeFilter, String> {
    match resample {
        0 => Ok(ResizeFilter::Nearest),
        1 => Ok(ResizeFilter::Lanczos3),
        2 => Ok(ResizeFilter::Bilinear),
        3 => Ok(ResizeFilter::Bicubic),
        4 => Ok(ResizeFilter::Box),
        other => Err(format!("has the resample {other}; 0 to 4 are served")),
    }
}

/// Of an image tower alone: `preprocessor_config.json` where there is one, else `pretrained_cfg` as `timm`
/// has it.
pub(super) fn of_picture(source: &mut Source, config: &Value) -> Result<ImagePreprocessing> {
    #[derive(Deserialize)]
    struct Pretrained {
        input_size: [u32; 3],
        interpolation: Option<String>,
        crop_pct: Option<f64>,
        crop_mode: Option<String>,
        mean: [f32; 3],
        std: [f32; 3],
    }
    if source.has(PREPROCESSOR) {
        return preprocessing(source, Family::Clip);
    }
    let Some(settings) = config.get("pretrained_cfg") else { return Err(missing(PREPROCESSOR)) };
    let settings: Pretrained = typed(CONFIG, settings)?;
    let refused = |message: String| Error::corrupt(CONFIG, message);
    let [3, height, width] = settings.input_size else {
        return Err(refused("has an input_size without three colours".to_owned()));
    };
    if height != width || settings.crop_mode.as_deref().is_some_and(|mode| mode != "center") {
        return Err(refused(
            "has an input_size that is no square, or another crop_mode".to_owned(),
        ));
    }
    let share = settings.crop_pct.unwrap_or(0.875);
    if !(0.25..=1.0).contains(&share) {
        return Err(refused(format!("has the crop_pct {share}, 0.25 to 1 is served")));
    }
    let filter = match settings.interpolation.as_deref().unwrap_or("bilinear") {
        "bilinear" => ResizeFilter::Bilinear,
        "bicubic" => ResizeFilter::Bicubic,
        "lanczos" => ResizeFilter::Lanczos3,
        other => return Err(refused(format!("has the interpolation `{other}`"))),
    };
    Ok(ImagePreprocessing {
        size: width,
        fit: Fit::ScaleThenCrop { shorter: (f64::from(width) / share).floor() as u32 },
        filter,
        mean: settings.mean,
        std: settings.std,
        ..ImagePreprocessing::default()
    })
}
