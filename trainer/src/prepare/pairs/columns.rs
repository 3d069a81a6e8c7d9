//! Which column of a table is what.

use std::collections::BTreeMap;

use super::super::table::quoted;
use super::row::language;
use super::{PairArgs, Roles};

/// Columns that hold a picture or where it lies, best first: the client's names for them.
const IMAGE: [&str; 9] =
    ["image", "file_name", "file", "filename", "image_path", "image_name", "img", "path", "photo"];
/// Columns that hold what is said of it, best first.
const TEXT: [&str; 6] = ["text", "caption", "captions", "texts", "sentences", "comment"];
/// Columns that hold the language.
const LANG: [&str; 2] = ["lang", "language"];
/// Columns that the caller names; where it names none, the usual names are looked for.
#[derive(Debug, Clone, Default)]
pub(in crate::prepare) struct Asked {
    /// The picture's column.
    pub(in crate::prepare) image: Option<String>,
    /// The texts' columns.
    pub(in crate::prepare) texts: Vec<String>,
    /// The language's column.
    pub(in crate::prepare) lang: Option<String>,
    /// The group's column.
    pub(in crate::prepare) group: Option<String>,
    /// Whether a column `id` is looked at: where rows have one, it is their own.
    pub(in crate::prepare) ids: bool,
}

impl Roles {
    /// Tells the columns of a table apart.
    ///
    /// # Errors
    /// Says which column is missing, and which there are.
    pub(in crate::prepare) fn choose(
        columns: &[String],
        asked: &Asked,
        args: &PairArgs,
    ) -> Result<Self, String> {
        let mut chosen = Chosen { columns, picked: Vec::new() };
        let image = match &asked.image {
            Some(name) => chosen.named(name, "--image-column")?,
            None => chosen.usual(&IMAGE).ok_or_else(|| chosen.missing("pictures", &IMAGE))?,
        };
        let texts = match &asked.texts[..] {
            [] => vec![chosen.usual(&TEXT).ok_or_else(|| chosen.missing("captions", &TEXT))?],
            names => names
                .iter()
                .map(|name| chosen.named(name, "--text-column"))
                .collect::<Result<_, _>>()?,
        };
        let mut optional = |name: &Option<String>, flag: &str, usual: &[&str]| match name {
            Some(name) => chosen.named(name, flag).map(Some),
            None => Ok(chosen.usual(usual)),
        };
        let lang = optional(&asked.lang, "--lang-column", &LANG)?;
        let group = optional(&asked.group, "--group-column", &["group"])?;
        let (kind, split) = (chosen.usual(&["kind"]), chosen.usual(&["split"]));
        let id = if asked.ids { chosen.usual(&["id"]) } else { None };
        let labels = args
            .labels
            .iter()
            .map(|name| chosen.named(name, "--labels"))
            .collect::<Result<_, _>>()?;
        let ignored =
            columns.iter().filter(|name| !chosen.picked.contains(name)).cloned().collect();
        Ok(Self {
            columns: chosen.picked,
            ignored,
            class_names: BTreeMap::new(),
            image,
            texts,
            lang,
            group,
            kind,
            split,
            id,
            labels,
            default_lang: args.lang.as_deref().and_then(language).unwrap_or_default(),
            max_text_bytes: args.max_text_bytes,
        })
    }
}

/// Columns being told apart.
struct Chosen<'a> {
    columns: &'a [String],
    /// Those chosen so far.
    picked: Vec<String>,
}

impl Chosen<'_> {
    /// The place among the chosen of a column of the table.
    fn pick(&mut self, column: &str) -> usize {
        self.picked.iter().position(|picked| picked == column).unwrap_or_else(|| {
            self.picked.push(column.to_owned());
            self.picked.len() - 1
        })
    }

    /// The first of the usual names that the table has, in any case of letters.
    fn usual(&mut self, names: &[&str]) -> Option<usize> {
        let columns = self.columns;
        let found = names
            .iter()
            .find_map(|name| columns.iter().find(|column| column.trim().to_lowercase() == **name));
        found.map(|column| self.pick(column))
    }

    /// A column that was asked for by name.
    fn named(&mut self, name: &str, flag: &str) -> Result<usize, String> {
        if self.columns.iter().any(|column| column == name) {
            return Ok(self.pick(name));
        }
        Err(format!("{flag}: there is no column `{name}`; there are {}", self.list()))
    }

    fn missing(&self, of: &str, names: &[&str]) -> String {
        format!(
            "there is no column of {of} (one of {}); there are {}",
            names.join(", "),
            self.list()
        )
    }

    fn list(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        columns.join(", ")
    }
}
