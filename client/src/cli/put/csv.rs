//! CSV files, with any of the usual separators.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use ::csv::{Position, Reader, ReaderBuilder, StringRecord, Trim};
use anyhow::{Context as _, Result};

use super::lines::Lines;
use super::row::{self, Cell};
use super::table::{Numbered, Rows};

/// Longest first line.
const HEADER_BYTES: u64 = 64 << 10;
/// The usual one first: a header with one column holds none of them.
const SEPARATORS: [u8; 4] = *b",;\t|";

/// The rows of a file whose first line names the columns.
pub(super) fn rows(path: &Path) -> Result<Rows> {
    let mut reader = open(path)?;
    let header = reader.headers().with_context(|| format!("cannot read {}", path.display()))?;
    let header: Vec<String> = header.iter().map(str::to_owned).collect();
    let lines = Lines::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rows = CsvRows { reader, record: StringRecord::new(), header, lines };
    Ok(Box::new(std::iter::from_fn(move || rows.next())))
}

/// Whether the columns are about pictures or texts.
pub(super) fn speaks(path: &Path) -> Result<bool> {
    Ok(row::speaks(open(path)?.headers()?.iter()))
}

fn open(path: &Path) -> Result<Reader<File>> {
    let open = || File::open(path).with_context(|| format!("cannot read {}", path.display()));
    let mut first = Vec::new();
    BufReader::new(open()?).take(HEADER_BYTES).read_until(b'\n', &mut first)?;
    Ok(ReaderBuilder::new().delimiter(separator(&first)).trim(Trim::All).from_reader(open()?))
}

/// The separator that the first line holds most of.
fn separator(first: &[u8]) -> u8 {
    let count = |separator: u8| first.iter().filter(|byte| **byte == separator).count();
    let most = SEPARATORS.map(count).into_iter().max().unwrap_or(0);
    SEPARATORS.into_iter().find(|separator| count(*separator) == most).unwrap_or(b',')
}

struct CsvRows {
    reader: Reader<File>,
    record: StringRecord,
    header: Vec<String>,
    lines: Lines,
}

impl CsvRows {
    fn next(&mut self) -> Option<Numbered> {
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let line = self.line(self.record.position().map_or(0, Position::byte));
                let cell =
                    |(name, text): (&String, &str)| (name.clone(), Cell::Untyped(text.to_owned()));
                let cells = self.header.iter().zip(self.record.iter()).map(cell).collect();
                Some(line.map_or_else(|error| (0, Err(error)), |line| (line, Ok(cells))))
            }
            Err(error) => {
                let line = self.line(error.position().map_or(0, Position::byte));
                Some((line.unwrap_or(0), Err(fault(&error))))
            }
        }
    }

    /// The line that the record at this byte begins on.
    fn line(&mut self, byte: u64) -> Result<u64, String> {
        self.lines.of(byte).map_err(|error| error.to_string())
    }
}

fn fault(error: &::csv::Error) -> String {
    match error.kind() {
        ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} fields where the first line has {expected_len}")
        }
        ::csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Vec<Numbered> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, content).unwrap();
        rows(&path).unwrap().collect()
    }

    #[test]
    fn rows_have_the_line_they_begin_on() {
        let rows = read("image,text\na.jpg,\"two\nlines\"\nb.jpg,x\n");
        let lines: Vec<u64> = rows.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4]);
        let first = rows[0].1.as_ref().unwrap();
        assert_eq!(first[1], ("text".to_owned(), Cell::Untyped("two\nlines".to_owned())));
    }

    #[test]
    fn lines_are_counted_as_an_editor_does_whatever_ends_them() {
        for end in ["\n", "\r\n", "\r"] {
            let text = [
                "image,text",
                "a.jpg,x",
                "",
                "b.jpg,y,z",
                "",
                "",
                "c.jpg,\"two",
                "lines\"",
                "d.jpg,w",
            ];
            let rows = read(&(text.join(end) + end));
            let lines: Vec<u64> = rows.iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [2, 4, 7, 9], "{end:?}");
            assert!(rows[1].1.is_err());
        }
    }

    #[test]
    fn a_bad_row_is_told_and_the_next_is_read() {
        let rows = read("image,text\na.jpg,b,c\nd.jpg,e\n");
        assert_eq!(rows[0], (2, Err("has 3 fields where the first line has 2".to_owned())));
        assert!(rows[1].1.is_ok());
    }

    #[test]
    fn other_separators_and_a_byte_order_mark_are_understood() {
        let rows = read("\u{feff}image_name| comment_number| comment\n1.jpg| 0| Two men .\n");
        let cells = rows[0].1.as_ref().unwrap();
        assert_eq!(cells[0], ("image_name".to_owned(), Cell::Untyped("1.jpg".to_owned())));
        assert_eq!(cells[2], ("comment".to_owned(), Cell::Untyped("Two men .".to_owned())));
        assert_eq!(separator(b"image;text\n"), b';');
        assert_eq!(separator(b"text\n"), b',');
    }
}
