//! Drawings of one style, from a package of icons (SVG bodies by name).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Package, group_of, read_json};
use crate::error::{Error, Result};
use crate::shards::Source;

/// The drawing styles and the folder of each one's package.
const STYLES: [(&str, &str); 4] = [
    ("noto", "iconify-json-noto"),
    ("twemoji", "iconify-json-twemoji"),
    ("fluent", "iconify-json-fluent-emoji-flat"),
    ("openmoji", "iconify-json-openmoji"),
];

/// The category under which a package keeps symbols that Unicode does not count among emoji.
const NOT_EMOJI: &str = "extras-unicode";

/// The drawings of one style.
#[derive(Debug)]
pub(super) struct IconSet {
    /// The style's name, as in `noto`.
    pub(super) style: String,
    /// Drawings by group, base emoji only.
    pub(super) drawings: BTreeMap<String, Drawing>,
    /// Where they come from.
    pub(super) source: Source,
    /// What could not be used, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// One drawing.
#[derive(Debug)]
pub(super) struct Drawing {
    /// The icon's name, as in `red-heart`.
    pub(super) name: String,
    /// What stands inside the `<svg>` element.
    pub(super) body: String,
    /// The view box: left, top, width, height, in the drawing's own units.
    pub(super) view_box: [f32; 4],
    /// The emoji's category, as in `smileys-emotion`, where the package says.
    pub(super) category: Option<String>,
}

/// `icons.json`: icons that can be broken one by one, and the box of those that name none.
#[derive(Deserialize)]
struct IconsFile {
    icons: BTreeMap<String, Value>,
    width: f32,
    height: f32,
}

/// An icon in `icons.json`.
#[derive(Deserialize)]
struct Icon {
    body: String,
    #[serde(default)]
    left: f32,
    #[serde(default)]
    top: f32,
    width: Option<f32>,
    height: Option<f32>,
}

/// `info.json`, as far as it is used.
#[derive(Deserialize)]
struct Info {
    author: Named,
    license: Licence,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Licence {
    spdx: String,
}

/// `metadata.json`, as far as it is used: icon names by category.
#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    categories: BTreeMap<String, Vec<String>>,
}

impl IconSet {
    /// Reads the package of `style` below `source`.
    ///
    /// # Errors
    /// When the style is not known or one of the package's files is absent or not its JSON.
    pub(super) fn open(source: &Path, style: &str) -> Result<Self> {
        let Some((_, folder)) = STYLES.iter().find(|(name, _)| *name == style) else {
            let known: Vec<&str> = STYLES.iter().map(|(name, _)| *name).collect();
            let message = format!("unknown style `{style}`; known: {}", known.join(", "));
            return Err(Error::setting("styles", message));
        };
        let folder = source.join(folder);
        let package: Package = read_json(&folder.join("package.json"))?;
        let info: Info = read_json(&folder.join("info.json"))?;
        let metadata: Metadata = read_json(&folder.join("metadata.json"))?;
        let chars: BTreeMap<String, String> = read_json(&folder.join("chars.json"))?;
        let icons: IconsFile = read_json(&folder.join("icons.json"))?;
        let gives = format!("pictures of style {style}");
        let mut set = Self {
            style: style.to_owned(),
            drawings: BTreeMap::new(),
            source: package.source(gives, Some(info.license.spdx), info.author.name),
            skipped: Vec::new(),
        };
        set.collect(&chars, &icons, &by_icon(&metadata));
        Ok(set)
    }

    /// Fills in the base emoji of `chars` (code points in hex joined by `-`, to icon name).
    fn collect(
        &mut self,
        chars: &BTreeMap<String, String>,
        icons: &IconsFile,
        categories: &BTreeMap<&str, String>,
    ) {
        for (key, name) in chars {
            let what = format!("{}/{key} ({name})", self.style);
            let Ok(points) = key
                .split('-')
                .map(|hex| u32::from_str_radix(hex, 16))
                .collect::<std::result::Result<Vec<_>, _>>()
            else {
                self.skipped.push((what, "its key is not code points in hex".to_owned()));
                continue;
            };
            let category = categories.get(name.as_str());
            let Some(group) = group_of(points).filter(|_| category.is_none_or(|c| c != NOT_EMOJI))
            else {
                continue;
            };
            if let Some(first) = self.drawings.get(&group) {
                if first.name != *name {
                    let reason = format!("`{}` already draws {group}", first.name);
                    self.skipped.push((what, reason));
                }
                continue;
            }
            match drawing(icons, name, category) {
                Ok(drawing) => drop(self.drawings.insert(group, drawing)),
                Err(reason) => self.skipped.push((what, reason)),
            }
        }
    }
}

/// The drawing of icon `name`.
fn drawing(
    icons: &IconsFile,
    name: &str,
    category: Option<&String>,
) -> std::result::Result<Drawing, String> {
    let icon = icons.icons.get(name).ok_or("there is no icon of that name")?;
    let icon = Icon::deserialize(icon).map_err(|e| format!("the icon is malformed: {e}"))?;
    let (width, height) = (icon.width.unwrap_or(icons.width), icon.height.unwrap_or(icons.height));
    Ok(Drawing {
        name: name.to_owned(),
        body: icon.body,
        view_box: [icon.left, icon.top, width, height],
        category: category.cloned(),
    })
}

/// Categories by icon name.
fn by_icon(metadata: &Metadata) -> BTreeMap<&str, String> {
    let mut categories = BTreeMap::new();
    for (category, names) in &metadata.categories {
        for name in names {
            categories.insert(name.as_str(), slug(category));
        }
    }
    categories
}

/// A category in lower case with `-` between words: `Smileys & Emotion` is `smileys-emotion`.
fn slug(category: &str) -> String {
    let words = category.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
}
