//! What must be known about a JPEG file before it is decoded, from a walk over its markers.
//!
//! The decoder fills what is missing from a cut file with grey and reports success, and it has no
//! bound on the number of progressive scans, each of which visits every block of the picture.
//! Markers: ITU-T T.81, annex B.

/// Most scans a file may have. Encoders write about ten; a file that repeats tiny scans thousands
/// of times is small to send and takes minutes to decode.
pub(super) const MAX_SCANS: usize = 50;

/// What the markers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Number of scans begun.
    pub(super) scans: usize,
    /// Whether the end-of-image marker was reached.
    pub(super) complete: bool,
}

/// Walks the markers of `bytes`, a file that begins with start-of-image.
pub(super) fn outline(bytes: &[u8]) -> Outline {
    const END_OF_IMAGE: u8 = 0xD9;
    const START_OF_SCAN: u8 = 0xDA;
    let mut scans = 0;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let Some((marker, after)) = next_marker(rest) {
        if marker == END_OF_IMAGE {
            return Outline { scans, complete: true };
        }
        if marker == START_OF_SCAN {
            scans += 1;
        }
        let Some((high, low)) = after.first().zip(after.get(1)) else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = after.get(length..) else { break };
        rest = next;
    }
    Outline { scans, complete: false }
}

/// The next marker that has a segment or ends the image, and what follows it. Stuffed zeros,
/// restart markers, fill bytes and the other markers without a segment are stepped over, so this
/// also crosses entropy-coded data.
fn next_marker(mut rest: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let at = memchr::memchr(0xFF, rest)?;
        let code = *rest.get(at + 1)?;
        match code {
            0xFF => rest = &rest[at + 1..],
            0x00 | 0x01 | 0xD0..=0xD8 => rest = &rest[at + 2..],
            _ => return Some((code, &rest[at + 2..])),
        }
    }
}
