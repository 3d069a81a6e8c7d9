//! Multi-head attention in one pass: scores live in a few rows of a buffer and are never a tensor.

#![expect(unsafe_code, reason = "heads write disjoint columns of one matrix")]

use std::cell::RefCell;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::panels::{Aligned, DEPTH, PANEL};
use super::product::cut;
use super::softmax::{composed as softmax_composed, exponentials};
use super::tile::{Begin, Block, Rows, Target, multiply};
use super::{no_gradient, on_cpu};

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask<'a> {
    /// All of them.
    None,
    /// Those at its own position and before: as many queries as keys.
    Causal,
    /// The first so many of each sample, one number a sample; the rest is padding. What the padded
    /// queries answer is finite and of no meaning; a sample of length 0 answers zeros.
    Lengths(&'a [usize]),
}

/// softmax(q kᵀ / √d) v by heads (Vaswani et al. 2017, eq. 1): `q` (B, S, H d), `k` and `v`
/// (B, T, H d) to (B, S, H d), head after head in the last dimension. All three may be views, such
/// as thirds of one product; only their last dimension must lie in one run.
///
/// # Errors
/// If the shapes do not fit, on the CPU if they are not f32; a backward pass is refused.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    mask: Mask<'_>,
) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let keys = k.dim(1)?;
    let fits = k.dims() == [batch, keys, width] && v.dims() == k.dims();
    let divides = heads > 0 && width > 0 && width.is_multiple_of(heads);
    let masked = match mask {
        Mask::None => true,
        Mask::Causal => queries == keys,
        Mask::Lengths(lengths) => {
            lengths.len() == batch && lengths.iter().all(|length| *length <= keys)
        }
    };
    if !fits || !divides || !masked || keys == 0 {
        candle_core::bail!(
            "attention: queries {:?}, keys {:?}, values {:?}, {heads} heads, {mask:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    if !q.device().is_cpu() {
        return composed([q, k, v], heads, mask);
    }
    for tensor in [q, k, v] {
        on_cpu(tensor, "attention")?;
    }
    let lengths = match mask {
        Mask::Lengths(lengths) => lengths.to_vec(),
        Mask::None | Mask::Causal => vec![keys; batch],
    };
    let causal = mask == Mask::Causal;
    let op = Attention { queries, heads, head: width / heads, causal, lengths };
    in_runs(q)?.apply_op3(&in_runs(k)?, &in_runs(v)?, op)
}

/// The tensor itself where its last dimension lies in one run, else a copy.
fn in_runs(x: &Tensor) -> Result<Tensor> {
    if x.stride().last() == Some(&1) { Ok(x.clone()) } else { x.contiguous() }
}

/// The same function from candle's operations.
fn composed([q, k, v]: [&Tensor; 3], heads: usize, mask: Mask<'_>) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let keys = k.dim(1)?;
    let split = |x: &Tensor| {
        let (_, len, _) = x.dims3()?;
        x.reshape((batch, len, heads, width / heads))?.transpose(1, 2)?.contiguous()
    };
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let scores = split(q)?.matmul(&split(k)?.transpose(2, 3)?.contiguous()?)?;
    let scores = (crate::ops::widen(&scores)? * scale)?;
    let scores = match mask {
        Mask::None => scores,
        Mask::Causal => {
            let ahead = |i: usize| (0..keys).map(move |j| if j > i { -1e30_f32 } else { 0.0 });
            let mask: Vec<f32> = (0..queries).flat_map(ahead).collect();
            let mask = Tensor::from_vec(mask, (1, 1, queries, keys), q.device())?;
            scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?
        }
        Mask::Lengths(lengths) => {
            let behind = |n: &usize| {
                let n = *n;
                (0..keys).map(move |j| if j >= n { -1e30_f32 } else { 0.0 })
            };
            let mask: Vec<f32> = lengths.iter().flat_map(behind).collect();
            let mask = Tensor::from_vec(mask, (batch, 1, 1, keys), q.device())?;
            scores.broadcast_add(&mask.to_dtype(scores.dtype())?)?
        }
    };
    let shares = softmax_composed(&scores)?.to_dtype(v.dtype())?;
    let mut y = shares.matmul(&split(v)?)?.transpose(1, 2)?.reshape((batch, queries, width))?;
    if let Mask::Lengths(lengths) = mask {
        let any: Vec<f32> = lengths.iter().map(|n| if *n > 0 { 1.0 } else { 0.0 }).collect();
        let any = Tensor::from_vec(any, (batch, 1, 1), q.device())?.to_dtype(y.dtype())?;
        y = y.broadcast_mul(&any)?;
    }
    Ok(y)
}

struct Attention {
    queries: usize,
    heads: usize,
    /// Width of a head.
    head: usize,
    causal: bool,
    lengths: Vec<usize>,
}

/// One of the three inputs: sample b begins at `b * sample`, its row r at `r * row` from there.
#[derive(Clone, Copy)]
struct Part<'a> {
    data: &'a [f32],
    sample: usize,
    row: usize,
}

impl<'a> Part<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let data = &f32::cpu_storage_as_slice(storage)?[layout.start_offset()..];
        match *layout.stride() {
            [sample, row, 1] => Ok(Self { data, sample, row }),
            _ => candle_core::bail!("attention: rows lie in pieces, {:?}", layout.stride()),
        }
    }

    /// From the first element of a head on.
    fn of(&self, sample: usize, column: usize) -> Rows<'a> {
        Rows { data: &self.data[sample * self.sample + column..], stride: self.row }
    }
}

/// Queries whose scores are in the buffer at a time: with 600 keys, 58 KB.
const QUERIES: usize = 24;

/// Buffers of a thread, kept from one operation to the next.
#[derive(Default)]
struct Scratch {
    /// Keys by panels: (keys / 32, d, 32).
    keys: Aligned,
    /// Values by panels: (d / 32, keys, 32).
    values: Aligned,
    scores: Aligned,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// One head of one sample.
struct Head<'a> {
    op: &'a Attention,
    q: Rows<'a>,
    k: Rows<'a>,
    v: Rows<'a>,
    keys: usize,
    target: Target,
    row: usize,
    column: usize,
    scratch: &'a mut Scratch,
}

/// The size of a block of scores.
struct Scored {
    rows: usize,
    head: usize,
    keys: usize,
    /// Keys that any of the rows looks at.
    seen: usize,
    stride: usize,
}

/// Products of `left`, a row for each query, with the keys that are seen.
fn score(arch: Arch, left: Rows<'_>, key_panels: &[f32], (sizes, scores): (Scored, &mut [f32])) {
    let Scored { rows, head, keys, seen, stride } = sizes;
    let target = Target::over(scores, stride);
    for (panel, slice) in key_panels.chunks_exact(head * PANEL).enumerate() {
        let column = panel * PANEL;
        if column >= seen {
            break;
        }
        let block = Block {
            left,
            rows,
            depth: head,
            panel: slice,
            begin: Begin::Zero,
            target,
            row: 0,
            column,
            columns: PANEL.min(keys - column),
            residual: None,
            clamp: None,
            next: &[],
        };
        // SAFETY: the scores are this thread's own.
        unsafe { multiply(arch, &block) };
    }
}

impl Head<'_> {
    fn run(self, arch: Arch) {
        let Self { op, q, k, v, keys, target, row, column, scratch } = self;
        if keys == 0 {
            for query in 0..op.queries {
                // SAFETY: this head's columns of this sample's rows, which no other task uses.
                unsafe { target.part(row + query, column, op.head) }.fill(0.0);
            }
            return;
        }
        let stride = keys.next_multiple_of(PANEL);
        let key_panels = pack_keys(k, [keys, op.head], &mut scratch.keys);
        let value_panels = pack_values(v, [keys, op.head], &mut scratch.values);
        let factor = 1.0 / (op.head as f32).sqrt();
        for first in (0..op.queries).step_by(QUERIES) {
            let rows = QUERIES.min(op.queries - first);
            let seen = if op.causal { first + rows } else { keys };
            let scores = scratch.scores.resize(rows * stride);
            let left = Rows { data: &q.data[first * q.stride..], stride: q.stride };
            let sizes = Scored { rows, head: op.head, keys, seen, stride };
            score(arch, left, key_panels, (sizes, &mut *scores));
            let visible = if op.causal { first + 1..first + 1 + rows } else { keys..keys };
            let sums = arch.dispatch(Shares { scores, rows, stride, seen, visible, factor });
            let shares = Block {
                left: Rows { data: scores, stride },
                rows,
                depth: seen,
                panel: value_panels,
                begin: Begin::Zero,
                target,
                row: row + first,
                column,
                columns: op.head,
                residual: None,
                clamp: None,
                next: &[],
            };
            // SAFETY: this head's columns of this sample's rows.
            unsafe { mix(arch, &shares, keys) };
            for (query, sum) in sums.iter().enumerate().take(rows) {
                let inverse = 1.0 / sum;
                // SAFETY: as above, and written.
                let y = unsafe { target.part(row + first + query, column, op.head) };
                y.iter_mut().for_each(|y| *y *= inverse);
            }
        }
    }
}

/// `shares.left` times all panels of values, packed for `keys` keys, of which `shares.depth` are seen.
///
/// # Safety
/// As [`multiply`].
unsafe fn mix(arch: Arch, shares: &Block<'_>, keys: usize) {
    let (seen, left) = (shares.depth, shares.left);
    for (panel, slice) in shares.panel.chunks(keys * PANEL).enumerate() {
        let width = slice.len() / keys;
        let blocks = seen.div_ceil(DEPTH);
        for block in 0..blocks {
            let depth = cut(seen, blocks, block);
            let block = Block {
                left: Rows { data: &left.data[depth.start..], ..left },
                depth: depth.len(),
                panel: &slice[depth.start * width..depth.end * width],
                begin: if block == 0 { Begin::Zero } else { Begin::Target },
                column: shares.column + panel * PANEL,
                columns: PANEL.min(shares.columns - panel * PANEL),
                ..*shares
            };
            // SAFETY: columns of `shares`, by the contract.
            unsafe { multiply(arch, &block) };
        }
    }
}

/// Scores of some queries to their exponentials, in place; answers the sums.
struct Shares<'a> {
    scores: &'a mut [f32],
    rows: usize,
    stride: usize,
    /// Keys that were multiplied.
    seen: usize,
    /// Keys that the first query sees, and one more for each that follows up to this.
    visible: std::ops::Range<usize>,
    factor: f32,
}

impl WithSimd for Shares<'_> {
    type Output = [f32; QUERIES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; QUERIES] {
        let mut sums = [0.0; QUERIES];
        for (query, sum) in sums.iter_mut().enumerate().take(self.rows) {
            let visible = (self.visible.start + query).min(self.visible.end);
            let padded = self.seen.next_multiple_of(PANEL / 2);
            let row = &mut self.scores[query * self.stride..][..padded];
            row[visible..].fill(f32::NEG_INFINITY);
            *sum = exponentials(simd, row, self.factor);
        }
        sums
    }
}

/// (keys, d) to panels of keys: (keys / 32, d, 32), zeros beyond the last key.
#[inline(always)]
fn pack_keys<'a>(k: Rows<'_>, [keys, head]: [usize; 2], to: &'a mut Aligned) -> &'a [f32] {
    let packed = to.resize(keys.next_multiple_of(PANEL) * head);
    for (panel, to) in packed.chunks_exact_mut(head * PANEL).enumerate() {
        let count = PANEL.min(keys - panel * PANEL);
        if count < PANEL {
            to.fill(0.0);
        }
        for key in 0..count {
            let row = &k.data[(panel * PANEL + key) * k.stride..][..head];
            for (to, x) in to.chunks_exact_mut(PANEL).zip(row) {
                to[key] = *x;
            }
        }
    }
    packed
}

/// (keys, d) to panels of columns: (d / 32, keys, 32), the last 16 wide where that is enough, zeros
/// beyond the last column.
#[inline(always)]
fn pack_values<'a>(v: Rows<'_>, [keys, head]: [usize; 2], to: &'a mut Aligned) -> &'a [f32] {
    let padded = head.next_multiple_of(PANEL / 2);
    let packed = to.resize(padded * keys);
    for (panel, to) in packed.chunks_mut(keys * PANEL).enumerate() {
        let width = to.len() / keys;
        let count = width.min(head - panel * PANEL);
        for (key, to) in to.chunks_exact_mut(width).enumerate() {
            to[..count].copy_from_slice(&v.data[key * v.stride + panel * PANEL..][..count]);
            to[count..].fill(0.0);
        }
    }
    packed
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (Part::new(q, q_layout)?, Part::new(k, k_layout)?, Part::new(v, v_layout)?);
        let (batch, width) = (self.lengths.len(), self.heads * self.head);
        let arch = Arch::new();
        let y = Target::fill(batch * self.queries * width, width, |target| {
            let head = |index: usize| {
                let (sample, column) = (index / self.heads, index % self.heads * self.head);
                SCRATCH.with_borrow_mut(|scratch| {
                    let head = Head {
                        op: self,
                        q: q.of(sample, column),
                        k: k.of(sample, column),
                        v: v.of(sample, column),
                        keys: self.lengths[sample],
                        target,
                        row: sample * self.queries,
                        column,
                        scratch,
                    };
                    head.run(arch);
                });
            };
            let heads = 0..batch * self.heads;
            if rayon::current_num_threads() == 1 {
                heads.for_each(head);
            } else {
                heads.into_par_iter().for_each(head);
            }
        });
        Ok((CpuStorage::F32(y), Shape::from((batch, self.queries, width))))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        no_gradient("attention")
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};
    use proptest::prelude::*;

    use super::*;
    use crate::ops::gradcheck::values;

    fn largest_difference(y: &Tensor, expected: &Tensor) -> f64 {
        let difference = (y.to_dtype(DType::F64).unwrap() - expected).unwrap().abs().unwrap();
        difference.max_all().unwrap().to_scalar::<f64>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn equals_its_parts_for_every_mask(
            batch in 1..4_usize, queries in 1..60_usize, keys in 1..80_usize,
            heads in 1..4_usize, head in 1..70_usize, kind in 0..3_usize,
        ) {
            let queries = if kind == 1 { keys } else { queries };
            let width = heads * head;
            let q = (values(1, &[batch, queries, width]).unwrap() * 3.0).unwrap();
            // Views into one product, as towers pass them.
            let kv = values(2, &[batch, keys, 2 * width]).unwrap();
            let (k, v) = (kv.narrow(2, 0, width).unwrap(), kv.narrow(2, width, width).unwrap());
            let lengths: Vec<usize> = (0..batch).map(|b| (keys + b) % (keys + 1)).collect();
            let mask = [Mask::None, Mask::Causal, Mask::Lengths(&lengths)][kind];
            let expected = composed([&q, &k, &v], heads, mask).unwrap();
            let [q, kv] = [q, kv].map(|t| t.to_dtype(DType::F32).unwrap());
            let (k, v) = (kv.narrow(2, 0, width).unwrap(), kv.narrow(2, width, width).unwrap());
            let y = attention(&q, &k, &v, heads, mask).unwrap();
            prop_assert!(largest_difference(&y, &expected) < 1e-5);
        }
    }

    #[test]
    fn keys_beyond_the_length_change_nothing() {
        let x = values(1, &[1, 40, 32]).unwrap().to_dtype(DType::F32).unwrap();
        let short = x.narrow(1, 0, 25).unwrap();
        let alone = attention(&short, &short, &short, 2, Mask::None).unwrap();
        let padded = attention(&x, &x, &x, 2, Mask::Lengths(&[25])).unwrap();
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(bits(&alone) == bits(&padded.narrow(1, 0, 25).unwrap()));
    }

    #[test]
    fn refuses_a_backward_pass() {
        let x = values(1, &[1, 4, 8]).unwrap().to_dtype(DType::F32).unwrap();
        let x = Var::from_tensor(&x).unwrap();
        let y = attention(&x, &x, &x, 2, Mask::None).unwrap();
        let error = y.sum_all().unwrap().backward().unwrap_err().to_string();
        assert!(error.contains("no gradient"), "{error}");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let x = values(1, &[2, 4, 8]).unwrap().to_dtype(DType::F32).unwrap();
        assert!(attention(&x, &x, &x, 3, Mask::None).is_err(), "3 heads in a width of 8");
        assert!(attention(&x, &x, &x, 2, Mask::Lengths(&[4])).is_err(), "one length for two");
        assert!(attention(&x, &x, &x, 2, Mask::Lengths(&[4, 5])).is_err(), "more than there are");
        let double = x.to_dtype(DType::F64).unwrap();
        assert!(attention(&double, &double, &double, 2, Mask::None).is_err(), "f64");
    }
}
