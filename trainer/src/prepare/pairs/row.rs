//! Cells of a table as a row: what each may hold.

use std::collections::BTreeMap;

use parquet::data_type::ByteArray;

use super::super::table::{Cell, quoted};
use super::Fault;
use crate::shards::{Split, TextKind};

/// Longest group, id, label or language: they are names, not texts.
const NAME_BYTES: usize = 1_024;

/// Which column is what.
#[derive(Debug)]
pub(in crate::prepare) struct Roles {
    /// The columns to read, in the order of the cells that [`Roles::row`] takes.
    pub(in crate::prepare) columns: Vec<String>,
    /// The columns that are not read.
    pub(in crate::prepare) ignored: Vec<String>,
    /// The names behind the numbers in label columns.
    pub(in crate::prepare) class_names: BTreeMap<String, Vec<String>>,
    pub(super) image: usize,
    pub(super) texts: Vec<usize>,
    pub(super) lang: Option<usize>,
    pub(super) group: Option<usize>,
    pub(super) kind: Option<usize>,
    pub(super) split: Option<usize>,
    pub(super) id: Option<usize>,
    pub(super) labels: Vec<usize>,
    pub(super) default_lang: String,
    pub(super) max_text_bytes: usize,
}

/// A row of a table.
#[derive(Debug)]
pub(in crate::prepare) struct Row {
    /// The picture, or where it lies.
    pub(in crate::prepare) picture: PictureCell,
    /// What is said of it, one or more.
    pub(in crate::prepare) texts: Vec<Result<String, Fault>>,
    /// The language; empty where it is not known.
    pub(in crate::prepare) lang: String,
    /// What sort of texts they are.
    pub(in crate::prepare) kind: TextKind,
    /// What the picture belongs to; its own name where nothing is said.
    pub(in crate::prepare) group: Option<String>,
    /// What the row is for, where it says so.
    pub(in crate::prepare) split: Option<Split>,
    /// The row's own name.
    pub(in crate::prepare) id: Option<String>,
    /// The picture's labels.
    pub(in crate::prepare) labels: Vec<Option<String>>,
}

/// The picture of a row.
#[derive(Debug)]
pub(in crate::prepare) enum PictureCell {
    /// A file, as the table names it.
    File(String),
    /// The table itself, which may give a name.
    Inline {
        /// The file.
        bytes: ByteArray,
        /// Its name.
        path: Option<String>,
    },
}

impl Roles {
    /// The row that the cells of [`Roles::columns`] make.
    ///
    /// # Errors
    /// What is wrong with the row as a whole; a single text has its own fault within the row.
    pub(in crate::prepare) fn row(&self, cells: &mut [Cell]) -> Result<Row, Fault> {
        let picture = self.picture(cells)?;
        let lang = match self.name(cells, self.lang)? {
            None => self.default_lang.clone(),
            Some(tag) => language(&tag).ok_or_else(|| {
                self.wrong_value(self.lang, &tag, "a BCP 47 tag, as in `en` or `pt-BR`")
            })?,
        };
        let kind = match self.name(cells, self.kind)? {
            None => TextKind::Name,
            Some(kind) => TextKind::parse(&kind)
                .ok_or_else(|| self.wrong_value(self.kind, &kind, "`name` or `keyword`"))?,
        };
        let split = match self.name(cells, self.split)? {
            None => None,
            Some(split) => Some(parse_split(&split).ok_or_else(|| {
                self.wrong_value(self.split, &split, "`train`, `dev` (`validation`) or `test`")
            })?),
        };
        let group = self.name(cells, self.group)?;
        let id = self.name(cells, self.id)?;
        let labels =
            self.labels.iter().map(|at| self.label(cells, *at)).collect::<Result<_, _>>()?;
        let mut texts = Vec::new();
        for at in &self.texts {
            self.texts(*at, std::mem::replace(&mut cells[*at], Cell::Nothing), &mut texts);
        }
        // Columns beside each other need not all be filled.
        if self.texts.len() > 1 && texts.iter().any(Result::is_ok) {
            texts.retain(|text| !matches!(text, Err(Fault::NoText(_))));
        } else if self.texts.len() > 1 {
            texts.truncate(1);
        }
        Ok(Row { picture, texts, lang, kind, group, split, id, labels })
    }

    /// The column of pictures.
    pub(in crate::prepare) fn image_column(&self) -> &str {
        &self.columns[self.image]
    }

    /// The fault of a row that names no picture.
    pub(in crate::prepare) fn no_picture(&self) -> Fault {
        Fault::NoPicture(self.image_column().to_owned())
    }

    /// The fault of a row that holds a picture where its path should be.
    pub(in crate::prepare) fn not_a_path(&self) -> Fault {
        Fault::WrongType {
            column: self.image_column().to_owned(),
            found: "a picture",
            wanted: "a path (`prepare hf-parquet` reads pictures that lie in Parquet files)",
        }
    }

    fn picture(&self, cells: &mut [Cell]) -> Result<PictureCell, Fault> {
        let column = &self.columns[self.image];
        match std::mem::replace(&mut cells[self.image], Cell::Nothing) {
            Cell::Text(path) => Ok(PictureCell::File(path)),
            Cell::Bytes(bytes) => Ok(PictureCell::Inline { bytes, path: None }),
            Cell::Picture { bytes: Some(bytes), path } if !bytes.is_empty() => {
                Ok(PictureCell::Inline { bytes, path })
            }
            Cell::Picture { path: Some(path), .. } => Ok(PictureCell::File(path)),
            Cell::Nothing | Cell::Picture { .. } => Err(self.no_picture()),
            Cell::NotUtf8 => Err(Fault::NotUtf8(format!("column `{column}`"))),
            other => Err(wrong_type(column, &other, "a path")),
        }
    }

    /// A name: group, id, language and the like. Ids may be numbers.
    fn name(&self, cells: &mut [Cell], at: Option<usize>) -> Result<Option<String>, Fault> {
        let Some(at) = at else { return Ok(None) };
        let column = &self.columns[at];
        // A column may have two uses, as a language that is a label too: the cell stays.
        match &cells[at] {
            Cell::Int(number) => Ok(Some(number.to_string())),
            cell => match text(cell, column, "a text")?.trim() {
                "" => Ok(None),
                name if name.len() > NAME_BYTES => {
                    Err(self.wrong_value(Some(at), name, "a name of at most 1,024 bytes"))
                }
                name => Ok(Some(name.to_owned())),
            },
        }
    }

    fn label(&self, cells: &mut [Cell], at: usize) -> Result<Option<String>, Fault> {
        let column = &self.columns[at];
        match (&cells[at], self.class_names.get(column)) {
            // What Hugging Face's datasets have for "not labelled".
            (Cell::Int(-1), Some(_)) => Ok(None),
            (Cell::Int(number), Some(names)) => {
                let name = usize::try_from(*number).ok().and_then(|number| names.get(number));
                let fault =
                    || self.wrong_value(Some(at), &number.to_string(), "one of its classes");
                name.cloned().map(Some).ok_or_else(fault)
            }
            (Cell::Bool(value), _) => Ok(Some(value.to_string())),
            _ => self.name(cells, Some(at)),
        }
    }

    fn texts(&self, at: usize, cell: Cell, texts: &mut Vec<Result<String, Fault>>) {
        let column = &self.columns[at];
        match cell {
            Cell::List(list) if !list.is_empty() => {
                texts.extend(list.into_iter().map(|cell| self.text(column, &cell)));
            }
            Cell::List(_) => texts.push(Err(Fault::NoText(column.clone()))),
            cell => texts.push(self.text(column, &cell)),
        }
    }

    fn text(&self, column: &str, cell: &Cell) -> Result<String, Fault> {
        let text = text(cell, column, "a text")?.trim();
        match text.len() {
            0 => Err(Fault::NoText(column.to_owned())),
            bytes if bytes > self.max_text_bytes => {
                Err(Fault::TextTooLong { bytes, limit: self.max_text_bytes })
            }
            _ => Ok(text.to_owned()),
        }
    }

    fn wrong_value(&self, at: Option<usize>, value: &str, wanted: &'static str) -> Fault {
        let column = at.map(|at| self.columns[at].clone()).unwrap_or_default();
        Fault::WrongValue { column, value: quoted(value), wanted }
    }
}

fn wrong_type(column: &str, cell: &Cell, wanted: &'static str) -> Fault {
    Fault::WrongType { column: column.to_owned(), found: cell.says(), wanted }
}

/// A cell's text, empty for nothing.
fn text<'a>(cell: &'a Cell, column: &str, wanted: &'static str) -> Result<&'a str, Fault> {
    let not_utf8 = || Fault::NotUtf8(format!("column `{column}`"));
    match cell {
        Cell::Nothing => Ok(""),
        Cell::Text(text) => Ok(text),
        Cell::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_err(|_| not_utf8()),
        Cell::NotUtf8 => Err(not_utf8()),
        other => Err(wrong_type(column, other, wanted)),
    }
}

/// A language tag in the form of BCP 47, by its shape alone; `_` between its parts is taken for `-`
/// as UTS #35 does. `None` for what is no tag.
pub(super) fn language(tag: &str) -> Option<String> {
    let tag = tag.trim().replace('_', "-");
    let mut parts = tag.split('-');
    let first = parts.next()?;
    let is_language =
        (2..=8).contains(&first.len()) && first.chars().all(|c| c.is_ascii_alphabetic());
    let is_part = |part: &str| {
        (1..=8).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    (is_language && tag.len() <= 35 && parts.all(is_part)).then_some(tag)
}

/// The split that a word stands for, here or in datasets of others.
pub(in crate::prepare) fn parse_split(word: &str) -> Option<Split> {
    match word.to_lowercase().as_str() {
        // `restval` is what Karpathy's splits of COCO have beside `train`.
        "train" | "training" | "restval" => Some(Split::Train),
        "dev" | "validation" | "valid" | "val" => Some(Split::Dev),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}
