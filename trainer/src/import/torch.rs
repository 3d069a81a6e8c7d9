//! Weights as `torch.save` writes them: a pickle of descriptions, and the bytes of each storage.
//!
//! - `zipped`: in a zip file, since version 1.6
//! - `bare`: one behind the other, before that

mod bare;
mod zipped;

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _};
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::Weights;
use super::pickle::{self, Heap, Kind, Value, View};
use crate::error::{Error, Result};

/// Most bytes of all tensors together, as a multiple of the file's: two names may share a storage, a thousand may not.
const SHARING: u64 = 4;
/// Keys under which checkpoints of training keep the weights.
const NESTED: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "net"];
/// What data parallel training puts before each name.
const PARALLEL: &str = "module.";

/// Whether a file that begins so is one that [`read`] takes.
pub(super) fn is_torch(start: &[u8]) -> bool {
    start.starts_with(zipped::MAGIC) || start.starts_with(bare::MAGIC)
}

/// Every tensor of numbers with a fraction, by name. Whole numbers are counters and indices, and are left out.
///
/// # Errors
/// If the file is none of `torch.save`, names anything that is no tensor, or contradicts itself.
pub(super) fn read(path: &Path) -> Result<Weights> {
    let failed = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut start = Vec::new();
    file.by_ref().take(8).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut file = BufReader::new(file);
    if start.starts_with(zipped::MAGIC) {
        let mut archive =
            zipped::Archive::open(file).map_err(|told| Error::checkpoint(path, told))?;
        let described = archive.described().map_err(|told| Error::checkpoint(path, told))?;
        let (heap, top, _) =
            pickle::read(&described).map_err(|told| Error::checkpoint(path, told))?;
        return assemble((path, length), (&heap, top), |view| archive.storage(view));
    }
    let described =
        bare::Described::read(&mut file).map_err(|told| Error::checkpoint(path, told))?;
    let (heap, top) = (&described.heap, described.top);
    assemble((path, length), (heap, top), |view| described.storage(&mut file, view))
}

/// The tensors of a described dict, with the bytes of a view's storage as `storage` gives them.
fn assemble(
    (path, length): (&Path, u64),
    (heap, top): (&Heap, Value),
    mut storage: impl FnMut(&View) -> std::result::Result<Vec<u8>, String>,
) -> Result<Weights> {
    let named = state_dict(heap, top).map_err(|told| Error::checkpoint(path, told))?;
    let mut weights = Weights::new();
    let mut bytes = 0;
    for (name, view) in named {
        let told = |message: String| Error::checkpoint(path, format!("{name}: {message}"));
        let Some(dtype) = dtype(view.kind) else { continue };
        bytes += check(view).map_err(told)?;
        if bytes > length.saturating_mul(SHARING) {
            return Err(told(format!(
                "tensors take more than {SHARING} times the bytes of the file"
            )));
        }
        let dense = gather(view, &storage(view).map_err(told)?);
        weights.insert(
            name.clone(),
            Tensor::from_raw_buffer(&dense, dtype, &view.shape, &Device::Cpu)?,
        );
    }
    if weights.is_empty() {
        return Err(Error::checkpoint(path, "holds no tensors with fractions"));
    }
    Ok(weights)
}

/// The names and views of the dict that holds tensors: the outermost, or one that it has under a usual key.
fn state_dict(heap: &Heap, top: Value) -> std::result::Result<Vec<(String, &View)>, String> {
    let pairs = heap.dict(top).ok_or("holds something else than a dict of tensors")?;
    let mut found = tensors(heap, pairs);
    if found.is_empty() {
        let nested = NESTED.iter().filter_map(|key| {
            let (_, value) = pairs.iter().find(|(name, _)| heap.text(*name) == Some(key))?;
            Some(tensors(heap, heap.dict(*value)?))
        });
        found = nested.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    }
    if found.is_empty() {
        return Err(format!(
            "holds no dict of tensors, neither itself nor under one of {NESTED:?}"
        ));
    }
    if found.iter().all(|(name, _)| name.starts_with(PARALLEL)) {
        found.iter_mut().for_each(|(name, _)| *name = name[PARALLEL.len()..].to_owned());
    }
    Ok(found)
}

fn tensors<'a>(heap: &'a Heap, pairs: &[(Value, Value)]) -> Vec<(String, &'a View)> {
    let named = pairs.iter();
    named
        .filter_map(|(name, value)| Some((heap.text(*name)?.to_owned(), heap.tensor(*value)?)))
        .collect()
}

fn dtype(kind: Kind) -> Option<DType> {
    match kind {
        Kind::F64 => Some(DType::F64),
        Kind::F32 => Some(DType::F32),
        Kind::F16 => Some(DType::F16),
        Kind::BF16 => Some(DType::BF16),
        Kind::Whole(_) => None,
    }
}

/// Bytes of a view, if it stays within its storage and repeats no element.
fn check(view: &View) -> std::result::Result<u64, String> {
    let too_large = || "is larger than can be".to_owned();
    let elements = view
        .shape
        .iter()
        .try_fold(1_usize, |all, axis| all.checked_mul(*axis))
        .ok_or_else(too_large)?;
    if elements > view.elements {
        return Err(format!("has {elements} elements, its storage {}", view.elements));
    }
    if elements > 0 {
        let steps =
            view.shape.iter().zip(&view.strides).try_fold(view.offset, |end, (axis, stride)| {
                end.checked_add((axis - 1).checked_mul(*stride)?)
            });
        if steps.ok_or_else(too_large)? >= view.elements {
            return Err("reaches beyond the end of its storage".to_owned());
        }
    }
    view.elements.checked_mul(view.kind.size()).ok_or_else(too_large)?;
    Ok((elements * view.kind.size()) as u64)
}

/// The elements of a checked view in the order of its indices, the last axis fastest, whatever the order of its storage.
fn gather(view: &View, storage: &[u8]) -> Vec<u8> {
    let size = view.kind.size();
    let elements: usize = view.shape.iter().product();
    let mut dense = Vec::with_capacity(elements * size);
    let mut index = vec![0; view.shape.len()];
    let mut place = view.offset;
    for _ in 0..elements {
        dense.extend_from_slice(&storage[place * size..][..size]);
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            // A stride of an axis with one index is never used, and may be anything.
            place = place.wrapping_add(view.strides[axis]);
            if index[axis] < view.shape[axis] {
                break;
            }
            place = place.wrapping_sub(view.strides[axis].wrapping_mul(view.shape[axis]));
            index[axis] = 0;
        }
    }
    dense
}

#[cfg(test)]
mod tests;
