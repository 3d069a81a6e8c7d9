//! The arithmetic of one AdamW update: on the CPU in place and on all threads, on other devices from
//! candle's operations. Both are the same formula in the same order, in f32.

use std::cell::RefCell;

use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Storage, Tensor, Var};
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

/// Updates `variable`, which is on the CPU, in place with `gradient` (same shape, f32).
pub(super) fn in_place(
    variable: &Tensor,
    gradient: &Tensor,
    moments: (&mut [f32], &mut [f32]),
    constants: Constants,
) -> Result<()> {
    let update = Update { moments: RefCell::new(moments), constants };
    variable.inplace_op2(&gradient.contiguous()?, &update)?;
    Ok(())
}

/// Updates `variable`, wherever it is, with `gradient` (same shape, f32, on the same device).
pub(super) fn composed(
    variable: &Var,
    gradient: &Tensor,
    (first, second): (&mut Tensor, &mut Tensor),
    constants: Constants,
) -> Result<()> {
    let scaled = |tensor: &Tensor, factor: f32| tensor.affine(f64::from(factor), 0.0);
    let Constants { gradient_scale, beta1, beta2, rest1, rest2, .. } = constants;
    let Constants { step, root_correction, epsilon, keep, .. } = constants;
    // Detached, so that no graph grows from step to step.
    let gradient = scaled(&gradient.detach(), gradient_scale)?;
    *first = (scaled(first, beta1)? + scaled(&gradient, rest1)?)?;
    *second = (scaled(second, beta2)? + (scaled(&gradient, rest2)? * &gradient)?)?;
    let root = (second.sqrt()? / f64::from(root_correction))?;
    let change = (scaled(first, step)? / (root + f64::from(epsilon))?)?;
    variable.set(&(scaled(&variable.as_detached_tensor(), keep)? - change)?)?;
    Ok(())
}

/// The sum of the squares of all elements of some f32 tensors of one device; the same for any number
/// of threads.
pub(super) fn square_sum(tensors: &[&Tensor]) -> Result<f64> {
    match tensors.first() {
        None => Ok(0.0),
        Some(tensor) if tensor.device().is_cpu() => {
            tensors.iter().map(|tensor| square_sum_on_cpu(tensor)).sum()
        }
        Some(_) => square_sum_composed(tensors),
    }
}

/// Reads from the device once: each read waits for all that was asked of it before.
fn square_sum_composed(tensors: &[&Tensor]) -> Result<f64> {
    let square_sum = |tensor: &&Tensor| tensor.to_dtype(DType::F64)?.sqr()?.sum_all();
    let sums: Vec<Tensor> = tensors.iter().map(square_sum).collect::<candle_core::Result<_>>()?;
    Ok(Tensor::stack(&sums, 0)?.sum_all()?.to_scalar()?)
}

fn square_sum_on_cpu(tensor: &Tensor) -> Result<f64> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("the gradients are on several devices".into()).into());
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, Var};

    use super::*;

    const CONSTANTS: Constants = Constants {
        gradient_scale: 0.7,
        beta1: 0.9,
        beta2: 0.999,
        rest1: 0.1,
        rest2: 0.001,
        step: 0.003,
        root_correction: 0.04,
        epsilon: 1e-8,
        keep: 0.999,
    };

    /// Values of both signs over six powers of ten, and a zero.
    fn spread(count: usize, phase: f32) -> Vec<f32> {
        let value = |at: usize| (at as f32 * 0.37 + phase).sin() * 10_f32.powi(at as i32 % 7 - 4);
        (0..count).map(|at| if at == 3 { 0.0 } else { value(at) }).collect()
    }

    /// Relative to `a`, or to `least` where that is more.
    fn largest_difference(a: &[f32], b: &[f32], least: f32) -> f32 {
        let relative = |(a, b): (&f32, &f32)| (a - b).abs() / a.abs().max(least);
        a.iter().zip(b).map(relative).fold(0.0, f32::max)
    }

    #[test]
    fn the_composition_gives_the_numbers_of_the_update_in_place() {
        let count = 1_000;
        let var = || {
            let values = Tensor::from_vec(spread(count, 1.0), (20, 50), &Device::Cpu).unwrap();
            Var::from_tensor(&values).unwrap()
        };
        let (in_place_var, composed_var) = (var(), var());
        let (mut first, mut second) = (vec![0.0; count], vec![0.0; count]);
        let mut moments = [(); 2].map(|()| composed_var.zeros_like().unwrap());
        for step in 0..5 {
            let gradient = spread(count, step as f32 * 0.2);
            let gradient = Tensor::from_vec(gradient, (20, 50), &Device::Cpu).unwrap();
            let slices = (&mut first[..], &mut second[..]);
            in_place(in_place_var.as_tensor(), &gradient, slices, CONSTANTS).unwrap();
            let [first, second] = &mut moments;
            composed(&composed_var, &gradient, (first, second), CONSTANTS).unwrap();
        }
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // A value that is smaller than a step is a difference of larger ones, with their rounding.
        for (name, expected, composed, least) in [
            ("value", flat(&in_place_var), flat(&composed_var), CONSTANTS.step),
            ("first", first, flat(&moments[0]), f32::MIN_POSITIVE),
            ("second", second, flat(&moments[1]), f32::MIN_POSITIVE),
        ] {
            let difference = largest_difference(&expected, &composed, least);
            assert!(difference <= 1e-6, "{name}: {difference}");
        }
    }

    #[test]
    fn the_sum_of_squares_is_the_same_composed_and_over_several_tensors() {
        let tensors = [(3, 0.1), (70_000, 0.2), (1, 0.3)].map(|(count, phase)| {
            Tensor::from_vec(spread(count, phase), count, &Device::Cpu).unwrap()
        });
        let all: Vec<&Tensor> = tensors.iter().collect();
        let ours = square_sum(&all).unwrap();
        let apart: f64 = all.iter().map(|tensor| square_sum(&[tensor]).unwrap()).sum();
        let composed = square_sum_composed(&all).unwrap();
        assert!((ours - apart).abs() <= 1e-12 * ours && (ours - composed).abs() <= 1e-12 * ours);
        assert_eq!(square_sum(&[]).unwrap(), 0.0);
    }
}
