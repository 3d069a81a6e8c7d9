use std::path::Path;

use super::{Dataset, DatasetWriter, ImageRow, Split, TextKind, TextRow};

fn image(number: usize) -> ImageRow {
    ImageRow {
        bytes: vec![number as u8, 1, 2],
        path: format!("a/{number}.png"),
        group: format!("g{}", number % 7),
        split: Split::ALL[number % 7 % 3],
        labels: vec![
            Some(format!("style {}", number % 3)),
            (number.is_multiple_of(2)).then(|| "even".to_owned()),
        ],
    }
}

fn text(number: usize) -> TextRow {
    let kind = if number.is_multiple_of(2) { TextKind::Name } else { TextKind::Keyword };
    TextRow {
        text: format!("Herz {number} 赤い"),
        lang: "de".to_owned(),
        kind,
        group: "g1".to_owned(),
        split: Split::Dev,
    }
}

fn write(folder: &Path, rows: usize) {
    let mut writer = DatasetWriter::create(folder, "tiny", &["style", "parity"]).unwrap();
    for number in 0..rows {
        writer.push_image(image(number)).unwrap();
        writer.push_text(text(number)).unwrap();
    }
    writer.skip("a/x.png", "not a picture");
    writer.finish().unwrap();
}

#[test]
fn rows_come_back_as_they_were_written_across_row_groups() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 2_345);
    let dataset = Dataset::open(folder.path()).unwrap();
    let images: Vec<ImageRow> = dataset.images().map(Result::unwrap).collect();
    let texts: Vec<TextRow> = dataset.texts().map(Result::unwrap).collect();
    assert_eq!(images, (0..2_345).map(image).collect::<Vec<_>>());
    assert_eq!(texts, (0..2_345).map(text).collect::<Vec<_>>());
    let counts = &dataset.manifest().counts;
    assert_eq!(
        (counts.groups, counts.images, counts.texts, counts.names),
        (7, 2_345, 2_345, 1_173)
    );
    assert_eq!((counts.skipped, counts.images_by_label["parity"]["even"]), (1, 1_173));
    assert_eq!(dataset.label("parity"), Some(1));
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), 50);
    write(two.path(), 900);
    write(two.path(), 50);
    for file in ["dataset.json", "images-00000.parquet", "texts-00000.parquet"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(one.path()) == read(two.path()), "{file} differs");
    }
}

#[test]
fn an_unusable_row_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::create(folder.path(), "tiny", &["style", "parity"]).unwrap();
    for number in 0..3 {
        let mut row = image(number);
        if number == 1 {
            row.bytes.clear();
        }
        writer.push_image(row).unwrap();
    }
    writer.finish().unwrap();
    let rows: Vec<_> = Dataset::open(folder.path()).unwrap().images().collect();
    let message = rows[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("images-00000.parquet: row 1: `image.bytes` is empty"), "{message}");
    assert!(rows.len() == 3 && rows[2].as_ref().unwrap() == &image(2));
}

#[test]
fn a_folder_without_a_whole_dataset_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(open().contains("dataset.json"));
    write(folder.path(), 3);
    std::fs::write(folder.path().join("texts-00000.parquet"), b"PAR1 torn").unwrap();
    let torn =
        Dataset::open(folder.path()).unwrap().texts().next().unwrap().unwrap_err().to_string();
    assert!(torn.contains("texts-00000.parquet: damaged"), "{torn}");
    std::fs::remove_file(folder.path().join("texts-00000.parquet")).unwrap();
    assert!(open().contains("texts-00000.parquet: missing"), "{}", open());
    std::fs::write(folder.path().join("dataset.json"), b"{\"format_version\": 1}").unwrap();
    assert!(open().contains("not a dataset manifest"), "{}", open());
}

#[test]
fn a_picture_with_other_labels_than_the_dataset_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(DatasetWriter::create(folder.path(), "tiny", &["group"]).is_err());
    let mut writer = DatasetWriter::create(folder.path(), "tiny", &["style"]).unwrap();
    assert!(writer.push_image(image(0)).unwrap_err().to_string().contains("2 labels"));
}
