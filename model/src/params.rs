//! Named weights: one door for training and for serving.
//!
//! Networks ask for a weight by name and shape. In training the weight is made on the first ask,
//! from a generator seeded by the run's seed and the name, so that the values do not depend on the
//! order of asks, on threads or on process. In serving it comes from a file, and a name that is
//! missing, misshapen or left over is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, DeviceLocation, Tensor, Var};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::bundle::stored::StoredTensors;
use crate::error::{Error, Result};

/// How a weight starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All the same value.
    Const(f64),
    /// Normal around 0 with this standard deviation.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Normal with standard deviation sqrt(2 / fan_in): keeps the variance through a layer with
    /// ReLU (He et al. 2015, "Delving deep into rectifiers", eq. 10).
    Kaiming {
        /// Inputs of one output: channels x kernel area, or the input width.
        fan_in: usize,
    },
}

/// The weights of one model, by name.
#[derive(Debug)]
pub struct Params {
    source: Source,
    device: Device,
    dtype: DType,
    /// In place of what the device would have.
    compute_dtype: Option<DType>,
    /// Bytes of the given weights that were asked for.
    bytes: AtomicU64,
}

/// How many bits a value of a weight is given with.
#[derive(Clone, Copy, PartialEq)]
enum Width {
    /// Those of the weights' type.
    Full,
    /// Those that it has in its file, where layers can use them.
    AsStored,
}

#[derive(Debug)]
enum Source {
    /// Variables are made when asked for.
    Seeded { seed: u64, vars: Mutex<BTreeMap<String, Var>> },
    /// All weights are given; `asked` collects the names that were used.
    Given { tensors: BTreeMap<String, Tensor>, asked: Mutex<BTreeSet<String>> },
    /// As `Given`, but each lies in a file until it is asked for.
    Stored { tensors: Arc<StoredTensors>, asked: Mutex<BTreeSet<String>> },
}

/// A panic while holding the lock leaves the map as it was or with one entry more: still valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Params {
    /// Trainable f32 weights on `device`, made on first ask from `seed` and the name.
    pub fn seeded(seed: u64, device: &Device) -> Self {
        Self::new(Source::Seeded { seed, vars: Mutex::default() }, device)
    }

    /// Fixed weights for serving, converted to f32 on `device` when asked for.
    pub fn from_tensors(tensors: BTreeMap<String, Tensor>, device: &Device) -> Self {
        Self::new(Source::Given { tensors, asked: Mutex::default() }, device)
    }

    /// Fixed weights for serving, each read from its file when it is asked for, as f32 on `device`.
    pub fn from_stored(tensors: Arc<StoredTensors>, device: &Device) -> Self {
        Self::new(Source::Stored { tensors, asked: Mutex::default() }, device)
    }

    fn new(source: Source, device: &Device) -> Self {
        Self {
            source,
            device: device.clone(),
            dtype: DType::F32,
            compute_dtype: None,
            bytes: AtomicU64::new(0),
        }
    }

    /// The same weights in `dtype`: F64 for numeric gradients, F32 for everything else.
    #[must_use]
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Towers that compute in `dtype`, whatever the device: F32 to compare CUDA with the CPU, half
    /// precision to see on the CPU what CUDA does.
    #[must_use]
    pub fn with_compute_dtype(mut self, dtype: DType) -> Self {
        self.compute_dtype = Some(dtype);
        self
    }

    /// The device that the weights lie on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type of the weights.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The type that towers compute in: bf16 on CUDA, elsewhere that of the weights. Weights and their
    /// gradients keep [`Self::dtype`], and so does all that comes behind the towers.
    pub fn compute_dtype(&self) -> DType {
        self.compute_dtype.unwrap_or_else(|| compute_dtype(self.device.location(), self.dtype))
    }

    /// Whether the weights stay as they are and are computed with as they are, in f32 on the CPU: layers
    /// may then prepare them once.
    pub(crate) fn fixed(&self) -> bool {
        let given = !matches!(self.source, Source::Seeded { .. });
        given && self.device.is_cpu() && [self.dtype, self.compute_dtype()] == [DType::F32; 2]
    }

    /// The weight `name` of `shape`. `init` matters only where the weight is made here.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a given weight is missing or has another shape, [`Error::Invalid`] if
    /// one name is asked for with two shapes.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.weight((name, shape), init, Width::Full)
    }

    /// [`Params::get`], but a weight that lies in a file in half precision stays so on the CPU: for
    /// layers that widen it where they use it.
    ///
    /// # Errors
    /// As [`Params::get`].
    pub fn get_as_stored(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.weight((name, shape), init, Width::AsStored)
    }

    fn weight(&self, (name, shape): (&str, &[usize]), init: Init, width: Width) -> Result<Tensor> {
        match &self.source {
            Source::Seeded { seed, vars } => {
                let mut vars = lock(vars);
                if let Some(var) = vars.get(name) {
                    if var.dims() != shape {
                        let message = format!("shape {shape:?}, but it has {:?}", var.dims());
                        return Err(Error::invalid(name, message));
                    }
                    return Ok(var.as_tensor().clone());
                }
                let values = draw(*seed, name, shape.iter().product(), init);
                let values = Tensor::from_vec(values, shape, &self.device)?;
                let var = Var::from_tensor(&values.to_dtype(self.dtype)?)?;
                let tensor = var.as_tensor().clone();
                vars.insert(name.to_owned(), var);
                Ok(tensor)
            }
            Source::Given { tensors, asked } => {
                self.given(tensors.get(name).cloned(), (name, shape, width), asked)
            }
            Source::Stored { tensors, asked } => {
                // Compared before it is read: a header may promise any size.
                if let Some(stored) = tensors.shape(name).filter(|stored| *stored != shape) {
                    return Err(misshapen(name, stored, shape));
                }
                self.given(tensors.read_as_stored(name)?, (name, shape, width), asked)
            }
        }
    }

    /// A weight from elsewhere, noted as asked for.
    fn given(
        &self,
        tensor: Option<Tensor>,
        (name, shape, width): (&str, &[usize], Width),
        asked: &Mutex<BTreeSet<String>>,
    ) -> Result<Tensor> {
        let tensor = tensor.ok_or_else(|| Error::corrupt(name, "the weight is missing"))?;
        if tensor.dims() != shape {
            return Err(misshapen(name, tensor.dims(), shape));
        }
        let half = width == Width::AsStored && tensor.dtype() == DType::F16 && self.device.is_cpu();
        let dtype = if half { DType::F16 } else { self.dtype };
        if lock(asked).insert(name.to_owned()) {
            let bytes = tensor.elem_count() * dtype.size_in_bytes();
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(tensor.to_device(&self.device)?.to_dtype(dtype)?.contiguous()?)
    }

    /// Bytes that the given weights asked for so far take in memory, without what networks make of them; 0 of trainable ones.
    pub fn given_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Checks that every given weight was asked for. Call it once the model is built.
    ///
    /// # Errors
    /// [`Error::Corrupt`] that names the first weight which no part of the model wants.
    pub fn finish(&self) -> Result<()> {
        let unused = match &self.source {
            Source::Seeded { .. } => None,
            Source::Given { tensors, asked } => {
                let asked = lock(asked);
                tensors.keys().find(|name| !asked.contains(*name)).cloned()
            }
            Source::Stored { tensors, asked } => {
                let asked = lock(asked);
                tensors.names().find(|name| !asked.contains(*name)).map(str::to_owned)
            }
        };
        match unused {
            Some(name) => Err(Error::corrupt(name, "no part of the model uses this weight")),
            None => Ok(()),
        }
    }

    /// The trainable variables made so far, in name order; empty for given weights.
    pub fn vars(&self) -> BTreeMap<String, Var> {
        match &self.source {
            Source::Seeded { vars, .. } => lock(vars).clone(),
            Source::Given { .. } | Source::Stored { .. } => BTreeMap::new(),
        }
    }

    /// The current values of all weights, in name order. They do not follow later updates.
    ///
    /// # Errors
    /// [`Error::Tensor`] if a copy cannot be made.
    pub fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        match &self.source {
            Source::Seeded { vars, .. } => lock(vars)
                .iter()
                .map(|(name, var)| Ok((name.clone(), var.as_tensor().detach().copy()?)))
                .collect(),
            Source::Given { tensors, .. } => Ok(tensors.clone()),
            Source::Stored { tensors, .. } => tensors.all(),
        }
    }
}

fn misshapen(name: &str, found: &[usize], expected: &[usize]) -> Error {
    Error::corrupt(name, format!("shape {found:?}, expected {expected:?}"))
}

/// Bf16 has the range of f32, so that losses need no scaling, and CUDA devices multiply it many times
/// as fast. Weights of another type than f32 are there for their precision.
fn compute_dtype(place: DeviceLocation, weights: DType) -> DType {
    match (place, weights) {
        (DeviceLocation::Cuda { .. }, DType::F32) => DType::BF16,
        _ => weights,
    }
}

/// A generator that depends on `seed` and `name` alone: ChaCha8 keyed by SHA-256 of both.
pub fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

fn draw(seed: u64, name: &str, count: usize, init: Init) -> Vec<f64> {
    let std = match init {
        Init::Zeros => return vec![0.0; count],
        Init::Ones => return vec![1.0; count],
        Init::Const(value) => return vec![value; count],
        Init::Normal { std } => std,
        Init::Kaiming { fan_in } => (2.0 / fan_in.max(1) as f64).sqrt(),
    };
    let mut generator = generator(seed, name);
    (0..count).map(|_| std * standard_normal(&mut generator)).collect()
}

/// One draw from N(0, 1) by the Box-Muller transform; the second of the pair is not kept, so that
/// the i-th value depends on i alone.
fn standard_normal(generator: &mut ChaCha8Rng) -> f64 {
    // 53 random bits give a uniform value; adding half a step keeps the logarithm finite.
    let mut uniform = || ((generator.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
}

#[cfg(test)]
mod tests;
