//! Segments on disk: files that the manifest names, and no others.
//!
//! `index/C/S-N.rows` holds segment N of slot S (0 to 3) of collection C:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DIPTYROW` |
//! | 4, 4, 4 | format version, collection, slot (u32) |
//! | 4, 8, 8 | components of a row (u32), number, rows (u64) |
//! | 4 | form of the rows (u32): 0 for those in `S-N.graph`, 1 f32, 2 i16, 3 i8 |
//! | 4 | least width of a walk that is good enough (u32); 0 without a graph |
//! | 8 each | versions, ascending (u64) |
//! | 4 each | steps of the rows (f32), in the last two forms |
//! | 4, 2 or 1 each | components of the rows |
//!
//! `index/C/S-N.graph` is what the graph saved.
//! All numbers are little-endian. A file is written beside its place and synced, renamed, and its
//! folder synced, before the commit that names it. What the commit names is its length and
//! checksum, so a file that was cut, changed or brought from elsewhere is noticed before it is used.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufReader, BufWriter, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Body, Segment, Walk};
use crate::{
    background,
    embedded::rows::{Matrix, Values},
    graph::{self, BuilderKind, FileError, Graph},
    store::{
        folder::sync_folder,
        key::{CollectionId, Slot},
        manifest::{FileRecord, SegmentRecord},
    },
    types::VectorStorage,
};

const MAGIC: [u8; 8] = *b"DIPTYROW";
const VERSION: u32 = 1;
const BUFFER: usize = 1 << 17;

/// Where a segment belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) collection: CollectionId,
    pub(crate) slot: Slot,
    pub(crate) number: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileFault {
    #[error("the disk refused")]
    Io(#[from] io::Error),
    #[error("it is missing")]
    Missing,
    #[error("it has {actual} bytes in place of {expected}")]
    Length { expected: u64, actual: u64 },
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is another kind of file, or another segment's")]
    Foreign,
    #[error("the graph: {0}")]
    Graph(#[from] FileError),
}

/// What the files of a segment hold.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) versions: Vec<u64>,
    pub(crate) body: Body,
    /// 0 without a graph.
    pub(crate) ef_search: u32,
}

/// The folder of segment files.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    next: AtomicU64,
}

impl Files {
    /// The folder, from which every file goes that is not named. What can't be removed costs disk
    /// space only.
    pub(crate) fn open(root: PathBuf, named: &[Place]) -> Self {
        let next = named.iter().map(|place| place.number + 1).max().unwrap_or(1);
        let files = Self { root, next: AtomicU64::new(next) };
        let wanted: HashSet<PathBuf> = named.iter().flat_map(|place| files.paths(place)).collect();
        for folder in list(&files.root) {
            for path in list(&folder) {
                if !wanted.contains(&path) {
                    remove(&path);
                }
            }
            // It fails where files are left in it, as it should.
            drop(fs::remove_dir(&folder));
        }
        files
    }

    /// A number that no segment has.
    pub(crate) fn fresh_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes a segment and makes it durable; nothing is left of one that failed.
    ///
    /// # Errors
    /// [`FileFault::Io`], [`FileFault::Graph`].
    pub(crate) fn write(
        &self,
        place: &Place,
        segment: &Segment,
    ) -> Result<SegmentRecord, FileFault> {
        let written = self.write_both(place, segment);
        if written.is_err() {
            let paths = self.paths(place);
            drop(fs::remove_file(paths[1].with_extension("new")));
            self.remove(place);
        }
        let (file, graph) = written?;
        let versions = segment.versions();
        let through = versions.last().copied().unwrap_or(0);
        let (number, rows) = (place.number, versions.len() as u64);
        Ok(SegmentRecord { number, rows, through, file, graph })
    }

    fn write_both(
        &self,
        place: &Place,
        segment: &Segment,
    ) -> Result<(FileRecord, Option<FileRecord>), FileFault> {
        let folder = self.folder(place.collection);
        if !folder.is_dir() {
            fs::create_dir_all(&folder)?;
            sync_folder(&self.root)?;
            self.root.parent().map_or(Ok(()), sync_folder)?;
        }
        let path = self.path(place);
        let graph = match segment.body() {
            Body::Graph(walk) => save(walk.graph.as_ref(), &path.with_extension("graph"))?,
            Body::Rows(_) => None,
        };
        let decoded;
        let rows = match segment.body() {
            Body::Rows(rows) => Some(rows),
            Body::Graph(_) if graph.is_some() => None,
            // A graph that can't be saved: its rows are, and it is built again.
            Body::Graph(_) => {
                let mut values = Vec::with_capacity(segment.len() * segment.dims());
                segment.read(0..segment.len(), &mut values);
                decoded = Matrix::from_values(segment.dims(), Values::F32(values));
                Some(&decoded)
            }
        };
        let ef_search = segment.walk().map_or(0, |walk| walk.ef_search as u32);
        let head = Head { place, dims: segment.dims(), ef_search };
        let fresh = path.with_extension("new");
        let mut out = Summed::new(BufWriter::with_capacity(BUFFER, File::create(&fresh)?));
        write_to(&mut out, &head, (segment.versions(), rows))?;
        let file = FileRecord { bytes: out.bytes, crc: out.crc.finalize() };
        out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync_folder(&folder)?;
        Ok((file, graph))
    }

    /// Reads a segment that the manifest names, of rows of so many components in a form.
    ///
    /// # Errors
    /// [`FileFault`], when it is not to the byte what was written.
    pub(crate) fn read(
        &self,
        place: &Place,
        record: &SegmentRecord,
        form: (usize, VectorStorage),
    ) -> Result<Stored, FileFault> {
        let path = self.path(place);
        verify(&path, &record.file)?;
        let mut file = BufReader::with_capacity(BUFFER, open(&path)?);
        let read = read_from(&mut file, place, (record, form))?;
        let body = match (read.rows, &record.graph) {
            (Some(rows), None) => Body::Rows(rows),
            (None, Some(of_graph)) => {
                let path = path.with_extension("graph");
                verify(&path, of_graph)?;
                let graph = graph::builder(BuilderKind::Native).load(&path)?;
                if graph.len() != read.versions.len() || graph.dims() != form.0 {
                    return Err(FileFault::Foreign);
                }
                Body::Graph(Walk { graph, ef_search: read.ef_search as usize })
            }
            (Some(_), Some(_)) | (None, None) => return Err(FileFault::Foreign),
        };
        Ok(Stored { versions: read.versions, body, ef_search: read.ef_search })
    }

    /// Removes a segment's files.
    pub(crate) fn remove(&self, place: &Place) {
        self.paths(place).iter().for_each(|path| remove(path));
    }

    /// Removes all files of a collection that was dropped.
    pub(crate) fn remove_collection(&self, collection: CollectionId) {
        let folder = self.folder(collection);
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %folder.display(), %error, "segments could not be removed");
        }
    }

    fn folder(&self, collection: CollectionId) -> PathBuf {
        self.root.join(collection.to_string())
    }

    fn path(&self, place: &Place) -> PathBuf {
        let name = format!("{}-{}.rows", place.slot.index(), place.number);
        self.folder(place.collection).join(name)
    }

    fn paths(&self, place: &Place) -> [PathBuf; 2] {
        let path = self.path(place);
        [path.with_extension("graph"), path]
    }
}

/// The graph's file; `None` when it has none.
fn save(graph: &dyn Graph, path: &Path) -> Result<Option<FileRecord>, FileFault> {
    match graph.save(path) {
        Ok(()) => Ok(Some(record_of(path)?)),
        Err(FileError::Unsupported) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What a file begins with.
#[derive(Debug, Clone, Copy)]
struct Head<'a> {
    place: &'a Place,
    dims: usize,
    ef_search: u32,
}

/// What the file of rows holds.
#[derive(Debug)]
struct Contents {
    versions: Vec<u64>,
    rows: Option<Matrix>,
    ef_search: u32,
}

impl Head<'_> {
    /// The part that is known before it is read.
    fn bytes(&self, rows: usize) -> Vec<u8> {
        let known = [
            MAGIC.as_slice(),
            &VERSION.to_le_bytes(),
            &self.place.collection.to_le_bytes(),
            &(self.place.slot.index() as u32).to_le_bytes(),
            &(self.dims as u32).to_le_bytes(),
            &self.place.number.to_le_bytes(),
            &(rows as u64).to_le_bytes(),
        ];
        known.concat()
    }
}

/// Length and checksum of a file.
fn record_of(path: &Path) -> Result<FileRecord, FileFault> {
    let mut file = open(path)?;
    let (mut crc, mut bytes) = (crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                crc.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok(FileRecord { bytes, crc: crc.finalize() })
}

/// A file of the length and checksum that were noted.
fn verify(path: &Path, record: &FileRecord) -> Result<(), FileFault> {
    let actual = open(path)?.metadata()?.len();
    if actual != record.bytes {
        return Err(FileFault::Length { expected: record.bytes, actual });
    }
    if record_of(path)?.crc == record.crc { Ok(()) } else { Err(FileFault::Checksum) }
}

fn open(path: &Path) -> Result<File, FileFault> {
    File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => FileFault::Missing,
        _ => FileFault::Io(error),
    })
}

fn write_to(
    out: &mut impl Write,
    head: &Head<'_>,
    (versions, rows): (&[u64], Option<&Matrix>),
) -> io::Result<()> {
    out.write_all(&head.bytes(versions.len()))?;
    out.write_all(&form_of(rows.map(Matrix::storage)).to_le_bytes())?;
    out.write_all(&head.ef_search.to_le_bytes())?;
    write_numbers(out, versions, u64::to_le_bytes)?;
    match rows.map(Matrix::values) {
        None => Ok(()),
        Some(Values::F32(values)) => write_numbers(out, values, f32::to_le_bytes),
        Some(Values::I16 { codes, steps }) => {
            write_numbers(out, steps, f32::to_le_bytes)?;
            write_numbers(out, codes, i16::to_le_bytes)
        }
        Some(Values::I8 { codes, steps }) => {
            write_numbers(out, steps, f32::to_le_bytes)?;
            write_numbers(out, codes, i8::to_le_bytes)
        }
    }
}

fn form_of(storage: Option<VectorStorage>) -> u32 {
    match storage {
        None => 0,
        Some(VectorStorage::F32) => 1,
        Some(VectorStorage::I16) => 2,
        Some(VectorStorage::I8) => 3,
    }
}

fn write_numbers<T: Copy, const N: usize>(
    out: &mut impl Write,
    numbers: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER);
    for some in numbers.chunks(BUFFER / N) {
        buffer.clear();
        buffer.extend(some.iter().flat_map(|&number| bytes(number)));
        out.write_all(&buffer)?;
        background::pause();
    }
    Ok(())
}

/// The head must be the one expected, so the lengths that follow are known before they are read.
fn read_from(
    file: &mut impl Read,
    place: &Place,
    (record, (dims, storage)): (&SegmentRecord, (usize, VectorStorage)),
) -> Result<Contents, FileFault> {
    let count = usize::try_from(record.rows).map_err(|_| FileFault::Foreign)?;
    let known = Head { place, dims, ef_search: 0 }.bytes(count);
    let mut head = vec![0; known.len()];
    file.read_exact(&mut head)?;
    let [form, ef_search] = [read_u32(file)?, read_u32(file)?];
    let storage = [None, Some(VectorStorage::F32), Some(storage)];
    let found = storage.into_iter().find(|storage| form_of(*storage) == form);
    let Some(storage) = found else { return Err(FileFault::Foreign) };
    let of_row = storage.map_or(0, |storage| match storage {
        VectorStorage::F32 => 4 * dims,
        VectorStorage::I16 => 4 + 2 * dims,
        VectorStorage::I8 => 4 + dims,
    });
    let length = (8 + of_row as u64).checked_mul(record.rows);
    let length = length.and_then(|length| length.checked_add(known.len() as u64 + 8));
    if head != known || length != Some(record.file.bytes) {
        return Err(FileFault::Foreign);
    }
    let versions = read_numbers(file, count, u64::from_le_bytes)?;
    if !versions.is_sorted() {
        return Err(FileFault::Foreign);
    }
    let values = match storage {
        None => None,
        Some(VectorStorage::F32) => {
            Some(Values::F32(read_numbers(file, count * dims, f32::from_le_bytes)?))
        }
        Some(VectorStorage::I16) => {
            let steps = read_numbers(file, count, f32::from_le_bytes)?;
            Some(Values::I16 {
                steps,
                codes: read_numbers(file, count * dims, i16::from_le_bytes)?,
            })
        }
        Some(VectorStorage::I8) => {
            let steps = read_numbers(file, count, f32::from_le_bytes)?;
            Some(Values::I8 { steps, codes: read_numbers(file, count * dims, i8::from_le_bytes)? })
        }
    };
    let rows = values.map(|values| Matrix::from_values(dims, values));
    Ok(Contents { versions, rows, ef_search })
}

fn read_u32(file: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn read_numbers<T, const N: usize>(
    file: &mut impl Read,
    count: usize,
    number: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, FileFault> {
    let mut numbers = Vec::with_capacity(count);
    let mut buffer = vec![0; BUFFER / N * N];
    while numbers.len() < count {
        let some = (count - numbers.len()).min(BUFFER / N);
        let bytes = &mut buffer[..some * N];
        file.read_exact(bytes)?;
        numbers.extend(bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)));
    }
    Ok(numbers)
}

/// Counts and sums up what passes.
struct Summed<W> {
    inner: W,
    bytes: u64,
    crc: crc32fast::Hasher,
}

impl<W> Summed<W> {
    fn new(inner: W) -> Self {
        Self { inner, bytes: 0, crc: crc32fast::Hasher::new() }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a segment could not be removed");
    }
}

#[cfg(test)]
mod tests;
