//! The archive itself.

use std::io::{BufWriter, Write};
use std::path::Path;

use flate2::{Compression, GzBuilder};

use super::{Header, Item, MAX_PACK_BYTES, PackedPicture};
use crate::error::{Error, Result};

/// Writes the pack at `path`, whole or not at all, and returns its size in bytes.
pub(super) fn write(
    path: &Path,
    header: &Header<'_>,
    pictures: &[PackedPicture],
    names: &[Item],
) -> Result<u64> {
    let items = items_jsonl(path, header, pictures, names)?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let bytes = write_archive(partial, &items, pictures).map_err(|e| Error::io(partial, e))?;
    if bytes > MAX_PACK_BYTES {
        std::fs::remove_file(partial).map_err(|e| Error::io(partial, e))?;
        let message = format!(
            "the pack would have {bytes} bytes, at most {MAX_PACK_BYTES}; give fewer --colors"
        );
        return Err(Error::data(path, message));
    }
    std::fs::rename(partial, path).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

/// The header, then pictures, then names, a line each.
fn items_jsonl(
    path: &Path,
    header: &Header<'_>,
    pictures: &[PackedPicture],
    names: &[Item],
) -> Result<Vec<u8>> {
    let fault = |e: serde_json::Error| Error::data(path, format!("items as JSON: {e}"));
    let mut lines = serde_json::to_vec(header).map_err(fault)?;
    lines.push(b'\n');
    for item in pictures.iter().map(|picture| &picture.item).chain(names) {
        serde_json::to_writer(&mut lines, item).map_err(fault)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Tar in gzip, without times, names or owners of this machine.
fn write_archive(path: &Path, items: &[u8], pictures: &[PackedPicture]) -> std::io::Result<u64> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = BufWriter::new(std::fs::File::create(path)?);
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(file, Compression::best());
    let mut archive = tar::Builder::new(gzip);
    append(&mut archive, "items.jsonl", items)?;
    for picture in pictures {
        append(&mut archive, &picture.path, &picture.png)?;
    }
    let file = archive.into_inner()?.finish()?.into_inner()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, path, bytes)
}
