//! One run file with several seeds: what differs between them is chance, and how much, a figure should say.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fit::{FitOptions, fit};
use crate::report::RunLog;
use crate::run_file::RunFile;

/// How the folder of a seed's run begins; a number follows.
pub(crate) const PREFIX: &str = "seed-";

/// The folder of the `number`th seed (from 1) of a run in `out`.
#[must_use]
pub fn folder(out: &Path, number: u64) -> PathBuf {
    out.join(format!("{PREFIX}{number}"))
}

/// Trains a run `count` times, with seeds that rise by one from the run file's, each in a folder of its
/// own.
///
/// # Errors
/// As [`fit`], or if `count` is 0.
pub fn fit_all(run: &RunFile, options: &FitOptions, count: u64) -> Result<()> {
    if count == 0 {
        return Err(Error::setting("--seeds", "must be at least 1"));
    }
    for number in 1..=count {
        let mut run = run.clone();
        run.seed += number - 1;
        let out = folder(&options.out, number);
        let mut log = RunLog::open(&out)?;
        fit(&run, &FitOptions { out, ..options.clone() }, &mut log)?;
    }
    Ok(())
}
