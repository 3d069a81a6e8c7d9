//! Activations that stand alone.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::{Arch, Simd, WithSimd};

use super::math::{Act, finish};
use super::{activate_composed, for_runs};
use crate::ops::real::{Real, elements, for_real, native, view};

/// Elements that one task handles.
const RUN: usize = 16 * 1024;

/// `act` of each element of `x`, with its gradient.
///
/// # Errors
/// If `x` is not of a float type.
pub fn activate(x: &Tensor, act: Act) -> Result<Tensor> {
    if !native(x) {
        return activate_composed(x, act);
    }
    x.contiguous()?.apply_op1(Activate(act))
}

struct Activate(Act);

impl Activate {
    fn gradient<T: Real>(&self, x: &[T], dy: &[T]) -> Vec<T> {
        let each = |(x, dy): (&T, &T)| *dy * T::from_f64(slope(self.0, x.to_f64()));
        x.iter().zip(dy).map(each).collect()
    }
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = if let CpuStorage::F64(_) = x {
            let each = |x: &f64| value(self.0, *x);
            CpuStorage::F64(elements::<f64>(x, layout)?.iter().map(each).collect())
        } else {
            let mut y = elements::<f32>(x, layout)?.to_vec();
            let arch = Arch::new();
            for_runs(&mut y, RUN, |_, y| arch.dispatch(Finish { act: self.0, y }));
            CpuStorage::F32(y)
        };
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "activate", T => {
            let dx = self.gradient::<T>(&view(x)?, &view(&dy)?);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}

struct Finish<'a> {
    act: Act,
    y: &'a mut [f32],
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        finish(simd, self.act, self.y, None);
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The factor of x³ and twice √(2/π): x (1 + tanh u) / 2 is x sigmoid(2 u).
const TANH: [f64; 2] = [0.044_715, 1.595_769_121_605_730_7];

/// act(x), as its definition says.
fn value(act: Act, x: f64) -> f64 {
    match act {
        Act::Identity => x,
        Act::Relu => x.max(0.0),
        Act::Relu6 => x.clamp(0.0, 6.0),
        Act::Silu => x * sigmoid(x),
        Act::Gelu => x * normal(x),
        Act::GeluTanh => x * sigmoid(TANH[1] * (x + TANH[0] * x.powi(3))),
        Act::QuickGelu => x * sigmoid(1.702 * x),
    }
}

/// The normal distribution.
fn normal(x: f64) -> f64 {
    0.5 * (1.0 + candle_core::cpu::erf::erf_f64(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// act'(x); 0 where a rectifier bends.
fn slope(act: Act, x: f64) -> f64 {
    let gated = |u: f64, du: f64| {
        let s = sigmoid(u);
        s + x * s * (1.0 - s) * du
    };
    match act {
        Act::Identity => 1.0,
        Act::Relu => f64::from(u8::from(x > 0.0)),
        Act::Relu6 => f64::from(u8::from(x > 0.0 && x < 6.0)),
        Act::Silu => gated(x, 1.0),
        Act::Gelu => {
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            normal(x) + x * density
        }
        Act::GeluTanh => {
            let u = TANH[1] * (x + TANH[0] * x.powi(3));
            gated(u, TANH[1] * (1.0 + 3.0 * TANH[0] * x * x))
        }
        Act::QuickGelu => gated(1.702 * x, 1.702),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::ops::gradcheck::{largest_error, values};

    const ALL: [Act; 7] =
        [Act::Identity, Act::Relu, Act::Relu6, Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn equals_the_definition(len in 1..70_usize, scale in 0.1..30.0_f64) {
            let x = (values(1, &[len]).unwrap() * scale).unwrap().to_dtype(DType::F32).unwrap();
            for act in ALL {
                let y = activate(&x, act).unwrap().to_vec1::<f32>().unwrap();
                for (x, y) in x.to_vec1::<f32>().unwrap().into_iter().zip(y) {
                    let expected = value(act, x.into());
                    let error = (f64::from(y) - expected).abs() / (1.0 + expected.abs());
                    prop_assert!(error < 1e-6, "{act:?} of {x}: {y}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn stays_finite_and_right_far_out() {
        let x = Tensor::new(
            &[-1e30_f32, -300.0, -90.0, 0.0, 90.0, 300.0, 1e30],
            &candle_core::Device::Cpu,
        );
        let x = x.unwrap();
        for act in ALL {
            for (x, y) in x
                .to_vec1::<f32>()
                .unwrap()
                .into_iter()
                .zip(activate(&x, act).unwrap().to_vec1::<f32>().unwrap())
            {
                let expected = match act {
                    Act::Identity => x,
                    Act::Relu6 => x.clamp(0.0, 6.0),
                    _ => x.max(0.0),
                };
                prop_close(y, expected, act);
            }
        }
    }

    fn prop_close(y: f32, expected: f32, act: Act) {
        assert!((y - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{act:?}: {y}, {expected}");
    }

    #[test]
    fn gradients_equal_differences() {
        for act in ALL {
            let x = (values(2, &[3, 40]).unwrap() * 7.0).unwrap();
            let error = largest_error(&[x], |t: &[Tensor]| activate(&t[0], act)).unwrap();
            assert!(error < 1e-7, "{act:?}: {error}");
        }
    }

    #[test]
    fn composed_is_the_same_function() {
        let x = (values(3, &[4, 33]).unwrap() * 5.0).unwrap();
        for act in ALL {
            let y = activate_composed(&x, act).unwrap().flatten_all().unwrap();
            let x = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (x, y) in x.into_iter().zip(y.to_vec1::<f64>().unwrap()) {
                assert!((y - value(act, x)).abs() < 1e-6, "{act:?} of {x}: {y}");
            }
        }
    }
}
