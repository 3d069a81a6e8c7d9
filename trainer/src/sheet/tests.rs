use std::path::Path;

use super::*;
use crate::testing::{colours_toml, digit_pairs_toml, trained, write_colours, write_pairs};

const HYBRID: &str = "kind = \"hybrid\", decoder = { width = 8, text_width = 8 }";

fn args(run: &Path, out: &Path) -> SheetArgs {
    let (run, out) = (run.to_path_buf(), out.to_path_buf());
    SheetArgs { run, data: None, out, rows: 3, draws: 2, seed: 1 }
}

/// Trains two steps of one stage over what lies in the folder, and makes a sheet of it.
fn made(toml: &str, folder: &Path) -> (RgbImage, String) {
    let stages = toml.find("[[stages]]").unwrap();
    let last = toml.rfind("[[stages]]").unwrap();
    let end = if last > stages { last } else { toml.len() };
    let toml = toml[..end].replace("kind = \"split\"", HYBRID);
    let run = crate::run_file::RunFile::parse(&toml, Path::new("run.toml")).unwrap();
    let out = trained(&run, &folder.join("run"));
    let report = super::run(&args(&out, &folder.join("sheet"))).unwrap();
    let sheet = image::open(&report.sheet).unwrap().to_rgb8();
    (sheet, std::fs::read_to_string(&report.page).unwrap())
}

#[test]
fn a_run_with_texts_is_shown_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let (sheet, page) = made(&colours_toml(folder.path(), 2, 1, 1e-3), folder.path());
    for title in
        ["Pictures from Texts", "Texts from Pictures", "by a beam", "Texts with codes swapped"]
    {
        assert!(page.contains(title), "no {title}");
    }
    // Pictures: 3 rows of a real one and 2 draws, 3 of 2, and a row of 3 above 3 rows of 3; with texts:
    // 3 pictures they come from, and 3 that give shared codes.
    assert_eq!(page.matches("<img").count(), 9 + 6 + 12 + 3 + 3);
    assert!(sheet.width() > 200 && sheet.height() > 400);
}

#[test]
fn a_run_of_paired_pictures_is_shown_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path());
    let (_, page) = made(&digit_pairs_toml(folder.path()), folder.path());
    // Two squares are there to report on: 2 rows of 2 real ones and 2 draws, 2 of 2, 2 and 2 rows of 3,
    // for each of two sides.
    assert_eq!(page.matches("<img").count(), 2 * (8 + 4 + 2 + 6));
}

#[test]
fn a_run_without_decoders_is_refused_by_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = crate::testing::colours_run(folder.path(), 1, 1);
    let out = trained(&run, &folder.path().join("run"));
    let error = super::run(&args(&out, folder.path())).unwrap_err().to_string();
    assert!(error.contains("`hybrid` and `iiae`"), "{error}");
}
