use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn maker() -> Maker {
    Maker::new("", &v1::Limits { image_bytes: 20, ..Default::default() })
}

fn row(picture: Option<&str>, texts: &[&str], id: Option<&str>) -> Row {
    Row {
        picture: picture.map(|path| Picture::File(path.to_owned())),
        texts: texts.iter().map(ToString::to_string).collect(),
        id: id.map(str::to_owned),
        ..Row::default()
    }
}

fn inline(bytes: &'static str, name: &str) -> Row {
    let picture = Picture::Inline { bytes: bytes.into(), name: Some(name.to_owned()) };
    Row { picture: Some(picture), ..Row::default() }
}

fn ids(items: &[v1::ItemInput]) -> Vec<&str> {
    items.iter().map(|item| item.id.as_str()).collect()
}

#[test]
fn a_picture_and_its_captions_share_a_group_and_the_picture_comes_once() {
    let folder = Folder::new(&["sub/a.jpg"]);
    let mut maker = maker();
    let mut make = |text: &str| {
        let row = row(Some("sub/a.jpg"), &[text], None);
        maker.row(row, folder.path(), folder.path()).unwrap()
    };
    let (first, second, again) = (make("a dog"), make("ein Hund"), make("a dog"));
    assert_eq!(first[0].id, "sub/a.jpg");
    assert!(first[1].id.starts_with("sub/a.jpg#"));
    assert_eq!(second.len(), 1);
    assert!(again.is_empty());
    assert!(first.iter().chain(&second).all(|item| item.group == "sub/a.jpg"));
    assert!(maker.picture(&folder.path().join("sub/./a.jpg"), folder.path()).unwrap().is_empty());
}

#[test]
fn ids_are_the_same_in_every_run() {
    let folder = Folder::new(&["a.jpg"]);
    let make = || {
        let row = row(Some("a.jpg"), &["x", "y"], None);
        maker().row(row, folder.path(), folder.path()).unwrap()
    };
    assert_eq!(make(), make());
}

#[test]
fn given_ids_are_kept() {
    let folder = Folder::new(&["a.jpg"]);
    let mut maker = maker();
    let items = maker.row(row(Some("a.jpg"), &["x"], Some("7")), folder.path(), folder.path());
    let items = items.unwrap();
    assert_eq!(items[0].id, "7");
    assert!(items[1].id.starts_with("7#"));
    assert_eq!(items[1].group, "a.jpg");
    let text = maker.row(row(None, &["y"], Some("8")), folder.path(), folder.path()).unwrap();
    assert_eq!(ids(&text), ["8"]);
    let error = maker.row(row(None, &["z"], Some("8")), folder.path(), folder.path());
    assert!(error.unwrap_err().contains('8'));
}

#[test]
fn texts_alone_are_named_by_what_they_say() {
    let mut maker = Maker::new("en/", &v1::Limits::default());
    let mut make = || maker.row(row(None, &["x"], None), Path::new(""), Path::new("")).unwrap();
    assert!(make()[0].id.starts_with("en/text:"));
    assert!(make().is_empty());
}

#[test]
fn a_row_whose_picture_is_missing_or_too_large_makes_nothing() {
    let folder = Folder::new(&["a_picture_of_more_than_20_bytes.jpg"]);
    let mut maker = maker();
    for name in ["b.jpg", "a_picture_of_more_than_20_bytes.jpg"] {
        let error = maker.row(row(Some(name), &["x"], None), folder.path(), folder.path());
        assert!(error.unwrap_err().contains(name));
    }
    assert!(maker.ids.is_empty() && maker.paths.is_empty());
}

#[test]
fn pictures_in_the_usual_folder_beside_a_table_are_found() {
    let folder = Folder::new(&["Images/1.jpg"]);
    let items = maker().row(row(Some("1.jpg"), &[], None), folder.path(), folder.path()).unwrap();
    assert_eq!(ids(&items), ["Images/1.jpg"]);
}

#[test]
fn a_text_beside_a_picture_belongs_to_it() {
    let folder = Folder::new(&["a.jpg", "a.txt"]);
    let picture = folder.path().join("a.jpg");
    let items = maker().picture(&picture, folder.path()).unwrap();
    assert_eq!(items.len(), 2);
    assert!(items[1].id.starts_with("a.jpg#"));
    assert_eq!(items[1].group, "a.jpg");
    let mut maker = maker();
    maker.row(row(Some("a.jpg"), &[], None), folder.path(), folder.path()).unwrap();
    assert_eq!(maker.picture(&picture, folder.path()).unwrap(), items[1..]);
}

#[test]
fn two_folders_with_the_same_names_are_not_mixed_up() {
    let (one, two) = (Folder::new(&["a.jpg"]), Folder::new(&["a.jpg"]));
    let mut maker = maker();
    assert_eq!(maker.picture(&one.path().join("a.jpg"), one.path()).unwrap().len(), 1);
    let error = maker.picture(&two.path().join("a.jpg"), two.path()).unwrap_err();
    assert!(error.contains("--prefix"));
}

#[test]
fn pictures_inside_a_table_may_share_a_name() {
    let mut maker = maker();
    let mut make = |bytes, name| maker.row(inline(bytes, name), Path::new(""), Path::new(""));
    assert_eq!(ids(&make("x", "1.jpg").unwrap()), ["1.jpg"]);
    assert!(make("x", "1.jpg").unwrap().is_empty());
    assert!(ids(&make("y", "1.jpg").unwrap())[0].starts_with("1.jpg~"));
}

#[test]
fn names_that_no_server_takes_become_digests() {
    let maker = maker();
    assert_eq!(maker.name("ü/a b.jpg"), "ü/a b.jpg");
    for path in ["a\nb.jpg".to_owned(), "x".repeat(300)] {
        let name = maker.name(&path);
        assert!(name.starts_with("path:") && name.len() < 64, "{name}");
    }
}
