//! Vectors of a file, one after the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::kernel;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// A sentence without a full stop.
        reason: String,
    },
}

/// Rows of equal length, each brought to unit length.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    values: Vec<f32>,
    dims: usize,
}

impl Matrix {
    /// Rows from their components. `None` when they are no whole rows, or when a row is zero or not
    /// finite.
    #[must_use]
    pub fn from_values(values: &[f32], dims: usize) -> Option<Self> {
        if dims == 0 || !values.len().is_multiple_of(dims) {
            return None;
        }
        let mut units = Vec::with_capacity(values.len());
        for row in values.chunks_exact(dims) {
            units.extend(kernel::unit(row)?);
        }
        Some(Self { values: units, dims })
    }

    /// Reads `.fvecs` (per row: components as i32, then so many f32, little endian; the format of
    /// the TEXMEX corpora) or `.npy` (NumPy format 1 to 3, `<f4`, two axes, C order).
    ///
    /// # Errors
    /// [`ReadError`], when the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let bytes =
            fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        let parsed = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => npy(&bytes),
            Some("fvecs") => fvecs(&bytes),
            _ => Err("is neither .npy nor .fvecs".to_owned()),
        };
        parsed
            .and_then(|(values, dims)| {
                Self::from_values(&values, dims)
                    .ok_or_else(|| "a row is zero, or not finite".to_owned())
            })
            .map_err(|reason| ReadError::Format { path: path.to_owned(), reason })
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.dims
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Components of a row.
    #[must_use]
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// One row.
    ///
    /// # Panics
    /// Past the last row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dims..(row + 1) * self.dims]
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }
}

type Parsed = Result<(Vec<f32>, usize), String>;

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn fvecs(bytes: &[u8]) -> Parsed {
    let first = bytes.first_chunk::<4>().ok_or("is empty")?;
    let dims = usize::try_from(i32::from_le_bytes(*first)).unwrap_or(0);
    let each = dims.saturating_mul(4).saturating_add(4);
    if dims == 0 || !bytes.len().is_multiple_of(each) {
        return Err(format!("is no whole number of rows of {dims} components"));
    }
    let mut values = Vec::with_capacity(bytes.len() / 4);
    for row in bytes.chunks_exact(each) {
        let (length, row) = row.split_at(4);
        if length != first {
            return Err("has rows of different lengths".to_owned());
        }
        values.extend(floats(row));
    }
    Ok((values, dims))
}

fn npy(bytes: &[u8]) -> Parsed {
    let no_header = "has no NumPy header";
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(no_header)?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or(no_header)?;
    let (length, rest) = if major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(no_header)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(no_header)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length).ok_or(no_header)?;
    let header = String::from_utf8_lossy(header);
    if !header.contains("'<f4'") || header.contains("'fortran_order': True") {
        return Err("holds no f32 in C order".to_owned());
    }
    let shape = header
        .split_once("'shape': (")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(shape, _)| shape.split(',').map_while(|axis| axis.trim().parse().ok()));
    let shape: Vec<usize> = shape.ok_or("tells no shape")?.collect();
    let &[rows, dims] = shape.as_slice() else {
        return Err(format!("has {} axes, not two", shape.len()));
    };
    if dims == 0 || rows.checked_mul(dims).and_then(|n| n.checked_mul(4)) != Some(data.len()) {
        return Err(format!("has other than {rows} rows of {dims} components"));
    }
    Ok((floats(data).collect(), dims))
}
