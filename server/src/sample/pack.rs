//! The pack of sample items: a gzipped tar of `items.jsonl` (a header line, then an item a line) and the pictures that it
//! names. `diptych-train sample` writes it.

use std::collections::BTreeMap;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail, ensure};
use diptych_index::{ItemId, Metadata, Value};
use serde::Deserialize;

const FORMAT_VERSION: u32 = 1;
const LISTING: &str = "items.jsonl";

#[derive(Deserialize)]
struct Header {
    format_version: u32,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    modality: String,
    group: String,
    metadata: BTreeMap<String, String>,
    file: Option<String>,
    text: Option<String>,
}

/// What an item is made from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Image(Vec<u8>),
    Text(String),
}

/// An item of the pack.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PackItem {
    pub(super) id: ItemId,
    pub(super) group: String,
    pub(super) metadata: Metadata,
    pub(super) source: Source,
}

/// The items of a pack, in its order.
///
/// # Errors
/// What does not belong there or is missing: a damaged build.
pub(super) fn read(pack: &[u8]) -> Result<Vec<PackItem>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(pack));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(path, bytes);
    }
    let listing = files.remove(LISTING).with_context(|| format!("{LISTING} is missing"))?;
    let listing = String::from_utf8(listing)?;
    let mut lines = listing.lines();
    let header: Header = serde_json::from_str(lines.next().context("the listing is empty")?)?;
    let version = header.format_version;
    ensure!(version == FORMAT_VERSION, "the format is {version}, must be {FORMAT_VERSION}");
    lines.map(|line| item(serde_json::from_str(line)?, &mut files)).collect()
}

fn item(entry: Entry, files: &mut BTreeMap<String, Vec<u8>>) -> Result<PackItem> {
    let source = match (entry.modality.as_str(), entry.file, entry.text) {
        ("image", Some(file), None) => {
            let bytes = files.remove(&file).with_context(|| format!("{file} is missing"))?;
            Source::Image(bytes)
        }
        ("text", None, Some(text)) => Source::Text(text),
        _ => bail!("item {} is neither picture nor text", entry.id),
    };
    let metadata = entry.metadata.into_iter().map(|(key, value)| (key, Value::String(value)));
    Ok(PackItem {
        id: ItemId::try_new(entry.id)?,
        group: entry.group,
        metadata: metadata.collect(),
        source,
    })
}
