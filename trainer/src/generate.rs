//! A trained run with its way back from codes: pictures and texts made of one item's shared and another's
//! exclusive code.

use std::path::Path;

use candle_core::{Device, Tensor};
use diptych_model::Codes;
use diptych_model::preprocess::{ImagePreprocessing, TokenBatch};
use image::{Rgb, RgbImage};

use crate::checkpoint::Checkpoints;
use crate::encode;
use crate::error::{Error, Result};
use crate::eval::items::{self, Item, Side, What};
use crate::fit::Training;
use crate::objective::decoders::{Decoders, PREFIX};
use crate::objective::{self, Objective};

/// Items that are coded or decoded at a time.
const BATCH: usize = 256;

/// A trained run with decoders.
#[derive(Debug)]
pub struct Generator<'a> {
    training: &'a Training,
    objective: Box<dyn Objective>,
}

/// What decoders read of some items, row by row.
#[derive(Debug, Clone)]
pub struct Coded {
    /// (N, S).
    pub shared: Tensor,
    /// (N, E).
    pub exclusive: Tensor,
}

impl Coded {
    /// Chosen rows, in the order of the choice.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let rows = Tensor::new(rows, self.shared.device())?;
        Ok(Self {
            shared: self.shared.index_select(&rows, 0)?,
            exclusive: self.exclusive.index_select(&rows, 0)?,
        })
    }
}

impl<'a> Generator<'a> {
    /// The decoders in the newest checkpoint of the run in `folder`, which is `training`; `None` where its
    /// last objective has none.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, or fits the run file no more.
    pub fn of_run(folder: &Path, training: &'a Training) -> Result<Option<Self>> {
        let Some(stage) = training.run.stages.last() else { return Ok(None) };
        let mut objective = objective::build(&stage.objective)?;
        if !stage.objective.contains_key(objective::DECODER) {
            return Ok(None);
        }
        objective.begin(training.context())?;
        let newest = Checkpoints::new(folder, training.run.cadence.keep).newest()?;
        let newest = newest.ok_or_else(|| Error::checkpoint(folder, "there is none"))?;
        let mut vars = objective.vars();
        vars.retain(|name, _| name.starts_with(PREFIX));
        newest.restore_part(&vars)?;
        Ok(objective.decoders().is_some().then_some(Self { training, objective }))
    }

    /// The run.
    #[must_use]
    pub const fn training(&self) -> &Training {
        self.training
    }

    /// The decoders.
    ///
    /// # Errors
    /// Never, once it is made.
    pub fn decoders(&self) -> Result<&Decoders> {
        let decoders = self.objective.decoders();
        decoders.ok_or_else(|| Error::setting("objective.decoder", "the objective has none"))
    }

    /// The codes of pictures (N, 3, size, size), normalised as the tower reads them.
    ///
    /// # Errors
    /// If the shape does not fit.
    pub fn code_pixels(&self, pixels: &Tensor) -> Result<Coded> {
        let encoder = &self.training.encoder;
        let code = |pixels: &Tensor| -> Result<Coded> {
            self.coded(&encoder.image_codes(&encoder.image_features(pixels)?)?)
        };
        in_parts(pixels, code)
    }

    /// The codes of pictures of the second kind, as [`Generator::code_pixels`].
    ///
    /// # Errors
    /// If the shape does not fit, or the model has no second picture side.
    pub fn code_counterparts(&self, pixels: &Tensor) -> Result<Coded> {
        let encoder = &self.training.encoder;
        let code = |pixels: &Tensor| -> Result<Coded> {
            self.coded(&encoder.counterpart_codes(&encoder.counterpart_features(pixels)?)?)
        };
        in_parts(pixels, code)
    }

    /// The codes of texts.
    ///
    /// # Errors
    /// If one cannot be tokenized, or the model reads no texts.
    pub fn code_texts(&self, texts: &[String]) -> Result<Coded> {
        let encoder = &self.training.encoder;
        let tokenizer = &self.training.preprocessing.text;
        let mut parts = Vec::new();
        for chunk in texts.chunks(BATCH) {
            let tokens = chunk
                .iter()
                .map(|text| Ok(tokenizer.tokenize(text, true)?))
                .collect::<Result<Vec<_>>>()?;
            let tokens = TokenBatch::collate(&tokens.iter().collect::<Vec<_>>());
            parts.push(self.coded(&encoder.text_codes(&encoder.text_features(&tokens)?)?)?);
        }
        joined(&parts)
    }

    /// The codes of pictures of the corpus, of the second kind if `counterparts` says so.
    ///
    /// # Errors
    /// If a picture cannot be read.
    pub fn code_pictures(&self, pictures: &[usize], counterparts: bool) -> Result<Coded> {
        let size = self.training.run.image_size();
        let mut parts = Vec::new();
        for chunk in pictures.chunks(BATCH) {
            let pixels = encode::pixels(&self.training.corpus, chunk, size)?;
            parts.push(match counterparts {
                true => self.code_counterparts(&pixels)?,
                false => self.code_pixels(&pixels)?,
            });
        }
        joined(&parts)
    }

    /// The codes of some items of a side.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(crate) fn code_items(&self, side: Side, items: &[Item]) -> Result<Coded> {
        let picture = |item: &Item| match &item.what {
            What::Picture(at) => Some(*at),
            What::Text { .. } => None,
        };
        let pictures: Vec<usize> = items.iter().filter_map(picture).collect();
        match side {
            Side::Image => self.code_pictures(&pictures, false),
            Side::Counterpart => self.code_pictures(&pictures, true),
            Side::Text => self.code_texts(&items::texts(items)),
        }
    }

    /// Pictures (N, 3, size, size) of codes, of the second kind if `counterparts` says so.
    ///
    /// # Errors
    /// If a width does not fit, or there are no pictures of the second kind.
    pub fn pictures(&self, codes: &Coded, counterparts: bool) -> Result<Tensor> {
        let decoders = self.decoders()?;
        let mut parts = Vec::new();
        let count = codes.shared.dim(0)?;
        for first in (0..count).step_by(BATCH) {
            let rows = BATCH.min(count - first);
            let shared = codes.shared.narrow(0, first, rows)?;
            let exclusive = codes.exclusive.narrow(0, first, rows)?;
            parts.push(if counterparts {
                let made = decoders.counterparts(&shared, &exclusive)?;
                made.ok_or_else(|| Error::setting("model.counterpart_tower", "is absent"))?
            } else {
                decoders.pictures(&shared, &exclusive)?
            });
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn coded(&self, codes: &Codes) -> Result<Coded> {
        Ok(Coded {
            shared: self.decoders()?.shared_code(codes)?.detach(),
            exclusive: codes.exclusive()?.detach(),
        })
    }
}

/// Pictures (N, 3, size, size) as the tower reads them, turned back to what can be seen.
///
/// # Errors
/// If the shape does not fit.
pub fn visible(pixels: &Tensor, image: &ImagePreprocessing) -> Result<Vec<RgbImage>> {
    let (count, _, height, width) = pixels.dims4()?;
    let pixels = pixels.permute((0, 2, 3, 1))?.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    let picture = |values: &[f32]| {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = 3 * (y as usize * width + x as usize);
            Rgb(std::array::from_fn(|c| {
                let share = values[at + c] * image.std[c] + image.mean[c];
                (share * 255.0).round().clamp(0.0, 255.0) as u8
            }))
        })
    };
    let each = 3 * height * width;
    Ok(pixels.chunks_exact(each.max(1)).take(count).map(picture).collect())
}

/// What [`visible`] gave, as the tower reads it.
///
/// # Errors
/// If there is none, or their sizes differ.
pub fn normalised(pictures: &[RgbImage], image: &ImagePreprocessing) -> Result<Tensor> {
    let values: Vec<f32> = pictures.iter().flat_map(|picture| image.normalize(picture)).collect();
    let size = image.size as usize;
    Ok(Tensor::from_vec(values, (pictures.len(), 3, size, size), &Device::Cpu)?)
}

fn in_parts(pixels: &Tensor, code: impl Fn(&Tensor) -> Result<Coded>) -> Result<Coded> {
    let count = pixels.dim(0)?;
    let parts: Vec<Coded> = (0..count)
        .step_by(BATCH)
        .map(|first| code(&pixels.narrow(0, first, BATCH.min(count - first))?))
        .collect::<Result<_>>()?;
    joined(&parts)
}

fn joined(parts: &[Coded]) -> Result<Coded> {
    let all = |of: fn(&Coded) -> &Tensor| -> Result<Tensor> {
        Ok(Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 0)?)
    };
    Ok(Coded { shared: all(|part| &part.shared)?, exclusive: all(|part| &part.exclusive)? })
}
