//! Names and keywords of emoji in several languages, from the CLDR annotation packages.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Package, group_of, read_json};
use crate::error::{Error, Result};
use crate::shards::Source;

/// The packages: their folder, the folder of languages within, and the key of the file's content.
/// The second one has names that follow from those of parts (flags, families, keycaps).
const PACKAGES: [(&str, &str); 2] = [
    ("cldr-annotations-full", "annotations"),
    ("cldr-annotations-derived-full", "annotationsDerived"),
];

/// The package with more English keywords, and its file.
const MORE_KEYWORDS: (&str, &str) = ("emojilib", "dist/emoji-en-US.json");

/// Names and keywords by language and group.
#[derive(Debug)]
pub(super) struct Annotations {
    /// In the order the languages were asked for.
    pub(super) by_language: Vec<(String, BTreeMap<String, Entry>)>,
    /// Where they come from.
    pub(super) sources: Vec<Source>,
    /// What could not be used, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// What one language calls a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The name (CLDR's `tts`).
    pub(super) name: String,
    /// Words that go with it, distinct, in the package's order.
    pub(super) keywords: Vec<String>,
}

/// An annotation as the packages have it.
#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    tts: Vec<String>,
    #[serde(default)]
    default: Vec<String>,
}

impl Annotations {
    /// Reads `languages` from the packages below `source`.
    ///
    /// # Errors
    /// When a package or a language in it is absent, or a file is not its JSON.
    pub(super) fn open(source: &Path, languages: &[String]) -> Result<Self> {
        let mut read = Self { by_language: Vec::new(), sources: Vec::new(), skipped: Vec::new() };
        for (folder, _) in PACKAGES {
            let package: Package = read_json(&source.join(folder).join("package.json"))?;
            let gives = format!("names and keywords in {}", languages.join(", "));
            read.sources.push(package.source(gives, None, "Unicode, Inc.".to_owned()));
        }
        for lang in languages {
            // A language is a folder's name below; nothing else may be reached through it.
            if lang.is_empty() || !lang.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Err(Error::setting("languages", format!("`{lang}` is not a language tag")));
            }
            if read.by_language.iter().any(|(known, _)| known == lang) {
                return Err(Error::setting("languages", format!("`{lang}` is there twice")));
            }
            let mut entries = BTreeMap::new();
            for (folder, kind) in PACKAGES {
                let path = source.join(folder).join(kind).join(lang).join("annotations.json");
                let file: Value = read_json(&path)?;
                let Some(annotations) = file[kind]["annotations"].as_object() else {
                    return Err(Error::data(&path, format!("has no `{kind}.annotations`")));
                };
                for (emoji, annotation) in annotations {
                    read.add(&mut entries, (lang, emoji), annotation);
                }
            }
            read.by_language.push((lang.clone(), entries));
        }
        Ok(read)
    }

    /// Adds one annotation unless it is of no base emoji or an earlier package had it.
    fn add(
        &mut self,
        entries: &mut BTreeMap<String, Entry>,
        (lang, emoji): (&str, &str),
        annotation: &Value,
    ) {
        let Some(group) = group_of(emoji.chars().map(u32::from)) else { return };
        if entries.contains_key(&group) {
            return;
        }
        match entry(annotation) {
            Ok(entry) => drop(entries.insert(group, entry)),
            Err(reason) => self.skipped.push((format!("annotation {lang}/{group}"), reason)),
        }
    }

    /// Adds the English keywords of emojilib to the entries that there are.
    ///
    /// # Errors
    /// When English was not asked for, or the package is absent or not what it should be.
    pub(super) fn add_keywords(&mut self, source: &Path) -> Result<()> {
        let (folder, file) = MORE_KEYWORDS;
        let english = self.by_language.iter_mut().find(|(lang, _)| lang == "en");
        let Some((_, entries)) = english else {
            let message = "must have `en` among them for --more-keywords";
            return Err(Error::setting("languages", message));
        };
        let package: Package = read_json(&source.join(folder).join("package.json"))?;
        let gives = "more keywords in en".to_owned();
        self.sources.push(package.source(gives, None, "Mu-An Chiou".to_owned()));
        let path = source.join(folder).join(file);
        let keywords: BTreeMap<String, Vec<String>> = read_json(&path)?;
        for (emoji, words) in keywords {
            let entry = group_of(emoji.chars().map(u32::from)).and_then(|g| entries.get_mut(&g));
            let Some(Entry { name, keywords }) = entry else { continue };
            for word in words {
                let word = word.replace('_', " ").trim().to_owned();
                // Emoticons such as ":D" are no words.
                let said = word.chars().filter(|c| c.is_alphabetic()).count() >= 2;
                let same = |known: &String| known.to_lowercase() == word.to_lowercase();
                if said && !same(name) && !keywords.iter().any(same) {
                    keywords.push(word);
                }
            }
        }
        Ok(())
    }

    /// The languages that have no name for `group`.
    pub(super) fn missing_languages(&self, group: &str) -> Vec<&str> {
        let missing = self.by_language.iter().filter(|(_, entries)| !entries.contains_key(group));
        missing.map(|(lang, _)| lang.as_str()).collect()
    }
}

/// The name and keywords in `annotation`.
fn entry(annotation: &Value) -> std::result::Result<Entry, String> {
    let annotation =
        Annotation::deserialize(annotation).map_err(|e| format!("it is malformed: {e}"))?;
    let name = annotation.tts.first().map_or("", |name| name.trim());
    if name.is_empty() {
        return Err("it has no name".to_owned());
    }
    let mut keywords: Vec<String> = Vec::new();
    for keyword in annotation.default.iter().map(|keyword| keyword.trim()) {
        if !keyword.is_empty() && !keywords.iter().any(|known| known == keyword) {
            keywords.push(keyword.to_owned());
        }
    }
    Ok(Entry { name: name.to_owned(), keywords })
}
