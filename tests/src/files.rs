//! Files of pictures put together part by part, so that each part can be wrong. The fixtures are sound files that other
//! programs wrote.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::checkout;

/// The first bytes of every PNG file.
pub const PNG_MAGIC: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

/// A file of `tests/fixtures/pictures`.
///
/// # Panics
/// When it is not there.
pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(checkout().join("tests/fixtures/pictures").join(name)).unwrap()
}

/// What PNG keeps pixels and texts in.
///
/// # Panics
/// Never: memory takes what is written.
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A part of a PNG file: length, name, content, checksum.
///
/// # Panics
/// For a content beyond 4 GiB.
pub fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    crc.update(name);
    crc.update(content);
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [length.as_slice(), name, content, &crc.finalize().to_be_bytes()].concat()
}

/// What the head of a PNG says.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Bits of a sample.
    pub depth: u8,
    /// 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
    pub colour: u8,
    /// Compression, filter and interlace method.
    pub methods: [u8; 3],
}

impl Default for Head {
    /// 4 x 3 pixels of RGB.
    fn default() -> Self {
        Self { width: 4, height: 3, depth: 8, colour: 2, methods: [0; 3] }
    }
}

impl Head {
    /// The chunk.
    pub fn chunk(self) -> Vec<u8> {
        let sizes = [self.width.to_be_bytes(), self.height.to_be_bytes()].concat();
        chunk(b"IHDR", &[sizes.as_slice(), &[self.depth, self.colour], &self.methods].concat())
    }

    /// As many zero bytes as rows of such a picture have, each after its filter type.
    ///
    /// # Panics
    /// For a picture beyond the memory.
    pub fn rows(self) -> Vec<u8> {
        let samples = [1, 0, 3, 1, 2, 0, 4][usize::from(self.colour)];
        let bits = samples * u64::from(self.depth) * u64::from(self.width);
        let bytes = (1 + bits.div_ceil(8)) * u64::from(self.height);
        vec![0; usize::try_from(bytes).unwrap()]
    }

    /// A file: the head, these chunks, the rows, the end.
    pub fn file(self, before: &[Vec<u8>]) -> Vec<u8> {
        png(&[self.chunk(), before.concat(), chunk(b"IDAT", &zlib(&self.rows()))])
    }
}

/// A PNG of these chunks and an end.
pub fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [PNG_MAGIC.to_vec(), chunks.concat(), chunk(b"IEND", b"")].concat()
}

/// A segment of a JPEG file: marker, length, content.
///
/// # Panics
/// For a content beyond 65,533 bytes.
pub fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
    [[0xFF, marker].as_slice(), &length, content].concat()
}

/// The segments of a JPEG file as (marker, whole segment), up to the first scan; and the rest from there.
///
/// # Panics
/// When it is none.
pub fn segments(file: &[u8]) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
    let mut parts = Vec::new();
    let mut rest = &file[2..];
    while rest[1] != 0xDA {
        let length = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        parts.push((rest[1], rest[..length].to_vec()));
        rest = &rest[length..];
    }
    (parts, rest.to_vec())
}

/// The fixture `baseline.jpg` with each segment before the scan as `change` has it; `None` leaves it out.
pub fn jpeg(mut change: impl FnMut(u8, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let (parts, rest) = segments(&fixture("baseline.jpg"));
    let mut file = vec![0xFF, 0xD8];
    for (marker, part) in parts {
        file.extend(change(marker, part).unwrap_or_default());
    }
    file.extend(rest);
    file
}

/// The fixture `baseline.jpg` with these segments behind its start.
pub fn jpeg_with(segments: &[Vec<u8>]) -> Vec<u8> {
    let file = fixture("baseline.jpg");
    [&file[..2], &segments.concat(), &file[2..]].concat()
}

/// A block of EXIF whose only entry is the orientation, of `count` values of 16 bits, at `offset` from its start.
pub fn exif(offset: u32, count: u32, orientation: u16) -> Vec<u8> {
    let mut block = b"II*\0".to_vec();
    block.extend(offset.to_le_bytes());
    block.extend([1, 0, 0x12, 0x01, 3, 0]);
    block.extend(count.to_le_bytes());
    block.extend(orientation.to_le_bytes());
    block.extend([0; 6]);
    block
}

/// A part of a WebP file: name, length, content, padding to an even length.
///
/// # Panics
/// For a content beyond 4 GiB.
pub fn riff(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_le_bytes();
    [name, length.as_slice(), content, &[0][..content.len() % 2]].concat()
}

/// A WebP file of these parts.
pub fn webp(parts: &[Vec<u8>]) -> Vec<u8> {
    riff(b"RIFF", &[b"WEBP".to_vec(), parts.concat()].concat())
}

/// The parts of a WebP file after its head.
pub fn webp_parts(file: &[u8]) -> Vec<u8> {
    file[12..].to_vec()
}
