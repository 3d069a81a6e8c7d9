//! How heads are trained: one small TOML file, with the stages of a run file in it.

use std::path::Path;

use diptych_model::config::FeatureSource;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run_file::{Stage, check_stage};

/// For a checkpoint with shared vectors of its own.
const ONE_CHECKPOINT: &str = include_str!("../../../configs/heads.toml");
/// For two checkpoints of one modality each.
const TWO_CHECKPOINTS: &str = include_str!("../../../configs/heads-two-towers.toml");

/// How heads are trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsSettings {
    /// Decides initial weights and batches.
    pub seed: u64,
    /// Length of the shared vectors, 1 to 4096, where the checkpoint has none of its own; else left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<usize>,
    /// Length of the exclusive vectors of pictures, 1 to 4096.
    pub exclusive_image: usize,
    /// Length of the exclusive vectors of texts, 1 to 4096.
    pub exclusive_text: usize,
    /// Width of the hidden layer of the exclusive heads.
    pub exclusive_hidden: usize,
    /// What the exclusive head of pictures reads.
    pub exclusive_reads: Vec<FeatureSource>,
    /// Share of the features that a second view lacks, 0 to below 1. Towers do not run in training, so a
    /// second view of an input is its features with some left out (Gao et al., 2021, "SimCSE").
    pub feature_dropout: f64,
    /// Steps between looks at the dev split, at least 1.
    pub evaluate_every: u64,
    /// How the shared heads are trained.
    pub shared_stage: Stage,
    /// How the exclusive heads are trained, on the shared ones that were chosen.
    pub exclusive_stage: Stage,
}

impl HeadsSettings {
    /// Those of a file, or else those that go with one checkpoint or with two.
    ///
    /// # Errors
    /// [`Error::RunFile`] with line and column for what is no such file, [`Error::Setting`] naming the
    /// first value that cannot be used.
    pub fn read(file: Option<&Path>, two: bool) -> Result<Self> {
        let Some(path) = file else {
            let (name, text) = match two {
                true => ("configs/heads-two-towers.toml", TWO_CHECKPOINTS),
                false => ("configs/heads.toml", ONE_CHECKPOINT),
            };
            return Self::parse(text, Path::new(name), two);
        };
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        Self::parse(&text, path, two)
    }

    /// Parses and checks the text of a file at `path`.
    ///
    /// # Errors
    /// As [`HeadsSettings::read`].
    pub fn parse(text: &str, path: &Path, two: bool) -> Result<Self> {
        let settings: Self = toml::from_str(text).map_err(|error| Error::RunFile {
            path: path.to_path_buf(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        settings.check(two)?;
        Ok(settings)
    }

    fn check(&self, two: bool) -> Result<()> {
        match (two, self.shared) {
            (true, None) => {
                let message = "is needed: two checkpoints have no shared vectors to begin with";
                return Err(Error::setting("shared", message));
            }
            (false, Some(_)) => {
                let message = "is what the checkpoint has; leave it out";
                return Err(Error::setting("shared", message));
            }
            _ => {}
        }
        let lengths = [
            ("shared", self.shared.unwrap_or(1)),
            ("exclusive_image", self.exclusive_image),
            ("exclusive_text", self.exclusive_text),
        ];
        for (name, length) in lengths {
            if !(1..=4096).contains(&length) {
                let message = format!("{length} is not between 1 and 4096");
                return Err(Error::setting(name, message));
            }
        }
        if !(0.0..1.0).contains(&self.feature_dropout) {
            return Err(Error::setting("feature_dropout", "must be in 0 to below 1"));
        }
        if self.evaluate_every == 0 {
            return Err(Error::setting("evaluate_every", "must be at least 1"));
        }
        let stages =
            [("shared_stage", &self.shared_stage), ("exclusive_stage", &self.exclusive_stage)];
        for (at, stage) in stages {
            check_stage(stage, at)?;
            let fail =
                |name: &str, message: &str| Err(Error::setting(format!("{at}.{name}"), message));
            if stage.accumulate != 1 || stage.ema_decay.is_some() || stage.augment.is_some() {
                let message = "are for `fit`; heads are trained without";
                return fail("accumulate, ema_decay, augment", message);
            }
            if !stage.batch.pictures {
                return fail("batch.pictures", "heads are trained on pairs");
            }
        }
        if self.exclusive_stage.early_stop.is_some() {
            let message = "is for the shared heads: exclusive vectors are not asked for on dev";
            return Err(Error::setting("exclusive_stage.early_stop", message));
        }
        Ok(())
    }

    /// The settings as TOML, to be written into the bundle.
    ///
    /// # Errors
    /// If a value has no TOML form.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::setting("settings", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_come_with_it_are_right() {
        for two in [false, true] {
            let settings = HeadsSettings::read(None, two).unwrap();
            let again = HeadsSettings::parse(&settings.to_toml().unwrap(), Path::new("x"), two);
            assert_eq!(again.unwrap().shared_stage.steps, settings.shared_stage.steps);
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (from, to, name) in [
            ("exclusive_text = 64", "exclusive_text = 0", "exclusive_text"),
            ("seed = 1", "seed = 1\nshared = 8", "shared"),
            ("feature_dropout = 0.2", "feature_dropout = 1.0", "feature_dropout"),
            ("evaluate_every = 50", "evaluate_every = 0", "evaluate_every"),
            ("steps = 2000", "steps = 2000\nema_decay = 0.9", "shared_stage.accumulate, ema_decay"),
            ("steps = 2000", "steps = 0", "shared_stage.steps"),
        ] {
            let text = ONE_CHECKPOINT.replacen(from, to, 1);
            let error = HeadsSettings::parse(&text, Path::new("heads.toml"), false).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("setting `{name}")), "{to}: {message}");
        }
        let error = HeadsSettings::parse(ONE_CHECKPOINT, Path::new("x"), true).unwrap_err();
        assert!(error.to_string().contains("setting `shared`"), "{error}");
    }
}
