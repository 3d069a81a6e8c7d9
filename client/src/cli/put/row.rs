//! Rows of any table: which column is what.

use std::collections::BTreeMap;

use bytes::Bytes;
use diptych::v1;
use diptych::v1::value::Kind;

use crate::cli::value::parsed;

/// Columns that hold a picture or where it lies, best first.
const IMAGE: [&str; 9] =
    ["image", "file_name", "file", "filename", "image_path", "image_name", "img", "path", "photo"];
/// Columns that hold what is said of it, best first.
const TEXT: [&str; 6] = ["text", "caption", "captions", "texts", "sentences", "comment"];

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    /// None, or one of a kind that metadata does not have.
    Nothing,
    /// A typed value.
    Value(Kind),
    /// A text whose type the format does not say.
    Untyped(String),
    /// A picture's file.
    Bytes(Bytes),
    /// A picture's file with its name, as Hugging Face's data sets have it.
    Picture { bytes: Option<Bytes>, path: Option<String> },
}

/// Where a picture comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Picture {
    /// A file, as the table names it.
    File(String),
    /// The table itself, which may give a name.
    Inline { bytes: Bytes, name: Option<String> },
}

/// A row, its columns told apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    pub(crate) picture: Option<Picture>,
    pub(crate) texts: Vec<String>,
    pub(crate) id: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) metadata: BTreeMap<String, v1::Value>,
}

/// Names and values in the order of the table.
pub(crate) type Cells = Vec<(String, Cell)>;

/// Whether a table with these columns says anything about pictures or texts.
pub(crate) fn speaks<'a>(columns: impl Iterator<Item = &'a str>) -> bool {
    columns.map(normal).any(|name| IMAGE.contains(&&*name) || TEXT.contains(&&*name))
}

/// Tells the columns of a row apart.
///
/// # Errors
/// What is wrong with the row, in words that follow its place.
pub(crate) fn row(mut cells: Cells) -> Result<Row, String> {
    let picture = take(&mut cells, &IMAGE).map(|(name, cell)| picture(&name, cell)).transpose()?;
    let texts = match take(&mut cells, &TEXT) {
        Some((name, cell)) => texts(&name, cell)?,
        None => Vec::new(),
    };
    let picture = picture.flatten();
    if picture.is_none() && texts.is_empty() {
        return Err("holds neither a picture nor a text".to_owned());
    }
    let mut name = |column| take(&mut cells, &[column]).and_then(|(_, cell)| text(cell));
    let (id, group) = (name("id"), name("group"));
    let value = |(key, cell): (String, Cell)| match cell {
        Cell::Value(kind) => Some((key, diptych::value(kind))),
        Cell::Untyped(text) if !text.is_empty() => Some((key, diptych::value(parsed(&text)))),
        Cell::Untyped(_) | Cell::Nothing | Cell::Bytes(_) | Cell::Picture { .. } => None,
    };
    let metadata = cells.into_iter().filter_map(value).collect();
    Ok(Row { picture, texts, id, group, metadata })
}

fn normal(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The first column of one of these names that holds something.
fn take(cells: &mut Cells, names: &[&str]) -> Option<(String, Cell)> {
    let filled = |cell: &Cell| match cell {
        Cell::Nothing => false,
        Cell::Untyped(text) => !text.trim().is_empty(),
        _ => true,
    };
    let place = names.iter().find_map(|wanted| {
        cells.iter().position(|(name, cell)| normal(name) == *wanted && filled(cell))
    });
    place.map(|place| cells.remove(place))
}

fn picture(name: &str, cell: Cell) -> Result<Option<Picture>, String> {
    match cell {
        Cell::Untyped(path) | Cell::Value(Kind::TextValue(path)) => {
            Ok(Some(Picture::File(path.trim().to_owned())))
        }
        Cell::Bytes(bytes) | Cell::Picture { bytes: Some(bytes), path: None } => {
            Ok(Some(Picture::Inline { bytes, name: None }))
        }
        Cell::Picture { bytes: Some(bytes), path } => {
            Ok(Some(Picture::Inline { bytes, name: path }))
        }
        Cell::Picture { bytes: None, path: Some(path) } => Ok(Some(Picture::File(path))),
        Cell::Picture { .. } | Cell::Nothing => Ok(None),
        Cell::Value(_) => Err(format!("column {name} holds no path and no picture")),
    }
}

fn texts(name: &str, cell: Cell) -> Result<Vec<String>, String> {
    let texts = match cell {
        Cell::Untyped(text) | Cell::Value(Kind::TextValue(text)) => vec![text],
        Cell::Value(Kind::TextList(list)) => list.values,
        _ => return Err(format!("column {name} holds no text")),
    };
    let trimmed = texts.into_iter().map(|text| text.trim().to_owned());
    Ok(trimmed.filter(|text| !text.is_empty()).collect())
}

/// A name: ids may be numbers.
fn text(cell: Cell) -> Option<String> {
    match cell {
        Cell::Untyped(text) | Cell::Value(Kind::TextValue(text)) => Some(text.trim().to_owned()),
        Cell::Value(Kind::IntValue(number)) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untyped(cells: &[(&str, &str)]) -> Cells {
        let cell =
            |(name, text): &(&str, &str)| ((*name).to_owned(), Cell::Untyped((*text).to_owned()));
        cells.iter().map(cell).collect()
    }

    #[test]
    fn columns_go_where_they_belong() {
        let cells =
            [("Image", "a.jpg"), ("caption", " a dog "), ("id", "7"), ("year", "1999"), ("x", "")];
        let row = row(untyped(&cells)).unwrap();
        assert_eq!(row.picture, Some(Picture::File("a.jpg".to_owned())));
        assert_eq!(
            (row.texts, row.id.as_deref(), row.group),
            (vec!["a dog".to_owned()], Some("7"), None)
        );
        let year = diptych::value(Kind::IntValue(1999));
        assert_eq!(row.metadata, [("year".to_owned(), year)].into());
    }

    #[test]
    fn the_second_name_of_a_kind_is_metadata() {
        let row = row(untyped(&[("image", "a.jpg"), ("path", "/raw/a.tif")])).unwrap();
        assert_eq!(row.picture, Some(Picture::File("a.jpg".to_owned())));
        assert!(row.metadata.contains_key("path"));
    }

    #[test]
    fn a_row_without_anything_is_refused() {
        assert!(row(untyped(&[("image", ""), ("text", "  "), ("n", "1")])).is_err());
        let number = vec![("image".to_owned(), Cell::Value(Kind::IntValue(1)))];
        assert!(row(number).unwrap_err().contains("image"));
    }

    #[test]
    fn lists_of_captions_and_inline_pictures_are_read() {
        let list = v1::TextList { values: vec!["a".to_owned(), String::new(), "b".to_owned()] };
        let picture = Cell::Picture { bytes: Some("x".into()), path: Some("p.jpg".to_owned()) };
        let cells = vec![
            ("image".to_owned(), picture),
            ("captions".to_owned(), Cell::Value(Kind::TextList(list))),
        ];
        let row = row(cells).unwrap();
        assert_eq!(row.texts, ["a", "b"]);
        let name = Some("p.jpg".to_owned());
        assert_eq!(row.picture, Some(Picture::Inline { bytes: "x".into(), name }));
    }

    #[test]
    fn tables_about_other_things_are_known_by_their_columns() {
        assert!(speaks(["x", "File_Name "].into_iter()));
        assert!(!speaks(["licence", "url"].into_iter()));
    }
}
