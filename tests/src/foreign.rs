//! The clients in `tests/foreign`: made of the published protos by stock packages, and nothing of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::checkout;

/// The Python that has the packages of `scripts/tools.txt`: `DIPTYCH_PYTHON`, which `.ci/run` sets, or the one that `.ci/run`
/// left in the target folder. Without it there is nothing to ask with, and this says so.
pub fn python() -> Option<PathBuf> {
    let given = std::env::var_os("DIPTYCH_PYTHON").map(PathBuf::from);
    let left = || Some(checkout().join("target/tools/bin/python")).filter(|path| path.is_file());
    let python = given.or_else(left);
    if python.is_none() {
        say(
            "SKIPPED: the foreign clients. Set DIPTYCH_PYTHON to a Python with the packages of scripts/tools.txt; .ci/run \
             does.\n",
        );
    }
    python
}

/// Says it past the test harness, so that it is seen although the test counts as passed.
fn say(note: &str) {
    drop(std::io::Write::write_all(&mut std::io::stderr(), note.as_bytes()));
}

/// How the client in JavaScript is started: Node.js, and the folder of its packages, both left by `scripts/foreign-clients.sh`
/// beside the Python. `None` without them, and this says so.
pub fn node(python: &Path) -> Option<(PathBuf, PathBuf)> {
    let tools = python.parent()?.parent()?;
    let (node, packages) = (tools.join("bin/node"), tools.join("foreign-node/node_modules"));
    let found = node.is_file() && packages.is_dir();
    if !found {
        say(
            "SKIPPED: the client in JavaScript. bash scripts/foreign-clients.sh installs what it needs.\n",
        );
    }
    found.then_some((node, packages))
}

/// Lets the client in JavaScript ask the server `address` and gives the JSON object that it prints.
///
/// # Errors
/// When it does not start or does not succeed, with what it said.
pub async fn run_node((node, packages): &(PathBuf, PathBuf), address: &str) -> Result<Value> {
    let mut command = tokio::process::Command::new(node);
    command.arg(checkout().join("tests/foreign/node/main.cjs")).arg(address);
    printed(command.env("NODE_PATH", packages)).await
}

/// Lets the client in Python do `job` at the server `address` and gives the JSON object that it prints.
///
/// # Errors
/// When it does not start or does not succeed, with what it said.
pub async fn run(python: &PathBuf, address: &str, job: &Value) -> Result<Value> {
    let mut command = tokio::process::Command::new(python);
    command.arg(checkout().join("tests/foreign/python/main.py")).args([address, &job.to_string()]);
    printed(command.env("PYTHONDONTWRITEBYTECODE", "1")).await
}

/// A client in Python that searches and embeds at several servers without a pause, until it is told to end.
#[derive(Debug)]
pub struct Load(tokio::process::Child);

impl Load {
    /// Starts it; it has had its first answers when this returns.
    ///
    /// # Errors
    /// When it does not start, or gets no answer.
    pub async fn start(python: &PathBuf, addresses: &[&str]) -> Result<Self> {
        let mut command = tokio::process::Command::new(python);
        let job = serde_json::json!({ "do": "load" }).to_string();
        command
            .arg(checkout().join("tests/foreign/python/main.py"))
            .args([&addresses.join(","), &job]);
        command.env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("the foreign client does not start")?;
        let output = child.stdout.as_mut().context("the foreign client has no output")?;
        let mut begun = [0; 1];
        output.read_exact(&mut begun).await.context("the foreign client got no answer")?;
        Ok(Self(child))
    }

    /// Ends it and gives the JSON object that it prints.
    ///
    /// # Errors
    /// When it does not succeed.
    pub async fn finish(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        let output = self.0.wait_with_output().await?;
        ensure!(output.status.success(), "the foreign client failed ({})", output.status);
        serde_json::from_slice(&output.stdout).context("the foreign client printed no JSON")
    }
}

async fn printed(command: &mut tokio::process::Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.context("the foreign client does not start")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the foreign client failed ({}): {told}", output.status);
    serde_json::from_slice(&output.stdout).context("the foreign client printed no JSON")
}
