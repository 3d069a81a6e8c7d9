//! The arithmetic of one AdamW update, in place and on all threads.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp2, Layout, Storage, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// Elements that one task handles. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// What an update multiplies with; the same for every element of a variable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constants {
    /// Clipping: what the gradient is multiplied with.
    pub(super) gradient_scale: f32,
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    /// 1 - beta1 and 1 - beta2, rounded once: in f32 the second would be off by 5e-5 of itself.
    pub(super) rest1: f32,
    pub(super) rest2: f32,
    /// Learning rate over the bias correction of the first moment.
    pub(super) step: f32,
    /// Square root of the bias correction of the second moment.
    pub(super) root_correction: f32,
    pub(super) epsilon: f32,
    /// What weight decay leaves of the value.
    pub(super) keep: f32,
}

struct Update<'a> {
    // The operation is called once, through a shared reference, and must change the moments.
    moments: RefCell<(&'a mut [f32], &'a mut [f32])>,
    constants: Constants,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        values: &mut CpuStorage,
        values_at: &Layout,
        gradient: &CpuStorage,
        gradient_at: &Layout,
    ) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = values else {
            candle_core::bail!("adamw updates f32 variables only");
        };
        let Some((from, to)) = values_at.contiguous_offsets() else {
            candle_core::bail!("adamw needs a contiguous variable");
        };
        let gradient = slice(gradient, gradient_at)?;
        let mut moments = self.moments.borrow_mut();
        let (first, second) = &mut *moments;
        let constants = self.constants;
        values[from..to]
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .for_each(|(((value, gradient), first), second)| {
                update_chunk(value, gradient, (first, second), constants);
            });
        Ok(())
    }
}

fn update_chunk(
    values: &mut [f32],
    gradients: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
    constants: Constants,
) {
    let Constants { gradient_scale, beta1, beta2, rest1, rest2, .. } = constants;
    let Constants { step, root_correction, epsilon, keep, .. } = constants;
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((value, gradient), (first, second)) in values.iter_mut().zip(gradients).zip(moments) {
        let gradient = gradient * gradient_scale;
        *first = beta1 * *first + rest1 * gradient;
        *second = beta2 * *second + rest2 * gradient * gradient;
        let root = second.sqrt() / root_correction + epsilon;
        *value = *value * keep - step * *first / root;
    }
}

/// Updates `variable` in place with `gradient` (same shape, f32).
pub(super) fn apply(
    variable: &Tensor,
    gradient: &Tensor,
    moments: (&mut [f32], &mut [f32]),
    constants: Constants,
) -> Result<()> {
    let update = Update { moments: RefCell::new(moments), constants };
    variable.inplace_op2(&gradient.contiguous()?, &update)?;
    Ok(())
}

/// The sum of squares, f64, the same for any number of threads.
pub(super) fn square_sum(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("the optimizer runs on the CPU".into()).into());
    };
    let sums: Vec<f64> = slice(storage, layout)?
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
        .collect();
    Ok(sums.iter().sum())
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else {
        candle_core::bail!("the optimizer takes f32 gradients only");
    };
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&values[from..to]),
        None => candle_core::bail!("the optimizer needs a contiguous tensor"),
    }
}
