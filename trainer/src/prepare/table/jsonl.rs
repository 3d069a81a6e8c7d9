//! Files of one JSON object a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::pairs::Fault;
use super::{Cell, Numbered, Rows};
use crate::error::{Error, Result};

/// Longest line: what is longer is passed over, not held in memory.
const LINE_BYTES: u64 = 16 << 20;
/// Most columns that are remembered: keys may differ from row to row.
const COLUMNS: usize = 1_000;

/// The keys of all rows, in order of appearance.
pub(super) fn columns(path: &Path) -> Result<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    let mut first_fault = None;
    for line in Lines::open(path)? {
        let (number, line) = line?;
        match line.and_then(|line| object(&line)) {
            Ok(object) => {
                for key in object.keys() {
                    if columns.len() < COLUMNS && !columns.contains(key) {
                        columns.push(key.clone());
                    }
                }
            }
            Err(fault) => {
                first_fault.get_or_insert((number, fault));
            }
        }
    }
    match first_fault {
        Some((number, fault)) if columns.is_empty() => {
            let message = format!(
                "no line of it is a JSON object (line {number}: {fault}); one object a line is wanted"
            );
            Err(Error::data(path, message))
        }
        None if columns.is_empty() => Err(Error::data(path, "holds no rows")),
        _ => Ok(columns),
    }
}

/// The rows.
pub(super) fn rows(path: &Path, wanted: &[String]) -> Result<Rows> {
    let wanted = wanted.to_vec();
    Ok(Box::new(Lines::open(path)?.map(move |line| {
        let (number, line) = line?;
        let cells = line.and_then(|line| object(&line)).map(|mut object| {
            wanted.iter().map(|key| object.remove(key).map_or(Cell::Nothing, cell)).collect()
        });
        Ok(Numbered { from: number, to: number, cells })
    })))
}

/// A line with its number, from 1, or what is wrong with it.
type Line = (u64, std::result::Result<Vec<u8>, Fault>);

/// The lines that are not blank.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let reader = BufReader::with_capacity(64 << 10, file);
        Ok(Self { path: path.to_path_buf(), reader, number: 0 })
    }

    /// The next line with its end; empty at the end of the file.
    fn line(&mut self) -> std::io::Result<std::result::Result<Vec<u8>, Fault>> {
        let mut line = Vec::new();
        (&mut self.reader).take(LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if line.len() as u64 <= LINE_BYTES || line.ends_with(b"\n") {
            return Ok(Ok(line));
        }
        drop(line);
        self.pass_line()?;
        Ok(Err(Fault::NotARow(format!("the line is longer than {LINE_BYTES} bytes"))))
    }

    /// Passes over the rest of a line.
    fn pass_line(&mut self) -> std::io::Result<()> {
        loop {
            let chunk = self.reader.fill_buf()?;
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let passed = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(passed);
            if end.is_some() || passed == 0 {
                return Ok(());
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.number += 1;
            match self.line() {
                Ok(Ok(line)) if line.is_empty() => return None,
                Ok(Ok(line)) if line.trim_ascii().is_empty() => {}
                Ok(line) => return Some(Ok((self.number, line))),
                Err(error) => return Some(Err(Error::io(&self.path, error))),
            }
        }
    }
}

fn object(line: &[u8]) -> std::result::Result<Map<String, Value>, Fault> {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| Fault::NotUtf8("the line".to_owned()))?;
    serde_json::from_str(line.trim())
        .map_err(|e| Fault::NotARow(format!("it is no JSON object (column {})", e.column())))
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Null => Cell::Nothing,
        Value::Bool(value) => Cell::Bool(value),
        Value::Number(number) => {
            number.as_i64().map_or(Cell::Other("a number that is not whole"), Cell::Int)
        }
        Value::String(text) => Cell::text(text),
        Value::Array(list) => Cell::List(list.into_iter().map(cell).collect()),
        Value::Object(mut object) => match object.remove("path") {
            Some(Value::String(path)) => Cell::Picture { bytes: None, path: Some(path) },
            _ => Cell::Other("an object"),
        },
    }
}
