//! What a run counts and tells: progress and faults on standard error, the end on standard output.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use diptych::v1;
use diptych::v1::item_input::Input;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::table::Place;
use crate::cli::Outcome;
use crate::cli::args::Shared;
use crate::cli::out::{Out, say};

/// The address that need not be said.
const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// Longest caption in a query to paste, in characters.
const QUERY_CHARS: usize = 60;

/// Counts of a run. The bar shows itself only where standard error is a terminal.
#[derive(Debug)]
pub(crate) struct Report {
    bar: ProgressBar,
    put: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
    /// The first caption, to ask by.
    caption: OnceLock<String>,
    /// The file of the first picture, to ask by when there is no caption.
    picture: OnceLock<String>,
}

impl Report {
    /// For about `steps` rows and pictures.
    pub(crate) fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        let template = "{bar:30} {pos}/{len}  {msg}  {elapsed} (left {eta})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        let (put, unchanged, failed) = Default::default();
        Self { bar, put, unchanged, failed, caption: OnceLock::new(), picture: OnceLock::new() }
    }

    /// A row of a table or a picture is looked at.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
    }

    /// An item was made.
    pub(crate) fn saw(&self, item: &v1::ItemInput, place: &Place) {
        match &item.input {
            Some(Input::Text(text)) => {
                self.caption.get_or_init(|| text.clone());
            }
            Some(Input::Image(_)) => {
                self.picture.get_or_init(|| place.to_string());
            }
            Some(Input::Vectors(_)) | None => {}
        }
    }

    /// An item is there already.
    pub(crate) fn unchanged(&self) {
        self.unchanged.fetch_add(1, Ordering::Relaxed);
        self.show();
    }

    /// Items were acknowledged.
    pub(crate) fn put(&self, items: usize) {
        self.put.fetch_add(items as u64, Ordering::Relaxed);
        self.show();
    }

    /// A row, a file or an item is left out.
    pub(crate) fn failed(&self, place: &Place, error: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| say(&format!("{place}: {error}")));
        self.show();
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Says how far a run came that did not end well.
    pub(crate) fn tell_rest(&self) {
        say(&self.counts());
    }

    /// Says what came of the run, and how to ask.
    pub(crate) fn summary(
        &self,
        shared: &Shared,
        collection: &str,
        stopped: bool,
        out: Out,
    ) -> Result<Outcome> {
        let query = self.query(shared, collection);
        if out.json {
            out.value(&json!({
                "collection": collection,
                "put": self.put.load(Ordering::Relaxed),
                "unchanged": self.unchanged.load(Ordering::Relaxed),
                "failed": self.failed.load(Ordering::Relaxed),
                "interrupted": stopped,
                "query": query,
            }))?;
        } else {
            out.line(&format!("{collection}: {}", self.counts()))?;
            if let Some(query) = query.filter(|_| !stopped) {
                out.line(&format!("try it: {query}"))?;
            }
        }
        if stopped {
            say("interrupted; the same command goes on where this one ended");
        }
        let failed = self.failed.load(Ordering::Relaxed) > 0;
        Ok(if stopped || failed { Outcome::Partly } else { Outcome::Done })
    }

    fn counts(&self) -> String {
        let [put, unchanged, failed] =
            [&self.put, &self.unchanged, &self.failed].map(|count| count.load(Ordering::Relaxed));
        format!("{put} put, {unchanged} unchanged, {failed} failed")
    }

    fn show(&self) {
        self.bar.set_message(self.counts());
    }

    /// A command that finds something of what was put.
    fn query(&self, shared: &Shared, collection: &str) -> Option<String> {
        let by = match (self.caption.get(), self.picture.get()) {
            (Some(caption), _) => quoted(&opening(caption)),
            (None, Some(picture)) => format!("--image {} --target image", quoted(picture)),
            (None, None) => return None,
        };
        let server = match shared.servers().as_str() {
            DEFAULT_SERVER => String::new(),
            server => format!("--server {server} "),
        };
        Some(format!("diptych search {server}--collection {collection} {by}"))
    }
}

/// The first words of a caption, on one line.
fn opening(caption: &str) -> String {
    let mut opening = String::new();
    for word in caption.split_whitespace() {
        if !opening.is_empty() && opening.chars().count() + word.chars().count() >= QUERY_CHARS {
            break;
        }
        if !opening.is_empty() {
            opening.push(' ');
        }
        opening.push_str(word);
    }
    opening
}

/// A text as a shell takes it.
fn quoted(text: &str) -> String {
    if text.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn queries_survive_the_shell() {
        assert_eq!(quoted("a red heart"), "\"a red heart\"");
        assert_eq!(quoted("it's 5$"), r"'it'\''s 5$'");
    }

    #[test]
    fn long_captions_are_cut_between_words() {
        assert_eq!(opening("a\n dog"), "a dog");
        let cut = opening(&"word ".repeat(50));
        assert!(cut.chars().count() < QUERY_CHARS && cut.ends_with("word"), "{cut}");
        let long = "狗".repeat(80);
        assert_eq!(opening(&long), long);
    }

    #[test]
    fn an_item_that_fails_makes_the_outcome_partial() {
        let report = Report::new(1);
        report.failed(&Place::file(Path::new("a.jpg")), "is damaged");
        report.put(3);
        assert_eq!(report.counts(), "3 put, 0 unchanged, 1 failed");
    }
}
