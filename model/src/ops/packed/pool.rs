//! The largest value in each window.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use pulp::Arch;

use super::for_runs;
use super::window::{Walk, Window};
use crate::ops::real::{Real, elements, for_real, native, view};

/// The maximum of `x` (B, H, W, C) over `kernel` x `kernel` pixels at each position of `window`:
/// (B, H', W', C), with its gradient, which goes to the first of equals. Padding is never the
/// maximum. Candle's own pooling refuses a stride other than the kernel in its gradient, and gives
/// a wrong one else.
///
/// # Errors
/// If a window could lie in padding alone, or is larger than the padded picture.
pub fn max_pool(x: &Tensor, kernel: usize, window: Window) -> Result<Tensor> {
    if window.padding.iter().any(|padding| *padding >= kernel) {
        candle_core::bail!("max_pool: {window:?} leaves windows of {kernel} without a pixel");
    }
    let walk = Walk::new(x.dims4()?, [kernel, kernel], window)?;
    if (0..walk.out_height).any(|y| walk.rows(y).is_empty())
        || (0..walk.out_width).any(|x| walk.columns(x).is_empty())
    {
        candle_core::bail!("max_pool: {window:?} leaves windows of {kernel} without a pixel");
    }
    if !native(x) {
        return composed(&walk, x);
    }
    x.contiguous()?.apply_op1(Pool(walk))
}

/// The same function from candle's operations: elementwise maxima of shifted pictures.
fn composed(walk: &Walk, x: &Tensor) -> Result<Tensor> {
    let stride = walk.window.stride;
    let [top, left, ..] = walk.window.padding;
    let grid = |outputs: usize, tap: usize, padding: usize, side: usize| -> Vec<u32> {
        // Padding is replaced by the nearest pixel of the window, which changes no maximum.
        let at = |output: usize| (output * stride + tap).saturating_sub(padding).min(side - 1);
        (0..outputs).map(|output| at(output) as u32).collect()
    };
    let mut largest: Option<Tensor> = None;
    for tap in 0..walk.kernel[0] * walk.kernel[1] {
        let (ky, kx) = (tap / walk.kernel[1], tap % walk.kernel[1]);
        let pick = |indices: Vec<u32>| Tensor::new(indices, x.device());
        let rows = pick(grid(walk.out_height, ky, top, walk.height))?;
        let columns = pick(grid(walk.out_width, kx, left, walk.width))?;
        let shifted = x.index_select(&rows, 1)?.index_select(&columns, 2)?;
        largest = Some(match largest {
            None => shifted,
            Some(largest) => largest.maximum(&shifted)?,
        });
    }
    largest.ok_or_else(|| candle_core::Error::Msg("max_pool: an empty kernel".to_owned()))
}

struct Pool(Walk);

impl Pool {
    fn forward<T: Real>(&self, x: &[T]) -> Vec<T> {
        let walk = &self.0;
        let line = walk.out_width * walk.channels;
        let mut y = vec![T::from_f64(f64::NEG_INFINITY); walk.batch * walk.out_height * line];
        let arch = Arch::new();
        for_runs(&mut y, line.max(1), |index, y| {
            arch.dispatch(
                #[inline(always)]
                || self.line(x, index, y),
            );
        });
        y
    }

    /// One line of the output, counted over the whole batch.
    #[inline(always)]
    fn line<T: Real>(&self, x: &[T], line: usize, y: &mut [T]) {
        let walk = &self.0;
        for (column, y) in y.chunks_exact_mut(walk.channels).enumerate() {
            self.window(line, column, |pixel| {
                let x = &x[pixel * walk.channels..(pixel + 1) * walk.channels];
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if *x > *y { *x } else { *y };
                }
            });
        }
    }

    /// Calls `visit` with each pixel, counted over the whole batch, of the window at an output.
    #[inline(always)]
    fn window(&self, line: usize, column: usize, mut visit: impl FnMut(usize)) {
        let walk = &self.0;
        let (sample, row) = (line / walk.out_height, line % walk.out_height);
        let [top, left] = walk.corner(row, column);
        for tap_row in walk.rows(row) {
            let y = sample * walk.height + top + tap_row - walk.window.padding[0];
            for tap_column in walk.columns(column) {
                visit(y * walk.width + left + tap_column - walk.window.padding[1]);
            }
        }
    }

    fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let walk = &self.0;
        let mut dx = vec![T::zero(); x.len()];
        let mut pixels = Vec::new();
        for at in 0..walk.batch * walk.positions() {
            pixels.clear();
            self.window(at / walk.out_width, at % walk.out_width, |pixel| pixels.push(pixel));
            for channel in 0..walk.channels {
                let output = at * walk.channels + channel;
                let holds = |pixel: &&usize| x[**pixel * walk.channels + channel] >= y[output];
                if let Some(pixel) = pixels.iter().find(holds) {
                    dx[pixel * walk.channels + channel] += dy[output];
                }
            }
        }
        dx
    }
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let walk = &self.0;
        let shape = (walk.batch, walk.out_height, walk.out_width, walk.channels);
        for_real!(x.dtype(), "max_pool", T => {
            let y = self.forward::<T>(elements(x, layout)?);
            Ok((T::to_cpu_storage_owned(y), Shape::from(shape)))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let dy = dy.contiguous()?;
        for_real!(x.dtype(), "max_pool", T => {
            let dx = self.backward::<T>(&view(x)?, &view(y)?, &view(&dy)?);
            Tensor::from_vec(dx, x.shape(), x.device()).map(Some)
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::ops::gradcheck::{largest_error, values};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn equals_its_parts_and_has_their_gradient(
            batch in 1..3_usize, height in 3..8_usize, width in 3..8_usize, channels in 1..4_usize,
            kernel in 1..4_usize, stride in 1..4_usize, padding in 0..2_usize,
        ) {
            let window = Window::padded(stride, padding.min(kernel - 1));
            let x = values(1, &[batch, height, width, channels]).unwrap();
            let walk = Walk::new(x.dims4().unwrap(), [kernel, kernel], window).unwrap();
            let expected = composed(&walk, &x).unwrap().flatten_all().unwrap();
            let y = max_pool(&x, kernel, window).unwrap().flatten_all().unwrap();
            prop_assert_eq!(y.to_vec1::<f64>().unwrap(), expected.to_vec1::<f64>().unwrap());
            let pool = |t: &[Tensor]| max_pool(&t[0], kernel, window);
            prop_assert!(largest_error(&[x], pool).unwrap() < 1e-8);
        }
    }

    #[test]
    fn padding_is_never_the_maximum() {
        let x = (values(1, &[1, 4, 4, 3]).unwrap() - 10.0).unwrap().to_dtype(DType::F32).unwrap();
        let y = max_pool(&x, 3, Window::padded(2, 1)).unwrap();
        assert!(y.max_all().unwrap().to_scalar::<f32>().unwrap() < -8.0);
    }
}
