use std::path::Path;

use candle_core::Device;

use super::*;
use crate::augment::{generator as draws, normal};
use crate::eval::{Questions, Subject, examine};
use crate::fit::Training;
use crate::run_file::RunFile;
use crate::testing::{colours_toml, digit_pairs_toml, trained, write_colours, write_pairs};

const HYBRID: &str = "kind = \"hybrid\", decoder = { width = 8, text_width = 8 }";

/// The run of the first stage of a run file, with another objective, trained in a folder.
fn run(toml: &str, folder: &Path) -> std::path::PathBuf {
    let first = toml.find("[[stages]]").unwrap();
    let last = toml.rfind("[[stages]]").unwrap();
    let end = if last > first { last } else { toml.len() };
    let toml = toml[..end].replace("kind = \"split\"", HYBRID);
    trained(&RunFile::parse(&toml, Path::new("run.toml")).unwrap(), &folder.join("run"))
}

#[test]
fn both_sides_of_paired_pictures_are_swapped_read_and_measured_like_texts() {
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path());
    let out = run(&digit_pairs_toml(folder.path()), folder.path());
    let training = Training::of_checkpoint(&out, None, &Device::Cpu).unwrap();
    let generator = Generator::of_run(&out, &training).unwrap().unwrap();
    let swaps = evaluate(&generator, None).unwrap();
    let modalities: Vec<&str> = swaps.iter().map(|swaps| swaps.modality.as_str()).collect();
    assert_eq!(modalities, ["image", "counterpart"]);
    for Swaps { swaps, content_at_1, factors, .. } in &swaps {
        assert_eq!(*swaps, 8);
        assert!((0.0..=1.0).contains(content_at_1));
        let names: Vec<&str> = factors.iter().map(|found| found.factor.as_str()).collect();
        // The column that tells the two kinds apart is none of them.
        assert_eq!(names, ["size", "colour"]);
    }
    let subject = Subject::of_training(&training);
    let (tables, encoded) = examine(&subject, &Questions::all(&training.withheld)).unwrap();
    // Two squares are there to report on, and each counterpart stands for a name.
    let found = tables.retrieval.unwrap();
    assert_eq!((found.pictures, found.names), (2, 2));
    assert_eq!(found.by_language.keys().collect::<Vec<_>>(), ["ink"]);
    assert!(encoded.texts.iter().all(|name| name.picture.is_some()));
    let numbers: Vec<(&str, &str)> =
        tables.numbers.iter().map(|r| (r.modality.as_str(), r.factor.as_str())).collect();
    assert_eq!(numbers, [("image", "colour"), ("counterpart", "colour")]);
    assert!(tables.exclusive_retrieval.is_some());
}

#[test]
fn texts_are_swapped_too_and_a_run_without_decoders_has_no_way_back() {
    let folder = tempfile::tempdir().unwrap();
    write_colours(folder.path(), &[]);
    let toml = colours_toml(folder.path(), 2, 1, 1e-3);
    let out = run(&toml, folder.path());
    let training = Training::of_checkpoint(&out, None, &Device::Cpu).unwrap();
    let generator = Generator::of_run(&out, &training).unwrap().unwrap();
    let swaps = evaluate(&generator, None).unwrap();
    assert_eq!(swaps.iter().map(|s| s.modality.as_str()).collect::<Vec<_>>(), ["image", "text"]);
    let factors = |side: usize| -> Vec<&str> {
        swaps[side].factors.iter().map(|found| found.factor.as_str()).collect()
    };
    assert_eq!(factors(0), ["style"]);
    assert_eq!(factors(1), ["language"]);
    let split = RunFile::parse(&toml, Path::new("run.toml")).unwrap();
    let out = trained(&split, &folder.path().join("split"));
    let training = Training::of_checkpoint(&out, None, &Device::Cpu).unwrap();
    assert!(Generator::of_run(&out, &training).unwrap().is_none());
}

#[test]
fn a_perfect_swap_has_the_content_of_one_and_the_style_of_the_other() {
    // What is seen of an item: its concept's parity, and its own number. A swap shows the parity of the one
    // and the number of the other; the labels come from the same places.
    let folder = tempfile::tempdir().unwrap();
    write_pairs(folder.path());
    let out = run(&digit_pairs_toml(folder.path()), folder.path());
    let training = Training::of_checkpoint(&out, None, &Device::Cpu).unwrap();
    let corpus = &*training.corpus;
    let all = items::all(corpus, Side::Image, |_| true);
    let size = corpus.label("size").unwrap();
    let seen = |of: &Item, style: &Item, noise: f32| -> Vec<f32> {
        let large = if of.label(corpus, size) == Some("large") { 1.0 } else { -1.0 };
        let red = style.numbers(corpus, &[corpus.label("red").unwrap()]).unwrap()[0] / 255.0;
        vec![large + noise, red + noise / 10.0]
    };
    let mut rng = draws(3, &[]);
    let train: Vec<Item> = (0..400).map(|at| all[at % all.len()].clone()).collect();
    let givers: Vec<usize> = (0..all.len()).map(|at| (at + 3) % all.len()).collect();
    let mut matrix = |rows: Vec<(&Item, &Item)>| {
        let rows = rows.into_iter().flat_map(|(of, style)| seen(of, style, 0.1 * normal(&mut rng)));
        Matrix::new(rows.collect(), 2)
    };
    let rows = [
        matrix(train.iter().map(|item| (item, item)).collect()),
        matrix(all.iter().map(|item| (item, item)).collect()),
        matrix(all.iter().zip(&givers).map(|(item, giver)| (item, &all[*giver])).collect()),
    ];
    let found = Seen { corpus, train, rows }.factors(&all, &givers, Side::Image).unwrap();
    let [size, colour] = &found[..] else { panic!("{found:?}") };
    assert!(size.of_content > 0.95 && size.of_style < 0.8, "{size:?}");
    assert!(colour.of_style > 0.9 && colour.of_content < 0.5 && colour.real > 0.9, "{colour:?}");
}
