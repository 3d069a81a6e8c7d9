//! The kernel: a dozen rows times a panel of columns, sums in registers.

#![expect(unsafe_code, reason = "rows of a tile lie apart and tasks write parts of one matrix")]

use pulp::{Arch, Simd, WithSimd};

use super::panels::PANEL;

/// Rows of a tile where there are 32 registers of 16 numbers, and where there are fewer.
const ROWS: [usize; 2] = [12, 6];

/// Up to this many tiles of a block fetch the next one's panel.
const FETCHING_TILES: usize = 8;

/// A matrix that several tasks write parts of: element (r, c) lies at `r * stride + c`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    data: *mut f32,
    len: usize,
    pub(super) stride: usize,
}

// SAFETY: a pointer into memory that outlives the call that hands `Target` around (`Target::fill`
// and `Target::over`); who writes through it names the part, and tasks are given disjoint parts.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A new matrix of `len` elements in rows of `stride`. `write` must write every element: memory
    /// comes as it is, since zeros that are overwritten at once cost as much as a small convolution.
    pub(super) fn fill(len: usize, stride: usize, write: impl FnOnce(Self)) -> Vec<f32> {
        let mut matrix = Vec::with_capacity(len);
        write(Self { data: matrix.as_mut_ptr(), len, stride });
        // SAFETY: the capacity is `len`, and `write` has written every element; tests of each
        // operation compare all of them.
        unsafe { matrix.set_len(len) };
        matrix
    }

    /// A matrix that is there.
    pub(super) fn over(matrix: &mut [f32], stride: usize) -> Self {
        Self { data: matrix.as_mut_ptr(), len: matrix.len(), stride }
    }

    /// `count` elements of row `row` from `column` on, to read and write what this task has written,
    /// or to write all of them.
    ///
    /// # Safety
    /// No other task may use these elements meanwhile, and they are written before they are read.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "a part of what `Target` lends, see `Safety`")]
    pub(super) unsafe fn part(&self, row: usize, column: usize, count: usize) -> &mut [f32] {
        let start = row * self.stride + column;
        assert!(start + count <= self.len, "a part lies inside its matrix");
        let data = self.data.wrapping_add(start);
        // SAFETY: inside the matrix by the assertion; nobody else uses it by the contract.
        unsafe { std::slice::from_raw_parts_mut(data, count) }
    }
}

/// The left factor: row r begins at `r * stride`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

/// What a sum begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin<'a> {
    /// These numbers, one a column.
    Bias(&'a [f32]),
    /// Zeros.
    Zero,
    /// What the target holds.
    Target,
}

/// `rows` rows of `left` from its first on, times a panel slice (depth, width), to the columns from
/// `column` on of the rows from `row` on of a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) left: Rows<'a>,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) panel: &'a [f32],
    pub(super) begin: Begin<'a>,
    pub(super) target: Target,
    pub(super) row: usize,
    pub(super) column: usize,
    /// Columns that exist, at most the panel's width.
    pub(super) columns: usize,
    /// Added to complete sums; laid out as the target is.
    pub(super) residual: Option<&'a [f32]>,
    /// Bounds of complete sums, the residual included.
    pub(super) clamp: Option<[f32; 2]>,
    /// The panel slice of the next block, fetched on the way: a slice that only a few tiles share is
    /// waited for otherwise. May be empty.
    pub(super) next: &'a [f32],
}

/// Computes a block, tile by tile. The order of a sum is that of the depth, whatever the tiles.
///
/// It stands alone, so that the kernel's many sizes are compiled once and not into every caller.
///
/// # Safety
/// No other task may use the block's part of the target meanwhile.
///
/// # Panics
/// If a factor is shorter than the sizes say or the block lies outside of the target.
#[inline(never)]
pub(super) unsafe fn multiply(arch: Arch, block: &Block<'_>) {
    let Block { left, rows, depth, panel, begin, target, row, column, columns, .. } = *block;
    if rows == 0 || columns == 0 {
        return;
    }
    let width = panel.len() / depth.max(1);
    assert!((columns..=PANEL).contains(&width) && width.is_multiple_of(PANEL / 2));
    assert!((rows - 1) * left.stride + depth <= left.data.len(), "rows lie inside their matrix");
    assert!(column + columns <= target.stride, "columns lie inside their row");
    assert!((row + rows - 1) * target.stride + column + columns <= target.len);
    if let Begin::Bias(bias) = begin {
        assert!(bias.len() == width, "a bias for each column");
    }
    if let Some(residual) = block.residual {
        assert!((row + rows - 1) * target.stride + column + columns <= residual.len());
    }
    arch.dispatch(Tiles { block, width });
}

/// A block whose sizes were checked.
struct Tiles<'a> {
    block: &'a Block<'a>,
    width: usize,
}

impl WithSimd for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, width } = self;
        let Block { left, rows, depth, panel, begin, target, row, column, columns, .. } = *block;
        let wide = S::F32_LANES == PANEL / 2;
        let most = if wide { ROWS[0] } else { ROWS[1] };
        let vectors = (width / S::F32_LANES).min(2);
        let tiles = rows.div_ceil(most);
        // An equal part in each tile, a number at each step of the depth. Beyond some tiles the
        // processor's own guess comes early enough.
        let few = tiles <= FETCHING_TILES && !block.next.is_empty();
        let part = if few { block.next.len().div_ceil(tiles) } else { 0 };
        let step = part.div_ceil(depth.max(1));
        let ahead = if few { block.next.as_ptr() } else { panel.as_ptr() };
        let mut first = 0;
        for tile in 0..tiles {
            // Tiles of equal height: one of a row or two would wait for its own sums.
            let next = rows * (tile + 1) / tiles;
            let mut offset = 0;
            while offset < columns {
                let start = (row + first) * target.stride + column + offset;
                let args = Tile {
                    left: left.data.as_ptr().wrapping_add(first * left.stride),
                    left_stride: left.stride,
                    depth,
                    panel: panel.as_ptr().wrapping_add(offset),
                    width,
                    begin: match begin {
                        Begin::Bias(bias) => Some(bias.as_ptr().wrapping_add(offset)),
                        Begin::Zero | Begin::Target => None,
                    },
                    accumulate: matches!(begin, Begin::Target),
                    residual: block.residual.map(|residual| residual.as_ptr().wrapping_add(start)),
                    clamp: block.clamp,
                    target: target.data.wrapping_add(start),
                    target_stride: target.stride,
                    next: ahead.wrapping_add(tile * part),
                    step,
                    columns: (columns - offset).min(vectors * S::F32_LANES),
                };
                args.dispatch(simd, next - first, vectors);
                offset += vectors * S::F32_LANES;
            }
            first = next;
        }
    }
}

/// One call of the kernel. Pointers are to the tile's first elements.
#[derive(Clone, Copy)]
struct Tile {
    left: *const f32,
    left_stride: usize,
    depth: usize,
    panel: *const f32,
    width: usize,
    begin: Option<*const f32>,
    accumulate: bool,
    residual: Option<*const f32>,
    clamp: Option<[f32; 2]>,
    target: *mut f32,
    target_stride: usize,
    columns: usize,
    /// What to fetch, and how much further at each step of the depth.
    next: *const f32,
    step: usize,
}

impl Tile {
    /// Calls the kernel of this size: [`multiply`] has checked that the tile lies inside its block, and
    /// its vectors inside the panel, whose width is a multiple of theirs.
    #[inline(always)]
    fn dispatch<S: Simd>(self, simd: S, rows: usize, vectors: usize) {
        macro_rules! one_of {
            ($vectors:literal: $($top:literal $bottom:literal,)*) => {
                match rows {
                    $(rows if rows == $top + $bottom => {
                        simd.vectorize(Run::<$top, $bottom, $vectors>(self));
                    })*
                    _ => unreachable!("a tile has at most a dozen rows"),
                }
            };
        }
        match (vectors, S::F32_LANES == PANEL / 2) {
            (1, true) => one_of!(1: 1 0, 1 1, 2 1, 2 2, 3 2, 3 3, 4 3, 4 4, 5 4, 5 5, 6 5, 6 6,),
            (_, true) => one_of!(2: 1 0, 1 1, 2 1, 2 2, 3 2, 3 3, 4 3, 4 4, 5 4, 5 5, 6 5, 6 6,),
            (_, false) => one_of!(2: 1 0, 1 1, 2 1, 2 2, 3 2, 3 3,),
        }
    }
}

/// Runs a body for each row of a half tile, with an index that the compiler knows. A loop as long as
/// this is not always unrolled, and sums that it would index then lie in memory: half as fast.
macro_rules! each_row {
    ($rows:ident, $r:ident => $body:block) => {
        each_row!($rows, $r => $body, 0 1 2 3 4 5)
    };
    ($rows:ident, $r:ident => $body:block, $($index:literal)*) => {
        $(if $rows > $index {
            let $r: usize = $index;
            $body
        })*
    };
}

/// A tile whose size the compiler knows: its sums are registers. Rows come in two halves of at most
/// six.
struct Run<const TOP: usize, const BOTTOM: usize, const VECTORS: usize>(Tile);

impl<const TOP: usize, const BOTTOM: usize, const VECTORS: usize> WithSimd
    for Run<TOP, BOTTOM, VECTORS>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let tile = &self.0;
        let lanes = S::F32_LANES;
        let mut first = [simd.splat_f32s(0.0); VECTORS];
        if let Some(bias) = tile.begin {
            for (v, first) in first.iter_mut().enumerate() {
                // SAFETY: the bias is as long as the panel is wide.
                *first = unsafe { load::<S>(bias.wrapping_add(v * lanes)) };
            }
        }
        let (mut top, mut bottom) = ([first; TOP], [first; BOTTOM]);
        for k in 0..tile.depth {
            let row = tile.panel.wrapping_add(k * tile.width);
            fetch(tile.next.wrapping_add(k * tile.step));
            // SAFETY: row k of the panel slice, which is `width` wide.
            let right: [S::f32s; VECTORS] =
                std::array::from_fn(|v| unsafe { load::<S>(row.wrapping_add(v * lanes)) });
            tile.add(simd, &mut top, k, right);
            let below = Tile { left: tile.left.wrapping_add(TOP * tile.left_stride), ..*tile };
            below.add(simd, &mut bottom, k, right);
        }
        tile.store(simd, &top);
        let rows = TOP * tile.target_stride;
        let target = tile.target.wrapping_add(rows);
        let residual = tile.residual.map(|residual| residual.wrapping_add(rows));
        Tile { target, residual, ..*tile }.store(simd, &bottom);
    }
}

impl Tile {
    /// Adds the products of column `k` of the left factor's first rows with row `k` of the panel.
    #[inline(always)]
    fn add<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        sums: &mut [[S::f32s; VECTORS]; ROWS],
        k: usize,
        right: [S::f32s; VECTORS],
    ) {
        each_row!(ROWS, r => {
            let at = self.left.wrapping_add(r * self.left_stride + k);
            // SAFETY: element k < depth of a row inside the left factor, as `multiply` has checked.
            let left = simd.splat_f32s(unsafe { *at });
            for v in 0..VECTORS {
                sums[r][v] = simd.mul_add_e_f32s(left, right[v], sums[r][v]);
            }
        });
    }

    /// Writes sums to the first rows of the target, or adds them to what is there.
    #[inline(always)]
    fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        sums: &[[S::f32s; VECTORS]; ROWS],
    ) {
        each_row!(ROWS, r => { self.store_row(simd, r, sums[r]); });
    }

    #[inline(always)]
    fn store_row<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        row: usize,
        sums: [S::f32s; VECTORS],
    ) {
        let lanes = S::F32_LANES;
        for (v, sum) in sums.into_iter().enumerate() {
            let offset = row * self.target_stride + v * lanes;
            let at = self.target.wrapping_add(offset);
            let residual = self.residual.map(|residual| residual.wrapping_add(offset));
            if self.columns == VECTORS * lanes {
                // SAFETY: a whole vector inside the tile's part of the target, which is written where
                // it is added to; the residual is laid out alike.
                let before = self.accumulate.then(|| unsafe { load::<S>(at) });
                // SAFETY: as above.
                let residual = residual.map(|residual| unsafe { load::<S>(residual) });
                let sum = self.complete(simd, sum, before, residual);
                // SAFETY: as above; nobody else uses it.
                unsafe { at.cast::<S::f32s>().write_unaligned(sum) };
                continue;
            }
            let count = self.columns.saturating_sub(v * lanes).min(lanes);
            // SAFETY: `columns` elements of this row belong to the tile, no others.
            let part = unsafe { std::slice::from_raw_parts_mut(at, count) };
            let before = self.accumulate.then(|| simd.partial_load_f32s(part));
            let residual = residual.map(|residual| {
                // SAFETY: the residual is laid out as the target is.
                simd.partial_load_f32s(unsafe { std::slice::from_raw_parts(residual, count) })
            });
            simd.partial_store_f32s(part, self.complete(simd, sum, before, residual));
        }
    }

    #[inline(always)]
    fn complete<S: Simd>(
        &self,
        simd: S,
        mut sum: S::f32s,
        before: Option<S::f32s>,
        residual: Option<S::f32s>,
    ) -> S::f32s {
        if let Some(before) = before {
            sum = simd.add_f32s(sum, before);
        }
        if let Some(residual) = residual {
            sum = simd.add_f32s(sum, residual);
        }
        if let Some([low, high]) = self.clamp {
            sum = simd.max_f32s(sum, simd.splat_f32s(low));
            sum = simd.min_f32s(sum, simd.splat_f32s(high));
        }
        sum
    }
}

/// # Safety
/// A vector of numbers lies at `at`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(at: *const f32) -> S::f32s {
    // SAFETY: by the contract; no alignment is asked for.
    unsafe { at.cast::<S::f32s>().read_unaligned() }
}

/// Asks for the cache line at `at` in the second level.
#[inline(always)]
fn fetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which touches nothing and never fails whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
