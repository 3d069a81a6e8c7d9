//! `prepare emoji`: base emoji with their drawings in several styles and their names and keywords
//! in several languages.
//!
//! A *concept* is one emoji without a skin tone; its group is its code points (see `group_of`).
//! It counts when at least one of the styles draws it and every language names it.

mod annotations;
mod icons;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::prelude::*;
use serde::Deserialize;

use self::annotations::Annotations;
use self::icons::{Drawing, IconSet};
use super::pairs::{Shares, Unit, draw};
use super::{Report, progress_bar, raster};
use crate::error::{Error, Result};
use crate::shards::{DatasetWriter, ImageRow, Source, Split, TextKind, TextRow};

/// Arguments of `prepare emoji`.
#[derive(Debug, Clone, Args)]
pub struct EmojiArgs {
    /// Folder with the unpacked packages, as scripts/fetch-emoji.sh leaves it.
    #[arg(long, value_name = "DIR")]
    pub source: PathBuf,
    /// Folder to write the dataset to; shards of an earlier run there are replaced.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Drawing styles: noto, twemoji, fluent; openmoji (share-alike) for measuring only.
    #[arg(long, value_delimiter = ',', default_value = "noto,twemoji,fluent")]
    pub styles: Vec<String>,
    /// Languages, as the annotation packages name them. A concept needs a name in each.
    #[arg(long, value_delimiter = ',', default_value = "en,de,fr,es,ru,ja,zh,ko,ar,hi")]
    pub languages: Vec<String>,
    /// English keywords of the package emojilib beside the others: what people type for an emoji.
    #[arg(long)]
    pub more_keywords: bool,
    /// Share of the concepts to choose settings by, 0 to 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub dev: f64,
    /// Share of the concepts to report on, 0 to 0.5.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub test: f64,
    /// Side of the pictures in pixels.
    #[arg(long, value_name = "PX", default_value_t = 72, value_parser = clap::value_parser!(u32).range(8..=512))]
    pub size: u32,
}

/// The label columns of the dataset.
const LABELS: [&str; 2] = ["style", "category"];

/// The split of each concept: drawn from its name alone.
fn splits(concepts: &BTreeSet<String>, args: &EmojiArgs) -> Result<BTreeMap<String, Split>> {
    for (name, share) in [("--dev", args.dev), ("--test", args.test)] {
        if !(0.0..=0.5).contains(&share) {
            return Err(Error::setting(name, format!("{share} is not between 0 and 0.5")));
        }
    }
    let units: Vec<Unit<'_>> = concepts.iter().map(|name| Unit { name, groups: 1 }).collect();
    let shares = Shares { dev: args.dev, test: args.test, seed: 1 };
    Ok(concepts.iter().cloned().zip(draw(&units, &shares)).collect())
}

/// Prepares the emoji dataset: the same packages give the same bytes.
///
/// # Errors
/// When a style is not known, a package is absent or not readable as a whole, nothing is left to
/// write, or the disk refuses the result. Single bad drawings and names are skipped and named.
pub fn run(args: &EmojiArgs) -> Result<Report> {
    let mut annotations = Annotations::open(&args.source, &args.languages)?;
    if args.more_keywords {
        annotations.add_keywords(&args.source)?;
    }
    let sets: Vec<IconSet> = args
        .styles
        .iter()
        .map(|style| IconSet::open(&args.source, style))
        .collect::<Result<_>>()?;
    let concepts = concepts(&sets, &annotations);
    if concepts.is_empty() {
        let message = "no emoji here is both drawn and named in every language asked for";
        return Err(Error::data(&args.source, message));
    }
    let splits = splits(&concepts, args)?;
    let mut writer = DatasetWriter::create(&args.out, "emoji", &LABELS)?;
    for source in sets.iter().map(|set| &set.source).chain(&annotations.sources) {
        writer.add_source(source.clone());
    }
    for (what, reason) in sets.iter().flat_map(|set| &set.skipped).chain(&annotations.skipped) {
        writer.skip(what, reason);
    }
    skip_unnamed(&mut writer, &sets, &annotations);
    let pictured = write_images(&mut writer, &sets, &splits, args.size)?;
    write_texts(&mut writer, &annotations, &pictured)?;
    Ok(Report { folder: args.out.clone(), manifest: writer.finish()? })
}

/// Drawn in at least one style and named in every language, in order.
fn concepts(sets: &[IconSet], annotations: &Annotations) -> BTreeSet<String> {
    sets.iter()
        .flat_map(|set| set.drawings.keys())
        .filter(|group| annotations.missing_languages(group).is_empty())
        .cloned()
        .collect()
}

/// Names the drawings that are no concept because a language has no name for them.
fn skip_unnamed(writer: &mut DatasetWriter, sets: &[IconSet], annotations: &Annotations) {
    for set in sets {
        for (group, drawing) in &set.drawings {
            let missing = annotations.missing_languages(group);
            if !missing.is_empty() {
                let what = format!("{}/{group} ({})", set.style, drawing.name);
                writer.skip(what, format!("no name in {}", missing.join(", ")));
            }
        }
    }
}

/// Rasterises on all threads and writes in order of group, then of style as given. Returns the
/// groups that have a picture now.
fn write_images(
    writer: &mut DatasetWriter,
    sets: &[IconSet],
    concepts: &BTreeMap<String, Split>,
    size: u32,
) -> Result<BTreeMap<String, Split>> {
    let drawn: Vec<(&String, &IconSet, &Drawing)> = concepts
        .keys()
        .flat_map(|group| sets.iter().map(move |set| (group, set)))
        .filter_map(|(group, set)| set.drawings.get(group).map(|drawing| (group, set, drawing)))
        .collect();
    let categories = categories(sets);
    let progress = progress_bar("rasterise", drawn.len());
    let pictures: Vec<std::result::Result<Vec<u8>, String>> = drawn
        .par_iter()
        .map(|(_, _, drawing)| {
            let picture = raster::rasterise(&drawing.body, drawing.view_box, size);
            progress.inc(1);
            picture
        })
        .collect();
    progress.finish_and_clear();
    let mut pictured = BTreeMap::new();
    for ((group, set, drawing), picture) in drawn.into_iter().zip(pictures) {
        match picture {
            Ok(bytes) => {
                writer.push_image(ImageRow {
                    bytes,
                    path: format!("{}/{group}.png", set.style),
                    group: group.clone(),
                    split: concepts[group],
                    labels: vec![Some(set.style.clone()), categories.get(group).cloned()],
                })?;
                pictured.insert(group.clone(), concepts[group]);
            }
            Err(reason) => writer.skip(format!("{}/{group} ({})", set.style, drawing.name), reason),
        }
    }
    Ok(pictured)
}

/// The category of each group: that of the first style that has one, so that all pictures of a
/// group agree.
fn categories(sets: &[IconSet]) -> BTreeMap<String, String> {
    let mut categories = BTreeMap::new();
    for set in sets {
        for (group, drawing) in &set.drawings {
            if let Some(category) = &drawing.category {
                categories.entry(group.clone()).or_insert_with(|| category.clone());
            }
        }
    }
    categories
}

/// Writes names and keywords in order of group, then of language as given, the name first.
fn write_texts(
    writer: &mut DatasetWriter,
    annotations: &Annotations,
    groups: &BTreeMap<String, Split>,
) -> Result<()> {
    for (group, split) in groups {
        for (lang, entries) in &annotations.by_language {
            let Some(entry) = entries.get(group) else { continue };
            let name = std::iter::once((&entry.name, TextKind::Name));
            let keywords = entry.keywords.iter().map(|word| (word, TextKind::Keyword));
            for (text, kind) in name.chain(keywords) {
                writer.push_text(TextRow {
                    text: text.clone(),
                    lang: lang.clone(),
                    kind,
                    group: group.clone(),
                    split: *split,
                })?;
            }
        }
    }
    Ok(())
}

/// The variation selector that asks for an emoji's colour drawing; it names nothing of its own.
const EMOJI_PRESENTATION: u32 = 0xfe0f;

/// The group of an emoji given by its code points: lower-case hex joined by `-`, without the
/// variation selector `fe0f`, as in `2764` or `1f1e9-1f1ea`. `None` for what is no base emoji: a
/// sequence with a skin tone, or a component that only modifies others (UTS #51).
fn group_of(code_points: impl IntoIterator<Item = u32>) -> Option<String> {
    let points: Vec<u32> = code_points.into_iter().filter(|&p| p != EMOJI_PRESENTATION).collect();
    let is_skin_tone = |p: &u32| (0x1f3fb..=0x1f3ff).contains(p);
    let is_component = |p: u32| {
        let regional_letter = (0x1f1e6..=0x1f1ff).contains(&p);
        let hair = (0x1f9b0..=0x1f9b3).contains(&p);
        regional_letter || hair || p == 0x200d || p == 0x20e3
    };
    match points[..] {
        [] => None,
        [alone] if is_component(alone) => None,
        _ if points.iter().any(is_skin_tone) => None,
        _ => Some(points.iter().map(|p| format!("{p:x}")).collect::<Vec<_>>().join("-")),
    }
}

/// What every package says of itself in `package.json`.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    license: String,
}

impl Package {
    /// The source entry of this package.
    fn source(self, gives: String, licence: Option<String>, author: String) -> Source {
        Source {
            gives,
            package: format!("{} {}", self.name, self.version),
            licence: licence.unwrap_or(self.license),
            author,
        }
    }
}

/// Reads a JSON file whole.
fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::data(path, format!("not the JSON expected: {e}")))
}
