//! Weights of a product as its kernel reads them: columns in panels of 32, packed once.

use half::f16;
use pulp::Arch;

/// Columns of a panel: two vectors of AVX-512, four of AVX2. The last panel of a matrix has half as
/// many where that is enough.
pub(super) const PANEL: usize = 32;
/// Depth that is multiplied at a time: a panel this deep and a dozen rows of the other factor share
/// a first-level cache of 48 KiB.
pub(super) const DEPTH: usize = 320;

/// A cache line of numbers, so that no load of a vector crosses one.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line<T, const N: usize>(pub(super) [T; N]);

/// A buffer whose elements begin on a cache line.
#[derive(Clone, Debug, Default)]
pub(super) struct Aligned {
    lines: Vec<Line<f32, 16>>,
}

impl Aligned {
    /// Makes room for `len` elements; what they hold is of no meaning.
    pub(super) fn resize(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; 16]));
        }
        &mut self.as_mut()[..len]
    }

    pub(super) fn as_mut(&mut self) -> &mut [f32] {
        as_flat_mut(&mut self.lines)
    }
}

fn as_flat<T, const N: usize>(lines: &[Line<T, N>]) -> &[T] {
    // SAFETY: a `Line` of 16 f32 or 32 f16 is 64 bytes in C layout: an array and no padding, so
    // that lines in a row are elements in a row.
    #[expect(unsafe_code, reason = "the standard library flattens arrays, not aligned ones")]
    unsafe {
        std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * N)
    }
}

fn as_flat_mut<T, const N: usize>(lines: &mut [Line<T, N>]) -> &mut [T] {
    // SAFETY: as in `as_flat`; the borrow is exclusive.
    #[expect(unsafe_code, reason = "the standard library flattens arrays, not aligned ones")]
    unsafe {
        std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * N)
    }
}

#[derive(Debug)]
enum Elements {
    F32(Vec<Line<f32, 16>>),
    F16(Vec<Line<f16, 32>>),
}

/// The right factor of a product, (depth, columns), and the bias that is added to its rows.
///
/// Panel after panel; within a panel row after row of the depth. Columns beyond the matrix are 0.
#[derive(Debug)]
pub(super) struct Panels {
    pub(super) depth: usize,
    pub(super) columns: usize,
    elements: Elements,
    bias: Vec<f32>,
}

impl Panels {
    /// Packs `weight(column, depth)`. With `half` it stays in 16 bits and is widened where it is used.
    pub(super) fn pack(
        [columns, depth]: [usize; 2],
        half: bool,
        bias: Option<&[f32]>,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let width = padded(columns);
        let mut padded_bias = bias.map_or_else(Vec::new, <[f32]>::to_vec);
        padded_bias.resize(width, 0.0);
        let at = |index: usize| {
            let panel = index / (PANEL * depth);
            let inner = index - panel * PANEL * depth;
            let panel_width = PANEL.min(width - panel * PANEL);
            let column = panel * PANEL + inner % panel_width;
            if column < columns { weight(column, inner / panel_width) } else { 0.0 }
        };
        let len = width * depth;
        let elements = if half {
            let mut lines = vec![Line([f16::ZERO; 32]); len.div_ceil(32)];
            for (index, to) in as_flat_mut(&mut lines)[..len].iter_mut().enumerate() {
                *to = f16::from_f32(at(index));
            }
            Elements::F16(lines)
        } else {
            let mut lines = vec![Line([0.0; 16]); len.div_ceil(16)];
            for (index, to) in as_flat_mut(&mut lines)[..len].iter_mut().enumerate() {
                *to = at(index);
            }
            Elements::F32(lines)
        };
        Self { depth, columns, elements, bias: padded_bias }
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Columns of a panel in memory.
    pub(super) fn width(&self, panel: usize) -> usize {
        PANEL.min(padded(self.columns) - panel * PANEL)
    }

    /// Columns of a panel that belong to the matrix.
    pub(super) fn valid(&self, panel: usize) -> usize {
        PANEL.min(self.columns - panel * PANEL)
    }

    /// The bias of a panel, padded to its width with zeros.
    pub(super) fn bias(&self, panel: usize) -> &[f32] {
        &self.bias[panel * PANEL..][..self.width(panel)]
    }

    /// Bytes that the weights take.
    pub(super) fn bytes(&self) -> usize {
        let size = if matches!(self.elements, Elements::F16(_)) { 2 } else { 4 };
        padded(self.columns) * self.depth * size
    }

    /// The rows `from..to` of the depth of a panel; 16-bit elements are widened into `scratch`.
    pub(super) fn slice<'a>(
        &'a self,
        panel: usize,
        [from, to]: [usize; 2],
        scratch: &'a mut Aligned,
    ) -> &'a [f32] {
        let width = self.width(panel);
        let start = panel * PANEL * self.depth + from * width;
        let range = start..start + (to - from) * width;
        match &self.elements {
            Elements::F32(lines) => &as_flat(lines)[range],
            Elements::F16(lines) => {
                let widened = scratch.resize(range.len());
                widen(&as_flat(lines)[range], widened);
                widened
            }
        }
    }

    /// The slice that [`Self::slice`] answers, to be fetched ahead; empty for 16-bit elements, which
    /// are read in one run where they are widened.
    pub(super) fn ahead(&self, panel: usize, [from, to]: [usize; 2]) -> &[f32] {
        let width = self.width(panel);
        let start = panel * PANEL * self.depth + from * width;
        match &self.elements {
            Elements::F32(lines) => &as_flat(lines)[start..start + (to - from) * width],
            Elements::F16(_) => &[],
        }
    }
}

/// The difference of the exponents' zeros, and with it the smallest normal f16, as bits of an f32.
const REBASE: u32 = (127 - 15) << 23;
const LEAST_NORMAL: u32 = REBASE + (1 << 23);

/// The same numbers in f32, by integer operations that a compiler makes vectors of: several times as
/// fast as a call for every eight.
fn widen(from: &[f16], to: &mut [f32]) {
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                let bits = u32::from(from.to_bits());
                let size = (bits & 0x7fff) << 13;
                // Without an exponent the fraction counts from the smallest normal number.
                let small = f32::from_bits(size + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
                // The largest exponent stands for what is not finite, in both.
                let large = size + if size < 0x0f80_0000 { REBASE } else { 2 * REBASE };
                let wide = if size < 1 << 23 { small.to_bits() } else { large };
                *to = f32::from_bits(wide | (bits & 0x8000) << 16);
            }
        },
    );
}

/// `columns` rounded up to half panels.
fn padded(columns: usize) -> usize {
    columns.next_multiple_of(PANEL / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_to_the_same_number() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut widened = vec![0.0; halves.len()];
        widen(&halves, &mut widened);
        for (half, wide) in halves.iter().zip(widened) {
            let expected = half.to_f32();
            assert!(expected.to_bits() == wide.to_bits() || expected.is_nan() && wide.is_nan());
        }
    }
}
