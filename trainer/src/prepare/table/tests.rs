use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use proptest::prelude::*;

use super::{Cell, Table, quoted};

fn read(name: &str, content: &[u8], wanted: &[&str]) -> Vec<(u64, Result<Vec<Cell>, String>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
    let rows = Table::open(&path).unwrap().rows(&wanted).unwrap();
    rows.map(|row| {
        let row = row.unwrap();
        (row.from, row.cells.map_err(|fault| fault.to_string()))
    })
    .collect()
}

fn texts(texts: &[&str]) -> Result<Vec<Cell>, String> {
    Ok(texts.iter().map(|&text| Cell::text(text)).collect())
}

#[test]
fn csv_rows_have_the_line_they_begin_on() {
    let content = b"\xef\xbb\xbfimage;text\r\n\r\n\r\na.jpg;\"two\nlines\"\r\nb.jpg;c;d\r\ne.jpg; \xff\r\nf.jpg;\r\n";
    let rows = read("captions.txt", content, &["text", "image"]);
    assert_eq!(rows[0], (4, texts(&["two\nlines", "a.jpg"])));
    let message = "not a row: it has 3 fields where the first line has 2";
    assert_eq!(rows[1], (6, Err(message.to_owned())));
    assert_eq!(rows[2], (7, Ok(vec![Cell::NotUtf8, Cell::text("e.jpg")])));
    assert_eq!(rows[3], (8, texts(&["", "f.jpg"])));
    assert_eq!(rows.len(), 4);
}

#[test]
fn a_quote_left_open_is_guessed_at() {
    let rows = read("a.csv", b"image,text\na.jpg,\"x\nb.jpg,y\nc.jpg,z\n", &["image"]);
    assert_eq!(rows.len(), 1);
    // Here the rest of the file is one long text; with other columns the fields are too few.
    let rows = read("a.csv", b"image,text\n\"a.jpg,x\nb.jpg,y\n", &["image"]);
    let message = rows[0].1.as_ref().unwrap_err();
    assert!(message.contains("runs to line 3; is a quote left open?"), "{message}");
}

#[test]
fn json_lines_keep_types_and_pass_over_what_is_no_object() {
    let mut content =
        b"\xef\xbb\xbf{\"text\":[\"x\",3],\"n\":0.5}\n\n[1]\n{\"text\":\"\xff\"}\n".to_vec();
    content.extend(format!("{{\"text\":\"{}\"}}\n", "x".repeat(17 << 20)).bytes());
    content.extend(b"{\"n\":7,\"text\":{\"path\":\"p\"}}");
    let rows = read("a.ndjson", &content, &["text", "n"]);
    let list = Cell::List(vec![Cell::text("x"), Cell::Int(3)]);
    assert_eq!(rows[0], (1, Ok(vec![list, Cell::Other("a number that is not whole")])));
    let message = rows[1].1.as_ref().unwrap_err();
    assert!(rows[1].0 == 3 && message.starts_with("not a row: it is no JSON object"), "{message}");
    assert_eq!(rows[2], (4, Err("not UTF-8: the line".to_owned())));
    assert_eq!((rows[3].0, rows[3].1.is_err()), (5, true));
    let picture = Cell::Picture { bytes: None, path: Some("p".to_owned()) };
    assert_eq!(rows[4], (6, Ok(vec![picture, Cell::Int(7)])));
}

#[test]
fn files_that_are_no_tables_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Table::open(&path).unwrap_err().to_string()
    };
    assert!(open("a.jsonl", "[\n{\"text\": \"x\"},\n]").contains("one object a line is wanted"));
    assert!(open("b.jsonl", "[{\"text\": \"x\"}]").contains("one object a line"));
    assert!(open("c.jsonl", "").contains("no rows"));
    assert!(open("d.csv", "").contains("no names of columns"));
    assert!(open("e.parquet", "PAR1").contains("not a Parquet file"));
    assert!(open("f.xlsx", "").contains(".jsonl, .csv, .tsv and .parquet"));
    let absent = Table::open(Path::new("absent.csv")).unwrap_err().to_string();
    assert!(absent.contains("absent.csv"), "{absent}");
}

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional group text (LIST) { repeated group list { optional binary element (UTF8); } }
    optional binary lang (UTF8);
    required int64 year;
}";

/// Four rows in two row groups.
fn parquet(folder: &Path) -> PathBuf {
    let path = folder.join("a.parquet");
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        type Column<'a> = (&'a [&'a [u8]], &'a [i16], &'a [i16]);
        let columns: [Column<'_>; 4] = [
            (&[b"\xff\xd8"], &[2, 1], &[]),
            (&[b"a.jpg"], &[1, 2], &[]),
            (&[b"x", b"\xfe", b"y"], &[3, 2, 3, 3], &[0, 1, 0, 1]),
            (&[b"de"], &[0, 1], &[]),
        ];
        for (values, defs, reps) in columns {
            let values: Vec<ByteArray> =
                values.iter().map(|v| ByteArray::from(v.to_vec())).collect();
            let mut column = group.next_column().unwrap().unwrap();
            let reps = (!reps.is_empty()).then_some(reps);
            column.typed::<ByteArrayType>().write_batch(&values, Some(defs), reps).unwrap();
            column.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[1999, 2000], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
    path
}

#[test]
fn parquet_rows_stay_in_step_where_texts_are_not_utf8() {
    let folder = tempfile::tempdir().unwrap();
    let table = Table::open(&parquet(folder.path())).unwrap();
    assert_eq!(table.columns, ["image", "text", "lang", "year"]);
    let wanted = ["year", "text", "image", "lang"].map(str::to_owned);
    let rows: Vec<_> = table.rows(&wanted).unwrap().map(Result::unwrap).collect();
    let bytes = |bytes: &[u8]| Cell::Bytes(ByteArray::from(bytes.to_vec()));
    let first = vec![
        Cell::Int(1999),
        Cell::List(vec![bytes(b"x"), Cell::Nothing]),
        Cell::Picture { bytes: Some(ByteArray::from(b"\xff\xd8".to_vec())), path: None },
        Cell::Nothing,
    ];
    let second = vec![
        Cell::Int(2000),
        Cell::List(vec![bytes(b"\xfe"), bytes(b"y")]),
        Cell::Picture { bytes: None, path: Some("a.jpg".to_owned()) },
        bytes(b"de"),
    ];
    for (number, row) in rows.into_iter().enumerate() {
        assert_eq!((row.from, row.to), (number as u64 + 1, number as u64 + 1));
        assert_eq!(
            row.cells.unwrap(),
            if number % 2 == 0 { first.clone() } else { second.clone() }
        );
    }
    let wanted = ["shape".to_owned()];
    let message = table.rows(&wanted).err().unwrap().to_string();
    assert!(message.contains("no column `shape`"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damage anywhere in a Parquet file is an error or a fault of rows, never a panic that escapes,
    /// and no row is counted twice.
    #[test]
    fn a_damaged_parquet_file_never_ends_the_program(at in 0_usize..2_000, value: u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = parquet(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        std::fs::write(&path, bytes).unwrap();
        let Ok(table) = Table::open(&path) else { return Ok(()) };
        let wanted: Vec<String> = table.columns.iter().take(8).cloned().collect();
        let Ok(rows) = table.rows(&wanted) else { return Ok(()) };
        let mut last = 0;
        for row in rows.take(100) {
            let row = row.unwrap();
            prop_assert!(row.from == last + 1 && row.to >= row.from);
            last = row.to;
        }
    }
}

#[test]
fn values_from_outside_are_short_in_reports() {
    assert_eq!(quoted("a\nb"), "a\\nb");
    assert_eq!(quoted(&"x".repeat(500)).len(), 83);
}
