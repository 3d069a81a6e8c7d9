//! Dot products over rows, with the widest instructions that the processor has.

use pulp::{Arch, Simd, WithSimd};

/// Dot product of `query` with each row; `rows` holds `out.len()` rows of `query.len()` values.
///
/// The sum's order depends on the processor only, so equal inputs always give equal scores.
pub(crate) fn dot_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), query.len() * out.len());
    Arch::new().dispatch(DotRows { query, rows, out });
}

/// Cosine of `query`, a unit vector, with the first `query.len()` values of each row; `rows` holds
/// `out.len()` rows of `dims` values. 0 for a row that begins with zeros.
pub(crate) fn cosine_prefix_rows(query: &[f32], rows: &[f32], dims: usize, out: &mut [f32]) {
    debug_assert!(query.len() <= dims && rows.len() == dims * out.len());
    Arch::new().dispatch(CosinePrefixRows { query, rows, dims, out });
}

/// Dot product of two vectors of one length; the same number as [`dot_rows`] gives.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len());
    let mut out = [0.0];
    dot_rows(a, b, &mut out);
    out[0]
}

/// Appends the components of short rows: `code x step`, rounded to f32 once.
pub(crate) fn widen_16(codes: &[i16], step: f32, out: &mut Vec<f32>) {
    // Compiled for each kind of processor, where the loop becomes conversions of many at a time.
    Arch::new().dispatch(|| out.extend(codes.iter().map(|&code| f32::from(code) * step)));
}

/// As [`widen_16`].
pub(crate) fn widen_8(codes: &[i8], step: f32, out: &mut Vec<f32>) {
    Arch::new().dispatch(|| out.extend(codes.iter().map(|&code| f32::from(code) * step)));
}

/// Brings a vector to unit length. `None` when it is zero or not finite.
pub(crate) fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let norm = squares.sqrt();
    if !norm.is_finite() || norm == 0.0 {
        return None;
    }
    Some(vector.iter().map(|&x| (f64::from(x) / norm) as f32).collect())
}

/// Length of a vector.
pub(crate) fn norm(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

struct DotRows<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for DotRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (query, query_rest) = S::as_simd_f32s(self.query);
        for (row, out) in self.rows.chunks_exact(self.query.len().max(1)).zip(self.out) {
            let (row, row_rest) = S::as_simd_f32s(row);
            // Four sums, so that one multiply-add need not wait for the one before.
            let mut sums = [simd.splat_f32s(0.0); 4];
            let (query_fours, query_ones) = query.as_chunks::<4>();
            let (row_fours, row_ones) = row.as_chunks::<4>();
            for (q, r) in query_fours.iter().zip(row_fours) {
                for i in 0..4 {
                    sums[i] = simd.mul_add_f32s(q[i], r[i], sums[i]);
                }
            }
            for (q, r) in query_ones.iter().zip(row_ones) {
                sums[0] = simd.mul_add_f32s(*q, *r, sums[0]);
            }
            let low = simd.add_f32s(sums[0], sums[1]);
            let high = simd.add_f32s(sums[2], sums[3]);
            let mut sum = simd.reduce_sum_f32s(simd.add_f32s(low, high));
            for (q, r) in query_rest.iter().zip(row_rest) {
                sum += q * r;
            }
            // Turns -0 into 0, so that equal scores compare equal.
            *out = sum + 0.0;
        }
    }
}

struct CosinePrefixRows<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    dims: usize,
    out: &'a mut [f32],
}

impl WithSimd for CosinePrefixRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (query, query_rest) = S::as_simd_f32s(self.query);
        for (row, out) in self.rows.chunks_exact(self.dims.max(1)).zip(self.out) {
            let (row, row_rest) = S::as_simd_f32s(&row[..self.query.len()]);
            let mut dot = simd.splat_f32s(0.0);
            let mut squares = simd.splat_f32s(0.0);
            for (q, r) in query.iter().zip(row) {
                dot = simd.mul_add_f32s(*q, *r, dot);
                squares = simd.mul_add_f32s(*r, *r, squares);
            }
            let (mut dot, mut squares) = (simd.reduce_sum_f32s(dot), simd.reduce_sum_f32s(squares));
            for (q, r) in query_rest.iter().zip(row_rest) {
                dot += q * r;
                squares += r * r;
            }
            *out = if squares > 0.0 { dot / squares.sqrt() + 0.0 } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_sum_for_any_length(
            (a, b) in (1_usize..300).prop_flat_map(|n| {
                let vector = proptest::collection::vec(-1.0_f32..1.0, n);
                (vector.clone(), vector)
            })
        ) {
            let expected = plain(&a, &b);
            prop_assert!((f64::from(dot(&a, &b)) - expected).abs() <= 1e-5 * a.len() as f64);
            let rows = [b.clone(), a.clone(), b.clone()].concat();
            let mut out = [0.0; 3];
            dot_rows(&a, &rows, &mut out);
            prop_assert_eq!(out[0].to_bits(), dot(&a, &b).to_bits());
            prop_assert_eq!(out[0].to_bits(), out[2].to_bits());
        }

        #[test]
        fn prefixes_are_compared_by_their_own_cosine(
            (rows, at) in (2_usize..80).prop_flat_map(|n| {
                let vector = proptest::collection::vec(-1.0_f32..1.0, n);
                (proptest::collection::vec(vector, 3), 1..n)
            })
        ) {
            let dims = rows[0].len();
            let Some(query) = unit(&rows[0][..at]) else { return Ok(()) };
            let mut out = [0.0; 3];
            cosine_prefix_rows(&query, &rows.concat(), dims, &mut out);
            for (row, found) in rows.iter().zip(out) {
                let length = norm(&row[..at]);
                let expected = if length > 0.0 { plain(&query, &row[..at]) / length } else { 0.0 };
                prop_assert!((f64::from(found) - expected).abs() <= 1e-4);
            }
        }

        #[test]
        fn unit_vectors_have_length_one(a in proptest::collection::vec(-1e30_f32..1e30, 1..200)) {
            if let Some(unit) = unit(&a) {
                prop_assert!((norm(&unit) - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn refuses_zero_and_not_finite() {
        assert_eq!(unit(&[0.0, -0.0]), None);
        assert_eq!(unit(&[1.0, f32::NAN]), None);
        assert_eq!(unit(&[f32::INFINITY, 1.0]), None);
        assert!(unit(&[1e-45, 0.0]).is_some());
        assert!(unit(&[3e38, 3e38]).is_some());
    }
}
