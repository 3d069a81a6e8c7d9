//! The programs under test, built once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};

/// The path of a program of the workspace, built on first use in the profile of the test itself.
///
/// # Panics
/// When the build fails: no test can go on without the programs.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match folder {
        Ok(folder) => folder.join(name),
        Err(error) => panic!("{error}"),
    }
}

/// A program with an environment in which no setting of ours is left over.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DIPTYCH_") {
            command.env_remove(name);
        }
    }
    command
}

/// Sends the signal `name`, such as `INT`, to a process.
///
/// # Errors
/// When it cannot be sent.
pub fn signal(process: u32, name: &str) -> Result<()> {
    let sent = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status()?;
    anyhow::ensure!(sent.success(), "SIG{name} was not sent");
    Ok(())
}

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn build() -> Result<PathBuf> {
    // A test lies in <target>/<profile>/deps, an example in examples beside it; the programs one level up.
    let own = std::env::current_exe()?;
    let folder =
        own.parent().and_then(Path::parent).context("a program outside a target folder")?;
    let mut cargo = Command::new(env!("CARGO"));
    // All of them at once, as `cargo test --workspace` and `cargo build` do: for one package alone cargo chooses other features
    // of what it depends on, and compiles all that a second time.
    cargo.args(["build", "--quiet", "--workspace", "--bins"]);
    cargo.current_dir(checkout());
    if folder.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    if !cargo.status()?.success() {
        bail!("the programs under test do not build");
    }
    Ok(folder.to_path_buf())
}
