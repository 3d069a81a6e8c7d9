//! What the papers say is so: files they name exist, links lead somewhere, commands are those that CI runs, and the tables of
//! settings are those of the program. A paper that is not written yet is not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use diptych_tests::checkout;
use diptych_tests::program::command;

const FIRST_COMMAND: &str = "cargo run --release";

/// The papers at the root and below docs, by their path.
fn papers() -> Vec<(PathBuf, String)> {
    let folders =
        [checkout().to_path_buf(), checkout().join("docs"), checkout().join("docs/decisions")];
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let papers = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    papers.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

fn paper(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(checkout().join(name)).ok();
    if text.is_none() {
        println!("{name} is not there yet: nothing to check");
    }
    text
}

fn read(name: &str) -> String {
    std::fs::read_to_string(checkout().join(name)).unwrap()
}

/// What stands between single backticks, code blocks left out.
fn spans(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// Every tracked-looking file below the checkout, as a path with `/`.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = name.starts_with('.') && name != ".ci";
        if path.is_dir() && !hidden && name != "target" && name != "diptych-data" {
            files(&path, found);
        } else if path.is_file() {
            found.push(path.strip_prefix(checkout()).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// Whether a span is meant as a file of ours: one path with an ending that our sources have.
fn is_file(span: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let ending = Path::new(span).extension().and_then(|extension| extension.to_str());
    let ours = ["rs", "proto", "sh", "py"].iter().any(|known| ending == Some(*known));
    // `foo.rs` stands for any file, `mod.rs` for the style that we do not have.
    ours && span.chars().all(letters)
        && !span.starts_with('.')
        && !["foo.rs", "mod.rs"].contains(&span)
}

#[test]
fn files_that_the_papers_name_exist() {
    let mut known = Vec::new();
    files(checkout(), &mut known);
    let mut faults = Vec::new();
    for (path, text) in papers() {
        for span in spans(&text).into_iter().filter(|span| is_file(span)) {
            // From the root, or in short below a crate that the text speaks of.
            let short = format!("/{span}");
            if !known.iter().any(|file| file == span || file.ends_with(&short)) {
                faults.push(format!("{}: `{span}` does not exist", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn links_between_papers_lead_somewhere() {
    let mut faults = Vec::new();
    for (path, text) in papers() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.is_empty() || file.contains("://") || file.starts_with("mailto:");
            if !elsewhere && !path.with_file_name(file).exists() {
                faults.push(format!("{}: {target} leads nowhere", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The lines of a recipe of the justfile.
fn recipe<'a>(justfile: &'a str, name: &str) -> Vec<&'a str> {
    let head = format!("{name}:");
    let mut lines = justfile.lines().skip_while(|line| !line.starts_with(&head)).skip(1);
    let indented = lines.by_ref().take_while(|line| line.starts_with("    "));
    indented.map(str::trim).collect()
}

/// The commands of the code blocks, in order.
fn commands(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced && line.trim_start_matches("$ ").starts_with("cargo ") {
            let command = line.trim_start_matches("$ ").split(" #").next().unwrap_or_default();
            commands.push(command.trim());
        }
    }
    commands
}

#[test]
fn the_two_commands_of_the_readme_are_those_of_ci() {
    let Some(readme) = paper("README.md") else { return };
    let justfile = read("justfile");
    let test = recipe(&justfile, "test");
    let commands = commands(&readme);
    assert_eq!(commands.first(), Some(&FIRST_COMMAND), "the README's first command");
    assert!(commands.contains(&test[0]), "the README lacks `{}`: {commands:?}", test[0]);
    assert!(read("scripts/first-run.sh").contains(FIRST_COMMAND));
    let ci = justfile.lines().find(|line| line.starts_with("ci:")).unwrap();
    for part in ["test", "first-run"] {
        assert!(ci.split(' ').any(|name| name == part), "just ci lacks {part}: {ci}");
    }
    assert!(read(".ci/run").lines().any(|line| line.trim() == "just ci"));
}

/// Rows of the tables of settings, those whose head's first cell says so: the keys of a row's first cell, and the row.
fn settings(text: &str) -> Vec<(Vec<String>, &str)> {
    let mut inside = false;
    let mut rows = Vec::new();
    for line in text.lines() {
        let Some(cells) = line.trim().strip_prefix('|') else {
            inside = false;
            continue;
        };
        let first = cells.split('|').next().unwrap_or_default();
        let key = |name: &str| name.trim_start_matches('-').replace('-', "_");
        let keys: Vec<String> = first.split('`').skip(1).step_by(2).map(key).collect();
        if inside && !keys.is_empty() {
            rows.push((keys, line));
        }
        let head = first.trim().to_lowercase();
        inside |= ["flag", "setting", "key"].iter().any(|word| head.starts_with(word));
    }
    rows
}

/// Settings with their built-in values as the program tells them; none where there is no value.
fn built_in() -> BTreeMap<String, Option<String>> {
    let output = command("diptych-server").arg("--check-config").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let setting = |line: &str| match line.split_once(" = ") {
        Some((key, value)) => Some((key.to_owned(), Some(value.trim_matches('"').to_owned()))),
        None => Some((line.strip_prefix("# ")?.split(' ').next()?.to_owned(), None)),
    };
    told.lines().filter_map(setting).collect()
}

#[test]
fn tables_of_settings_are_those_of_the_program() {
    let built_in = built_in();
    assert!(built_in.contains_key("listen") && built_in.contains_key("bundle"), "{built_in:?}");
    for (path, text) in papers() {
        let mut told = BTreeSet::new();
        for (keys, row) in settings(&text) {
            // Said by flag alone.
            for key in keys.iter().filter(|key| !["config", "check_config"].contains(&key.as_str()))
            {
                let known = built_in.get(key);
                let value = known.unwrap_or_else(|| panic!("{}: no {key}: {row}", path.display()));
                // What follows the machine is told in words.
                let value = value.as_deref().filter(|_| key != "threads").unwrap_or_default();
                assert!(row.contains(value), "{}: built in is {value}: {row}", path.display());
                told.insert(key.clone());
            }
        }
        // The README may tell the first few; operators are told all.
        let missing: Vec<_> = built_in.keys().filter(|key| !told.contains(*key)).collect();
        let whole = !path.ends_with("docs/operations.md") || missing.is_empty();
        assert!(whole, "{} lacks {missing:?}", path.display());
    }
}

#[test]
fn the_settings_that_are_deployed_are_taken_by_the_program() {
    let file = checkout().join("deploy/kustomize/base/diptych.toml");
    let output =
        command("diptych-server").arg("--config").arg(file).arg("--check-config").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rows_of_settings_are_told_from_other_tables() {
    let text =
        "| flag | built-in |\n|---|---|\n| `--log-format`, `--log` | human |\n\n| `x` | y |\n";
    let keys: Vec<_> = settings(text).into_iter().map(|(keys, _)| keys).collect();
    assert_eq!(keys, [["log_format", "log"]]);
    assert!(is_file("server/src/app.rs") && !is_file("*.rs") && !is_file("foo.rs"));
}
