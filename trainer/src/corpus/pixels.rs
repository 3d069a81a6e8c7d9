//! Pictures read and decoded when they are asked for, within a memory limit.
//!
//! Row groups of encoded pictures, and decoded pictures, stay in memory as far as the limits allow; what
//! is asked for beyond them is read again. A dataset that fits is therefore decoded once, and one of
//! any size can be trained on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use diptych_model::preprocess::{Fit, ImageLimits, decode};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::preprocessing::Preprocessing;
use crate::shards::{Dataset, ImageBytes, RowAt};

/// A drawn view is sampled from a picture with this many pixels for each three of the tower's.
const DETAIL: u32 = 4;

/// How much memory pictures may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PictureMemory {
    /// MiB of pictures as files. One row group (32 MiB at most) is held in any case.
    pub encoded_mib: u32,
    /// MiB of pictures decoded to the tower's size.
    pub decoded_mib: u32,
}

impl Default for PictureMemory {
    fn default() -> Self {
        Self { encoded_mib: 1024, decoded_mib: 1024 }
    }
}

/// A decoded picture.
#[derive(Debug)]
pub struct Decoded {
    /// The picture at the tower's size, as serving feeds it before it is normalised.
    pub plain: RgbImage,
    /// The picture with a third more pixels a side, for drawing other views of it.
    pub detailed: RgbImage,
}

/// The pictures of a dataset.
pub(super) struct Pixels {
    dataset: Dataset,
    preprocessing: Arc<Preprocessing>,
    encoded: Mutex<Encoded>,
    decoded: Vec<OnceLock<Arc<Decoded>>>,
    /// Bytes that decoded pictures may still take.
    room: AtomicI64,
}

/// Row groups in memory.
struct Encoded {
    groups: BTreeMap<(u32, u32), Held>,
    bytes: usize,
    most: usize,
    clock: u64,
}

struct Held {
    pictures: Arc<Vec<ImageBytes>>,
    bytes: usize,
    last_used: u64,
}

impl Pixels {
    pub(super) fn new(
        dataset: Dataset,
        preprocessing: Arc<Preprocessing>,
        pictures: usize,
        memory: PictureMemory,
    ) -> Self {
        let most = (memory.encoded_mib as usize) << 20;
        Self {
            dataset,
            preprocessing,
            encoded: Mutex::new(Encoded { groups: BTreeMap::new(), bytes: 0, most, clock: 0 }),
            decoded: (0..pictures).map(|_| OnceLock::new()).collect(),
            room: AtomicI64::new(i64::from(memory.decoded_mib) << 20),
        }
    }

    /// The file of the picture at `at`.
    pub(super) fn file(&self, at: RowAt) -> Result<ImageBytes> {
        let held = {
            let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
            encoded.get(&self.dataset, (at.shard, at.row_group))?
        };
        let file = held.get(at.row as usize).cloned();
        file.ok_or_else(|| Error::data(self.dataset.folder(), "has fewer pictures than it had"))
    }

    /// The picture with the number `index`, which lies at `at` and is named `path`.
    pub(super) fn decoded(&self, index: usize, at: RowAt, path: &str) -> Result<Arc<Decoded>> {
        if let Some(decoded) = self.decoded[index].get() {
            return Ok(Arc::clone(decoded));
        }
        let image = &self.preprocessing.image;
        let named = |error: diptych_model::Error| {
            Error::data(self.dataset.folder(), format!("picture `{path}`: {error}"))
        };
        let picture = decode(self.file(at)?.data(), &ImageLimits::default()).map_err(named)?;
        let mut larger = image.clone();
        larger.size = larger.size * DETAIL / 3;
        if let Fit::ScaleThenCrop { shorter } = &mut larger.fit {
            *shorter = (*shorter * DETAIL / 3).max(larger.size);
        }
        let decoded = Arc::new(Decoded {
            plain: image.to_square(&picture).map_err(named)?,
            detailed: larger.to_square(&picture).map_err(named)?,
        });
        let bytes = (decoded.plain.as_raw().len() + decoded.detailed.as_raw().len()) as i64;
        if self.room.fetch_sub(bytes, Ordering::Relaxed) >= bytes {
            // Another thread may have been quicker with the same picture; either copy will do.
            return Ok(Arc::clone(self.decoded[index].get_or_init(|| decoded)));
        }
        self.room.fetch_add(bytes, Ordering::Relaxed);
        Ok(decoded)
    }
}

impl Encoded {
    fn get(&mut self, dataset: &Dataset, key: (u32, u32)) -> Result<Arc<Vec<ImageBytes>>> {
        self.clock += 1;
        let last_used = self.clock;
        if let Some(held) = self.groups.get_mut(&key) {
            held.last_used = last_used;
            return Ok(Arc::clone(&held.pictures));
        }
        let pictures = Arc::new(dataset.image_bytes(key.0, key.1)?);
        let bytes = pictures.iter().map(ImageBytes::len).sum();
        while self.bytes + bytes > self.most {
            let oldest = self.groups.iter().min_by_key(|(_, held)| held.last_used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            self.bytes -= self.groups.remove(&oldest).map_or(0, |held| held.bytes);
        }
        self.bytes += bytes;
        self.groups.insert(key, Held { pictures: Arc::clone(&pictures), bytes, last_used });
        Ok(pictures)
    }
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pixels").field("dataset", &self.dataset.folder()).finish_non_exhaustive()
    }
}
