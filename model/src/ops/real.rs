//! The two float types that the CPU operations compute in, and access to tensors as slices of them.

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, Tensor, WithDType};

/// f32, or f64 for numeric gradients.
pub(super) trait Real: WithDType {
    /// Square root.
    fn root(self) -> Self;
}

impl Real for f32 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// Whether the operations of our own compute `x`; other devices and types get a composition.
pub(super) fn native(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// `x` in f32 if it is in half precision, else as it is. A sum of a few thousand elements in bf16
/// or f16 stands still once it outgrows them.
///
/// # Errors
/// If the device refuses.
pub fn widen(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::BF16 | DType::F16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// The elements of a contiguous tensor on the CPU, as a custom operation's forward receives them.
pub(super) fn elements<'a, T: Real>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let all = T::cpu_storage_as_slice(storage)?;
    let (start, end) =
        layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "model::ops" })?;
    Ok(&all[start..end])
}

/// Read access to a contiguous tensor on the CPU: dereferences to its elements in row-major order.
pub(super) struct View<G, T> {
    guard: G,
    range: Range<usize>,
    real: PhantomData<T>,
}

/// Fails unless `tensor` is contiguous, on the CPU and of type `T`.
pub(super) fn view<T: Real>(
    tensor: &Tensor,
) -> Result<View<impl Deref<Target = Storage> + use<'_, T>, T>> {
    let (guard, layout) = tensor.storage_and_layout();
    let (start, end) =
        layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "model::ops" })?;
    let Storage::Cpu(cpu) = &*guard else {
        candle_core::bail!("model::ops: the tensor is not on the CPU");
    };
    // Checks the type once, so that `deref` need not answer a result.
    T::cpu_storage_as_slice(cpu)?;
    Ok(View { guard, range: start..end, real: PhantomData })
}

impl<G: Deref<Target = Storage>, T: Real> Deref for View<G, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &*self.guard {
            Storage::Cpu(cpu) => {
                T::cpu_storage_as_slice(cpu).map_or(&[], |all| &all[self.range.clone()])
            }
            Storage::Cuda(_) | Storage::Metal(_) => &[],
        }
    }
}

/// Calls a generic function with the float type that a storage or tensor has.
macro_rules! for_real {
    ($dtype:expr, $op:literal, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            dtype => Err(candle_core::Error::UnsupportedDTypeForOp(dtype, $op)),
        }
    };
}
pub(super) use for_real;
