//! What an evaluation found, for people and for programs.

mod display;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calibration::Calibrated;
use super::exclusive::ExclusiveRetrieval;
use super::probe::{NumberReading, Reading};
use super::recall::Recall;
use super::retrieval::Retrieval;
use super::swaps::Swaps;

/// The languages whose mean is the figure of merit: those that most training texts resemble. Arabic
/// and Hindi stand beside them.
pub const MEAN_LANGUAGES: [&str; 8] = ["en", "de", "fr", "es", "ru", "ja", "zh", "ko"];

/// What an evaluation found. Absent parts were not asked for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// The split whose pictures and names are asked about; `all` for the whole dataset.
    #[serde(default)]
    pub split: String,
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
    /// Both directions by the usual protocol, where each picture and each name counts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrieval: Option<Retrieval>,
    /// How far pictures and names lie apart in the shared space, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality_gap: Option<f64>,
    /// What probes read from the vectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Reading>,
    /// What probes read of factors that are numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<NumberReading>,
    /// What retrieval by exclusive vectors finds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive_retrieval: Option<ExclusiveRetrieval>,
    /// What independent classifiers read of swaps, where the run has decoders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swaps: Vec<Swaps>,
    /// Scores to probabilities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibrated>,
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

    /// The figures that runs are compared by, each under a name of its own.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        let mut put = |name: String, value: f64| {
            figures.insert(name, value);
        };
        if !self.text_to_picture.is_empty() {
            put("text_to_picture.mean_at_5".to_owned(), self.mean_at_5());
        }
        for (language, recall) in &self.text_to_picture {
            put(format!("text_to_picture.{language}.at_5"), recall.at_5);
        }
        for (style, by_language) in &self.text_to_picture_by_style {
            put(format!("text_to_picture_by_style.{style}.mean_at_5"), mean_at_5(by_language));
        }
        for (language, recall) in &self.picture_to_text {
            put(format!("picture_to_text.{language}.at_5"), recall.at_5);
        }
        if !self.unseen_style.is_empty() {
            put("unseen_style.mean_at_5".to_owned(), mean_at_5(&self.unseen_style));
        }
        if let Some(recall) = &self.withheld_names {
            put("withheld_names.at_5".to_owned(), recall.at_5);
        }
        if let Some(phrases) = &self.phrases {
            put("phrases.at_5".to_owned(), phrases.recall.at_5);
        }
        if let Some(Retrieval { all, by_language, choice_of_20, .. }) = &self.retrieval {
            let both = [
                ("text_to_picture", all.text_to_picture),
                ("picture_to_text", all.picture_to_text),
            ];
            for (direction, recall) in both {
                put(format!("retrieval.{direction}.at_1"), recall.at_1);
                put(format!("retrieval.{direction}.at_5"), recall.at_5);
                put(format!("retrieval.{direction}.at_10"), recall.at_10);
                put(format!("retrieval.{direction}.median_rank"), recall.median_rank);
            }
            if let Some(choice) = choice_of_20 {
                put("retrieval.text_to_picture.choice_of_20".to_owned(), choice.text_to_picture);
                put("retrieval.picture_to_text.choice_of_20".to_owned(), choice.picture_to_text);
            }
            put("retrieval.rsum".to_owned(), all.rsum);
            for (language, directions) in by_language {
                put(format!("retrieval.{language}.rsum"), directions.rsum);
            }
        }
        self.leaks(&mut put);
        figures
    }

    /// The figures on what is in which space, and on calibration.
    fn leaks(&self, put: &mut impl FnMut(String, f64)) {
        if let Some(gap) = self.modality_gap {
            put("modality_gap".to_owned(), gap);
        }
        for reading in &self.probes {
            let name = format!("probes.{}.{}", reading.modality, reading.factor);
            put(format!("{name}.chance"), reading.chance);
            for (space, accuracy) in [("shared", reading.shared), ("exclusive", reading.exclusive)]
            {
                put(format!("{name}.{space}.linear"), accuracy.linear);
                put(format!("{name}.{space}.mlp"), accuracy.mlp);
            }
        }
        for reading in &self.numbers {
            let name = format!("numbers.{}.{}", reading.modality, reading.factor);
            for (space, explained) in [("shared", reading.shared), ("exclusive", reading.exclusive)]
            {
                put(format!("{name}.{space}.linear"), explained.linear);
                put(format!("{name}.{space}.mlp"), explained.mlp);
            }
        }
        if let Some(found) = &self.exclusive_retrieval {
            let directions = [
                ("text_to_picture", &found.text_to_picture),
                ("picture_to_text", &found.picture_to_text),
            ];
            for (direction, found) in directions {
                let name = format!("exclusive_retrieval.{direction}");
                put(format!("{name}.chance.at_1"), found.chance.at_1);
                if let Some(unfitted) = found.unfitted {
                    put(format!("{name}.unfitted.at_1"), unfitted.at_1);
                }
                put(format!("{name}.ridge.at_1"), found.ridge.at_1);
                put(format!("{name}.random_features.at_1"), found.random_features.at_1);
            }
        }
        for Swaps { modality, content_at_1, factors, .. } in &self.swaps {
            put(format!("swaps.{modality}.content_at_1"), *content_at_1);
            for found in factors {
                let name = format!("swaps.{modality}.{}", found.factor);
                put(format!("{name}.real"), found.real);
                put(format!("{name}.of_content"), found.of_content);
                put(format!("{name}.of_style"), found.of_style);
            }
        }
        if let Some(found) = &self.calibration {
            let directions = [
                ("text_to_picture", &found.text_to_picture),
                ("picture_to_text", &found.picture_to_text),
            ];
            for (direction, found) in directions {
                let name = format!("calibration.{direction}.expected_calibration_error");
                put(name, found.expected_calibration_error);
            }
        }
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
