//! What the shim `tests/shim/power.c` wrote down: records in the order in which things happened.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

/// Bytes of a record before its names.
const HEAD: usize = 48;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A new file `name` in a folder.
    Create { folder: u64, inode: u64, name: &'a str },
    /// A new folder `name` in a folder.
    MakeFolder { folder: u64, inode: u64, name: &'a str },
    /// Bytes at a place of a file; `durable` when the descriptor syncs each write.
    Write { inode: u64, at: u64, data: &'a [u8], durable: bool },
    /// A file has this length now.
    Size { inode: u64, bytes: u64 },
    /// A file or folder is durable as it was when the trace was `from` bytes long.
    Sync { inode: u64, from: u64 },
    /// A name left one folder and stands in another, or the same.
    Rename { from: (u64, &'a str), to: (u64, &'a str) },
    /// A name is gone.
    Remove { folder: u64, name: &'a str },
    /// Another name for a file.
    Link { folder: u64, inode: u64, name: &'a str },
}

/// Events with the length of the trace after each: the moment when it had happened.
pub(super) fn events(trace: &[u8]) -> Result<Vec<(u64, Event<'_>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < trace.len() {
        let (bytes, event) = event(&trace[at..]).with_context(|| format!("at byte {at}"))?;
        at += bytes;
        found.push((at as u64, event));
    }
    Ok(found)
}

fn event(bytes: &[u8]) -> Result<(usize, Event<'_>)> {
    ensure!(bytes.len() >= HEAD, "the trace is cut off");
    let small = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let large = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let (kind, flags) = (small(0), small(12));
    let (first, second) = (small(4) as usize, small(8) as usize);
    let (a, b, place) = (large(16), large(24), large(32));
    let data_bytes = if kind == 3 { usize::try_from(large(40))? } else { 0 };
    let whole = HEAD + first + second + data_bytes;
    ensure!(bytes.len() >= whole, "the trace is cut off");
    let name = std::str::from_utf8(&bytes[HEAD..HEAD + first])?;
    let other = std::str::from_utf8(&bytes[HEAD + first..HEAD + first + second])?;
    let data = &bytes[whole - data_bytes..whole];
    let event = match kind {
        1 => Event::Create { folder: a, inode: b, name },
        2 => Event::MakeFolder { folder: a, inode: b, name },
        3 => Event::Write { inode: a, at: place, data, durable: flags == 1 },
        4 => Event::Size { inode: a, bytes: place },
        5 => Event::Sync { inode: a, from: place },
        6 => Event::Rename { from: (a, name), to: (b, other) },
        7 => Event::Remove { folder: a, name },
        8 => Event::Link { folder: a, inode: b, name },
        _ => bail!("no event is {kind}"),
    };
    Ok((whole, event))
}

/// The shim as a library.
///
/// # Errors
/// When the C compiler, which the store's own build needs too, does not do it.
pub(super) fn shim() -> Result<PathBuf> {
    diptych_tests::program::shim("power")
}
