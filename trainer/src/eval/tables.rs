//! What an evaluation found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::recall::Recall;

/// The languages whose mean is the figure of merit: those that most training texts resemble. Arabic
/// and Hindi stand beside them.
pub const MEAN_LANGUAGES: [&str; 8] = ["en", "de", "fr", "es", "ru", "ja", "zh", "ko"];

/// What an evaluation found. Absent parts were not asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// Names seen in training against all pictures, by language.
    pub text_to_picture: BTreeMap<String, Recall>,
    /// The same against the pictures of one style, by style, then by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub text_to_picture_by_style: BTreeMap<String, BTreeMap<String, Recall>>,
    /// Pictures against the names of one language, by language; the own name is one seen in training.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub picture_to_text: BTreeMap<String, Recall>,
    /// Names that training never saw, all languages together, against all pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld_names: Option<Recall>,
    /// Phrases that are no name, each with its accepted groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrases: Option<Phrases>,
    /// Names against pictures of a style that training never saw, by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unseen_style: BTreeMap<String, Recall>,
}

/// What became of the phrases.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phrases {
    /// All of them.
    pub recall: Recall,
    /// Those without an accepted group among the first five.
    pub missed: Vec<String>,
}

impl Tables {
    /// The mean over [`MEAN_LANGUAGES`] (those present) of recall at 5.
    #[must_use]
    pub fn mean_at_5(&self) -> f64 {
        mean_at_5(&self.text_to_picture)
    }

    /// One line: the figures to watch in training.
    #[must_use]
    pub fn summary(&self) -> String {
        let at_5 = |language: &str| self.text_to_picture.get(language).map_or(0.0, |r| r.at_5);
        let withheld = self
            .withheld_names
            .map_or(String::new(), |recall| format!(", withheld names {:.3}", recall.at_5));
        format!(
            "text to picture R@5 mean {:.3}, en {:.3}, ar {:.3}, hi {:.3}{withheld}",
            self.mean_at_5(),
            at_5("en"),
            at_5("ar"),
            at_5("hi"),
        )
    }
}

/// The mean over [`MEAN_LANGUAGES`] (those present) of recall at 5.
#[must_use]
pub fn mean_at_5(by_language: &BTreeMap<String, Recall>) -> f64 {
    let present: Vec<f64> = MEAN_LANGUAGES
        .iter()
        .filter_map(|language| by_language.get(*language))
        .map(|recall| recall.at_5)
        .collect();
    present.iter().sum::<f64>() / present.len().max(1) as f64
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        languages(f, "name -> picture (one hit per group)", &self.text_to_picture)?;
        for (style, by_language) in &self.text_to_picture_by_style {
            languages(f, &format!("name -> picture, {style} alone"), by_language)?;
        }
        languages(f, "picture -> own name", &self.picture_to_text)?;
        languages(f, "name -> picture of a style never seen", &self.unseen_style)?;
        if let Some(recall) = &self.withheld_names {
            heading(f, "names never seen -> picture")?;
            row(f, "all", recall)?;
        }
        if let Some(phrases) = &self.phrases {
            heading(f, "phrases -> an accepted picture")?;
            row(f, "all", &phrases.recall)?;
            writeln!(f, "  missed in the top 5: {}", phrases.missed.join("; "))?;
        }
        Ok(())
    }
}

fn languages(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    by_language: &BTreeMap<String, Recall>,
) -> fmt::Result {
    if by_language.is_empty() {
        return Ok(());
    }
    heading(f, title)?;
    for (language, recall) in by_language {
        row(f, language, recall)?;
    }
    writeln!(
        f,
        "  {:<8} {:>8} {:>8} {:>8.3}",
        "mean of",
        MEAN_LANGUAGES.len(),
        "",
        mean_at_5(by_language)
    )
}

fn heading(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "{title}")?;
    writeln!(
        f,
        "  {:<8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "queries", "R@1", "R@5", "R@10", "median"
    )
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, recall: &Recall) -> fmt::Result {
    let Recall { queries, at_1, at_5, at_10, median_rank } = recall;
    writeln!(f, "  {name:<8} {queries:>8} {at_1:>8.3} {at_5:>8.3} {at_10:>8.3} {median_rank:>8.1}")
}
