//! A graph as a file. All numbers are little endian:
//!
//! ```text
//! "DIPTGRPH", version u32, header length u32
//! dims u64, rows u64, points u64, m u32, ef_construction u32, seed u64,
//! bytes of a component u32, layers u32, points of each layer u64...
//! sections: each its length in bytes u64 and its CRC-32 u32
//! CRC-32 of all before u32
//! the sections, one after the other:
//!   codes u8, scales f32, lower bytes u8, rows of points u32, starts of points u32,
//!   links of each layer u32
//! ```
//!
//! Every byte is under a checksum, and the length of the file is known from its header, so a file
//! that was cut or changed is told from a whole one before anything of it is believed. A checksum
//! does not help against a file that was wrong when written, so every number that leads somewhere
//! is also checked against where it leads.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use super::{
    NativeGraph,
    build::{MAX_LAYERS, max_links},
    codes::Codes,
    huge,
    line::zeroed,
    links::Links,
    queue::MAX_POINTS,
    stored::{Layout, Stored},
};
use crate::{
    background::parts,
    graph::{FileError, Params, Storage, points::Points},
};

const MAGIC: &[u8; 8] = b"DIPTGRPH";
const VERSION: u32 = 1;
/// Bytes before the header proper: magic, version, length.
const PREFIX: usize = 16;
/// Longest header, with room for [`MAX_LAYERS`].
const MAX_HEADER: usize = 4096;
/// Numbers that are turned into bytes at a time.
const CHUNK: usize = 1 << 14;

/// Writes a graph under another name, and gives it its own once it is on the disk.
pub(super) fn save(graph: &NativeGraph, path: &Path) -> Result<(), FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = write(graph, Path::new(&temporary))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // The first error is told; a file left behind is written over by the next try.
        drop(fs::remove_file(&temporary));
        io(error)
    })
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn write(graph: &NativeGraph, path: &Path) -> io::Result<()> {
    let mut sums = Vec::new();
    for section in 0..sections(graph.layers.len()) {
        let mut sum = Sum::default();
        write_section(graph, section, &mut sum)?;
        sums.push(sum);
    }
    let file = File::create(path)?;
    let mut out = BufWriter::new(file);
    out.write_all(&header(graph, &sums))?;
    for section in 0..sums.len() {
        write_section(graph, section, &mut out)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Number of sections with so many layers.
fn sections(layers: usize) -> usize {
    5 + layers
}

fn write_section(graph: &NativeGraph, section: usize, out: &mut dyn Write) -> io::Result<()> {
    let (rows, starts) = graph.points.parts();
    let stored = &graph.stored;
    match section {
        0 => write_parts(bytemuck::cast_slice(&stored.codes.lines), out),
        1 => write_numbers(stored.codes.scales.iter().map(|scale| scale.to_bits()), out),
        2 => write_parts(&stored.rest, out),
        3 => write_numbers(rows.iter().copied(), out),
        4 => write_numbers(starts.unwrap_or_default().iter().copied(), out),
        layer => write_numbers(graph.layers[layer - 5].places(), out),
    }
}

fn write_parts(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    parts(bytes).try_for_each(|part| out.write_all(part))
}

fn write_numbers(mut numbers: impl Iterator<Item = u32>, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    loop {
        bytes.clear();
        bytes.extend(numbers.by_ref().take(CHUNK).flat_map(u32::to_le_bytes));
        if bytes.is_empty() {
            return Ok(());
        }
        out.write_all(&bytes)?;
    }
}

/// Length and checksum of what is written to it.
#[derive(Default)]
struct Sum {
    length: u64,
    crc: crc32fast::Hasher,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.length += bytes.len() as u64;
        self.crc.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn header(graph: &NativeGraph, sums: &[Sum]) -> Vec<u8> {
    let params = &graph.params;
    let mut fields = Vec::new();
    let long = |fields: &mut Vec<u8>, n: usize| fields.extend((n as u64).to_le_bytes());
    let short = |fields: &mut Vec<u8>, n: usize| fields.extend((n as u32).to_le_bytes());
    long(&mut fields, graph.stored.dims);
    long(&mut fields, graph.by_row.len());
    long(&mut fields, graph.points.len());
    short(&mut fields, params.m);
    short(&mut fields, params.ef_construction);
    fields.extend(params.seed.to_le_bytes());
    short(&mut fields, params.storage.bytes());
    short(&mut fields, graph.layers.len());
    graph.layers.iter().for_each(|links| long(&mut fields, links.points()));
    for sum in sums {
        fields.extend(sum.length.to_le_bytes());
        fields.extend(sum.crc.clone().finalize().to_le_bytes());
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    short(&mut bytes, fields.len() + 4);
    bytes.extend(fields);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Why a file is not read, before its path is told.
enum Fault {
    Io(io::Error),
    Foreign,
    Damaged(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        // A file that ends early was cut, whatever the system makes of it.
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends early"),
            _ => Self::Io(error),
        }
    }
}

/// Reads what [`save`] wrote.
pub(super) fn load(path: &Path) -> Result<NativeGraph, FileError> {
    let path_buf = || path.to_owned();
    read(path).map_err(|fault| match fault {
        Fault::Io(source) => FileError::Io { path: path_buf(), source },
        Fault::Foreign => FileError::Foreign { path: path_buf(), version: VERSION },
        Fault::Damaged(what) => FileError::Damaged { path: path_buf(), what },
    })
}

fn read(path: &Path) -> Result<NativeGraph, Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let (fields, before) = read_header(&mut file)?;
    let header = Header::parse(&fields).ok_or(Fault::Damaged("its header makes no sense"))?;
    let sections = header.lengths().ok_or(Fault::Damaged("its header makes no sense"))?;
    let told = header.sums.iter().map(|sum| sum.0);
    if sections.len() != header.sums.len() || !told.eq(sections.iter().copied()) {
        return Err(Fault::Damaged("the lengths of its sections do not fit its header"));
    }
    let total = sections.iter().try_fold(before as u64, |total, &more| total.checked_add(more));
    if total != Some(length) {
        return Err(Fault::Damaged("it is shorter or longer than its header says"));
    }
    read_sections(&mut file, &header)
}

/// The fields between prefix and checksum, and the length of all that was read.
fn read_header(file: &mut File) -> Result<(Vec<u8>, usize), Fault> {
    let mut bytes = vec![0; PREFIX];
    file.read_exact(&mut bytes)?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (version, length) = (word(8), word(12) as usize);
    if !bytes.starts_with(MAGIC) || version != VERSION {
        return Err(Fault::Foreign);
    }
    if !(4..=MAX_HEADER).contains(&length) {
        return Err(Fault::Damaged("its header has no such length"));
    }
    bytes.resize(PREFIX + length, 0);
    file.read_exact(&mut bytes[PREFIX..])?;
    let (checked, crc) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(checked).to_le_bytes() != crc {
        return Err(Fault::Damaged("the checksum of its header is wrong"));
    }
    Ok((checked[PREFIX..].to_vec(), bytes.len()))
}

struct Header {
    dims: usize,
    rows: usize,
    points: usize,
    params: Params,
    layers: Vec<usize>,
    /// Length and checksum of each section.
    sums: Vec<(u64, u32)>,
}

impl Header {
    fn parse(fields: &[u8]) -> Option<Self> {
        let mut rest = fields;
        let mut long = || {
            let (number, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            usize::try_from(u64::from_le_bytes(*number)).ok()
        };
        let (dims, rows, points) = (long()?, long()?, long()?);
        let both = long()? as u64;
        let seed = long()? as u64;
        let kind = long()? as u64;
        let storage = match kind as u32 {
            1 => Storage::Bits8,
            2 => Storage::Bits16,
            3 => Storage::Bits24,
            4 => Storage::Bits32,
            _ => return None,
        };
        let m = both as u32 as usize;
        let ef_construction = (both >> 32) as usize;
        let count = (kind >> 32) as usize;
        let layers: Option<Vec<usize>> = (0..count.min(MAX_LAYERS + 1)).map(|_| long()).collect();
        let sums = rest.as_chunks::<12>().0.iter().map(|sum| {
            let (length, crc) = (sum.first_chunk::<8>(), sum.last_chunk::<4>());
            (
                length.map_or(0, |l| u64::from_le_bytes(*l)),
                crc.map_or(0, |c| u32::from_le_bytes(*c)),
            )
        });
        let sums = sums.collect();
        let params = Params { m, ef_construction, storage, seed };
        let header = Self { dims, rows, points, params, layers: layers?, sums };
        header.makes_sense().then_some(header)
    }

    fn makes_sense(&self) -> bool {
        let sizes = &self.layers;
        self.dims <= u32::MAX as usize
            && self.points <= self.rows
            && (self.points == 0) == (self.rows == 0)
            && self.rows <= MAX_POINTS
            && (2..=128).contains(&self.params.m)
            && (1..=MAX_LAYERS).contains(&sizes.len())
            && sizes[0] == self.points
            && sizes.windows(2).all(|pair| pair[1] > 0 && pair[1] <= pair[0])
    }

    /// Bytes of each section.
    fn lengths(&self) -> Option<Vec<u64>> {
        let layout = Layout::new(self.dims, self.params.storage);
        let each = |count: usize, bytes: usize| (count as u64).checked_mul(bytes as u64);
        let starts = if self.points == self.rows { 0 } else { self.points + 1 };
        let mut lengths = vec![
            each(self.points, layout.lines * super::line::LINE)?,
            each(self.points, 4)?,
            each(self.points, layout.rest)?,
            each(self.rows, 4)?,
            each(starts, 4)?,
        ];
        for (layer, &size) in self.layers.iter().enumerate() {
            lengths.push(each(size, 4 * Links::places_for(max_links(layer, self.params.m)))?);
        }
        Some(lengths)
    }
}

/// Reads a section into place, or says that it was changed.
fn read_checked(file: &mut File, into: &mut [u8], crc: u32) -> Result<(), Fault> {
    file.read_exact(into)?;
    if crc32fast::hash(into) == crc {
        Ok(())
    } else {
        Err(Fault::Damaged("the checksum of a section is wrong"))
    }
}

fn read_bytes(file: &mut File, (length, crc): (u64, u32)) -> Result<Vec<u8>, Fault> {
    let mut bytes = huge::with_room(length as usize);
    bytes.resize(length as usize, 0);
    read_checked(file, &mut bytes, crc)?;
    Ok(bytes)
}

fn read_numbers(file: &mut File, (length, crc): (u64, u32)) -> Result<Vec<u32>, Fault> {
    let mut numbers = vec![0_u32; length as usize / 4];
    read_checked(file, bytemuck::cast_slice_mut(&mut numbers), crc)?;
    numbers.iter_mut().for_each(|number| *number = u32::from_le(*number));
    Ok(numbers)
}

fn read_sections(file: &mut File, header: &Header) -> Result<NativeGraph, Fault> {
    let Header { dims, points, params, ref layers, ref sums, .. } = *header;
    let layout = Layout::new(dims, params.storage);
    let mut lines = zeroed(points * layout.lines);
    read_checked(file, bytemuck::cast_slice_mut(&mut lines), sums[0].1)?;
    let scales: Vec<f32> = read_numbers(file, sums[1])?.into_iter().map(f32::from_bits).collect();
    if !scales.iter().all(|scale| scale.is_finite() && *scale >= 0.0) {
        return Err(Fault::Damaged("a scale is no scale"));
    }
    let codes = Codes::from_parts(lines, scales, dims);
    let rest = read_bytes(file, sums[2])?;
    let stored = Stored { dims, storage: params.storage, codes, rest };
    let rows = read_numbers(file, sums[3])?;
    let starts = read_numbers(file, sums[4])?;
    let starts = if starts.is_empty() { None } else { Some(starts) };
    let points = Points::from_parts(rows, starts).filter(|found| found.len() == points);
    let points = points.ok_or(Fault::Damaged("its rows are not each there once"))?;
    let mut linked = Vec::with_capacity(layers.len());
    for (layer, &size) in layers.iter().enumerate() {
        let places = read_numbers(file, sums[5 + layer])?;
        let links = Links::from_places(&places, size, max_links(layer, params.m));
        linked.push(links.ok_or(Fault::Damaged("a link leads nowhere"))?);
    }
    let by_row = points.by_row();
    Ok(NativeGraph { params, points, by_row, stored, layers: linked })
}

#[cfg(test)]
mod tests;
