//! Convolution without patches: lines of a padded picture are the rows of a product as they lie.
//!
//! One line of the kernel meets pixels that lie side by side. The left factor of a line of outputs is
//! therefore the picture itself, its rows a stride of pixels apart and overlapping; the kernel's lines
//! add up. Beside products over gathered patches this saves a tenth of the time.

#![expect(unsafe_code, reason = "tasks write disjoint parts of one matrix")]

use std::cell::RefCell;

use pulp::Arch;
use rayon::prelude::*;

use super::for_runs;
use super::math::Act;
use super::panels::{Aligned, DEPTH, PANEL, Panels};
use super::product::{Finish, Part, ROWS, SCRATCH, cut, parts};
use super::tile::{Begin, Block, Rows, Target, multiply};
use super::window::Walk;

/// A convolution, its window and what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direct<'a> {
    pub(super) walk: &'a Walk,
    pub(super) weights: &'a Panels,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) act: Act,
}

thread_local! {
    /// A padded batch, taken away while tasks read it.
    static PADDED: RefCell<Aligned> = RefCell::default();
}

/// A batch with its padding: height and width of a picture.
#[derive(Clone, Copy)]
struct Padded<'a> {
    data: &'a [f32],
    height: usize,
    width: usize,
}

impl Direct<'_> {
    /// Whether a line of outputs is long enough for tiles that are nearly full; below, products over
    /// patches are faster. A kernel of one pixel is its own patch. Lines of a kernel may be short: beside
    /// sums that begin anew with each, runs of a few numbers are dear to gather.
    pub(super) fn suits(walk: &Walk) -> bool {
        let line = walk.kernel[1] * walk.channels;
        walk.out_width >= 20 && (line >= 96 || walk.kernel[1] > 1 && line >= 9)
    }

    pub(super) fn compute(&self, x: &[f32]) -> Vec<f32> {
        let walk = self.walk;
        let [top, left, bottom, right] = walk.window.padding;
        let (height, width) = (walk.height + top + bottom, walk.width + left + right);
        if walk.window.padding == [0; 4] {
            return self.lines(Padded { data: x, height, width });
        }
        let mut buffer = PADDED.take();
        let line = width * walk.channels;
        let data = buffer.resize(walk.batch * height * line);
        let run = line * (16 * 1024_usize).div_ceil(line);
        for_runs(data, run, |index, lines| {
            for (inner, padded) in lines.chunks_exact_mut(line).enumerate() {
                let at = index * (run / line) + inner;
                self.pad(x, at / height, at % height, padded);
            }
        });
        let y = self.lines(Padded { data, height, width });
        PADDED.set(buffer);
        y
    }

    /// Line `row` of a padded picture.
    fn pad(&self, x: &[f32], sample: usize, row: usize, padded: &mut [f32]) {
        let walk = self.walk;
        let [top, left, ..] = walk.window.padding;
        if row < top || row >= top + walk.height {
            padded.fill(0.0);
            return;
        }
        let line = walk.width * walk.channels;
        let (before, rest) = padded.split_at_mut(left * walk.channels);
        let (inside, behind) = rest.split_at_mut(line);
        before.fill(0.0);
        behind.fill(0.0);
        inside.copy_from_slice(&x[(sample * walk.height + row - top) * line..][..line]);
    }

    fn lines(&self, x: Padded<'_>) -> Vec<f32> {
        let (walk, columns) = (self.walk, self.weights.columns);
        let lines = walk.batch * walk.out_height;
        let arch = Arch::new();
        Target::fill(lines * walk.out_width * columns, columns, |target| {
            let units = [lines, walk.out_width];
            let parts = parts(units, self.weights, rayon::current_num_threads());
            let run = |part: &Part| {
                let chunk = (ROWS / walk.out_width).max(1);
                let chunks = part.rows.len().div_ceil(chunk);
                for chunk in 0..chunks {
                    let lines = cut(part.rows.len(), chunks, chunk);
                    let rows = part.rows.start + lines.start..part.rows.start + lines.end;
                    self.chunk(arch, x, target, &Part { rows, panels: part.panels.clone() });
                }
            };
            match &parts[..] {
                [whole] => run(whole),
                parts => parts.par_iter().with_max_len(1).for_each(run),
            }
        })
    }

    /// Part of the output, in lines counted over the whole batch, that shares what is in the caches.
    fn chunk(&self, arch: Arch, x: Padded<'_>, target: Target, part: &Part) {
        let Self { walk, weights, .. } = self;
        let line = walk.kernel[1] * walk.channels;
        let cuts = line.div_ceil(DEPTH);
        SCRATCH.with_borrow_mut(|scratch| {
            for pass in 0..walk.kernel[0] * cuts {
                let (tap, depth) = (pass / cuts, cut(line, cuts, pass % cuts));
                let last = pass + 1 == walk.kernel[0] * cuts;
                for panel in part.panels.clone() {
                    let slice = [tap * line + depth.start, tap * line + depth.end];
                    let slice = weights.slice(panel, slice, &mut scratch.panel);
                    for at in part.rows.clone() {
                        let block = self.block(x, target, [at, tap, depth.start], depth.len());
                        let block = Block {
                            panel: slice,
                            begin: match pass {
                                0 => Begin::Bias(weights.bias(panel)),
                                _ => Begin::Target,
                            },
                            column: panel * PANEL,
                            columns: weights.valid(panel),
                            residual: self.residual.filter(|_| last && self.act.in_kernel()),
                            clamp: self.act.clamp().filter(|_| last),
                            ..block
                        };
                        // SAFETY: parts of one convolution are disjoint in lines or panels.
                        unsafe { multiply(arch, &block) };
                        if last && !self.act.in_kernel() {
                            let Self { residual, act, .. } = *self;
                            arch.dispatch(Finish { block: &block, residual, act });
                        }
                    }
                }
            }
        });
    }

    /// Line `at` of the output with what line `tap` of the kernel meets from `first` on.
    fn block<'a>(
        &self,
        x: Padded<'a>,
        target: Target,
        [at, tap, first]: [usize; 3],
        depth: usize,
    ) -> Block<'a> {
        let walk = self.walk;
        let (sample, row) = (at / walk.out_height, at % walk.out_height);
        let y = sample * x.height + row * walk.window.stride + tap;
        Block {
            left: Rows {
                data: &x.data[y * x.width * walk.channels + first..],
                stride: walk.window.stride * walk.channels,
            },
            rows: walk.out_width,
            depth,
            panel: &[],
            begin: Begin::Zero,
            target,
            row: at * walk.out_width,
            column: 0,
            columns: 0,
            residual: None,
            clamp: None,
            next: &[],
        }
    }
}
