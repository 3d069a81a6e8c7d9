use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::table::Cell;
use super::draw::{Unit, draw, join};
use super::{Asked, Fault, Gathered, PairArgs, Pictured, Place, Roles, Shares};
use crate::shards::Split;

/// Arguments as they are when no flag is given.
pub(in crate::prepare) fn args(out: &Path) -> PairArgs {
    PairArgs {
        out: out.to_path_buf(),
        name: None,
        licence: "CC0-1.0".to_owned(),
        labels: Vec::new(),
        lang: None,
        dev: None,
        test: None,
        seed: 1,
        max_text_bytes: 8192,
    }
}

fn columns(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn place(row: u64) -> Place {
    Place { file: Arc::from("a.csv"), row, last: row }
}

/// Rows of image, text, group, split, id and label, gathered.
fn gather(rows: &[[&str; 6]]) -> Gathered {
    let mut args = args(Path::new("out"));
    args.labels = columns(&["colour"]);
    let names = columns(&["image", "text", "group", "split", "id", "colour"]);
    let asked = Asked { ids: true, ..Asked::default() };
    let roles = Roles::choose(&names, &asked, &args).unwrap();
    let mut gathered = Gathered::new(&args.labels);
    for (number, row) in rows.iter().enumerate() {
        let at = place(number as u64 + 1);
        let by_name: BTreeMap<&str, &str> = names.iter().map(String::as_str).zip(*row).collect();
        let cell = |name: &String| match by_name[name.as_str()] {
            "" => Cell::Nothing,
            text => Cell::Text(text.to_owned()),
        };
        let mut cells: Vec<Cell> = roles.columns.iter().map(cell).collect();
        match roles.row(&mut cells) {
            // The first letter of its name stands for what a picture shows.
            Ok(parsed) => {
                let picture =
                    Pictured { name: row[0].to_owned(), digest: [row[0].as_bytes()[0]; 32] };
                gathered.add(&at, parsed, &picture);
            }
            Err(fault) => gathered.skip(at, fault),
        }
    }
    gathered
}

#[test]
fn rows_that_contradict_earlier_ones_are_named() {
    let gathered = gather(&[
        ["a.png", "one", "g", "dev", "1", "red"],
        ["a.png", "two", "", "", "1", ""],
        ["a.png", "three", "h", "", "3", ""],
        ["a.png", "four", "g", "validation", "4", "blue"],
        ["b.png", "five", "g", "train", "5", ""],
        ["b.png", "six", "g", "later", "6", ""],
        ["b.png", "seven", "g", "", "7", ""],
        ["b.png", "seven", "g", "", "8", ""],
    ]);
    let told: Vec<String> =
        gathered.skipped.iter().map(|(place, fault)| format!("{place}: {fault}")).collect();
    let expected = [
        "a.csv:2: id repeated: `1` is that of a.csv:1",
        "a.csv:3: group differs: picture `a.png` is of group `g` since a.csv:1",
        "a.csv:4: label differs: `colour` of picture `a.png` is `red` since a.csv:1",
        "a.csv:5: split differs: group `g` is dev since a.csv:1",
        "a.csv:6: wrong value: column `split` is `later`, not `train`, `dev` (`validation`) or `test`",
    ];
    assert_eq!(told, expected);
    let texts: Vec<&str> = gathered.texts.iter().map(|text| text.text.as_str()).collect();
    assert_eq!((texts, gathered.repeated), (vec!["one", "seven"], 1));
    assert_eq!((gathered.pictures.len(), gathered.groups.len()), (2, 1));
}

#[test]
fn columns_are_known_by_their_usual_names_or_missed_by_name() {
    let args = args(Path::new("out"));
    let choose =
        |names: &[&str], args: &PairArgs| Roles::choose(&columns(names), &Asked::default(), args);
    let roles = choose(&["url", " File_Name", "Caption", "language"], &args).unwrap();
    assert_eq!(roles.columns, [" File_Name", "Caption", "language"]);
    assert_eq!(roles.ignored, ["url"]);
    let message = choose(&["picture", "text"], &args).unwrap_err();
    assert!(
        message.contains("no column of pictures") && message.contains("there are picture, text")
    );
    let message = choose(&["image", "said"], &args).unwrap_err();
    assert!(message.contains("no column of captions"), "{message}");
    let labels = PairArgs { labels: columns(&["colour"]), ..args };
    let message = choose(&["image", "text", "color"], &labels).unwrap_err();
    assert_eq!(message, "--labels: there is no column `colour`; there are image, text, color");
}

#[test]
fn a_row_holds_what_its_columns_may_hold() {
    let mut args = args(Path::new("out"));
    (args.labels, args.lang) = (columns(&["label"]), Some("en_GB".to_owned()));
    let names = columns(&["image", "text", "lang", "kind", "label"]);
    let mut roles = Roles::choose(&names, &Asked::default(), &args).unwrap();
    roles.class_names.insert("label".to_owned(), columns(&["cat", "dog"]));
    let row = |text: Cell, lang: &str, kind: &str, label: Cell| {
        let image = Cell::Text("a.png".to_owned());
        roles.row(&mut [image, text, Cell::text(lang), Cell::text(kind), label])
    };
    let list = Cell::List(vec![Cell::text(" a cat "), Cell::text(" "), Cell::Int(3)]);
    let read = row(list, "", "keyword", Cell::Int(1)).unwrap();
    assert_eq!((read.lang.as_str(), read.labels), ("en-GB", vec![Some("dog".to_owned())]));
    assert_eq!(read.texts[0], Ok("a cat".to_owned()));
    assert_eq!(read.texts[1], Err(Fault::NoText("text".to_owned())));
    assert!(matches!(&read.texts[2], Err(Fault::WrongType { found: "a number", .. })));
    assert_eq!(row(Cell::text("x"), "", "", Cell::Int(-1)).unwrap().labels, [None]);
    let fault = |text: Cell, lang: &str, kind: &str, label: Cell| {
        row(text, lang, kind, label).unwrap_err().to_string()
    };
    let told = fault(Cell::text("x"), "", "", Cell::Int(2));
    assert_eq!(told, "wrong value: column `label` is `2`, not one of its classes");
    assert!(fault(Cell::text("x"), "e n", "", Cell::Nothing).contains("`lang` is `e n`"));
    assert!(fault(Cell::text("x"), "", "title", Cell::Nothing).contains("`kind` is `title`"));
    let long = row(Cell::text("x".repeat(100_000)), "", "", Cell::Nothing).unwrap();
    let told = long.texts[0].as_ref().unwrap_err().to_string();
    assert_eq!(told, "text too long: 100000 bytes, at most 8192 (--max-text-bytes)");
}

#[test]
fn shares_that_leave_nothing_and_labels_that_clash_are_refused() {
    let args = args(Path::new("out"));
    let told = |args: PairArgs| args.check().unwrap_err().to_string();
    let with = |dev, test| PairArgs { dev, test, ..args.clone() };
    assert!(told(with(Some(0.5), Some(0.5))).contains("leave nothing to train on"));
    assert!(told(with(Some(f64::NAN), None)).contains("`--dev`"));
    assert!(told(with(None, Some(-0.1))).contains("`--test`"));
    assert!(with(Some(0.0), Some(0.0)).check().is_ok());
    let labels = |labels: &[&str]| PairArgs { labels: columns(labels), ..args.clone() };
    assert!(told(labels(&["split"])).contains("`split` cannot be a label"));
    assert!(told(labels(&["a", "a"])).contains("twice"));
    assert!(told(PairArgs { lang: Some("en us".to_owned()), ..args.clone() }).contains("BCP 47"));
}

#[test]
fn too_few_groups_are_refused_with_the_flag_that_helps() {
    let shares = |dev, test| Shares { dev, test, seed: 1 };
    let one = gather(&[["a.png", "x", "", "", "", ""]]);
    assert!(one.splits(&shares(0.1, 0.1)).unwrap_err().contains("set --dev and --test to 0"));
    assert!(one.splits(&shares(0.0, 0.1)).unwrap_err().contains("set --dev or --test to 0"));
    assert_eq!(one.splits(&shares(0.0, 0.0)).unwrap().of_group, [Split::Train]);
    let given = gather(&[["a.png", "x", "", "test", "", ""]]);
    assert_eq!(given.splits(&shares(0.1, 0.1)).unwrap().of_group, [Split::Test]);
}

#[test]
fn groups_with_a_picture_in_common_are_in_one_split() {
    let rows: Vec<[String; 6]> = (0..20)
        .map(|n| {
            let (name, group) = (format!("{}{n}.png", (b'a' + n / 2) as char), format!("g{n}"));
            [name, "x".to_owned(), group, String::new(), String::new(), String::new()]
        })
        .collect();
    let rows: Vec<[&str; 6]> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    let splits = gather(&rows).splits(&Shares { dev: 0.2, test: 0.2, seed: 3 }).unwrap();
    assert_eq!((splits.joined, splits.torn), (20, 0));
    assert!(splits.of_group.chunks(2).all(|pair| pair[0] == pair[1]));
    let count = |split| splits.of_group.iter().filter(|of| **of == split).count();
    assert_eq!((count(Split::Dev), count(Split::Test)), (4, 4));
    // Where rows say otherwise, they are followed and it is told.
    let torn = gather(&[["a.png", "x", "", "test", "", ""], ["ab.png", "y", "", "train", "", ""]]);
    let splits = torn.splits(&Shares { dev: 0.1, test: 0.1, seed: 1 }).unwrap();
    assert_eq!((splits.of_group, splits.torn), (vec![Split::Test, Split::Train], 1));
}

#[test]
fn joining_is_transitive() {
    let digest = |n: u8| [n; 32];
    let pictures = [(digest(1), 4), (digest(2), 4), (digest(2), 0), (digest(1), 2), (digest(3), 1)];
    assert_eq!(join(5, pictures.into_iter()), [0, 1, 0, 3, 0]);
}

proptest! {
    /// The order of the groups changes nothing, the shares are met, and no split asked for is empty.
    #[test]
    fn a_draw_depends_on_seed_and_names_alone(
        sizes in prop::collection::vec(1_usize..4, 3..60),
        dev in 0.0_f64..0.45,
        test in 0.0_f64..0.45,
        seed: u64,
        turn in 0_usize..60,
    ) {
        let names: Vec<String> = (0..sizes.len()).map(|n| format!("group {n}")).collect();
        let shares = Shares { dev, test, seed };
        let unit = |at: usize| Unit { name: &names[at], groups: sizes[at] };
        let units: Vec<Unit<'_>> = (0..sizes.len()).map(unit).collect();
        let splits = draw(&units, &shares);
        let turned: Vec<usize> = (0..sizes.len()).map(|at| (at + turn) % sizes.len()).collect();
        let other = draw(&turned.iter().map(|&at| unit(at)).collect::<Vec<_>>(), &shares);
        for (place, &at) in turned.iter().enumerate() {
            prop_assert_eq!(other[place], splits[at]);
        }
        let groups: usize = sizes.iter().sum();
        let count = |wanted: Split| -> usize {
            splits.iter().zip(&sizes).filter(|(split, _)| **split == wanted).map(|(_, n)| n).sum()
        };
        prop_assert!(count(Split::Train) > 0);
        for (split, share) in [(Split::Dev, dev), (Split::Test, test)] {
            let wanted = groups as f64 * share;
            prop_assert!(share == 0.0 || count(split) > 0);
            prop_assert!(count(split) as f64 <= wanted.max(3.0) + 0.5, "{} of {wanted}", count(split));
        }
    }
}
