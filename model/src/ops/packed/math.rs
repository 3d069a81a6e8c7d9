//! Functions of vectors, and the activations that are fused into products.
//!
//! Polynomials in place of the C library's functions: a call per element would cost more than the
//! product that it follows. Errors are relative to f32 and stated at each.

use pulp::Simd;

/// What follows a product, a convolution or stands alone in [`super::activate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    #[default]
    Identity,
    /// max(0, x).
    Relu,
    /// min(max(0, x), 6).
    Relu6,
    /// x sigmoid(x).
    Silu,
    /// x Φ(x) with the normal distribution Φ, by the error function (Hendrycks and Gimpel 2016): BERT
    /// and ViT.
    Gelu,
    /// Its approximation by tanh (the same paper, eq. 2): SigLIP.
    GeluTanh,
    /// x sigmoid(1.702 x): CLIP as OpenAI trained it.
    QuickGelu,
}

impl Act {
    /// The bounds that are all there is to it, if so: the kernel applies them to its sums.
    pub(super) fn clamp(self) -> Option<[f32; 2]> {
        match self {
            Self::Relu => Some([0.0, f32::INFINITY]),
            Self::Relu6 => Some([0.0, 6.0]),
            Self::Identity | Self::Silu | Self::Gelu | Self::GeluTanh | Self::QuickGelu => None,
        }
    }

    /// Whether the kernel does it all, so that nothing is left for [`finish`].
    pub(super) fn in_kernel(self) -> bool {
        self == Self::Identity || self.clamp().is_some()
    }
}

/// Adding it to a number below 2²² rounds to an integer, which then stands in the lowest bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the first has so few bits that its products with exponents are exact.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Taylor coefficients of eˣ from x² on. On |x| <= ln 2 / 2 what is left out is below 1.3e-7.
const EXP: [f32; 5] = [0.5, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0];
/// Between these, eˣ and 2ⁿ on the way to it are normal numbers.
const EXP_RANGE: [f32; 2] = [-87.0, 88.0];

/// eˣ, x clamped to [-87, 88]; relative error below 4e-7.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let x = simd.min_f32s(simd.max_f32s(x, splat(EXP_RANGE[0])), splat(EXP_RANGE[1]));
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let exponent = simd.sub_f32s(shifted, splat(ROUND));
    let x = simd.mul_add_e_f32s(exponent, splat(-LN2[0]), x);
    let x = simd.mul_add_e_f32s(exponent, splat(-LN2[1]), x);
    let mut sum = splat(EXP[4]);
    for coefficient in EXP[..4].iter().rev() {
        sum = simd.mul_add_e_f32s(sum, x, splat(*coefficient));
    }
    let sum = simd.mul_add_e_f32s(simd.mul_f32s(sum, x), x, simd.add_f32s(x, splat(1.0)));
    // What ROUND left in the high bits is shifted out.
    let bits = simd.transmute_u32s_f32s(shifted);
    let bits = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23));
    let bits = simd.add_u32s(bits, simd.splat_u32s(1.0_f32.to_bits()));
    simd.mul_f32s(sum, simd.transmute_f32s_u32s(bits))
}

/// x sigmoid(factor x).
#[inline(always)]
fn gated<S: Simd>(simd: S, x: S::f32s, factor: S::f32s) -> S::f32s {
    let e = exp(simd, simd.neg_f32s(simd.mul_f32s(x, factor)));
    simd.div_f32s(x, simd.add_f32s(e, simd.splat_f32s(1.0)))
}

/// Abramowitz and Stegun 1964, 7.1.26: erf z = 1 - (a₁ t + ... + a₅ t⁵) e^(-z²) for z >= 0 with
/// t = 1 / (1 + p z), off by at most 1.5e-7.
const ERF_P: f32 = 0.327_591_1;
const ERF_A: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];

/// x Φ(x) = (x + |x| erf(|x| / √2)) / 2.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |value| simd.splat_f32s(value);
    let size = simd.abs_f32s(x);
    let z = simd.mul_f32s(size, splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div_f32s(splat(1.0), simd.mul_add_e_f32s(z, splat(ERF_P), splat(1.0)));
    let mut sum = splat(ERF_A[4]);
    for coefficient in ERF_A[..4].iter().rev() {
        sum = simd.mul_add_e_f32s(sum, t, splat(*coefficient));
    }
    let e = exp(simd, simd.neg_f32s(simd.mul_f32s(z, z)));
    let rest = simd.mul_f32s(simd.mul_f32s(sum, t), e);
    let erf = simd.sub_f32s(splat(1.0), rest);
    simd.mul_f32s(simd.mul_add_e_f32s(size, erf, x), splat(0.5))
}

/// √(2/π) and the cube's factor of the approximation by tanh.
const TANH: [f32; 2] = [0.797_884_6, 0.044_715];

/// x (1 + tanh u) / 2 = x sigmoid(2 u) with u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn gelu_tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let cubed = simd.mul_f32s(simd.mul_f32s(x, x), simd.splat_f32s(2.0 * TANH[0] * TANH[1]));
    let factor = simd.add_f32s(cubed, simd.splat_f32s(2.0 * TANH[0]));
    gated(simd, x, factor)
}

/// One vector through `act`.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, act: Act, x: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    match act {
        Act::Identity => x,
        Act::Relu => simd.max_f32s(x, zero),
        Act::Relu6 => simd.min_f32s(simd.max_f32s(x, zero), simd.splat_f32s(6.0)),
        Act::Silu => gated(simd, x, simd.splat_f32s(1.0)),
        Act::Gelu => gelu(simd, x),
        Act::GeluTanh => gelu_tanh(simd, x),
        Act::QuickGelu => gated(simd, x, simd.splat_f32s(1.702)),
    }
}

/// y = act(y + residual), in place.
#[inline(always)]
pub(super) fn finish<S: Simd>(simd: S, act: Act, y: &mut [f32], residual: Option<&[f32]>) {
    // The match stands outside of the loop: each loop has one activation.
    macro_rules! each {
        ($($variant:ident)*) => {
            match act {
                $(Act::$variant => finish_with(simd, y, residual, #[inline(always)] |x| {
                    activate(simd, Act::$variant, x)
                }),)*
            }
        };
    }
    each!(Identity Relu Relu6 Silu Gelu GeluTanh QuickGelu);
}

#[inline(always)]
fn finish_with<S: Simd>(
    simd: S,
    y: &mut [f32],
    residual: Option<&[f32]>,
    act: impl Fn(S::f32s) -> S::f32s,
) {
    let (y, y_rest) = S::as_mut_simd_f32s(y);
    if let Some(residual) = residual {
        let (residual, residual_rest) = S::as_simd_f32s(residual);
        for (y, residual) in y.iter_mut().zip(residual) {
            *y = act(simd.add_f32s(*y, *residual));
        }
        if !y_rest.is_empty() {
            let sum = simd.partial_load_f32s(y_rest);
            let sum = simd.add_f32s(sum, simd.partial_load_f32s(residual_rest));
            simd.partial_store_f32s(y_rest, act(sum));
        }
        return;
    }
    for y in y.iter_mut() {
        *y = act(*y);
    }
    if !y_rest.is_empty() {
        let last = act(simd.partial_load_f32s(y_rest));
        simd.partial_store_f32s(y_rest, last);
    }
}
