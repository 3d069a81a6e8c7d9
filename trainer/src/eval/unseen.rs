//! Pictures in a style that training never saw: a prepared dataset, or files named by group.

use std::path::Path;

use candle_core::{Device, Tensor};
use diptych_model::preprocess::{ImageLimits, decode};
use rayon::prelude::*;

use super::Subject;
use super::encoded::Side;
use super::matrix::Matrix;
use crate::error::{Error, Result};
use crate::shards::{Dataset, MANIFEST_FILE};

/// Vectors and concepts of the pictures in `folder` whose group the corpus knows.
pub(super) fn encode(subject: &Subject<'_>, folder: &Path) -> Result<Side> {
    let files =
        if folder.join(MANIFEST_FILE).is_file() { dataset(folder)? } else { plain(folder)? };
    let known: Vec<(u32, Vec<u8>)> = files
        .into_iter()
        .filter_map(|(group, bytes)| Some((subject.corpus.concept(&group)?, bytes)))
        .collect();
    if known.is_empty() {
        return Err(Error::data(folder, "holds no picture of a known group"));
    }
    let image = &subject.preprocessing.image;
    let pixels: Vec<Vec<f32>> = known
        .par_iter()
        .map(|(_, bytes)| Ok(image.apply(&decode(bytes, &ImageLimits::default())?)?))
        .collect::<Result<_>>()?;
    let size = subject.image_size;
    let mut vectors = Vec::new();
    for chunk in pixels.chunks(256) {
        let values: Vec<f32> = chunk.iter().flatten().copied().collect();
        let tensor = Tensor::from_vec(values, (chunk.len(), 3, size, size), &Device::Cpu)?;
        vectors.push(subject.encoder.encode_images(&tensor)?.shared.detach());
    }
    let concepts = known.into_iter().map(|(concept, _)| concept).collect();
    Ok(Side::of_shared(Matrix::of(&Tensor::cat(&vectors, 0)?)?, concepts))
}

fn dataset(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    Dataset::open(folder)?.images().map(|row| row.map(|row| (row.group, row.bytes))).collect()
}

/// Files `GROUP.png` (or another extension), in order of their names.
fn plain(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| Error::io(folder, source))?.path();
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
            files.push((stem.to_owned(), bytes));
        }
    }
    files.sort();
    Ok(files)
}
