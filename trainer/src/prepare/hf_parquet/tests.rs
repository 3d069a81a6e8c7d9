use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::super::pairs::tests::args as pair_args;
use super::super::{folder, table};
use super::{HfParquetArgs, run};
use crate::shards::{Dataset, ImageRow, Split, TextRow};

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (UTF8); }
    optional group caption (LIST) { repeated group list { optional binary element (UTF8); } }
    optional int64 label;
    optional binary url (UTF8);
}";
const FEATURES: &str = r#"{"info": {"features": {
    "image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}}}"#;

/// A row: the picture's bytes, its name, captions, and a label.
type Row = (Option<Vec<u8>>, Option<&'static str>, &'static [&'static str], Option<i64>);

fn picture(shade: u8) -> Option<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(5, 4, Rgb([shade, 9, 9])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    Some(bytes.into_inner())
}

/// Writes rows as `datasets` does, some to a row group.
fn write(path: &Path, rows: &[Row]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let features = KeyValue::new("huggingface".to_owned(), FEATURES.to_owned());
    let properties =
        WriterProperties::builder().set_key_value_metadata(Some(vec![features])).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(3) {
        let mut group = writer.next_row_group().unwrap();
        let mut put = |values: &[ByteArray], defs: &[i16], reps: Option<&[i16]>| {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(values, Some(defs), reps).unwrap();
            column.close().unwrap();
        };
        let optional = |values: Vec<Option<ByteArray>>, there: i16| {
            let defs = values.iter().map(|value| if value.is_some() { there } else { there - 1 });
            let defs: Vec<i16> = defs.collect();
            (values.into_iter().flatten().collect::<Vec<_>>(), defs)
        };
        let bytes = rows.iter().map(|row| row.0.clone().map(ByteArray::from)).collect();
        let (values, defs) = optional(bytes, 2);
        put(&values, &defs, None);
        let (values, defs) =
            optional(rows.iter().map(|row| row.1.map(ByteArray::from)).collect(), 2);
        put(&values, &defs, None);
        let (mut values, mut defs, mut reps): (Vec<ByteArray>, Vec<i16>, Vec<i16>) =
            Default::default();
        for (_, _, captions, _) in rows {
            if captions.is_empty() {
                defs.push(1);
                reps.push(0);
            }
            for (number, caption) in captions.iter().enumerate() {
                values.push(ByteArray::from(*caption));
                defs.push(3);
                reps.push(i16::from(number > 0));
            }
        }
        put(&values, &defs, Some(&reps));
        let mut column = group.next_column().unwrap().unwrap();
        let labels: Vec<i64> = rows.iter().filter_map(|row| row.3).collect();
        let defs: Vec<i16> = rows.iter().map(|row| i16::from(row.3.is_some())).collect();
        column.typed::<Int64Type>().write_batch(&labels, Some(&defs), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let defs = vec![0_i16; rows.len()];
        column.typed::<ByteArrayType>().write_batch(&[], Some(&defs), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn args(root: &Path, source: &[&str]) -> HfParquetArgs {
    let mut pairs = pair_args(&root.join("out"));
    pairs.labels = vec!["label".to_owned()];
    HfParquetArgs {
        source: source.iter().map(|source| root.join(source)).collect(),
        image_column: None,
        text_column: Vec::new(),
        lang_column: None,
        group_column: None,
        pairs,
    }
}

fn read(folder: &Path) -> (Vec<ImageRow>, Vec<TextRow>) {
    let dataset = Dataset::open(folder).unwrap();
    let images = dataset.images().map(Result::unwrap).collect();
    (images, dataset.texts().map(Result::unwrap).collect())
}

#[test]
fn rows_of_hugging_faces_files_come_back_with_their_splits_and_labels() {
    let root = tempfile::tempdir().unwrap();
    let train: Vec<Row> = vec![
        (picture(1), Some("a.png"), &["one", "uno"], Some(0)),
        (picture(2), Some("a.png"), &["two"], Some(1)),
        (None, Some("c.png"), &["named only"], Some(0)),
        (picture(4), None, &["four"], Some(-1)),
        (Some(b"not a picture".to_vec()), None, &["five"], None),
        (picture(1), Some("again.png"), &["one more"], None),
        (picture(7), Some("/up/../seven.png"), &[], Some(0)),
        (picture(8), Some("/up/../eight.png"), &["eight", " "], Some(5)),
        (None, None, &["nine"], None),
        (picture(10), Some("a.png"), &["ten"], None),
    ];
    write(&root.path().join("data/train-00000-of-00001.parquet"), &train);
    let test: Vec<Row> =
        vec![(picture(1), None, &["seen"], None), (picture(9), None, &["nine"], Some(0))];
    write(&root.path().join("data/test/0000.parquet"), &test);
    let report = run(&args(root.path(), &["data"])).unwrap();
    let (images, texts) = read(&report.folder);
    let pictures: Vec<(&str, Split, Option<&str>)> =
        images.iter().map(|i| (i.path.as_str(), i.split, i.labels[0].as_deref())).collect();
    // `test/` comes first in order of name.
    let expected = [
        ("test/0000-0000001.png", Split::Test, None),
        ("test/0000-0000002.png", Split::Test, Some("cat")),
        ("a.png", Split::Train, Some("dog")),
        ("train-00000-of-00001-0000004.png", Split::Train, None),
        ("train-00000-of-00001-0000010/a.png", Split::Train, None),
    ];
    assert_eq!(pictures, expected);
    assert_eq!(images[2].bytes, picture(2).unwrap());
    let said: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
    assert_eq!(said, ["seen", "nine", "two", "four", "ten"]);
    assert!(texts.iter().all(|text| images.iter().any(|i| i.group == text.group)));
    let told: Vec<String> =
        report.manifest.skipped.iter().map(|s| format!("{} {}", s.what, s.sort())).collect();
    let row = |number: u64, sort: &str| format!("train-00000-of-00001.parquet:{number} {sort}");
    let expected = [
        row(1, "split differs"),
        row(3, "no picture"),
        row(5, "picture unusable"),
        row(6, "split differs"),
        row(7, "no text"),
        row(8, "wrong value"),
        row(9, "no picture"),
    ];
    assert_eq!(told, expected);
    assert_eq!(report.manifest.notes, ["columns not read: url"]);
}

#[test]
fn a_source_that_is_all_train_is_drawn_from_and_so_is_one_with_shares() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..40).map(|shade| (picture(shade), None, &["x"][..], None)).collect();
    write(&root.path().join("data/train-0.parquet"), &rows[..30]);
    write(&root.path().join("data/train-1.parquet"), &rows[30..]);
    let splits = |args: &HfParquetArgs| run(args).unwrap().manifest.counts.images_by_split;
    let of = |train, dev, test| {
        [(Split::Train, train), (Split::Dev, dev), (Split::Test, test)].into_iter().collect()
    };
    assert_eq!(splits(&args(root.path(), &["data"])), of(32, 4, 4));
    write(&root.path().join("data/validation-0.parquet"), &rows[..3]);
    let named = run(&args(root.path(), &["data"])).unwrap().manifest;
    assert_eq!(named.counts.images_by_split.get(&Split::Train), Some(&40));
    assert_eq!(named.skipped.len(), 3, "pictures of train in validation");
    let mut shares = args(root.path(), &["data/train-0.parquet", "data/train-1.parquet"]);
    shares.pairs.test = Some(0.5);
    assert_eq!(splits(&shares), of(16, 4, 20));
}

#[test]
fn more_rows_than_are_read_at_a_time_keep_their_pictures() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..150)
        .map(|shade| {
            let unusable = shade % 7 == 3;
            let bytes = if unusable { Some(vec![shade]) } else { picture(shade) };
            (bytes, None, &["x"][..], None)
        })
        .collect();
    write(&root.path().join("a.parquet"), &rows);
    let report = run(&args(root.path(), &["a.parquet"])).unwrap();
    let (images, _) = read(&report.folder);
    let expected = rows.iter().enumerate().filter(|(number, _)| number % 7 != 3);
    let expected: Vec<(String, &Vec<u8>)> = expected
        .map(|(number, row)| (format!("a-{:07}.png", number + 1), row.0.as_ref().unwrap()))
        .collect();
    assert_eq!(images.len(), expected.len());
    for (image, (name, bytes)) in images.iter().zip(expected) {
        assert!(image.path == name && &image.bytes == bytes, "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_source_is_told() {
    let root = tempfile::tempdir().unwrap();
    let rows: Vec<Row> = (0..4).map(|shade| (picture(shade), None, &["x"][..], None)).collect();
    write(&root.path().join("out/a.parquet"), &rows);
    let told = |args: &HfParquetArgs| run(args).unwrap_err().to_string();
    assert!(told(&args(root.path(), &["out"])).contains("a.parquet lies there"));
    assert!(root.path().join("out/a.parquet").exists());
    std::fs::rename(root.path().join("out"), root.path().join("in")).unwrap();
    let mut columns = args(root.path(), &["in"]);
    columns.text_column = vec!["said".to_owned()];
    assert!(told(&columns).contains("--text-column: there is no column `said`; there are image, "));
    assert!(told(&args(root.path(), &["absent"])).contains("absent"));
    std::fs::create_dir(root.path().join("empty")).unwrap();
    assert!(told(&args(root.path(), &["empty"])).contains("no .parquet files"));
    // The same file as a file of captions: pictures lie in it, not paths.
    let mut pairs = pair_args(&root.path().join("other"));
    pairs.labels.clear();
    let captions = root.path().join("in/a.parquet");
    let images = root.path().join("in");
    let message = folder::run(&folder::FolderArgs { images, captions, pairs }).unwrap_err();
    assert!(message.to_string().contains("prepare hf-parquet"), "{message}");
    let table = table::Table::open(&root.path().join("in/a.parquet")).unwrap();
    assert_eq!(table.columns, ["image", "caption", "label", "url"]);
}
