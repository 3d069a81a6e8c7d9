//! What a walk compares: one byte per component, with a scale per row.

use super::{
    line::{LINE, Line, zeroed},
    simd::Simd,
};

/// Largest magnitude of a code.
pub(super) const TOP: f32 = 127.0;
/// Turns a signed code into the unsigned byte that is stored, and back.
pub(super) const FLIP: u8 = 0x80;

/// Covers the rounding of the sums themselves, and of vectors whose length is not quite 1.
const SURE: f32 = 1.001;

/// Codes of all points, each in whole lines, and their scales.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) lines: Vec<Line>,
    /// Value of a code of 1, per point.
    pub(super) scales: Vec<f32>,
    /// The largest of them.
    top_scale: f32,
    per_point: usize,
}

/// Lines of one point of `dims` components.
pub(super) fn lines_for(dims: usize) -> usize {
    dims.div_ceil(LINE).max(1)
}

/// The least scale at which the row's codes are within [`TOP`]. 0 for a row of zeros.
pub(super) fn scale_for(row: &[f32]) -> f32 {
    let top = row.iter().fold(0.0_f32, |top, &x| top.max(x.abs()));
    let scale = top / TOP;
    if scale * TOP < top { scale.next_up() } else { scale }
}

impl Codes {
    /// Zeros for so many points.
    pub(super) fn new(points: usize, dims: usize) -> Self {
        Self::from_parts(zeroed(points * lines_for(dims)), vec![0.0; points], dims)
    }

    pub(super) fn from_parts(lines: Vec<Line>, scales: Vec<f32>, dims: usize) -> Self {
        let top_scale = scales.iter().copied().fold(0.0, f32::max);
        Self { lines, scales, top_scale, per_point: lines_for(dims) }
    }

    /// How far the similarity of a target and any point may be from their dot product. Rounding to a
    /// byte moves each component by up to half a scale, evenly, so its variance is a twelfth of the
    /// scale's square; points have length 1.
    #[inline(always)]
    pub(super) fn margin(&self, target: &Target) -> f32 {
        let of_point = self.top_scale * target.norm;
        DEVIATIONS * ((of_point * of_point + target.scale * target.scale) / 12.0).sqrt()
    }

    #[inline(always)]
    pub(super) fn row(&self, point: u32) -> &[Line] {
        let from = point as usize * self.per_point;
        &self.lines[from..from + self.per_point]
    }

    pub(super) fn set_scale(&mut self, point: usize, scale: f32) {
        self.scales[point] = scale;
        self.top_scale = self.top_scale.max(scale);
    }

    pub(super) fn row_mut(&mut self, point: usize) -> &mut [Line] {
        let from = point * self.per_point;
        &mut self.lines[from..from + self.per_point]
    }

    pub(super) fn points(&self) -> usize {
        self.scales.len()
    }

    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, simd: S, point: u32) {
        for line in self.row(point) {
            simd.prefetch(line);
        }
    }

    /// What the dot product of the target's vector and a point does not exceed, if both are unit
    /// vectors: the product of the codes, what the target's rounding may take (Cauchy and Schwarz), and
    /// what the point's may, half a scale in each of `dims` components.
    #[inline(always)]
    pub(super) fn bound<S: Simd>(&self, simd: S, target: &Target, point: u32, dims: usize) -> f32 {
        let rounding = 0.5 * self.scales[point as usize] * (dims as f32).sqrt();
        let slack = target.lost + (1.0 + target.lost) * rounding;
        self.similarity(simd, target, point) + slack * SURE + f32::EPSILON
    }

    /// About the dot product of the target and a point.
    #[inline(always)]
    pub(super) fn similarity<S: Simd>(&self, simd: S, target: &Target, point: u32) -> f32 {
        let sum = simd.dot(&target.codes, self.row(point)) - target.bias;
        sum as f32 * target.scale * self.scales[point as usize]
    }
}

/// Deviations by which a similarity is taken to be off at most: one in a thousand million is more.
const DEVIATIONS: f32 = 6.0;

/// What points are compared with: signed codes, so that a sum of products with stored bytes is off
/// by a constant only.
#[derive(Debug, Default)]
pub(super) struct Target {
    codes: Vec<Line>,
    scale: f32,
    /// Length of the vector; 1 for a point.
    norm: f32,
    /// What the flips add to a sum: 128 times the sum of the codes.
    bias: i32,
    /// Length of what rounding took from a vector that is no point.
    lost: f32,
}

impl Target {
    /// A vector that is no point.
    #[inline(always)]
    pub(super) fn set_vector(&mut self, vector: &[f32]) {
        self.codes.clear();
        self.codes.resize(lines_for(vector.len()), Line([0; LINE]));
        self.scale = scale_for(vector);
        let inverse = if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 };
        self.norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let codes = bytemuck::cast_slice_mut::<Line, i8>(&mut self.codes);
        let mut lost = 0.0_f64;
        for (code, &x) in codes.iter_mut().zip(vector) {
            // Even at halves: one instruction, where away from zero is a call.
            *code = (x * inverse).round_ties_even().clamp(-TOP, TOP) as i8;
            lost += f64::from(x - f32::from(*code) * self.scale).powi(2);
        }
        self.lost = lost.sqrt() as f32;
        self.sum_up();
    }

    /// A point, whose bytes past its components are [`FLIP`]s.
    #[inline(always)]
    pub(super) fn set_point(&mut self, codes: &Codes, point: u32) {
        self.codes.clear();
        self.codes.extend(codes.row(point).iter().map(|line| Line(line.0.map(|byte| byte ^ FLIP))));
        self.scale = codes.scales[point as usize];
        self.norm = 1.0;
        self.sum_up();
    }

    #[inline(always)]
    fn sum_up(&mut self) {
        let codes = bytemuck::cast_slice::<Line, i8>(&self.codes);
        self.bias = 128 * codes.iter().map(|&code| i32::from(code)).sum::<i32>();
    }
}
