//! Several runs of one run file: what differs between them is the seed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Tables;
use crate::error::{Error, Result};
use crate::seeds::PREFIX;

/// The tables of several runs, and what they say together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// Each run.
    pub runs: Vec<Run>,
    /// Each figure over the runs, by its name in [`Tables::figures`].
    pub summary: BTreeMap<String, Spread>,
}

/// One of several runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The name of its folder.
    pub run: String,
    /// What its evaluation found.
    pub tables: Tables,
}

/// A figure over several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Runs that have the figure.
    pub runs: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, with one less than their number below the sum; 0 for one run.
    pub standard_deviation: f64,
}

/// The runs `seed-1`, `seed-2` and so on in a folder, in the order of their numbers; none where the
/// folder is a run itself.
///
/// # Errors
/// If the folder cannot be read.
pub fn find(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| Error::io(folder, source))?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok());
        if let Some(number) = number.filter(|_| path.join("run.toml").is_file()) {
            runs.push((number, path));
        }
    }
    runs.sort();
    Ok(runs.into_iter().map(|(_, path)| path).collect())
}

impl Seeds {
    /// From the tables of each run.
    #[must_use]
    pub fn of(runs: Vec<Run>) -> Self {
        let mut values = BTreeMap::<String, Vec<f64>>::new();
        for run in &runs {
            for (name, value) in run.tables.figures() {
                values.entry(name).or_default().push(value);
            }
        }
        let summary = values.into_iter().map(|(name, of)| (name, Spread::of(&of))).collect();
        Self { runs, summary }
    }
}

impl Spread {
    /// Of some values.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs.max(1) as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let standard_deviation = (squares / runs.saturating_sub(1).max(1) as f64).sqrt();
        Self { runs, mean, standard_deviation }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.runs.iter().map(|run| run.run.as_str()).collect();
        writeln!(f, "{} runs: {}", names.len(), names.join(", "))?;
        writeln!(f, "  {:<56} {:>10} {:>10}", "", "mean", "sd")?;
        for (name, Spread { mean, standard_deviation, .. }) in &self.summary {
            writeln!(f, "  {name:<56} {mean:>10.4} {standard_deviation:>10.4}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_computed_by_hand() {
        // Mean 3, squares 4 + 0 + 4 over 2: deviation 2.
        let spread = Spread::of(&[1.0, 3.0, 5.0]);
        assert_eq!(spread, Spread { runs: 3, mean: 3.0, standard_deviation: 2.0 });
        assert!(Spread::of(&[7.0]).standard_deviation.abs() < 1e-12);
    }

    #[test]
    fn runs_come_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["seed-10", "seed-2", "seed-x", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("run.toml"), "").unwrap();
        }
        std::fs::create_dir(folder.path().join("seed-3")).unwrap();
        let found = find(folder.path()).unwrap();
        assert_eq!(found, [folder.path().join("seed-2"), folder.path().join("seed-10")]);
    }

    #[test]
    fn runs_are_summed_up_by_figure() {
        let run = |gap| Run {
            run: "seed-1".to_owned(),
            tables: Tables { modality_gap: Some(gap), ..Tables::default() },
        };
        let seeds = Seeds::of(vec![run(0.25), run(0.75)]);
        let spread = seeds.summary["modality_gap"];
        assert!((spread.mean - 0.5).abs() < 1e-12);
        assert!(seeds.to_string().contains("modality_gap"));
    }
}
