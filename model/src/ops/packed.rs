//! Operations of frozen towers: weights packed once at load, bias, residual and activation fused.
//!
//! For inference. Products and convolutions have no gradient and say so when one is asked for; the
//! operations without weights ([`activate`], [`softmax`], [`max_pool`], [`normalize`]) have theirs.
//! A tower holds packed layers and calls them in turn:
//!
//! ```
//! # use candle_core::{DType, Device, Tensor};
//! # use diptych_model::ops::packed::{Act, Linear, Mask, attention, normalize};
//! # fn main() -> candle_core::Result<()> {
//! # let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
//! # let (weight, bias, x) = (zeros(&[24, 8])?, zeros(&[24])?, zeros(&[2, 5, 8])?);
//! # let (out, scale, shift) = (zeros(&[8, 8])?, zeros(&[8])?, zeros(&[8])?);
//! let qkv = Linear::packed(&weight, Some(&bias), Act::Identity)?; // once, at load
//! let out = Linear::packed(&out, None, Act::Identity)?;
//!
//! let normal = normalize(&x, &scale, &shift, 1e-5)?; // (B, S, D)
//! let parts = qkv.forward(&normal)?; // (B, S, 3 D)
//! let part = |i: usize| parts.narrow(2, i * 8, 8); // read where they lie, not copied
//! let mixed = attention(&part(0)?, &part(1)?, &part(2)?, 2, Mask::None)?;
//! let x = out.forward_onto(&mixed, &x)?; // plus the residual
//! # assert_eq!(x.dims(), [2, 5, 8]);
//! # Ok(())
//! # }
//! ```
//!
//! Pictures are laid out channels last, (B, H, W, C), from [`Conv`] to [`Depthwise`] and
//! [`max_pool`]; weights are given as the ecosystem stores them, (O, C, kh, kw).
//!
//! On the CPU everything is in f32 and runs on the current rayon pool; every row is the same to the
//! bit on any number of threads and in any batch. On other devices the same calls are composed
//! from candle's operations, in the type of their input.
//!
//! | file | what |
//! |---|---|
//! | `panels` | packed weights, f32 or f16 |
//! | `tile` | the kernel: a dozen rows times a panel |
//! | `product` | blocks for caches, tasks for threads |
//! | `math` | exponential, error function and the activations made of them |
//! | `linear`, `conv`, `depthwise` | layers with weights |
//! | `direct` | convolution over lines of a padded picture |
//! | `winograd` | convolution of 3 x 3 with fewer multiplications |
//! | `attention`, `softmax`, `normalize`, `activate`, `pool` | operations without |
//! | `picture` | channels put last, the mean over positions |
//! | `attentive` | threads kept awake between layers |
//! | `window` | strides and padding of what moves over pictures |

mod activate;
mod attention;
mod attentive;
mod conv;
mod depthwise;
mod direct;
mod linear;
mod math;
mod normalize;
mod onto;
mod panels;
mod picture;
mod pool;
mod product;
mod softmax;
mod tile;
mod window;
mod winograd;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;

pub use activate::activate;
pub use attention::{Mask, attention};
pub use attentive::attentive;
pub use conv::Conv;
pub use depthwise::Depthwise;
pub use linear::Linear;
pub use math::Act;
pub use normalize::normalize;
pub use picture::{channels_last, mean};
pub use pool::max_pool;
pub use softmax::softmax;
pub use window::Window;

/// Weights as an operation holds them.
#[derive(Debug)]
enum Frozen<P> {
    /// For our kernels, on the CPU.
    Packed(Arc<P>),
    /// For candle's, elsewhere.
    Tensors { weight: Tensor, bias: Option<Tensor> },
}

/// Packs weights that are on the CPU: `pack` receives their elements in f32, the bias, and whether
/// they came in f16.
fn frozen<P>(
    weight: &Tensor,
    bias: Option<&Tensor>,
    pack: impl FnOnce(&[f32], Option<&[f32]>, bool) -> P,
) -> Result<Frozen<P>> {
    if !weight.device().is_cpu() {
        return Ok(Frozen::Tensors { weight: weight.detach(), bias: bias.map(Tensor::detach) });
    }
    let half = weight.dtype() == DType::F16;
    let list = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    let bias = bias.map(list).transpose()?;
    Ok(Frozen::Packed(Arc::new(pack(&list(weight)?, bias.as_deref(), half))))
}

/// Refuses what packed weights cannot multiply.
fn on_cpu(x: &Tensor, op: &'static str) -> Result<()> {
    if !x.device().is_cpu() || x.dtype() != DType::F32 {
        candle_core::bail!(
            "{op}: weights were packed for f32 on the CPU, the input is {:?} on {:?}",
            x.dtype(),
            x.device().location()
        );
    }
    Ok(())
}

/// The answer of every operation with packed weights to a backward pass.
fn no_gradient<T>(op: &'static str) -> Result<T> {
    candle_core::bail!(
        "{op}: packed weights are frozen and have no gradient; detach what comes before them"
    )
}

/// `act` from candle's operations.
fn activate_composed(x: &Tensor, act: Act) -> Result<Tensor> {
    let gated = |factor: f64| {
        let e = (x * -factor)?.exp()?;
        x / (e + 1.0)?
    };
    match act {
        Act::Identity => Ok(x.clone()),
        Act::Relu => crate::ops::relu(x),
        Act::Relu6 => crate::ops::relu(x)?.minimum(6.0),
        Act::Silu => gated(1.0),
        Act::Gelu => x.gelu_erf(),
        Act::GeluTanh => x.gelu(),
        Act::QuickGelu => gated(1.702),
    }
}

/// Calls `each` with the index of each run of `run` elements and the run, on several threads where
/// there is more than one run.
fn for_runs<T: Send>(y: &mut [T], run: usize, each: impl Fn(usize, &mut [T]) + Sync) {
    if y.len() <= run || rayon::current_num_threads() == 1 {
        y.chunks_mut(run).enumerate().for_each(|(index, y)| each(index, y));
    } else {
        y.par_chunks_mut(run).enumerate().for_each(|(index, y)| each(index, y));
    }
}
