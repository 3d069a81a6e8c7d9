//! Parquet files, Hugging Face's data sets among them.

use std::fs::File;
use std::path::Path;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use anyhow::{Context as _, Result};
use bytes::Bytes;
use diptych::v1;
use diptych::v1::value::Kind;

use super::row::{self, Cell, Cells};
use super::table::{Numbered, Rows};

/// Rows decoded at a time: each may hold a picture.
const ROWS: usize = 16;

/// The rows of a file, counted from 1. A row that cannot be read is the last one: the library's columns
/// are out of step with each other from there on, and pictures would get the texts of others.
pub(super) fn rows(path: &Path) -> Result<Rows> {
    let rows = RowIter::from_file_into(Box::new(open(path)?)).with_batch_size(ROWS);
    let row = |(number, row): (u64, Result<Row, ParquetError>)| -> Numbered {
        let fault = |error| format!("{error}; the rows from here on are not read");
        (number, row.map(cells).map_err(fault))
    };
    let mut numbered = (1..).zip(rows).map(row);
    let mut sound = true;
    Ok(Box::new(std::iter::from_fn(move || {
        let next = sound.then(|| numbered.next()).flatten();
        sound = next.as_ref().is_some_and(|(_, cells)| cells.is_ok());
        next
    })))
}

/// How many rows a file has.
pub(super) fn count(path: &Path) -> Result<u64> {
    Ok(u64::try_from(open(path)?.metadata().file_metadata().num_rows()).unwrap_or(0))
}

/// Whether the columns are about pictures or texts.
pub(super) fn speaks(path: &Path) -> Result<bool> {
    let reader = open(path)?;
    let schema = reader.metadata().file_metadata().schema();
    Ok(row::speaks(schema.get_fields().iter().map(|field| field.name())))
}

fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let read = || format!("cannot read {}", path.display());
    SerializedFileReader::new(File::open(path).with_context(read)?).with_context(read)
}

fn cells(row: Row) -> Cells {
    row.into_columns().into_iter().map(|(name, field)| (name, cell(field))).collect()
}

fn cell(field: Field) -> Cell {
    let int = |number: i64| Cell::Value(Kind::IntValue(number));
    let float = |number: f64| match number.is_finite() {
        true => Cell::Value(Kind::FloatValue(number)),
        false => Cell::Nothing,
    };
    match field {
        Field::Null => Cell::Nothing,
        Field::Bool(value) => Cell::Value(Kind::BoolValue(value)),
        Field::Byte(number) => int(number.into()),
        Field::Short(number) => int(number.into()),
        Field::Int(number) => int(number.into()),
        Field::Long(number) => int(number),
        Field::UByte(number) => int(number.into()),
        Field::UShort(number) => int(number.into()),
        Field::UInt(number) => int(number.into()),
        Field::ULong(number) => i64::try_from(number).map_or(Cell::Nothing, int),
        Field::Float16(number) => float(number.to_f64()),
        Field::Float(number) => float(number.into()),
        Field::Double(number) => float(number),
        Field::Str(text) => Cell::Value(Kind::TextValue(text)),
        Field::Bytes(bytes) => Cell::Bytes(Bytes::copy_from_slice(bytes.data())),
        Field::Group(row) => picture(row),
        Field::ListInternal(list) => {
            let text = |field: &Field| match field {
                Field::Str(text) => Some(text.clone()),
                _ => None,
            };
            match list.elements().iter().map(text).collect() {
                Some(values) => Cell::Value(Kind::TextList(v1::TextList { values })),
                None => Cell::Nothing,
            }
        }
        Field::MapInternal(_) => Cell::Nothing,
        // Dates, times and decimals: as they are written.
        written => Cell::Value(Kind::TextValue(written.to_string())),
    }
}

/// A group of `bytes` and `path`.
fn picture(row: Row) -> Cell {
    let (mut bytes, mut path) = (None, None);
    for (name, field) in row.into_columns() {
        match (name.as_str(), field) {
            ("bytes", Field::Bytes(found)) => bytes = Some(Bytes::copy_from_slice(found.data())),
            ("path", Field::Str(found)) if !found.is_empty() => path = Some(found),
            _ => {}
        }
    }
    Cell::Picture { bytes, path }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    const SCHEMA: &str = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional binary text (UTF8);
        required int64 year;
    }";

    fn write(path: &Path, texts: [&[u8]; 2]) {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let mut writer =
            SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let columns: [(&[&[u8]], &[i16]); 3] =
            [(&[b"picture"], &[2, 0]), (&[b"a.jpg"], &[2, 0]), (&texts, &[1, 1])];
        for (values, defined) in columns {
            let values: Vec<ByteArray> =
                values.iter().map(|text| ByteArray::from(text.to_vec())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, Some(defined), None).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1999, 2000], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn a_data_set_of_hugging_faces_form_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, [b"a dog", b"a cat"]);
        assert_eq!(count(&path).unwrap(), 2);
        assert!(speaks(&path).unwrap());
        let rows: Vec<Numbered> = rows(&path).unwrap().collect();
        let first = rows[0].1.as_ref().unwrap();
        let picture =
            Cell::Picture { bytes: Some("picture".into()), path: Some("a.jpg".to_owned()) };
        assert_eq!(first[0], ("image".to_owned(), picture));
        assert_eq!(first[1].1, Cell::Value(Kind::TextValue("a dog".to_owned())));
        assert_eq!(first[2].1, Cell::Value(Kind::IntValue(1999)));
        let second = rows[1].1.as_ref().unwrap();
        assert_eq!(second[0].1, Cell::Nothing);
        assert_eq!(rows[1].0, 2);
    }

    #[test]
    fn nothing_is_read_behind_a_row_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, [b"\xff\xfe", b"a cat"]);
        let rows: Vec<Numbered> = rows(&path).unwrap().collect();
        assert_eq!(rows.len(), 1);
        assert!(rows[0].1.as_ref().unwrap_err().ends_with("the rows from here on are not read"));
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.parquet");
        std::fs::write(&path, "text").unwrap();
        assert!(count(&path).unwrap_err().to_string().contains("b.parquet"));
    }
}
