//! Handwritten digits as they are found: MNIST's idx files, or the package of 10,000.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Pixels along a side.
pub(super) const SIDE: usize = 28;

/// Pixels of a digit.
pub(super) const PIXELS: usize = SIDE * SIDE;

/// Bytes that are read of a file at most: the largest one of MNIST has 47,040,016.
const MOST_BYTES: u64 = 1 << 28;

/// A digit as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digit {
    /// 0 to 9.
    pub(super) class: u8,
    /// Grey values, row by row, 255 being ink.
    pub(super) pixels: [u8; PIXELS],
}

/// A collection of digits.
#[derive(Debug)]
pub(super) struct Digits {
    pub(super) all: Vec<Digit>,
    /// Where those to report on begin, if the collection says which these are.
    pub(super) test_from: Option<usize>,
    /// Where they come from.
    pub(super) package: &'static str,
    /// On which terms, as the source states them.
    pub(super) licence: &'static str,
}

impl Digits {
    /// Reads what is in a folder.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if let Some(images) = idx_file(folder, "train-images-idx3-ubyte") {
            return Self::of_idx(folder, &images);
        }
        for below in ["", "src/digits", "package/src/digits"] {
            let digits = folder.join(below);
            if digits.join("0.json").is_file() {
                return Self::of_package(&digits);
            }
        }
        let message = "holds neither train-images-idx3-ubyte nor 0.json to 9.json; \
                       scripts/fetch-mnist.sh gets the latter";
        Err(Error::data(folder, message))
    }

    fn of_idx(folder: &Path, train_images: &Path) -> Result<Self> {
        let file = |name: &str| {
            idx_file(folder, name).ok_or_else(|| Error::data(folder.join(name), "is missing"))
        };
        let mut all = read_idx(train_images, &file("train-labels-idx1-ubyte")?)?;
        let test_from = Some(all.len());
        all.extend(read_idx(&file("t10k-images-idx3-ubyte")?, &file("t10k-labels-idx1-ubyte")?)?);
        Ok(Self { all, test_from, package: "MNIST", licence: "LicenseRef-MNIST" })
    }

    fn of_package(folder: &Path) -> Result<Self> {
        /// One of the package's files: grey values in 0..=1 of one digit after another.
        #[derive(Deserialize)]
        struct Content {
            data: Vec<f32>,
        }
        let mut all = Vec::new();
        for class in 0..10 {
            let path = folder.join(format!("{class}.json"));
            let content: Content = serde_json::from_slice(&read(&path)?)
                .map_err(|error| Error::data(&path, error.to_string()))?;
            if content.data.is_empty() || !content.data.len().is_multiple_of(PIXELS) {
                let message = format!("{} values are no digits of {PIXELS}", content.data.len());
                return Err(Error::data(&path, message));
            }
            if let Some(value) = content.data.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return Err(Error::data(&path, format!("{value} is not a grey value in 0..=1")));
            }
            all.extend(content.data.chunks_exact(PIXELS).map(|values| Digit {
                class,
                pixels: std::array::from_fn(|at| (values[at] * 255.0).round() as u8),
            }));
        }
        Ok(Self { all, test_from: None, package: "mnist 1.1.0", licence: "MIT" })
    }
}

/// The file of this name, gzipped or not, in a folder.
fn idx_file(folder: &Path, name: &str) -> Option<PathBuf> {
    let files = [folder.join(name), folder.join(format!("{name}.gz"))];
    files.into_iter().find(|path| path.is_file())
}

/// Digits of a file of pictures and one of classes.
fn read_idx(images: &Path, labels: &Path) -> Result<Vec<Digit>> {
    let pixels = payload(images, &[SIDE, SIDE])?;
    let classes = payload(labels, &[])?;
    if pixels.len() / PIXELS != classes.len() {
        let message =
            format!("has {} classes for {} pictures", classes.len(), pixels.len() / PIXELS);
        return Err(Error::data(labels, message));
    }
    if let Some(class) = classes.iter().find(|class| **class > 9) {
        return Err(Error::data(labels, format!("has a class {class}; digits are 0 to 9")));
    }
    let digit = |(&class, values): (&u8, &[u8])| Digit {
        class,
        pixels: std::array::from_fn(|at| values[at]),
    };
    Ok(classes.iter().zip(pixels.chunks_exact(PIXELS)).map(digit).collect())
}

/// The bytes of an idx file behind its header, which is: two zeros, 8 for unsigned bytes, the number of
/// dimensions, and the size of each, big-endian. All but the first must be `inner`.
fn payload(path: &Path, inner: &[usize]) -> Result<Vec<u8>> {
    let fault = |message: String| Error::data(path, message);
    let mut bytes = read(path)?;
    let header = 4 * (inner.len() + 2);
    let dimensions = inner.len() as u8 + 1;
    if bytes.len() < header || bytes[..4] != [0, 0, 8, dimensions] {
        return Err(fault(format!("is no idx file of {dimensions} dimensions of bytes")));
    }
    let sizes: Vec<usize> = bytes[4..header]
        .chunks_exact(4)
        .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
        .collect();
    if sizes[1..] != *inner {
        return Err(fault(format!("has pictures of {:?}, not {inner:?}", &sizes[1..])));
    }
    let expected = sizes.iter().product::<usize>();
    if bytes.len() - header != expected {
        let found = bytes.len() - header;
        return Err(fault(format!("promises {expected} bytes and has {found}")));
    }
    bytes.drain(..header);
    Ok(bytes)
}

/// A whole file, unpacked if it is gzipped, up to a limit.
fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|source| Error::io(path, source))?;
    let mut bytes = Vec::new();
    let read = match path.extension().is_some_and(|extension| extension == "gz") {
        true => GzDecoder::new(file).take(MOST_BYTES + 1).read_to_end(&mut bytes),
        false => file.take(MOST_BYTES + 1).read_to_end(&mut bytes),
    };
    read.map_err(|source| Error::io(path, source))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::data(path, format!("has more than {MOST_BYTES} bytes")));
    }
    Ok(bytes)
}
