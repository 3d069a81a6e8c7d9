//! The programs under test, built once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

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

/// `tests/shim/NAME.c` as a library for `LD_PRELOAD`, compiled once for each process that asks.
///
/// # Errors
/// When the C compiler, which the store's own build needs too, does not do it.
pub fn shim(name: &str) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = built.get(name) {
        return Ok(library.clone());
    }
    let library = compile(name)?;
    built.insert(name.to_owned(), library.clone());
    Ok(library)
}

fn compile(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a test without a folder")?;
    let source = checkout().join("tests/shim").join(name).with_extension("c");
    let library = folder.join(format!("libdiptych-{name}.so"));
    // Beside and renamed: another test process may be loading it.
    let fresh = folder.join(format!("libdiptych-{name}-{}.so", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&fresh, &source])
        .args(["-lpthread", "-ldl"])
        .output()
        .context("the C compiler does not start")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::rename(fresh, &library)?;
    Ok(library)
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
