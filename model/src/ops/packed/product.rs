//! Products with packed weights: cut into blocks that fit caches, and into tasks for threads.
//!
//! An element's sum runs through the depth in one order, whatever the blocks and tasks, so that a
//! row is the same to the bit alone, in any batch and on any number of threads.

#![expect(unsafe_code, reason = "tasks write disjoint parts of one matrix")]

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math::{Act, finish};
use super::panels::{Aligned, DEPTH, PANEL, Panels};
use super::tile::{Begin, Block, Rows, Target, multiply};

/// Rows that share a panel slice while it is in the first-level cache; with all columns of a few
/// hundred they stay in the second.
pub(super) const ROWS: usize = 192;
/// Multiply-adds that are worth a task: ten microseconds or so.
const TASK: usize = 1 << 19;

/// The left factor of a product.
pub(super) trait Source: Sync {
    /// The elements `depth` of the rows `rows`, in place or gathered into `scratch`.
    fn rows<'a>(
        &'a self,
        rows: Range<usize>,
        depth: Range<usize>,
        scratch: &'a mut Aligned,
    ) -> Rows<'a>;
}

impl Source for Rows<'_> {
    fn rows<'a>(&'a self, rows: Range<usize>, depth: Range<usize>, _: &'a mut Aligned) -> Rows<'a> {
        Rows { data: &self.data[rows.start * self.stride + depth.start..], stride: self.stride }
    }
}

/// act(left weights + bias + residual).
#[derive(Debug)]
pub(super) struct Product<'a, L> {
    pub(super) left: L,
    pub(super) rows: usize,
    pub(super) weights: &'a Panels,
    /// (rows, columns), without gaps.
    pub(super) residual: Option<&'a [f32]>,
    pub(super) act: Act,
}

/// Part of a product: one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
}

/// Buffers of a thread, kept from one operation to the next. Nothing that borrows them hands work to
/// other threads: waiting for it could run a task that borrows them too.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) left: Aligned,
    pub(super) panel: Aligned,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl<L: Source> Product<'_, L> {
    /// (rows, columns), without gaps.
    pub(super) fn compute(&self) -> Vec<f32> {
        let columns = self.weights.columns;
        Target::fill(self.rows * columns, columns, |target| self.write(target))
    }

    /// Writes the product into the first columns of `target`.
    pub(super) fn write(&self, target: Target) {
        let arch = Arch::new();
        let parts = parts([self.rows, 1], self.weights, rayon::current_num_threads());
        let run = |part: &Part| {
            SCRATCH.with_borrow_mut(|scratch| {
                Task { product: self, part, target, scratch, arch }.run();
            });
        };
        match &parts[..] {
            [whole] => run(whole),
            parts => parts.par_iter().with_max_len(1).for_each(run),
        }
    }
}

/// Cuts a product into tasks, at the larger side: a thread then reads little of what others read too.
/// Rows come in `units` of `unit` rows each, in which [`Part::rows`] counts.
pub(super) fn parts([units, unit]: [usize; 2], weights: &Panels, threads: usize) -> Vec<Part> {
    let (rows, panels) = (units * unit, weights.count());
    let work = rows * weights.columns * weights.depth;
    let wanted = if threads == 1 { 1 } else { (work / TASK).clamp(1, 4 * threads) };
    let across = if weights.columns > rows { wanted.min(panels) } else { 1 };
    let down = wanted.div_ceil(across).min(rows.div_ceil(12)).min(units).max(1);
    (0..across * down)
        .map(|part| Part {
            rows: cut(units, down, part / across),
            panels: cut(panels, across, part % across),
        })
        .collect()
}

/// Part `part` of `parts` equal ones of `0..count`.
pub(super) fn cut(count: usize, parts: usize, part: usize) -> Range<usize> {
    count * part / parts..count * (part + 1) / parts
}

struct Task<'a, L> {
    product: &'a Product<'a, L>,
    part: &'a Part,
    target: Target,
    scratch: &'a mut Scratch,
    arch: Arch,
}

impl<L: Source> Task<'_, L> {
    fn run(mut self) {
        let Part { rows, panels } = self.part.clone();
        let chunks = rows.len().div_ceil(ROWS);
        for chunk in 0..chunks {
            let part = cut(rows.len(), chunks, chunk);
            self.chunk(rows.start + part.start..rows.start + part.end, panels.clone());
        }
    }

    fn chunk(&mut self, rows: Range<usize>, panels: Range<usize>) {
        let Product { ref left, weights, residual, act, .. } = *self.product;
        let blocks = weights.depth.div_ceil(DEPTH).max(1);
        for block in 0..blocks {
            let depth = cut(weights.depth, blocks, block);
            let last = depth.end == weights.depth;
            let left = left.rows(rows.clone(), depth.clone(), &mut self.scratch.left);
            for panel in panels.clone() {
                let slice = [depth.start, depth.end];
                let next = if panel + 1 < panels.end {
                    weights.ahead(panel + 1, slice)
                } else if !last {
                    let depth = cut(weights.depth, blocks, block + 1);
                    weights.ahead(panels.start, [depth.start, depth.end])
                } else {
                    &[]
                };
                let block = Block {
                    next,
                    left,
                    rows: rows.len(),
                    depth: depth.len(),
                    panel: weights.slice(panel, slice, &mut self.scratch.panel),
                    begin: match block {
                        0 => Begin::Bias(weights.bias(panel)),
                        _ => Begin::Target,
                    },
                    target: self.target,
                    row: rows.start,
                    column: panel * PANEL,
                    columns: weights.valid(panel),
                    residual: residual.filter(|_| last && act.in_kernel()),
                    clamp: act.clamp().filter(|_| last),
                };
                // SAFETY: parts of one product are disjoint in rows or panels.
                unsafe { multiply(self.arch, &block) };
                if last && !act.in_kernel() {
                    self.arch.dispatch(Finish { block: &block, residual, act });
                }
            }
        }
    }
}

/// Residual and activation of a block whose sums are complete.
pub(super) struct Finish<'a> {
    pub(super) block: &'a Block<'a>,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) act: Act,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { block, residual, act } = self;
        for row in block.row..block.row + block.rows {
            // SAFETY: this task's block, whose elements `multiply` has written.
            let y = unsafe { block.target.part(row, block.column, block.columns) };
            let start = row * block.target.stride + block.column;
            let residual = residual.map(|residual| &residual[start..][..block.columns]);
            finish(simd, act, y, residual);
        }
    }
}
