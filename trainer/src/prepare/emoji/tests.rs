use std::path::Path;

use super::{EmojiArgs, group_of, run, splits};
use crate::shards::{Dataset, ImageRow, Split, TextKind, TextRow};

/// A red square that fills its box, and a wide blue bar in a box twice as wide as high.
const SQUARE: &str = r##"<path fill="#f00" d="M0 0h8v8H0z"/>"##;
const BAR: &str = r##"<path fill="#00f" d="M0 0h8v4H0z"/>"##;

fn put(root: &Path, path: &str, content: &serde_json::Value) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content.to_string()).unwrap();
}

fn put_style(root: &Path, folder: &str, chars: &serde_json::Value, icons: &serde_json::Value) {
    let info = serde_json::json!({"author": {"name": "A"}, "license": {"spdx": "MIT"}});
    put(
        root,
        &format!("{folder}/package.json"),
        &serde_json::json!({"name": folder, "version": "1.0.0"}),
    );
    put(root, &format!("{folder}/info.json"), &info);
    put(root, &format!("{folder}/chars.json"), chars);
    put(
        root,
        &format!("{folder}/icons.json"),
        &serde_json::json!({"icons": icons, "width": 8, "height": 8}),
    );
    let categories = serde_json::json!({"categories": {"Smileys & Emotion": ["red-heart"]}});
    put(root, &format!("{folder}/metadata.json"), &categories);
}

fn put_names(root: &Path, folder: &str, kind: &str, lang: &str, names: &serde_json::Value) {
    let package =
        serde_json::json!({"name": folder, "version": "48.0.0", "license": "Unicode-3.0"});
    put(root, &format!("{folder}/package.json"), &package);
    let file = serde_json::json!({kind: {"annotations": names}});
    put(root, &format!("{folder}/{kind}/{lang}/annotations.json"), &file);
}

/// Two styles, two languages, and one of each thing that can be wrong.
fn put_packages(root: &Path) {
    let chars = serde_json::json!({
        "2764-fe0f": "red-heart", "1f9b0": "red-hair", "1f44b-1f3fb": "hello-light",
        "1f680": "rocket", "1f4a5": "gone", "1f4a6": "torn", "zz": "nonsense", "1f999": "unnamed",
        "1f4a7": "empty",
    });
    let icons = serde_json::json!({
        "red-heart": {"body": SQUARE}, "red-hair": {"body": SQUARE}, "hello-light": {"body": SQUARE},
        "rocket": {"body": BAR, "height": 4}, "torn": {"body": "<path d='"}, "unnamed": {"body": SQUARE},
        "empty": {"body": ""},
    });
    put_style(root, "iconify-json-noto", &chars, &icons);
    let chars = serde_json::json!({"2764": "red-heart"});
    put_style(
        root,
        "iconify-json-twemoji",
        &chars,
        &serde_json::json!({"red-heart": {"body": SQUARE}}),
    );
    for (lang, heart) in [("en", "red heart"), ("de", "rotes Herz")] {
        let names = serde_json::json!({
            "❤️": {"tts": [heart], "default": ["love", " love", heart]},
            "🦰": {"tts": ["red hair"]}, "👋🏻": {"tts": ["waving hand: light"]},
            "💥": {"tts": ["collision"]}, "💦": {"tts": ["sweat"]}, "💧": {"tts": ["drop"]},
        });
        put_names(root, "cldr-annotations-full", "annotations", lang, &names);
        let derived =
            serde_json::json!({"🚀": {"tts": ["rocket"]}, "❤": {"tts": ["a later name"]}, "🎈": 3});
        put_names(root, "cldr-annotations-derived-full", "annotationsDerived", lang, &derived);
    }
}

fn args(source: &Path, out: &Path) -> EmojiArgs {
    EmojiArgs {
        source: source.to_path_buf(),
        out: out.to_path_buf(),
        styles: vec!["noto".to_owned(), "twemoji".to_owned()],
        languages: vec!["en".to_owned(), "de".to_owned()],
        more_keywords: false,
        dev: 0.0,
        test: 0.0,
        size: 16,
    }
}

#[test]
fn concepts_are_drawn_somewhere_and_named_everywhere_and_the_rest_is_named_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let out = folder.path().join("out");
    let report = run(&args(folder.path(), &out)).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    let images: Vec<ImageRow> = dataset.images().map(Result::unwrap).collect();
    let paths: Vec<&str> = images.iter().map(|image| image.path.as_str()).collect();
    assert_eq!(paths, ["noto/1f680.png", "noto/2764.png", "twemoji/2764.png"]);
    assert_eq!(images[1].labels, [Some("noto".to_owned()), Some("smileys-emotion".to_owned())]);
    assert_eq!(images[0].labels, [Some("noto".to_owned()), None]);
    let texts: Vec<TextRow> = dataset.texts().map(Result::unwrap).collect();
    let heart = |text: &str, lang: &str, kind| TextRow {
        text: text.to_owned(),
        lang: lang.to_owned(),
        kind,
        group: "2764".to_owned(),
        split: Split::Train,
    };
    assert_eq!(texts[2], heart("red heart", "en", TextKind::Name));
    assert_eq!(texts[3], heart("love", "en", TextKind::Keyword));
    assert_eq!(texts[4], heart("red heart", "en", TextKind::Keyword));
    assert_eq!(texts[5], heart("rotes Herz", "de", TextKind::Name));
    assert_eq!((texts.len(), report.manifest.counts.groups), (8, 2));
    let skipped: Vec<String> =
        report.manifest.skipped.iter().map(|s| format!("{}: {}", s.what, s.reason)).collect();
    let expected = [
        "noto/1f4a5 (gone): there is no icon of that name",
        "noto/zz (nonsense): its key is not code points in hex",
        "annotation en/1f388: it is malformed",
        "annotation de/1f388: it is malformed",
        "noto/1f999 (unnamed): no name in en, de",
        "noto/1f4a6 (torn): not SVG",
        "noto/1f4a7 (empty): nothing of it is visible",
    ];
    assert_eq!(skipped.len(), expected.len(), "{skipped:#?}");
    for start in expected {
        assert!(skipped.iter().any(|s| s.starts_with(start)), "{start} is not among {skipped:#?}");
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    run(&args(folder.path(), &one)).unwrap();
    run(&args(folder.path(), &two)).unwrap();
    for file in ["dataset.json", "images-00000.parquet", "texts-00000.parquet"] {
        assert!(std::fs::read(one.join(file)).unwrap() == std::fs::read(two.join(file)).unwrap());
    }
}

#[test]
fn a_drawing_that_is_not_square_is_centred_on_transparency() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let out = folder.path().join("out");
    run(&args(folder.path(), &out)).unwrap();
    let rocket = Dataset::open(&out).unwrap().images().next().unwrap().unwrap();
    let picture = image::load_from_memory(&rocket.bytes).unwrap().to_rgba8();
    assert_eq!(picture.dimensions(), (16, 16));
    let row = |y| picture.get_pixel(8, y).0;
    assert_eq!([row(0), row(3)], [[0; 4], [0; 4]]);
    assert_eq!([row(4), row(11)], [[0, 0, 255, 255], [0, 0, 255, 255]]);
    assert_eq!(row(12), [0; 4]);
}

#[test]
fn a_wrong_style_language_or_package_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let refused = |change: fn(&mut EmojiArgs)| {
        let mut args = args(folder.path(), &folder.path().join("out"));
        change(&mut args);
        run(&args).unwrap_err().to_string()
    };
    assert!(
        refused(|a| a.styles = vec!["apple".to_owned()])
            .contains("unknown style `apple`; known: noto")
    );
    assert!(
        refused(|a| a.languages.push("../x".to_owned())).contains("`../x` is not a language tag")
    );
    assert!(refused(|a| a.languages.push("en".to_owned())).contains("`en` is there twice"));
    assert!(
        refused(|a| a.languages.push("xx".to_owned())).contains("annotations/xx/annotations.json")
    );
    assert!(
        refused(|a| a.styles = vec!["fluent".to_owned()])
            .contains("iconify-json-fluent-emoji-flat")
    );
}

#[test]
fn groups_are_code_points_without_the_variation_selector() {
    let group = |text: &str| group_of(text.chars().map(u32::from));
    assert_eq!(group("❤️").as_deref(), Some("2764"));
    assert_eq!(group("🇩🇪").as_deref(), Some("1f1e9-1f1ea"));
    assert_eq!(group("#️⃣").as_deref(), Some("23-20e3"));
    assert_eq!(group("👩‍🦰").as_deref(), Some("1f469-200d-1f9b0"));
    for none in ["", "👋🏽", "🏽", "🦰", "🇩", "\u{fe0f}"] {
        assert_eq!(group(none), None, "{none:?}");
    }
}

#[test]
fn more_keywords_are_added_once_and_only_where_they_are_words() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let package = serde_json::json!({"name": "emojilib", "version": "4.0.3", "license": "MIT"});
    put(folder.path(), "emojilib/package.json", &package);
    let words =
        serde_json::json!({"❤️": ["red_heart", "Love", "valentines", "<3", "x"], "🦄": ["horse"]});
    put(folder.path(), "emojilib/dist/emoji-en-US.json", &words);
    let out = folder.path().join("out");
    let with = EmojiArgs { more_keywords: true, ..args(folder.path(), &out) };
    let report = run(&with).unwrap();
    let texts: Vec<TextRow> = Dataset::open(&out).unwrap().texts().map(Result::unwrap).collect();
    let english = texts.iter().filter(|row| row.lang == "en" && row.group == "2764");
    let words: Vec<&str> = english.map(|row| row.text.as_str()).collect();
    assert_eq!(words, ["red heart", "love", "red heart", "valentines"]);
    assert!(report.manifest.sources.iter().any(|source| source.package == "emojilib 4.0.3"));
    let german = EmojiArgs { languages: vec!["de".to_owned()], ..with };
    assert!(run(&german).unwrap_err().to_string().contains("--more-keywords"));
}

#[test]
fn concepts_are_shared_out_among_the_splits_and_stay_whole() {
    let folder = tempfile::tempdir().unwrap();
    put_packages(folder.path());
    let out = folder.path().join("out");
    let shared = EmojiArgs { dev: 0.25, test: 0.1, ..args(folder.path(), &out) };
    let names = (0..20).map(|number| format!("1f6{number:02}")).collect();
    let splits = splits(&names, &shared).unwrap();
    let count = |split| splits.values().filter(|found| **found == split).count();
    assert_eq!(Split::ALL.map(count), [13, 5, 2]);

    run(&EmojiArgs { dev: 0.5, ..args(folder.path(), &out) }).unwrap();
    let dataset = Dataset::open(&out).unwrap();
    let images = dataset.images().map(Result::unwrap).map(|row| (row.group, row.split));
    let of_images: std::collections::BTreeMap<_, _> = images.collect();
    for row in dataset.texts().map(Result::unwrap) {
        assert_eq!(row.split, of_images[&row.group], "{}", row.group);
    }
    let error = run(&EmojiArgs { test: 0.6, ..args(folder.path(), &out) }).unwrap_err();
    assert!(error.to_string().contains("--test"), "{error}");
}
