//! Tensors in safetensors files, found by name and read one at a time.
//!
//! A bundle or checkpoint of 600 MB is neither mapped nor read as a whole: what is in memory is the weights that the
//! networks hold and one buffer. (A mapped file would count twice as long as its pages are there.)

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Longest header in bytes: the list of names, shapes and offsets. Large checkpoints have some 100 kB.
const MAX_HEADER: u64 = 16 << 20;
/// Bytes that are read at once; a multiple of every type's width.
const CHUNK: usize = 1 << 20;

/// A file that stays open: what was looked at is what is read later, whatever takes its name meanwhile.
pub(crate) struct StoredFile {
    /// How errors name it.
    pub(crate) name: String,
    content: Content,
    /// In bytes.
    pub(crate) length: u64,
}

/// Where the bytes of a file are.
enum Content {
    Disk(File),
    /// Of a bundle built into a program, or not written yet.
    Memory(Cow<'static, [u8]>),
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, length, .. } = self;
        write!(f, "StoredFile({name}, {length} bytes)")
    }
}

impl StoredFile {
    /// Opens a regular file, following links.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Corrupt`] for a folder, a pipe and the like.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self> {
        let refused = |error| Error::io(path, error);
        // Asked before it is opened: opening a pipe would wait for a writer.
        if !path.metadata().map_err(refused)?.is_file() {
            return Err(Error::corrupt(name, "is not a file; copy the checkpoint again"));
        }
        let file = File::open(path).map_err(refused)?;
        let length = file.metadata().map_err(refused)?.len();
        Ok(Self { name: name.to_owned(), content: Content::Disk(file), length })
    }

    /// A file whose bytes are in memory already.
    pub(crate) fn in_memory(name: &str, bytes: Cow<'static, [u8]>) -> Self {
        let length = bytes.len() as u64;
        Self { name: name.to_owned(), content: Content::Memory(bytes), length }
    }

    /// Hands the content piece by piece to `each`, without keeping it.
    ///
    /// # Errors
    /// [`Error::Io`], and those of `each`; [`Error::Corrupt`] if the file ends before its length.
    pub(crate) fn for_each_chunk(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.length {
            let count = (self.length - at).min(CHUNK as u64) as usize;
            self.read(at, &mut buffer[..count])?;
            each(&buffer[..count])?;
            at += count as u64;
        }
        Ok(())
    }

    /// SHA-256 of the content in lower-case hex.
    ///
    /// # Errors
    /// As [`StoredFile::for_each_chunk`].
    pub(crate) fn sha256(&self) -> Result<String> {
        let mut hash = Sha256::new();
        self.for_each_chunk(|bytes| {
            hash.update(bytes);
            Ok(())
        })?;
        Ok(hex::encode(hash.finalize()))
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let shorter =
            || Error::corrupt(&self.name, "became shorter while it was read; copy it again");
        match &self.content {
            Content::Disk(file) => {
                file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
                    std::io::ErrorKind::UnexpectedEof => shorter(),
                    _ => Error::io(&self.name, error),
                })
            }
            Content::Memory(bytes) => {
                let rest = bytes.get(at as usize..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(rest.ok_or_else(shorter)?);
                Ok(())
            }
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Place {
    file: usize,
    begin: u64,
    dtype: Dtype,
    shape: Vec<usize>,
    /// As the file calls it.
    name: String,
}

/// The tensors of one or more safetensors files, by the names that the networks have for them.
#[derive(Debug)]
pub struct StoredTensors {
    files: Vec<StoredFile>,
    places: BTreeMap<String, Place>,
}

impl StoredTensors {
    /// Reads the headers of `files`. `named` says what a tensor of the file is called here; `None` for one
    /// that no network needs.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the file that is no safetensors file or cut off, or the tensor that two
    /// of them have.
    pub(crate) fn open(
        files: Vec<StoredFile>,
        named: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let mut places = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            let (start, header) = header(file)?;
            for (stored, info) in header.tensors() {
                let Some(name) = named(&stored) else { continue };
                let place = Place {
                    file: number,
                    begin: start + info.data_offsets.0 as u64,
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    name: stored,
                };
                if let Some(other) = places.insert(name, place) {
                    let message = format!("has a second tensor `{}`", other.name);
                    return Err(Error::corrupt(&file.name, message));
                }
            }
        }
        Ok(Self { files, places })
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether all matrices have 16 bits a value of the kind that bundles store: to be written again
    /// without rounding.
    #[must_use]
    pub fn are_halves(&self) -> bool {
        let mut matrices = self.places.values().filter(|place| place.shape.len() >= 2).peekable();
        matrices.peek().is_some() && matrices.all(|place| place.dtype == Dtype::F16)
    }

    /// The shape of a tensor.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| place.shape.as_slice())
    }

    /// All tensors, as [`StoredTensors::read`] gives them.
    ///
    /// # Errors
    /// As [`StoredTensors::read`].
    pub fn all(&self) -> Result<BTreeMap<String, Tensor>> {
        let all = self.places.keys().filter_map(|name| {
            self.read(name).transpose().map(|tensor| Ok((name.clone(), tensor?)))
        });
        all.collect()
    }

    /// Sees a tensor of one value as a scalar, whatever its shape.
    pub(crate) fn as_scalar(&mut self, name: &str) {
        if let Some(place) = self.places.get_mut(name)
            && place.shape.iter().all(|&side| side == 1)
        {
            place.shape.clear();
        }
    }

    /// The value of a tensor of one, which is then no tensor of this any more; `None` if there is none of
    /// this name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it has more values; as [`StoredTensors::read`].
    pub(crate) fn take_scalar(&mut self, name: &str) -> Result<Option<f32>> {
        self.as_scalar(name);
        let Some(tensor) = self.read(name)? else { return Ok(None) };
        let taken = self.places.remove(name);
        if tensor.rank() != 0 {
            let file = taken.map_or("", |place| self.files[place.file].name.as_str());
            return Err(Error::corrupt(file, format!("has more than one value in `{name}`")));
        }
        Ok(Some(tensor.to_scalar()?))
    }

    /// The files.
    pub(crate) fn files(&self) -> &[StoredFile] {
        &self.files
    }

    /// A tensor as f32 on the CPU, `None` if there is none of this name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a type other than f32, f16 and bf16, and for a value that is not finite;
    /// [`Error::Io`].
    pub fn read(&self, name: &str) -> Result<Option<Tensor>> {
        Ok(self.read_as_stored(name)?.map(|tensor| tensor.to_dtype(DType::F32)).transpose()?)
    }

    /// [`StoredTensors::read`], but f16 stays f16.
    ///
    /// # Errors
    /// As [`StoredTensors::read`].
    pub fn read_as_stored(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(place) = self.places.get(name) else { return Ok(None) };
        let file = &self.files[place.file];
        match place.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
            other => {
                let message = format!(
                    "has tensor `{}` of type {other:?}; only F32, F16 and BF16 are read",
                    place.name
                );
                return Err(Error::corrupt(&file.name, message));
            }
        }
        let width = if place.dtype == Dtype::F32 { 4 } else { 2 };
        let count: usize = place.shape.iter().product();
        let mut half: Vec<f16> = Vec::new();
        let mut values: Vec<f32> = Vec::new();
        if place.dtype == Dtype::F16 {
            half.reserve_exact(count);
        } else {
            values.reserve_exact(count);
        }
        let mut buffer = vec![0; CHUNK.min(count * width)];
        let (mut at, end) = (place.begin, place.begin + (count * width) as u64);
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            file.read(at, &mut buffer[..length])?;
            let bytes = &buffer[..length];
            match place.dtype {
                Dtype::F32 => values.extend(pieces(bytes).map(f32::from_le_bytes)),
                Dtype::F16 => half.extend(pieces(bytes).map(f16::from_le_bytes)),
                _ => values.extend(pieces(bytes).map(|bytes| bf16::from_le_bytes(bytes).to_f32())),
            }
            at += length as u64;
        }
        let finite = values.iter().all(|value| value.is_finite());
        if !(finite && half.iter().all(|value| value.is_finite())) {
            let message = format!(
                "has values in tensor `{}` that are not finite; the checkpoint is damaged",
                place.name
            );
            return Err(Error::corrupt(&file.name, message));
        }
        let shape = place.shape.as_slice();
        Ok(Some(if place.dtype == Dtype::F16 {
            Tensor::from_vec(half, shape, &Device::Cpu)?
        } else {
            Tensor::from_vec(values, shape, &Device::Cpu)?
        }))
    }
}

/// The whole numbers of `N` bytes in `bytes`.
fn pieces<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks().0.iter().copied()
}

/// The header of a safetensors file, and where the data begins.
fn header(file: &StoredFile) -> Result<(u64, Metadata)> {
    let damaged = |message: String| Error::corrupt(&file.name, message);
    let mut length = [0; 8];
    if file.length < 8 {
        return Err(damaged("is cut off or no safetensors file; copy it again".to_owned()));
    }
    file.read(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length + 8 > file.length {
        return Err(damaged("does not begin as a safetensors file; copy it again".to_owned()));
    }
    let mut json = vec![0; length as usize];
    file.read(8, &mut json)?;
    let metadata: Metadata = serde_json::from_slice(&json)
        .map_err(|error| damaged(format!("is not a safetensors file ({error})")))?;
    let needed = (metadata.data_len() as u64).saturating_add(8 + length);
    if needed != file.length {
        let message = format!(
            "has {} bytes where its header says {needed}: it is cut off or damaged, copy it again",
            file.length
        );
        return Err(damaged(message));
    }
    Ok((8 + length, metadata))
}

/// The content of a file that is small enough to hold.
///
/// # Errors
/// [`Error::Limit`] for one of more than `most` bytes; as [`StoredFile::open`].
pub(crate) fn small(path: &Path, name: &str, most: u64) -> Result<Vec<u8>> {
    let stored = StoredFile::open(path, name)?;
    if stored.length > most {
        return Err(Error::limit(format!("{name} bytes"), most, stored.length));
    }
    // A file that grows meanwhile is not followed.
    let mut content = vec![0; stored.length as usize];
    stored.read(0, &mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{TensorView, serialize};

    use super::*;

    fn file(dir: &Path, tensors: &[(&str, Dtype, &[usize], &[u8])]) -> StoredFile {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
        });
        let path = dir.join("w.safetensors");
        std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
        StoredFile::open(&path, "w.safetensors").unwrap()
    }

    fn renamed(name: &str) -> Option<String> {
        (!name.ends_with("position_ids")).then(|| format!("image.{name}"))
    }

    #[test]
    fn values_of_every_type_are_read_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let single: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let half: Vec<u8> =
            [1.5, -2.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let brain: Vec<u8> =
            [1.5, -2.0].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let file = file(
            dir.path(),
            &[
                ("a", Dtype::F32, &[2], &single),
                ("b", Dtype::F16, &[1, 2], &half),
                ("c", Dtype::BF16, &[2, 1], &brain),
                ("position_ids", Dtype::I64, &[1], &[0; 8]),
            ],
        );
        let stored = StoredTensors::open(vec![file], renamed).unwrap();
        assert_eq!(stored.names().collect::<Vec<_>>(), ["image.a", "image.b", "image.c"]);
        for (name, shape) in
            [("image.a", vec![2]), ("image.b", vec![1, 2]), ("image.c", vec![2, 1])]
        {
            let tensor = stored.read(name).unwrap().unwrap();
            assert_eq!(tensor.dims(), shape);
            assert_eq!(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        }
        assert!(stored.read("a").unwrap().is_none());
    }

    #[test]
    fn a_tensor_longer_than_the_buffer_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let count = CHUNK / 4 * 2 + 3;
        let bytes: Vec<u8> = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let file = file(dir.path(), &[("a", Dtype::F32, &[count], &bytes)]);
        let stored = StoredTensors::open(vec![file], renamed).unwrap();
        let values = stored.read("image.a").unwrap().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().enumerate().all(|(i, value)| *value == i as f32));
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let nan = f32::NAN.to_le_bytes();
        let file = file(
            dir.path(),
            &[("nan", Dtype::F32, &[1], &nan), ("whole", Dtype::I64, &[1], &[0; 8])],
        );
        let stored = StoredTensors::open(vec![file], renamed).unwrap();
        for (name, word) in [("image.nan", "not finite"), ("image.whole", "I64")] {
            let error = stored.read(name).unwrap_err().to_string();
            assert!(error.starts_with("w.safetensors: ") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(file(dir.path(), &[("a", Dtype::F32, &[4], &[0; 16])]));
        let path = dir.path().join("w.safetensors");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let file = StoredFile::open(&path, "w.safetensors").unwrap();
            let error = StoredTensors::open(vec![file], renamed).unwrap_err().to_string();
            assert!(error.starts_with("w.safetensors: "), "{length}: {error}");
        }
        assert!(StoredFile::open(dir.path(), "w.safetensors").is_err());
    }
}
