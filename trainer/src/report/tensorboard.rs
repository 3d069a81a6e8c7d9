//! Scalars as TensorBoard reads them: an event file of length-prefixed, checksummed protobuf messages.
//!
//! The format is that of TensorFlow's `record_writer.h` (length, masked CRC-32C of the length, data,
//! masked CRC-32C of the data) around messages of `event.proto`, of which four fields are used.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// An event file that is being written.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in `folder`; TensorBoard reads all of a folder's files together.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let now = now();
        // A process number keeps two files of the same second apart.
        let name = format!("events.out.tfevents.{:.0}.{}.diptych", now, std::process::id());
        let path = folder.join(name);
        let file = File::create(&path).map_err(|source| Error::io(&path, source))?;
        let mut events = Self { path, file };
        let mut event = Vec::new();
        put_double(&mut event, 1, now);
        put_bytes(&mut event, 3, b"brain.Event:2");
        events.write(&event)?;
        Ok(events)
    }

    /// Writes the values of a step.
    pub(super) fn scalars<'a>(
        &mut self,
        step: u64,
        values: impl Iterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        self.write(&scalars(now(), step, values))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let written = self.file.write_all(&record(event));
        written.map_err(|source| Error::io(&self.path, source))
    }
}

/// An `Event` with a `Summary` of simple values.
fn scalars<'a>(wall_time: f64, step: u64, values: impl Iterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut of_value = Vec::new();
        put_bytes(&mut of_value, 1, tag.as_bytes());
        put_key(&mut of_value, 2, 5);
        of_value.extend((value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &of_value);
    }
    let mut event = Vec::new();
    put_double(&mut event, 1, wall_time);
    put_key(&mut event, 2, 0);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    event
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked_crc(data).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted, so that a checksum of data that holds checksums is not weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_key(to: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(to, field << 3 | wire_type);
}

fn put_double(to: &mut Vec<u8>, field: u64, value: f64) {
    put_key(to, field, 1);
    to.extend(value.to_le_bytes());
}

fn put_bytes(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_key(to, field, 2);
    put_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_frames_it() {
        let framed = record(b"abc");
        assert_eq!(framed[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(framed[8..12], masked_crc(&framed[..8]).to_le_bytes());
        assert_eq!(framed[12..15], *b"abc");
        assert_eq!(framed[15..], masked_crc(b"abc").to_le_bytes());
        // CRC-32C of "123456789" is e3069283 (Castagnoli's check value).
        assert_eq!(
            masked_crc(b"123456789"),
            0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
    }

    #[test]
    fn scalars_are_an_event_of_that_step() {
        // By hand from the field numbers of event.proto and summary.proto.
        let event = scalars(1.0, 300, [("a", 2.0)].into_iter());
        assert_eq!(hex::encode(event), "09000000000000f03f10ac022a0a0a080a01611500000040");
    }
}
