//! Unit vectors in memory, one after the other, in the form that their collection stores.

use std::ops::Range;

use crate::{encoding, kernel, types::VectorStorage};

/// Some rows of one length.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    dims: usize,
    values: Values,
}

/// The components, and the steps of short forms: see [`encoding`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    F32(Vec<f32>),
    I16 { codes: Vec<i16>, steps: Vec<f32> },
    I8 { codes: Vec<i8>, steps: Vec<f32> },
}

impl Matrix {
    /// No rows of `dims` components yet, with room for some.
    pub(crate) fn with_capacity(dims: usize, storage: VectorStorage, rows: usize) -> Self {
        let room = dims * rows;
        let values = match storage {
            VectorStorage::F32 => Values::F32(Vec::with_capacity(room)),
            VectorStorage::I16 => {
                Values::I16 { codes: Vec::with_capacity(room), steps: Vec::with_capacity(rows) }
            }
            VectorStorage::I8 => {
                Values::I8 { codes: Vec::with_capacity(room), steps: Vec::with_capacity(rows) }
            }
        };
        Self { dims, values }
    }

    pub(crate) fn from_values(dims: usize, values: Values) -> Self {
        Self { dims, values }
    }

    pub(crate) fn values(&self) -> &Values {
        &self.values
    }

    pub(crate) fn dims(&self) -> usize {
        self.dims
    }

    pub(crate) fn storage(&self) -> VectorStorage {
        match &self.values {
            Values::F32(_) => VectorStorage::F32,
            Values::I16 { .. } => VectorStorage::I16,
            Values::I8 { .. } => VectorStorage::I8,
        }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::F32(values) => values.len() / self.dims.max(1),
            Values::I16 { steps, .. } | Values::I8 { steps, .. } => steps.len(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        match &self.values {
            Values::F32(values) => size_of_val(values.as_slice()),
            Values::I16 { codes, steps } => size_of_val(&codes[..]) + size_of_val(&steps[..]),
            Values::I8 { codes, steps } => size_of_val(&codes[..]) + size_of_val(&steps[..]),
        }
    }

    /// Cosines of the query, a unit vector, with the first components of some rows, into `room.out`,
    /// which is made as long.
    pub(crate) fn prefix_scores(&self, query: &[f32], rows: Range<usize>, room: &mut Scores) {
        room.out.resize(rows.len(), 0.0);
        if let Values::F32(values) = &self.values {
            let values = &values[rows.start * self.dims..rows.end * self.dims];
            return kernel::cosine_prefix_rows(query, values, self.dims, &mut room.out);
        }
        room.rows.clear();
        self.read(rows, &mut room.rows);
        kernel::cosine_prefix_rows(query, &room.rows, self.dims, &mut room.out);
    }

    /// Appends a rounded row.
    pub(crate) fn push(&mut self, row: &[f32]) {
        debug_assert_eq!(row.len(), self.dims);
        match &mut self.values {
            Values::F32(values) => values.extend_from_slice(row),
            Values::I16 { codes, steps } => {
                let fixed = encoding::fixed_16(row);
                codes.extend(fixed.codes);
                steps.push(fixed.step);
            }
            Values::I8 { codes, steps } => {
                let fixed = encoding::fixed_8(row);
                codes.extend(fixed.codes);
                steps.push(fixed.step);
            }
        }
    }

    /// Appends all rows of another one of the same form.
    pub(crate) fn extend(&mut self, other: &Self) {
        match (&mut self.values, &other.values) {
            (Values::F32(to), Values::F32(from)) => to.extend_from_slice(from),
            (Values::I16 { codes, steps }, Values::I16 { codes: more, steps: of_more }) => {
                codes.extend_from_slice(more);
                steps.extend_from_slice(of_more);
            }
            (Values::I8 { codes, steps }, Values::I8 { codes: more, steps: of_more }) => {
                codes.extend_from_slice(more);
                steps.extend_from_slice(of_more);
            }
            _ => {
                let mut row = Vec::with_capacity(self.dims);
                for at in 0..other.len() {
                    row.clear();
                    other.read(at..at + 1, &mut row);
                    self.push(&row);
                }
            }
        }
    }

    /// Appends the components of some rows.
    pub(crate) fn read(&self, rows: Range<usize>, out: &mut Vec<f32>) {
        let dims = self.dims;
        let of = |row: usize| row * dims..(row + 1) * dims;
        match &self.values {
            Values::F32(values) => {
                out.extend_from_slice(&values[rows.start * dims..rows.end * dims]);
            }
            Values::I16 { codes, steps } => {
                rows.for_each(|row| kernel::widen_16(&codes[of(row)], steps[row], out));
            }
            Values::I8 { codes, steps } => {
                rows.for_each(|row| kernel::widen_8(&codes[of(row)], steps[row], out));
            }
        }
    }

    /// Dot products of the query with some rows, into `out`, which is made as long.
    pub(crate) fn scores(&self, query: &[f32], rows: Range<usize>, room: &mut Scores) {
        room.out.resize(rows.len(), 0.0);
        if let Values::F32(values) = &self.values {
            let values = &values[rows.start * self.dims..rows.end * self.dims];
            return kernel::dot_rows(query, values, &mut room.out);
        }
        room.rows.clear();
        self.read(rows, &mut room.rows);
        kernel::dot_rows(query, &room.rows, &mut room.out);
    }
}

/// What scoring writes on, used again and again.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    /// Rows read for it.
    pub(crate) rows: Vec<f32>,
    /// A score for each row asked for.
    pub(crate) out: Vec<f32>,
}

/// Rows for a build, as f32.
#[derive(Debug)]
pub(crate) struct Wide<'a> {
    dims: usize,
    values: std::borrow::Cow<'a, [f32]>,
}

impl<'a> Wide<'a> {
    pub(crate) fn new(matrix: &'a Matrix) -> Self {
        let values = match &matrix.values {
            Values::F32(values) => values.into(),
            Values::I16 { .. } | Values::I8 { .. } => {
                let mut values = Vec::with_capacity(matrix.len() * matrix.dims);
                matrix.read(0..matrix.len(), &mut values);
                values.into()
            }
        };
        Self { dims: matrix.dims, values }
    }
}

impl crate::graph::Rows for Wide<'_> {
    fn len(&self) -> usize {
        self.values.len() / self.dims.max(1)
    }

    fn dims(&self) -> usize {
        self.dims
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dims..(row + 1) * self.dims]
    }
}
