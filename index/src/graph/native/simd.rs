//! The instructions of a walk, chosen once per search or insertion: everything a [`Task`] does runs
//! inside one function compiled for the processor found at run time.
//!
//! Sums are integers, so every processor gives the same numbers, the same walk and the same graph.
#![expect(unsafe_code, reason = "pulp has the proof of VNNI but not its one instruction")]

use super::line::{LINE, Line};

/// What a walk asks of a processor.
pub(super) trait Simd: Copy {
    /// Sum of the products of signed `query` bytes and unsigned `row` bytes, over the shorter of
    /// the two.
    fn dot(self, query: &[Line], row: &[Line]) -> i32;

    /// Has a line fetched that will be read soon.
    fn prefetch<T>(self, line: &T);
}

/// Work that is compiled for each kind of processor. `run` and all it calls on the way to
/// [`Simd::dot`] must be `#[inline(always)]`: a call out of line loses the instructions.
pub(super) trait Task {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs the task with the widest instructions that the processor has.
pub(super) fn dispatch<T: Task>(task: T) -> T::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = x86::Vnni::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || task.run(simd),
            );
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return simd.vectorize(
                #[inline(always)]
                || task.run(simd),
            );
        }
    }
    task.run(Portable)
}

/// Plain loops. On 64-bit ARM the compiler makes NEON of them, which is always there.
#[derive(Debug, Clone, Copy)]
struct Portable;

impl Simd for Portable {
    #[inline(always)]
    fn dot(self, query: &[Line], row: &[Line]) -> i32 {
        let mut sum = 0;
        for (query, row) in query.iter().zip(row) {
            for i in 0..LINE {
                sum += i32::from(query.0[i].cast_signed()) * i32::from(row.0[i]);
            }
        }
        sum
    }

    #[inline(always)]
    fn prefetch<T>(self, _line: &T) {}
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{__m256i, __m512i, _MM_HINT_T0, _mm512_dpbusd_epi32};

    use pulp::x86::V3;

    use super::{Line, Simd};

    pulp::simd_type! {
        /// AVX-512 with byte products: Ice Lake, Zen 4 and later.
        pub(super) struct Vnni {
            pub sse: "sse",
            pub sse2: "sse2",
            pub sse3: "sse3",
            pub ssse3: "ssse3",
            pub sse4_1: "sse4.1",
            pub sse4_2: "sse4.2",
            pub popcnt: "popcnt",
            pub avx: "avx",
            pub avx2: "avx2",
            pub bmi1: "bmi1",
            pub bmi2: "bmi2",
            pub fma: "fma",
            pub lzcnt: "lzcnt",
            pub avx512f: "avx512f",
            pub avx512bw: "avx512bw",
            pub avx512dq: "avx512dq",
            pub avx512vl: "avx512vl",
            pub avx512vnni: "avx512vnni",
        }
    }

    impl Simd for Vnni {
        #[inline(always)]
        fn dot(self, query: &[Line], row: &[Line]) -> i32 {
            let product = |sum: __m512i, query: &Line, row: &Line| {
                let (query, row): (__m512i, __m512i) =
                    (bytemuck::cast(*query), bytemuck::cast(*row));
                // SAFETY: a `Vnni` exists only where the processor has avx512vnni and avx512f.
                unsafe { _mm512_dpbusd_epi32(sum, row, query) }
            };
            // Two sums, so that one product need not wait for the one before.
            let mut sums = [self.avx512f._mm512_setzero_si512(); 2];
            let (queries, query) = query.as_chunks::<2>();
            let (rows, row) = row.as_chunks::<2>();
            for (query, row) in queries.iter().zip(rows) {
                sums[0] = product(sums[0], &query[0], &row[0]);
                sums[1] = product(sums[1], &query[1], &row[1]);
            }
            for (query, row) in query.iter().zip(row) {
                sums[0] = product(sums[0], query, row);
            }
            let sum = self.avx512f._mm512_add_epi32(sums[0], sums[1]);
            self.avx512f._mm512_reduce_add_epi32(sum)
        }

        #[inline(always)]
        fn prefetch<T>(self, line: &T) {
            self.sse._mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
        }
    }

    impl Simd for V3 {
        #[inline(always)]
        fn dot(self, query: &[Line], row: &[Line]) -> i32 {
            let avx2 = self.avx2;
            let mut sums = [self.avx._mm256_setzero_si256(); 2];
            for (query, row) in query.iter().zip(row) {
                let query: [std::arch::x86_64::__m128i; 4] = bytemuck::cast(*query);
                let row: [std::arch::x86_64::__m128i; 4] = bytemuck::cast(*row);
                for i in 0..4 {
                    let query = avx2._mm256_cvtepi8_epi16(query[i]);
                    let row = avx2._mm256_cvtepu8_epi16(row[i]);
                    let pairs = avx2._mm256_madd_epi16(query, row);
                    sums[i % 2] = avx2._mm256_add_epi32(sums[i % 2], pairs);
                }
            }
            let sum: __m256i = avx2._mm256_add_epi32(sums[0], sums[1]);
            let sum: [i32; 8] = bytemuck::cast(sum);
            sum.iter().sum()
        }

        #[inline(always)]
        fn prefetch<T>(self, line: &T) {
            self.sse._mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Dot<'a>(&'a [Line], &'a [Line]);

    impl Task for Dot<'_> {
        type Output = i32;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> i32 {
            simd.prefetch(&self.1[0]);
            simd.dot(self.0, self.1)
        }
    }

    fn lines(bytes: &[u8]) -> Vec<Line> {
        bytes.as_chunks::<LINE>().0.iter().map(|line| Line(*line)).collect()
    }

    proptest! {
        /// Extremes included: a saturating instruction would show.
        #[test]
        fn every_kind_of_processor_gives_the_same_sum(
            bytes in (1_usize..20).prop_flat_map(|n| {
                let byte = prop_oneof![Just(0_u8), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
                proptest::collection::vec((byte.clone(), byte), n * LINE)
            })
        ) {
            let (query, row): (Vec<u8>, Vec<u8>) = bytes.into_iter().unzip();
            let products = query.iter().zip(&row);
            let expected: i64 =
                products.map(|(&q, &r)| i64::from(q.cast_signed()) * i64::from(r)).sum();
            let (query, row) = (lines(&query), lines(&row));
            prop_assert_eq!(i64::from(dispatch(Dot(&query, &row))), expected);
            prop_assert_eq!(i64::from(Dot(&query, &row).run(Portable)), expected);
            #[cfg(target_arch = "x86_64")]
            if let Some(simd) = pulp::x86::V3::try_new() {
                let sum = simd.vectorize(#[inline(always)] || Dot(&query, &row).run(simd));
                prop_assert_eq!(i64::from(sum), expected);
            }
        }
    }
}
