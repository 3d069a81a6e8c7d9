//! Convolution of 3 x 3 with fewer multiplications (Winograd; Lavin and Gray 2016, section 4): pictures
//! and kernels are transformed tile by tile, where the convolution is a product for each element.
//!
//! A tile of outputs stands at a multiple of its size in its own picture, whatever the batch and the
//! threads, and every sum has one order: rows are the same to the bit in any company.

#![expect(
    unsafe_code,
    reason = "tasks write disjoint pixels, and vectors are read without checks each"
)]

use std::marker::PhantomData;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::math::{Act, activate};
use super::panels::{DEPTH, PANEL, Panels};
use super::product::{SCRATCH, cut};
use super::tile::{Begin, Block, Rows, Target, load, multiply};
use super::window::Walk;

/// Up to this many weights of a plain kernel tiles are of 4 x 4 outputs, which takes a quarter of the
/// multiplications and four times the weights; above, of 2 x 2: 4/9, and 16/9 of the weights.
const LARGE_TILES: usize = 9 * 128 * 128;
/// Beyond this the transformed weights of one picture's layer would be waited for longer than the
/// multiplications take.
const MOST_WEIGHTS: usize = 9 * 256 * 256;
/// Fewer channels than this are not worth the transforms.
const LEAST_CHANNELS: usize = 32;
/// Transformed numbers that a task holds at a time: with the weights of a panel they stay in a
/// second-level cache.
const HELD: usize = 320 * 1024;
/// Multiply-adds of the plain convolution that are worth a task.
const TASK: usize = 1 << 21;
/// What is read where a tile reaches beyond its picture.
static NOTHING: [f32; DEPTH] = [0.0; DEPTH];

/// The transforms of a tile of `OUT` outputs a side from `TILE` inputs, one side at a time.
trait Transform<const TILE: usize, const OUT: usize> {
    /// The kernel's.
    const KERNEL: [[f64; 3]; TILE];

    fn input<S: Simd>(simd: S, x: [S::f32s; TILE]) -> [S::f32s; TILE];

    fn output<S: Simd>(simd: S, x: [S::f32s; TILE]) -> [S::f32s; OUT];
}

/// F(2, 3).
struct Small;

impl Transform<4, 2> for Small {
    const KERNEL: [[f64; 3]; 4] =
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    fn input<S: Simd>(simd: S, x: [S::f32s; 4]) -> [S::f32s; 4] {
        [
            simd.sub_f32s(x[0], x[2]),
            simd.add_f32s(x[1], x[2]),
            simd.sub_f32s(x[2], x[1]),
            simd.sub_f32s(x[1], x[3]),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, x: [S::f32s; 4]) -> [S::f32s; 2] {
        let (sum, difference) = (simd.add_f32s(x[1], x[2]), simd.sub_f32s(x[1], x[2]));
        [simd.add_f32s(x[0], sum), simd.sub_f32s(difference, x[3])]
    }
}

/// F(4, 3), with the points 0, ±1 and ±2.
struct Large;

impl Transform<6, 4> for Large {
    const KERNEL: [[f64; 3]; 6] = [
        [1.0 / 4.0, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    fn input<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; 6] {
        let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
        let (even, odd) = (times(-4.0, x[2], x[4]), times(-4.0, x[1], x[3]));
        let (far_even, far_odd) = (simd.sub_f32s(x[4], x[2]), simd.sub_f32s(x[3], x[1]));
        [
            times(4.0, x[0], times(-5.0, x[2], x[4])),
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            times(2.0, far_odd, far_even),
            times(-2.0, far_odd, far_even),
            times(4.0, x[1], times(-5.0, x[3], x[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(simd: S, x: [S::f32s; 6]) -> [S::f32s; 4] {
        let times = |factor: f32, x, plus| simd.mul_add_e_f32s(simd.splat_f32s(factor), x, plus);
        let (near, far) = (simd.add_f32s(x[1], x[2]), simd.add_f32s(x[3], x[4]));
        let (near_odd, far_odd) = (simd.sub_f32s(x[1], x[2]), simd.sub_f32s(x[3], x[4]));
        [
            simd.add_f32s(x[0], simd.add_f32s(near, far)),
            times(2.0, far_odd, near_odd),
            times(4.0, far, near),
            simd.add_f32s(x[5], times(8.0, far_odd, near_odd)),
        ]
    }
}

/// Transformed weights: the depth of their panels runs through the elements of a tile, then the
/// channels.
#[derive(Debug)]
pub(super) struct Transformed {
    panels: Panels,
    large: bool,
}

impl Transformed {
    /// Whether convolutions by a kernel of this shape (O, C, kh, kw) are computed so. It does not ask for
    /// the picture: small ones cost more than they must, but no bits depend on it.
    pub(super) fn suits([outputs, channels, height, width]: [usize; 4], stride: usize) -> bool {
        let vectors = outputs.is_multiple_of(PANEL / 2) && channels.is_multiple_of(PANEL / 2);
        let weights = 9 * channels * outputs;
        [height, width, stride] == [3, 3, 1]
            && vectors
            && (LEAST_CHANNELS..=DEPTH).contains(&channels)
            && weights <= MOST_WEIGHTS
    }

    /// Transforms and packs a weight (O, C, 3, 3).
    pub(super) fn pack(
        [outputs, channels]: [usize; 2],
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let large = 9 * channels * outputs <= LARGE_TILES;
        let panels = if large {
            pack::<Large, 6, 4>([outputs, channels], weight, bias)
        } else {
            pack::<Small, 4, 2>([outputs, channels], weight, bias)
        };
        Self { panels, large }
    }

    pub(super) fn outputs(&self) -> usize {
        self.panels.columns
    }
}

/// Element (i, j) of a kernel g becomes row i of the transform times g times row j of it.
fn pack<F: Transform<TILE, OUT>, const TILE: usize, const OUT: usize>(
    [outputs, channels]: [usize; 2],
    weight: &[f32],
    bias: Option<&[f32]>,
) -> Panels {
    Panels::pack([outputs, TILE * TILE * channels], false, bias, |output, at| {
        let (element, channel) = (at / channels, at % channels);
        let kernel = &weight[(output * channels + channel) * 9..][..9];
        let (down, across) = (F::KERNEL[element / TILE], F::KERNEL[element % TILE]);
        let mut sum = 0.0;
        for (row, down) in down.iter().enumerate() {
            for (column, across) in across.iter().enumerate() {
                sum += down * across * f64::from(kernel[row * 3 + column]);
            }
        }
        sum as f32
    })
}

/// A convolution by transformed weights and what follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Winograd<'a> {
    pub(super) walk: &'a Walk,
    pub(super) weights: &'a Transformed,
    pub(super) residual: Option<&'a [f32]>,
    pub(super) act: Act,
}

impl Winograd<'_> {
    pub(super) fn compute(&self, x: &[f32]) -> Vec<f32> {
        if self.weights.large { self.tiles::<Large, 6, 4>(x) } else { self.tiles::<Small, 4, 2>(x) }
    }

    fn tiles<F: Transform<TILE, OUT>, const TILE: usize, const OUT: usize>(
        &self,
        x: &[f32],
    ) -> Vec<f32> {
        let (walk, panels) = (self.walk, &self.weights.panels);
        let grid = [walk.out_height.div_ceil(OUT), walk.out_width.div_ceil(OUT)];
        let tiles = walk.batch * grid[0] * grid[1];
        let held = TILE * TILE * (walk.channels + PANEL);
        let threads = rayon::current_num_threads();
        let work = walk.batch * walk.positions() * 9 * walk.channels * panels.columns;
        let wanted = if threads == 1 { 1 } else { (work / TASK).clamp(1, threads) };
        let chunks = tiles.div_ceil((HELD / held).max(12)).next_multiple_of(wanted).min(tiles);
        let columns = panels.columns;
        let arch = Arch::new();
        Target::fill(walk.batch * walk.positions() * columns, columns, |target| {
            let run = |chunk: usize| {
                let tiles = cut(tiles, chunks, chunk);
                self.chunk::<F, TILE, OUT>(arch, x, target, (grid, tiles));
            };
            if wanted == 1 {
                (0..chunks).for_each(run);
            } else {
                (0..chunks).into_par_iter().with_max_len(1).for_each(run);
            }
        })
    }

    /// Some tiles, counted over the whole batch.
    fn chunk<F: Transform<TILE, OUT>, const TILE: usize, const OUT: usize>(
        &self,
        arch: Arch,
        x: &[f32],
        target: Target,
        (grid, tiles): ([usize; 2], Range<usize>),
    ) {
        let (channels, panels) = (self.walk.channels, &self.weights.panels);
        let (area, count) = (TILE * TILE, tiles.len());
        // Elements lie apart by a line more than they need, so that they do not share cache sets.
        let plane = count * channels + PANEL / 2;
        let product = count * PANEL + PANEL / 2;
        SCRATCH.with_borrow_mut(|scratch| {
            let held = scratch.left.resize(area * (plane + product));
            let (inputs, products) = held.split_at_mut(area * plane);
            let tiles =
                Tiles::<F, TILE, OUT> { walk: self.walk, grid, tiles, transform: PhantomData };
            arch.dispatch(Input { tiles: &tiles, x, inputs, plane });
            for panel in 0..panels.count() {
                let width = panels.width(panel);
                for element in 0..area {
                    let slice = [element * channels, (element + 1) * channels];
                    let next = if element + 1 < area {
                        panels.ahead(panel, slice.map(|at| at + channels))
                    } else if panel + 1 < panels.count() {
                        panels.ahead(panel + 1, [0, channels])
                    } else {
                        &[]
                    };
                    let block = Block {
                        left: Rows { data: &inputs[element * plane..][..plane], stride: channels },
                        rows: count,
                        depth: channels,
                        panel: panels.slice(panel, slice, &mut scratch.panel),
                        begin: Begin::Zero,
                        target: Target::over(&mut products[element * product..][..product], PANEL),
                        row: 0,
                        column: 0,
                        columns: width,
                        residual: None,
                        clamp: None,
                        next,
                    };
                    // SAFETY: the buffer is this task's.
                    unsafe { multiply(arch, &block) };
                }
                let convolution = self;
                arch.dispatch(Output {
                    tiles: &tiles,
                    products,
                    product,
                    convolution,
                    target,
                    panel,
                });
            }
        });
    }
}

/// Some tiles of a batch, `grid` of them a picture.
struct Tiles<'a, F, const TILE: usize, const OUT: usize> {
    walk: &'a Walk,
    grid: [usize; 2],
    tiles: Range<usize>,
    transform: PhantomData<F>,
}

impl<F, const TILE: usize, const OUT: usize> Tiles<'_, F, TILE, OUT> {
    /// The picture that a tile is of, and the row and column of its first output.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, [usize; 2]) {
        let [height, width] = self.grid;
        let (picture, within) = (tile / (height * width), tile % (height * width));
        (picture, [within / width * OUT, within % width * OUT])
    }
}

/// From pictures to transformed tiles: element after element, each (tiles, channels).
struct Input<'a, F, const TILE: usize, const OUT: usize> {
    tiles: &'a Tiles<'a, F, TILE, OUT>,
    x: &'a [f32],
    inputs: &'a mut [f32],
    plane: usize,
}

impl<F: Transform<TILE, OUT>, const TILE: usize, const OUT: usize> WithSimd
    for Input<'_, F, TILE, OUT>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, x, inputs, plane } = self;
        let walk = tiles.walk;
        let channels = walk.channels;
        let [top, left, ..] = walk.window.padding;
        let mut pixels: [[&[f32]; TILE]; TILE] = [[&NOTHING[..channels]; TILE]; TILE];
        for (row, tile) in tiles.tiles.clone().enumerate() {
            let (picture, [y, x_first]) = tiles.place(tile);
            for (i, line) in pixels.iter_mut().enumerate() {
                for (j, pixel) in line.iter_mut().enumerate() {
                    // Where the padding begins, the differences wrap to more than any side.
                    let (y, across) = ((y + i).wrapping_sub(top), (x_first + j).wrapping_sub(left));
                    *pixel = if y < walk.height && across < walk.width {
                        let at = (picture * walk.height + y) * walk.width + across;
                        &x[at * channels..(at + 1) * channels]
                    } else {
                        &NOTHING[..channels]
                    };
                }
            }
            let last = &inputs[(TILE * TILE - 1) * plane + row * channels..];
            assert!(last.len() >= channels, "the last element's row lies inside the buffer");
            let base = inputs.as_mut_ptr().wrapping_add(row * channels);
            for channel in (0..channels).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.0); TILE]; TILE];
                for j in 0..TILE {
                    let mut column = [simd.splat_f32s(0.0); TILE];
                    for i in 0..TILE {
                        // SAFETY: pixels have `channels` numbers, a multiple of any vector's.
                        column[i] =
                            unsafe { load::<S>(pixels[i][j].as_ptr().wrapping_add(channel)) };
                    }
                    let column = F::input(simd, column);
                    for i in 0..TILE {
                        half[i][j] = column[i];
                    }
                }
                for (i, line) in half.into_iter().enumerate() {
                    for (j, value) in F::input(simd, line).into_iter().enumerate() {
                        let at = base.wrapping_add((i * TILE + j) * plane + channel);
                        // SAFETY: inside this row of the element, the last of which was looked at above.
                        unsafe { at.cast::<S::f32s>().write_unaligned(value) };
                    }
                }
            }
        }
    }
}

/// From products, element after element, each (tiles, panel), to outputs.
struct Output<'a, F, const TILE: usize, const OUT: usize> {
    tiles: &'a Tiles<'a, F, TILE, OUT>,
    products: &'a [f32],
    product: usize,
    convolution: &'a Winograd<'a>,
    target: Target,
    panel: usize,
}

impl<F: Transform<TILE, OUT>, const TILE: usize, const OUT: usize> WithSimd
    for Output<'_, F, TILE, OUT>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { tiles, products, product, convolution, target, panel } = self;
        let Winograd { walk, weights, residual, act } = *convolution;
        let (bias, width) = (weights.panels.bias(panel), weights.panels.width(panel));
        for (row, tile) in tiles.tiles.clone().enumerate() {
            let (picture, [y, x]) = tiles.place(tile);
            let last = &products[(TILE * TILE - 1) * product + row * PANEL..];
            assert!(last.len() >= width, "the last element's row lies inside the buffer");
            let base = products.as_ptr().wrapping_add(row * PANEL);
            for column in (0..width).step_by(S::F32_LANES) {
                let mut half = [[simd.splat_f32s(0.0); TILE]; OUT];
                for j in 0..TILE {
                    let mut line = [simd.splat_f32s(0.0); TILE];
                    for (i, value) in line.iter_mut().enumerate() {
                        let at = base.wrapping_add((i * TILE + j) * product + column);
                        // SAFETY: inside this row of the element, the last of which was looked at above.
                        *value = unsafe { load::<S>(at) };
                    }
                    for (to, value) in half.iter_mut().zip(F::output(simd, line)) {
                        to[j] = value;
                    }
                }
                let bias = simd.partial_load_f32s(&bias[column..column + S::F32_LANES]);
                for (i, line) in half.into_iter().enumerate().take(walk.out_height - y) {
                    let line = F::output(simd, line);
                    let first = (picture * walk.out_height + y + i) * walk.out_width + x;
                    for (j, value) in line.into_iter().enumerate().take(walk.out_width - x) {
                        let start = panel * PANEL + column;
                        let mut value = simd.add_f32s(value, bias);
                        if let Some(residual) = residual {
                            let at = (first + j) * target.stride + start;
                            let residual = &residual[at..at + S::F32_LANES];
                            value = simd.add_f32s(value, simd.partial_load_f32s(residual));
                        }
                        let value = activate(simd, act, value);
                        // SAFETY: a tile's outputs belong to one task.
                        let y = unsafe { target.part(first + j, start, S::F32_LANES) };
                        // SAFETY: as long as a vector.
                        unsafe { y.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) };
                    }
                }
            }
        }
    }
}
