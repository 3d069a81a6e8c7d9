//! CSV files, with any of the usual separators.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, Position, Reader, ReaderBuilder};

use super::super::pairs::Fault;
use super::{Cell, Numbered, Rows};
use crate::error::{Error, Result};

/// Longest first line.
const HEADER_BYTES: u64 = 64 << 10;
/// The usual one first: a header with one column holds none of them.
const SEPARATORS: [u8; 4] = *b",;\t|";

/// The columns, which the first line names.
pub(super) fn columns(path: &Path) -> Result<Vec<String>> {
    let mut reader = open(path)?;
    header(&mut reader, path)
}

/// The rows after the first line.
pub(super) fn rows(path: &Path, wanted: &[String]) -> Result<Rows> {
    let mut reader = open(path)?;
    let columns = header(&mut reader, path)?;
    let wanted =
        wanted.iter().map(|name| columns.iter().position(|column| column == name)).collect();
    let mut rows = CsvRows {
        path: path.to_path_buf(),
        reader,
        columns,
        wanted,
        record: ByteRecord::new(),
        lines: LineCounter::open(path)?,
    };
    Ok(Box::new(std::iter::from_fn(move || rows.next())))
}

fn open(path: &Path) -> Result<Reader<File>> {
    let open = || File::open(path).map_err(|e| Error::io(path, e));
    let mut first = Vec::new();
    BufReader::new(open()?)
        .take(HEADER_BYTES)
        .read_until(b'\n', &mut first)
        .map_err(|e| Error::io(path, e))?;
    Ok(ReaderBuilder::new().delimiter(separator(&first)).flexible(true).from_reader(open()?))
}

/// The separator that the first line holds most of.
fn separator(first: &[u8]) -> u8 {
    let count = |separator: u8| first.iter().filter(|byte| **byte == separator).count();
    let most = SEPARATORS.map(count).into_iter().max().unwrap_or(0);
    SEPARATORS.into_iter().find(|separator| count(*separator) == most).unwrap_or(b',')
}

fn header(reader: &mut Reader<File>, path: &Path) -> Result<Vec<String>> {
    let fault = |message: String| Error::data(path, format!("line 1: {message}"));
    let header = reader.byte_headers().map_err(|e| fault(e.to_string()))?;
    let columns = header
        .iter()
        .map(|name| Ok(std::str::from_utf8(name)?.trim().to_owned()))
        .collect::<std::result::Result<Vec<String>, std::str::Utf8Error>>()
        .map_err(|_| fault("the names of the columns are not UTF-8".to_owned()))?;
    if columns.iter().all(String::is_empty) {
        return Err(fault("there are no names of columns".to_owned()));
    }
    Ok(columns)
}

struct CsvRows {
    path: PathBuf,
    reader: Reader<File>,
    columns: Vec<String>,
    /// Where each wanted column stands.
    wanted: Vec<Option<usize>>,
    record: ByteRecord,
    lines: LineCounter,
}

impl CsvRows {
    fn next(&mut self) -> Option<Result<Numbered>> {
        let read = match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => return None,
            Ok(true) => self.line().and_then(|line| Ok((line, self.cells(line)?))),
            Err(error) => return Some(Err(Error::data(&self.path, error.to_string()))),
        };
        Some(match read {
            Ok((line, cells)) => Ok(Numbered { from: line, to: line, cells }),
            Err(error) => Err(Error::io(&self.path, error)),
        })
    }

    /// The line that the record begins on.
    fn line(&mut self) -> std::io::Result<u64> {
        self.lines.advance_to(self.record.position().map_or(0, Position::byte))?;
        self.lines.pass_ends()?;
        Ok(self.lines.line())
    }

    /// The cells, or why there are none.
    fn cells(&mut self, line: u64) -> std::io::Result<std::result::Result<Vec<Cell>, Fault>> {
        let (found, expected) = (self.record.len(), self.columns.len());
        if found != expected {
            self.lines.advance_to(self.reader.position().byte())?;
            let last = self.lines.last_line();
            let quote = if last > line {
                format!(" and runs to line {last}; is a quote left open?")
            } else {
                String::new()
            };
            let what = format!("it has {found} fields where the first line has {expected}{quote}");
            return Ok(Err(Fault::NotARow(what)));
        }
        let cell = |at: &Option<usize>| match at.and_then(|at| self.record.get(at)) {
            None => Cell::Nothing,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cell::text(text.trim()),
                Err(_) => Cell::NotUtf8,
            },
        };
        Ok(Ok(self.wanted.iter().map(cell).collect()))
    }
}

/// Counts lines by a second reading of the file. The library's own count stays behind where lines
/// end in CR LF or are blank: a record begins for it before the line ends in front of the record.
struct LineCounter {
    reader: BufReader<File>,
    read: u64,
    /// Line ends so far: LF, CR LF or CR.
    ends: u64,
    last: u8,
}

impl LineCounter {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { reader: BufReader::new(file), read: 0, ends: 0, last: 0 })
    }

    /// The line that the next byte is on.
    fn line(&self) -> u64 {
        self.ends + 1
    }

    /// The line that the last byte is on.
    fn last_line(&self) -> u64 {
        if matches!(self.last, b'\r' | b'\n') { self.ends } else { self.ends + 1 }
    }

    /// Reads up to the byte at `to`.
    fn advance_to(&mut self, to: u64) -> std::io::Result<()> {
        while self.read < to {
            let left = usize::try_from(to - self.read).unwrap_or(usize::MAX);
            if self.take(left, |_| true)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads over line ends.
    fn pass_ends(&mut self) -> std::io::Result<()> {
        while self.take(usize::MAX, |byte| matches!(byte, b'\r' | b'\n'))? > 0 {}
        Ok(())
    }

    /// Takes at most `most` bytes of those at hand while they are `wanted`; how many.
    fn take(&mut self, most: usize, wanted: impl Fn(u8) -> bool) -> std::io::Result<usize> {
        let mut taken = 0;
        for &byte in self.reader.fill_buf()?.iter().take(most).take_while(|&&byte| wanted(byte)) {
            let second_half = byte == b'\n' && self.last == b'\r';
            self.ends += u64::from(matches!(byte, b'\r' | b'\n') && !second_half);
            self.last = byte;
            taken += 1;
        }
        self.reader.consume(taken);
        self.read += taken as u64;
        Ok(taken)
    }
}
