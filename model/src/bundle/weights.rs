//! Tensors by name in the safetensors format, as f32 or f16.

use std::borrow::Cow;
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View, serialize};
use serde::{Deserialize, Serialize};

use super::verify::damaged;
use crate::error::{Error, Result};

/// Longest header in bytes: the list of names, shapes and offsets.
const MAX_HEADER: u64 = 1 << 20;

/// How weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    /// 32 bits each.
    F32,
    /// 16 bits each for tensors of two and more axes, 32 for the few values of the others. A
    /// served model computes in f32 on the rounded values.
    #[default]
    F16,
}

/// The values of one tensor as they go into the file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The file of these tensors. The same tensors give the same bytes.
///
/// # Errors
/// [`Error::Invalid`] naming a tensor with a value that is not finite, or not as f16.
pub(super) fn encode(tensors: &BTreeMap<String, Tensor>, kind: WeightType) -> Result<Vec<u8>> {
    let mut stored = BTreeMap::new();
    for (name, tensor) in tensors {
        stored.insert(name.as_str(), store(name, tensor, kind)?);
    }
    serialize(&stored, None)
        .map_err(|error| Error::invalid("weights", format!("cannot be written: {error}")))
}

fn store(name: &str, tensor: &Tensor, kind: WeightType) -> Result<Stored> {
    let shape = tensor.dims().to_vec();
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let half = kind == WeightType::F16 && shape.len() >= 2;
    let finite =
        |value: f32| if half { f16::from_f32(value).is_finite() } else { value.is_finite() };
    if let Some(value) = values.iter().find(|value| !finite(**value)) {
        let message = format!("has the value {value}, which cannot be stored; train it again");
        return Err(Error::invalid(format!("weight {name}"), message));
    }
    let (dtype, bytes) = if half {
        (Dtype::F16, values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect())
    } else {
        (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    Ok(Stored { dtype, shape, bytes })
}

/// The tensors of a file as f32 on the CPU.
///
/// # Errors
/// [`Error::Corrupt`] naming `path` for a file that cannot be read, a type other than f16 and f32,
/// or a value that is not finite.
pub(super) fn decode(path: &str, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let header = bytes.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    if header > MAX_HEADER {
        return Err(damaged(path, "does not begin as a safetensors file"));
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| damaged(path, &format!("is not a safetensors file ({error})")))?;
    file.iter().map(|(name, view)| Ok((name.to_owned(), load(path, name, &view)?))).collect()
}

fn load(path: &str, name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    let values = match view.dtype() {
        Dtype::F32 => {
            view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        Dtype::F16 => {
            let halves: Vec<f16> = view
                .data()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| f16::from_le_bytes(*bytes))
                .collect();
            halves.to_f32_vec()
        }
        other => {
            let wrong = format!("has tensor `{name}` of type {other:?}, only F16 and F32 are read");
            return Err(damaged(path, &wrong));
        }
    };
    if !values.iter().all(|value| value.is_finite()) {
        return Err(damaged(path, &format!("has values in tensor `{name}` that are not finite")));
    }
    Ok(Tensor::from_vec(values, view.shape(), &Device::Cpu)?)
}
