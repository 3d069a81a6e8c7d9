//! Serial matrix products over slices: the one place that calls the product kernel.

use gemm::Parallelism;

use super::real::Real;

/// A matrix inside a slice: element (r, c) lies at `r * row_stride + c * column_stride`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major matrix that fills `data`.
    pub(super) fn rows(data: &'a [T], columns: usize) -> Self {
        let rows = data.len() / columns;
        assert_eq!(data.len(), rows * columns, "a matrix fills its slice");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transposed matrix over the same elements.
    pub(super) fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `target = left x right`, or `target += left x right` if `accumulate`. `target` is row-major.
///
/// # Panics
/// If the shapes do not fit, which callers rule out.
pub(super) fn product<T: Real>(
    target: &mut [T],
    accumulate: bool,
    left: Matrix<'_, T>,
    right: Matrix<'_, T>,
) {
    assert_eq!(left.columns, right.rows, "inner dimensions agree");
    assert_eq!(target.len(), left.rows * right.columns, "the target holds the product");
    if target.is_empty() {
        return;
    }
    let stride = |value: usize| isize::try_from(value).unwrap_or(isize::MAX);
    // SAFETY: `Matrix` only ever describes elements inside its slice (rows x columns elements with
    // the strides of a row-major matrix or of its transpose), the target holds rows x columns
    // elements and is borrowed exclusively, and all three have the element type `T`, which is f32
    // or f64.
    #[expect(unsafe_code, reason = "the product kernel takes raw pointers")]
    unsafe {
        gemm::gemm(
            left.rows,
            right.columns,
            left.columns,
            target.as_mut_ptr(),
            1,
            stride(right.columns),
            accumulate,
            left.data.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            right.data.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            T::one(),
            T::one(),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
