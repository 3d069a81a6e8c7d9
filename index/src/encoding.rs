//! How vectors are stored: their components rounded to so many bytes.
//!
//! A vector is rounded once, when it is written. From then on the rounded one is the vector: reading
//! it back gives the same f32 to the bit wherever it lies (store, delta, segment, graph), so scores
//! do not depend on where a row is. Short forms are fixed point: whole numbers, and one step per
//! vector.

use crate::{kernel, types::VectorStorage};

/// Largest magnitude of a component's highest byte.
const TOP: f32 = 127.0;
/// Roundings until reading and writing agree on the step to the bit; most vectors need one.
const ROUNDS: usize = 8;

/// A vector in a short form: component `i` is `codes[i] x step`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fixed<T> {
    pub(crate) codes: Vec<T>,
    pub(crate) step: f32,
}

/// The vector as it will be read back.
pub(crate) fn rounded(storage: VectorStorage, vector: &[f32]) -> Vec<f32> {
    let mut vector = vector.to_vec();
    for _ in 0..ROUNDS {
        let again = once(storage, &vector);
        if again == vector {
            break;
        }
        vector = again;
    }
    vector
}

fn once(storage: VectorStorage, vector: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(vector.len());
    match storage {
        VectorStorage::F32 => {
            // What a graph holds: four bytes of fixed point. It changes small components only, by
            // less than rounding to f32 changes the largest.
            let scale = scale_for(vector);
            let (steps, step) = steps(scale, 24);
            out.extend(vector.iter().map(|&x| (whole(x, steps, 24) * step) as f32));
        }
        VectorStorage::I16 => {
            let fixed = fixed_16(vector);
            kernel::widen_16(&fixed.codes, fixed.step, &mut out);
        }
        VectorStorage::I8 => {
            let fixed = fixed_8(vector);
            kernel::widen_8(&fixed.codes, fixed.step, &mut out);
        }
    }
    out
}

/// Two bytes per component.
pub(crate) fn fixed_16(vector: &[f32]) -> Fixed<i16> {
    let (steps, step) = steps(scale_for(vector), 8);
    let codes = vector.iter().map(|&x| whole(x, steps, 8) as i16).collect();
    Fixed { codes, step: step as f32 }
}

/// One byte per component.
pub(crate) fn fixed_8(vector: &[f32]) -> Fixed<i8> {
    let (steps, step) = steps(scale_for(vector), 0);
    let codes = vector.iter().map(|&x| whole(x, steps, 0) as i8).collect();
    Fixed { codes, step: step as f32 }
}

/// The least value of a highest byte of 1 at which the row's highest bytes are within [`TOP`].
fn scale_for(row: &[f32]) -> f32 {
    let top = row.iter().fold(0.0_f32, |top, &x| top.max(x.abs()));
    let scale = top / TOP;
    if scale * TOP < top { scale.next_up() } else { scale }
}

/// Steps in 1, and the step, where there are so many bits below the highest byte.
fn steps(scale: f32, below: u32) -> (f64, f64) {
    let unit = f64::from(1_u32 << below);
    let steps = if scale > 0.0 { unit / f64::from(scale) } else { 0.0 };
    (steps, f64::from(scale) / unit)
}

fn whole(x: f32, steps: f64, below: u32) -> f64 {
    let top = f64::from(TOP) * f64::from(1_u32 << below);
    (f64::from(x) * steps).round().clamp(-top, top)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::{BuilderKind, Params, Storage, builder, conformance::Table};

    const ALL: [VectorStorage; 3] = [VectorStorage::F32, VectorStorage::I16, VectorStorage::I8];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_rounded_vector_is_read_back_to_the_bit_wherever_it_lies(
            vector in proptest::collection::vec(-1.0_f32..1.0, 1..150),
        ) {
            let Some(unit) = kernel::unit(&vector) else { return Ok(()) };
            for storage in ALL {
                let row = rounded(storage, &unit);
                prop_assert_eq!(&once(storage, &row), &row, "{:?}", storage);
                let params = Params { storage: Storage::from(storage), ..Params::default() };
                let graph = builder(BuilderKind::Native)
                    .build(&Table(vec![row.clone()]), &params, &false.into())
                    .unwrap();
                let mut read = Vec::new();
                graph.read(0..1, &mut read);
                prop_assert_eq!(&read, &row, "{:?}", storage);
                prop_assert_eq!(graph.row(0).unwrap(), row, "{:?}", storage);
            }
        }

        #[test]
        fn rounding_stays_within_half_a_step(vector in proptest::collection::vec(-1.0_f32..1.0, 1..150)) {
            let Some(unit) = kernel::unit(&vector) else { return Ok(()) };
            let top = unit.iter().fold(0.0_f32, |top, x| top.max(x.abs()));
            for (storage, share) in [(ALL[0], 1e-7), (ALL[1], 1.0 / 64_000.0), (ALL[2], 1.0 / 253.0)] {
                for (x, y) in unit.iter().zip(rounded(storage, &unit)) {
                    prop_assert!((x - y).abs() <= share * top, "{storage:?}: {x} {y}");
                }
            }
        }
    }
}
