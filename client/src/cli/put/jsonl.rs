//! Files of one JSON object a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use diptych::v1;
use diptych::v1::value::Kind;
use serde_json::{Map, Value as Json};

use super::row::{self, Cell, Cells};
use super::table::{Numbered, Rows};

/// Longest line: what is longer is no table of ours, and is not to be held in memory.
const LINE_BYTES: u64 = 16 << 20;

/// The rows of a file.
pub(super) fn rows(path: &Path) -> Result<Rows> {
    let mut lines = Lines { reader: open(path)?, number: 0, ended: false };
    Ok(Box::new(std::iter::from_fn(move || lines.next())))
}

/// Whether the keys of the first row are about pictures or texts.
pub(super) fn speaks(path: &Path) -> Result<bool> {
    let first = rows(path)?.next();
    Ok(match first {
        Some((_, Ok(cells))) => row::speaks(cells.iter().map(|(name, _)| name.as_str())),
        _ => false,
    })
}

/// How many lines a file has.
pub(super) fn lines(path: &Path) -> Result<u64> {
    let mut reader = open(path)?;
    let (mut count, mut last) = (0, b'\n');
    loop {
        let chunk = reader.fill_buf()?;
        let Some(end) = chunk.last() else { break };
        last = *end;
        count += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let read = chunk.len();
        reader.consume(read);
    }
    Ok(count + u64::from(last != b'\n'))
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::with_capacity(64 << 10, file))
}

struct Lines {
    reader: BufReader<File>,
    number: u64,
    ended: bool,
}

impl Lines {
    fn next(&mut self) -> Option<Numbered> {
        while !self.ended {
            self.number += 1;
            match self.line() {
                Ok(line) if line.is_empty() => self.ended = true,
                Ok(line) if line.trim_ascii().is_empty() => {}
                Ok(line) => return Some((self.number, cells(&line))),
                Err(error) => {
                    self.ended = true;
                    return Some((self.number, Err(error.to_string())));
                }
            }
        }
        None
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.reader).take(LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if line.len() as u64 > LINE_BYTES {
            let text = format!("is longer than {LINE_BYTES} bytes; the file is read no further");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(line)
    }
}

fn cells(line: &[u8]) -> Result<Cells, String> {
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let object: Map<String, Json> = serde_json::from_slice(line)
        .map_err(|error| format!("is no JSON object (column {})", error.column()))?;
    Ok(object.into_iter().map(|(name, value)| (name, cell(value))).collect())
}

fn cell(value: Json) -> Cell {
    match value {
        Json::Bool(value) => Cell::Value(Kind::BoolValue(value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Cell::Value(Kind::IntValue(whole)),
            (None, Some(float)) => Cell::Value(Kind::FloatValue(float)),
            (None, None) => Cell::Nothing,
        },
        Json::String(text) => Cell::Value(Kind::TextValue(text)),
        Json::Array(list) => {
            let text = |value| match value {
                Json::String(text) => Some(text),
                _ => None,
            };
            match list.into_iter().map(text).collect() {
                Some(values) => Cell::Value(Kind::TextList(v1::TextList { values })),
                None => Cell::Nothing,
            }
        }
        Json::Object(mut object) => match object.remove("path") {
            Some(Json::String(path)) => Cell::Picture { bytes: None, path: Some(path) },
            _ => Cell::Nothing,
        },
        Json::Null => Cell::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn values_keep_their_types() {
        let (_folder, path) =
            file(r#"{"image":"a.jpg","captions":["x","y"],"n":3,"f":0.5,"b":true,"z":null}"#);
        let (line, cells) = rows(&path).unwrap().next().unwrap();
        let cells = cells.unwrap();
        let list = v1::TextList { values: vec!["x".to_owned(), "y".to_owned()] };
        let expected = [
            Cell::Value(Kind::TextValue("a.jpg".to_owned())),
            Cell::Value(Kind::TextList(list)),
            Cell::Value(Kind::IntValue(3)),
            Cell::Value(Kind::FloatValue(0.5)),
            Cell::Value(Kind::BoolValue(true)),
            Cell::Nothing,
        ];
        assert_eq!(line, 1);
        assert!(cells.iter().map(|(_, cell)| cell).eq(&expected));
    }

    #[test]
    fn a_bad_line_is_told_and_the_next_is_read() {
        let (_folder, path) = file("[1]\n\n{\"text\":\"x\"}\n{\"text\":");
        let rows: Vec<Numbered> = rows(&path).unwrap().collect();
        let told: Vec<(u64, bool)> = rows.iter().map(|(line, row)| (*line, row.is_ok())).collect();
        assert_eq!(told, [(1, false), (3, true), (4, false)]);
        assert_eq!(lines(&path).unwrap(), 4);
    }
}
