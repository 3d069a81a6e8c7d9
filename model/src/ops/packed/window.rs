//! Windows that move over pictures: where they stand and how far they reach.

use candle_core::Result;

/// How a kernel moves over a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels from one position to the next, the same both ways.
    pub stride: usize,
    /// Pixels beyond the picture: [top, left, bottom, right].
    pub padding: [usize; 4],
}

impl Window {
    /// The same padding on all sides, as PyTorch has it.
    #[must_use]
    pub fn padded(stride: usize, padding: usize) -> Self {
        Self { stride, padding: [padding; 4] }
    }

    /// TensorFlow's `SAME` for pictures of this height and width: as many positions as strides begin
    /// in the picture, and where the padding is odd, the larger half is at the bottom and right.
    #[must_use]
    pub fn same(stride: usize, kernel: usize, [height, width]: [usize; 2]) -> Self {
        let total = |side: usize| {
            let positions = side.div_ceil(stride.max(1));
            (positions.saturating_sub(1) * stride + kernel).saturating_sub(side)
        };
        let (down, across) = (total(height), total(width));
        let (top, left) = (down / 2, across / 2);
        Self { stride, padding: [top, left, down - top, across - left] }
    }
}

/// A window over pictures of known size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) window: Window,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Walk {
    pub(super) fn new(
        (batch, height, width, channels): (usize, usize, usize, usize),
        kernel: [usize; 2],
        window: Window,
    ) -> Result<Self> {
        let [top, left, bottom, right] = window.padding;
        let room = [height + top + bottom, width + left + right];
        let empty = channels == 0 || window.stride == 0 || kernel.contains(&0);
        if empty || kernel[0] > room[0] || kernel[1] > room[1] {
            candle_core::bail!(
                "a kernel of {kernel:?} with {window:?} does not fit pictures of \
                 {height}x{width}x{channels}"
            );
        }
        let out_height = (room[0] - kernel[0]) / window.stride + 1;
        let out_width = (room[1] - kernel[1]) / window.stride + 1;
        Ok(Self { batch, height, width, channels, kernel, window, out_height, out_width })
    }

    /// Output positions of one sample.
    pub(super) fn positions(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Where the window at output (row, column) begins, which may be outside of the picture, as
    /// [row, column] plus the padding above and to the left.
    pub(super) fn corner(&self, row: usize, column: usize) -> [usize; 2] {
        [row * self.window.stride, column * self.window.stride]
    }

    /// The kernel's rows that meet the picture at output row `row`.
    #[inline(always)]
    pub(super) fn rows(&self, row: usize) -> std::ops::Range<usize> {
        inside(self.corner(row, 0)[0], self.window.padding[0], self.height, self.kernel[0])
    }

    /// The kernel's columns that meet the picture at output column `column`.
    #[inline(always)]
    pub(super) fn columns(&self, column: usize) -> std::ops::Range<usize> {
        inside(self.corner(0, column)[1], self.window.padding[1], self.width, self.kernel[1])
    }
}

/// The part of a kernel at `corner` that meets `side` pixels behind `padding`.
#[inline(always)]
fn inside(corner: usize, padding: usize, side: usize, kernel: usize) -> std::ops::Range<usize> {
    let first = padding.saturating_sub(corner).min(kernel);
    let last = (side + padding).saturating_sub(corner).min(kernel);
    first..last.max(first)
}
