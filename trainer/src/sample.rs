//! `sample`: the pack of pictures and names that the server carries, from a prepared dataset.
//!
//! A gzipped tar archive:
//!
//! ```text
//! items.jsonl                    a header line, then one line for each item
//! pictures/<style>/<group>.png   indexed PNG on white, as the items name them
//! ```
//!
//! The header says `format_version`, `collection`, counts and `licences`. An item has `id`,
//! `modality` (`image` or `text`), `group`, `metadata` (string values) and `file` or `text`. Times
//! and owners in the archive are zero: the same dataset gives the same bytes.

mod pack;
mod palette;
mod picture;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::shards::{Dataset, ImageRow, Source, TextKind};

/// Arguments of `sample` without a run.
#[derive(Debug, Clone)]
pub struct SampleArgs {
    /// Folder of the prepared dataset; it needs the label column `style`.
    pub data: PathBuf,
    /// The pack to write, as in server/sample/emoji.tar.gz.
    pub out: PathBuf,
    /// Side of the pictures in pixels, 8 to 512.
    pub size: u32,
    /// The most colours that a picture keeps, 2 to 256.
    pub colors: u16,
}

/// The version of the pack's format.
pub const PACK_FORMAT_VERSION: u32 = 1;

/// The most bytes of a pack: it is committed and stands in the server's binary.
pub const MAX_PACK_BYTES: u64 = 6_000_000;

/// Licences under which drawings and names may be shipped with attribution and nothing more.
const SHIPPABLE: [&str; 4] = ["Apache-2.0", "CC-BY-4.0", "MIT", "Unicode-3.0"];

/// The first line of `items.jsonl`.
#[derive(Debug, Serialize)]
struct Header<'a> {
    format_version: u32,
    collection: &'a str,
    groups: u64,
    images: u64,
    texts: u64,
    languages: Vec<&'a str>,
    licences: &'a [Source],
}

/// A further line of `items.jsonl`.
#[derive(Debug, Serialize)]
struct Item {
    id: String,
    modality: &'static str,
    group: String,
    metadata: BTreeMap<&'static str, String>,
    #[serde(flatten)]
    content: Content,
}

/// What an item is of.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    /// The picture's path within the pack.
    File(String),
    /// The text itself.
    Text(String),
}

/// A picture as the pack has it.
#[derive(Debug)]
struct PackedPicture {
    item: Item,
    path: String,
    png: Vec<u8>,
}

/// What `sample` wrote.
#[derive(Debug, Clone)]
pub struct SampleReport {
    /// The pack.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Pictures in it.
    pub images: u64,
    /// Names in it.
    pub texts: u64,
}

impl fmt::Display for SampleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} pictures, {} names, {} bytes (at most {MAX_PACK_BYTES})",
            self.path.display(),
            self.images,
            self.texts,
            self.bytes
        )
    }
}

/// Writes the sample pack.
///
/// # Errors
/// When the dataset cannot be read, has no `style` column or a source that must not be shipped,
/// two items have one id, a picture cannot be decoded, or the pack is larger than
/// [`MAX_PACK_BYTES`]. No pack is left behind then.
pub fn run(args: &SampleArgs) -> Result<SampleReport> {
    let dataset = Dataset::open(&args.data)?;
    let sources = &dataset.manifest().sources;
    if let Some(source) = sources.iter().find(|s| !SHIPPABLE.contains(&s.licence.as_str())) {
        let message = format!(
            "{} is under {}, which does not go into a pack; allowed: {}",
            source.package,
            source.licence,
            SHIPPABLE.join(", ")
        );
        return Err(Error::data(&args.data, message));
    }
    let pictures = pictures(&dataset, args)?;
    let names = names(&dataset)?;
    let header = Header {
        format_version: PACK_FORMAT_VERSION,
        collection: &dataset.manifest().name,
        groups: dataset.manifest().counts.groups,
        images: pictures.len() as u64,
        texts: names.len() as u64,
        languages: dataset.manifest().counts.texts_by_lang.keys().map(String::as_str).collect(),
        licences: sources,
    };
    let bytes = pack::write(&args.out, &header, &pictures, &names)?;
    Ok(SampleReport { path: args.out.clone(), bytes, images: header.images, texts: header.texts })
}

/// The pictures, scaled and reduced to a palette, ordered by path.
fn pictures(dataset: &Dataset, args: &SampleArgs) -> Result<Vec<PackedPicture>> {
    let Some(style) = dataset.label("style") else {
        return Err(Error::data(dataset.folder(), "has no label column `style`"));
    };
    let category = dataset.label("category");
    let rows: Vec<ImageRow> = dataset.images().collect::<Result<_>>()?;
    let mut pictures: Vec<PackedPicture> = rows
        .par_iter()
        .map(|row| {
            let fault = |message: String| {
                Error::data(dataset.folder(), format!("picture `{}`: {message}", row.path))
            };
            let style =
                row.labels[style].clone().ok_or_else(|| fault("has no style".to_owned()))?;
            let png = picture::shrink(&row.bytes, args.size, args.colors).map_err(fault)?;
            let path = format!("pictures/{style}/{}.png", row.group);
            let id = format!("picture/{style}/{}", row.group);
            let category = category.and_then(|at| row.labels[at].clone());
            let mut metadata = BTreeMap::from([("style", style)]);
            metadata.extend(category.map(|category| ("category", category)));
            let content = Content::File(path.clone());
            let item = Item { id, modality: "image", group: row.group.clone(), metadata, content };
            Ok(PackedPicture { item, path, png })
        })
        .collect::<Result<_>>()?;
    pictures.sort_by(|a, b| a.path.cmp(&b.path));
    distinct(dataset, pictures.iter().map(|picture| picture.item.id.as_str()))?;
    Ok(pictures)
}

/// The names (no keywords), ordered by id.
fn names(dataset: &Dataset) -> Result<Vec<Item>> {
    let mut names = Vec::new();
    for row in dataset.texts() {
        let row = row?;
        if row.kind == TextKind::Name {
            names.push(Item {
                id: format!("text/{}/{}", row.lang, row.group),
                modality: "text",
                group: row.group,
                metadata: BTreeMap::from([("lang", row.lang)]),
                content: Content::Text(row.text),
            });
        }
    }
    names.sort_by(|a, b| a.id.cmp(&b.id));
    distinct(dataset, names.iter().map(|item| item.id.as_str()))?;
    Ok(names)
}

/// Refuses ids, given in order, of which two are the same.
fn distinct<'a>(dataset: &Dataset, ids: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut last = None;
    for id in ids {
        if last == Some(id) {
            return Err(Error::data(dataset.folder(), format!("two items would be `{id}`")));
        }
        last = Some(id);
    }
    Ok(())
}
