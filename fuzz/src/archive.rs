//! Snapshots: a file as it comes, and one whose lengths and checksums fit whatever its parts hold.

use diptych_index::fuzzing;

/// The longest part, since its length is written in two bytes.
const LENGTH_BYTES: usize = 2;

/// Reads to the end, or to the first fault.
pub fn archive(data: &[u8]) {
    let (framed, content) = crate::choice(data);
    if framed % 2 == 0 {
        drop(fuzzing::read_archive(content));
        return;
    }
    let mut parts = Vec::new();
    let mut rest = content;
    while let [kind, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (part, next) = after.split_at(length);
        parts.push((*kind, part));
        rest = next;
    }
    drop(fuzzing::read_archive_of(&parts));
}

/// The fixture as it is, and its parts one after the other without checksums.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let snapshots = crate::files("index/tests/fixtures/store-v2/snapshots");
    let mut seeds = Vec::new();
    for (_, file) in snapshots {
        seeds.push([&[0], file.as_slice()].concat());
        let mut framed = vec![1];
        let mut rest = &file[12..];
        while let [kind, a, b, c, d, after @ ..] = rest {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let (part, next) = after.split_at(length);
            framed.push(*kind);
            framed.extend(&(length as u32).to_be_bytes()[4 - LENGTH_BYTES..]);
            framed.extend(part);
            rest = &next[4..];
        }
        // The end is written by what puts the parts together.
        framed.truncate(framed.len() - 43);
        seeds.push(framed);
    }
    seeds
}
