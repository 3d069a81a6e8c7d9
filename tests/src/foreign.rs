//! The client in `tests/foreign/python`: stubs that stock grpcio-tools makes of the published protos, and nothing of ours.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::checkout;

/// The Python that has the packages of `scripts/tools.txt`: `DIPTYCH_PYTHON`, which `.ci/run` sets, or the one that `.ci/run`
/// left in the target folder. Without it there is nothing to ask with, and this says so.
pub fn python() -> Option<PathBuf> {
    let given = std::env::var_os("DIPTYCH_PYTHON").map(PathBuf::from);
    let left = || Some(checkout().join("target/tools/bin/python")).filter(|path| path.is_file());
    let python = given.or_else(left);
    if python.is_none() {
        // Standard error past the test harness, so that it is seen although the test counts as passed.
        let note = "SKIPPED: the foreign client. Set DIPTYCH_PYTHON to a Python with the packages of scripts/tools.txt; \
                    .ci/run does.\n";
        drop(std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()));
    }
    python
}

/// Lets the client do `job` at the server `address` and gives the JSON object that it prints.
///
/// # Errors
/// When it does not start or does not succeed, with what it said.
pub async fn run(python: &PathBuf, address: &str, job: &Value) -> Result<Value> {
    let output = tokio::process::Command::new(python)
        .arg(checkout().join("tests/foreign/python/main.py"))
        .args([address, &job.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{} does not start", python.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the foreign client failed ({}): {told}", output.status);
    serde_json::from_slice(&output.stdout).context("the foreign client printed no JSON")
}
