//! The line that a byte of a file is on.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Result};
use std::path::Path;

/// Counts lines by a second reading of the file. The CSV library's own count stays behind where lines end in CR LF or are blank:
/// a record begins for it before the line ends in front of the record.
pub(super) struct Lines {
    reader: BufReader<File>,
    read: u64,
    /// Line ends so far: LF, CR LF or CR.
    ends: u64,
    last: u8,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { reader: BufReader::new(File::open(path)?), read: 0, ends: 0, last: 0 })
    }

    /// The line of the first byte from `byte` on that ends no line; bytes are asked for in rising order.
    pub(super) fn of(&mut self, byte: u64) -> Result<u64> {
        while self.read < byte {
            let left = usize::try_from(byte - self.read).unwrap_or(usize::MAX);
            if self.take(left, |_| true)? == 0 {
                break;
            }
        }
        while self.take(usize::MAX, |byte| matches!(byte, b'\r' | b'\n'))? > 0 {}
        Ok(self.ends + 1)
    }

    /// Takes at most `most` bytes of those at hand while they are `wanted`; how many.
    fn take(&mut self, most: usize, wanted: impl Fn(u8) -> bool) -> Result<usize> {
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
