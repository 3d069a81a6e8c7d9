//! Doors for fuzzing (`fuzz/`): what is private and reads bytes or filters from outside.

use std::sync::Arc;

use crate::{
    archive::{ArchiveReader, Fault, in_frames},
    embedded::Entry,
    filter::{Filter, sets::Sets},
    types::{ItemId, Metadata, Modality},
};

/// Reads a snapshot archive to its end, as restoring one does before it writes anything; gives the number of items.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read_archive(bytes: &[u8]) -> Result<u64, String> {
    read(bytes).map_err(|fault| fault.to_string())
}

/// The same for an archive of these parts, kind and content, around which length and checksums fit: what checksums would
/// otherwise keep from the reader.
///
/// # Errors
/// As [`read_archive`].
pub fn read_archive_of(parts: &[(u8, &[u8])]) -> Result<u64, String> {
    in_frames(parts).and_then(|bytes| read(&bytes)).map_err(|fault| fault.to_string())
}

fn read(bytes: &[u8]) -> Result<u64, Fault> {
    let mut archive = ArchiveReader::open(bytes)?;
    let mut items = 0;
    while archive.next()?.is_some() {
        items += 1;
    }
    Ok(items)
}

/// Whether the sets of these rows answer a filter, which passed [`Filter::check`], as looking at each row does.
pub fn sets_agree(filter: &Filter, rows: &[Metadata]) -> bool {
    let entry = |(row, metadata): (usize, &Metadata)| {
        let fields = metadata.iter().map(|(name, value)| (Arc::from(&**name), value.clone()));
        let id = ItemId::trusted(&row.to_string());
        Arc::new(Entry::new(id, None, Modality::Image, row as u64, fields.collect()))
    };
    let entries: Vec<_> = rows.iter().enumerate().map(entry).collect();
    let passing = (0_u32..).zip(rows).filter(|(_, row)| filter.matches(row)).map(|(row, _)| row);
    Sets::new(&entries).rows(filter).iter().eq(passing)
}
