//! Rows that the graph owns: fixed point with a scale per row, its highest byte apart.
//!
//! A component is `w - half` times a step, where `w` has one to four bytes. A walk reads the highest
//! byte of `w` alone, which is the component rounded to a byte; what was found is then scored with
//! all of them. So one copy of the rows serves both, and a walk touches a quarter of what it would
//! with f32. The highest bytes fill whole cache lines; what is left of the last line holds lower
//! bytes, so nothing is spent on filling.

use super::{
    super::{Rows, Storage},
    codes::{Codes, FLIP, TOP, lines_for, scale_for},
    huge,
    line::LINE,
    simd::Simd,
};
use crate::background::paced;

/// All points' components.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) dims: usize,
    pub(super) storage: Storage,
    pub(super) codes: Codes,
    /// Lower bytes that found no room beside the codes, the same number for each point.
    pub(super) rest: Vec<u8>,
}

/// Where the bytes of a point lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Lines that hold the codes.
    pub(super) lines: usize,
    /// Lower bytes of a component.
    low: usize,
    /// Lower bytes of a point that lie behind its codes.
    beside: usize,
    /// Lower bytes of a point that lie apart.
    pub(super) rest: usize,
}

impl Layout {
    pub(super) fn new(dims: usize, storage: Storage) -> Self {
        let low = storage.bytes() - 1;
        let lines = lines_for(dims);
        let beside = (lines * LINE - dims).min(low * dims);
        Self { lines, low, beside, rest: low * dims - beside }
    }
}

/// A row as fixed point.
struct Fixed {
    scale: f32,
    steps: f64,
    top: f64,
    half: i32,
    shift: u32,
}

impl Fixed {
    fn new(row: &[f32], low: usize) -> Self {
        let scale = scale_for(row);
        let shift = 8 * low as u32;
        let unit = f64::from(1_u32 << shift);
        let steps = if scale > 0.0 { unit / f64::from(scale) } else { 0.0 };
        Self { scale, steps, top: f64::from(TOP) * unit, half: (1 << shift) >> 1, shift }
    }

    /// `w` of a component. At most `127.5 * 2^24`, so it fits.
    fn of(&self, x: f32) -> i32 {
        (f64::from(x) * self.steps).round().clamp(-self.top, self.top) as i32 + self.half
    }

    fn high(&self, w: i32) -> u8 {
        (w >> self.shift) as i8 as u8 ^ FLIP
    }
}

/// The codes of some rows, for a build: no lower bytes yet.
pub(super) fn encode_codes(rows: &dyn Rows, order: &[u32], low: usize) -> Codes {
    let dims = rows.dims();
    let mut codes = Codes::new(order.len(), dims);
    for (point, &row) in paced(order).enumerate() {
        let row = rows.row(row as usize);
        let fixed = Fixed::new(row, low);
        codes.set_scale(point, fixed.scale);
        let bytes = bytemuck::cast_slice_mut::<_, u8>(codes.row_mut(point));
        bytes.fill(FLIP);
        for (byte, &x) in bytes.iter_mut().zip(row) {
            *byte = fixed.high(fixed.of(x));
        }
    }
    codes
}

impl Stored {
    /// The rows in the order given.
    pub(super) fn encode(rows: &dyn Rows, order: &[u32], storage: Storage) -> Self {
        let dims = rows.dims();
        let layout = Layout::new(dims, storage);
        let mut codes = encode_codes(rows, order, layout.low);
        let mut rest = huge::with_room(order.len() * layout.rest);
        rest.resize(order.len() * layout.rest, 0);
        let mut lower = vec![0; layout.low * dims];
        for (point, &row) in paced(order).enumerate() {
            let row = rows.row(row as usize);
            let fixed = Fixed::new(row, layout.low);
            for plane in 0..layout.low {
                let bytes = &mut lower[plane * dims..(plane + 1) * dims];
                for (byte, &x) in bytes.iter_mut().zip(row) {
                    *byte = (fixed.of(x) >> (8 * (layout.low - 1 - plane))) as u8;
                }
            }
            let (beside, apart) = lower.split_at(layout.beside);
            let bytes = bytemuck::cast_slice_mut::<_, u8>(codes.row_mut(point));
            bytes[dims..dims + beside.len()].copy_from_slice(beside);
            rest[point * layout.rest..(point + 1) * layout.rest].copy_from_slice(apart);
        }
        Self { dims, storage, codes, rest }
    }

    pub(super) fn bytes(&self) -> usize {
        self.codes.lines.capacity() * LINE + 4 * self.codes.scales.capacity() + self.rest.capacity()
    }

    /// The lower bytes of a point that lie apart.
    #[inline(always)]
    pub(super) fn apart(&self, point: u32) -> &[u8] {
        let each = Layout::new(self.dims, self.storage).rest;
        &self.rest[point as usize * each..(point as usize + 1) * each]
    }

    /// Has a point's lower bytes fetched.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, simd: S, point: u32) {
        self.apart(point).iter().step_by(LINE).for_each(|byte| simd.prefetch(byte));
    }

    /// A point's highest bytes, and its lower ones plane by plane; `room` holds them if they lie in
    /// two places.
    #[inline(always)]
    fn planes<'a>(&'a self, point: u32, room: &'a mut Vec<u8>) -> (&'a [u8], &'a [u8]) {
        let layout = Layout::new(self.dims, self.storage);
        let bytes = bytemuck::cast_slice::<_, u8>(self.codes.row(point));
        let (high, behind) = bytes.split_at(self.dims);
        let apart = self.apart(point);
        if layout.beside == 0 {
            return (high, apart);
        }
        room.clear();
        room.extend_from_slice(&behind[..layout.beside]);
        room.extend_from_slice(apart);
        (high, room)
    }

    /// Dot product of a vector of as many components and a point, with all bytes.
    #[inline(always)]
    pub(super) fn score(&self, query: &[f32], point: u32, room: &mut Vec<u8>) -> f32 {
        let (high, low) = self.planes(point, room);
        let sum = match self.storage {
            Storage::Bits8 => dot::<0>(query, high, low),
            Storage::Bits16 => dot::<1>(query, high, low),
            Storage::Bits24 => dot::<2>(query, high, low),
            Storage::Bits32 => dot::<3>(query, high, low),
        };
        // Adding 0 turns -0 into 0, so that equal scores compare equal.
        sum * self.step(point) + 0.0
    }

    /// A point's components.
    pub(super) fn decode(&self, point: u32) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.dims);
        self.widen(point, &mut Vec::new(), &mut out);
        out
    }

    /// Appends a point's components.
    #[inline(always)]
    pub(super) fn widen(&self, point: u32, room: &mut Vec<u8>, out: &mut Vec<f32>) {
        let (high, low) = self.planes(point, room);
        let step = f64::from(self.step(point));
        match self.storage {
            Storage::Bits8 => widen::<0>(step, high, low, out),
            Storage::Bits16 => widen::<1>(step, high, low, out),
            Storage::Bits24 => widen::<2>(step, high, low, out),
            Storage::Bits32 => widen::<3>(step, high, low, out),
        }
    }

    /// Value of the lowest bit of a point's components. Exact: a power of two below the scale.
    #[inline(always)]
    fn step(&self, point: u32) -> f32 {
        let below = 8 * (self.storage.bytes() - 1) as u32;
        self.codes.scales[point as usize] / (1_u32 << below) as f32
    }
}

/// The signed fixed point of a component's bytes.
#[inline(always)]
fn value<const LOW: usize>(high: u8, low: [u8; LOW]) -> i32 {
    let w = low
        .iter()
        .fold(i32::from((high ^ FLIP).cast_signed()), |w, &byte| w << 8 | i32::from(byte));
    w - (((1_u32 << (8 * LOW)) >> 1) as i32)
}

/// Appends components, rounded to f32 once.
#[inline(always)]
fn widen<const LOW: usize>(step: f64, high: &[u8], low: &[u8], out: &mut Vec<f32>) {
    const LANES: usize = 16;
    let dims = high.len();
    let planes: [&[u8]; LOW] = std::array::from_fn(|plane| &low[plane * dims..(plane + 1) * dims]);
    let (highs, high_rest) = high.as_chunks::<LANES>();
    let lows: [(&[[u8; LANES]], &[u8]); LOW] = planes.map(<[u8]>::as_chunks::<LANES>);
    for (i, high) in highs.iter().enumerate() {
        let low: [&[u8; LANES]; LOW] = lows.map(|(chunks, _)| &chunks[i]);
        let mut some = [0.0_f32; LANES];
        for lane in 0..LANES {
            let whole = value(high[lane], low.map(|low| low[lane]));
            some[lane] = (f64::from(whole) * step) as f32;
        }
        out.extend_from_slice(&some);
    }
    for (i, &high) in high_rest.iter().enumerate() {
        let whole = value(high, lows.map(|(_, rest)| rest[i]));
        out.push((f64::from(whole) * step) as f32);
    }
}

/// In lanes, so that it is computed many at a time, and in one order on every processor.
#[inline(always)]
fn dot<const LOW: usize>(query: &[f32], high: &[u8], low: &[u8]) -> f32 {
    const LANES: usize = 16;
    let dims = query.len();
    let planes: [&[u8]; LOW] = std::array::from_fn(|plane| &low[plane * dims..(plane + 1) * dims]);
    let (queries, query_rest) = query.as_chunks::<LANES>();
    let (highs, high_rest) = high.as_chunks::<LANES>();
    let lows: [(&[[u8; LANES]], &[u8]); LOW] = planes.map(<[u8]>::as_chunks::<LANES>);
    let mut sums = [0.0_f32; LANES];
    for (i, (query, high)) in queries.iter().zip(highs).enumerate() {
        let low: [&[u8; LANES]; LOW] = lows.map(|(chunks, _)| &chunks[i]);
        for lane in 0..LANES {
            sums[lane] += query[lane] * value(high[lane], low.map(|low| low[lane])) as f32;
        }
    }
    for (i, (query, &high)) in query_rest.iter().zip(high_rest).enumerate() {
        sums[i] += query * value(high, lows.map(|(_, rest)| rest[i])) as f32;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{graph::conformance::Table, kernel};

    const ALL: [Storage; 4] = [Storage::Bits8, Storage::Bits16, Storage::Bits24, Storage::Bits32];

    proptest! {
        /// The bound that [`Storage`] states.
        #[test]
        fn a_row_is_read_back_within_half_a_step(
            (row, query) in (1_usize..150).prop_flat_map(|n| {
                let vector = proptest::collection::vec(-1.0_f32..1.0, n);
                (vector.clone(), vector)
            })
        ) {
            let top = row.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
            for storage in ALL {
                let stored = Stored::encode(&Table(vec![row.clone()]), &[0], storage);
                let half = f64::from(top) / 127.0 / f64::from(1_u32 << (8 * (storage.bytes() - 1))) / 2.0;
                // Reading back rounds to f32, and so may the scale.
                let within = half * 1.000_001 + f64::from(top) * 6e-8;
                let read = stored.decode(0);
                for (x, y) in row.iter().zip(&read) {
                    prop_assert!((f64::from(*x) - f64::from(*y)).abs() <= within, "{storage:?} {x} {y}");
                }
                let exact = kernel::dot(&query, &read);
                let score = stored.score(&query, 0, &mut Vec::new());
                prop_assert!((score - exact).abs() <= 1e-6 * row.len() as f32 * top);
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        for storage in ALL {
            let stored = Stored::encode(&Table(vec![vec![0.0; 70]]), &[0], storage);
            assert_eq!(stored.decode(0), vec![0.0; 70]);
            assert_eq!(stored.score(&[1.0; 70], 0, &mut Vec::new()).to_bits(), 0);
        }
    }
}
