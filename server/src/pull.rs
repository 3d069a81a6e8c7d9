//! `diptych-server pull`: a checkpoint of a hub into the cache, so that a server finds it there.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;

use crate::hub::{self, Fetched, Settings, Spec};

/// The word that calls it, first on the command line.
pub const NAME: &str = "pull";

/// Fetches a checkpoint of a hub into the cache, or checks that the cache has it, and tells every file with its digest.
///
/// Reads the variables HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_TOKEN_PATH as the hub's other clients do. A
/// transfer that broke off goes on where it was.
#[derive(Debug, Parser)]
#[command(name = "diptych-server pull")]
struct Arguments {
    /// The checkpoint: hf:ORG/NAME@REVISION, the revision a branch, a tag or a commit hash.
    checkpoint: Spec,
    /// File with the token of a private repository [built-in: the one that the hub's other clients left in HF_HOME].
    #[arg(long, env = "DIPTYCH_HF_TOKEN_FILE", value_name = "FILE")]
    hf_token_file: Option<PathBuf>,
}

/// Runs it with its arguments, its own name first, in an environment. Gives what is to be printed.
///
/// # Errors
/// What clap says of the arguments, call for help included; a checkpoint that cannot be had.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(String, String)],
) -> anyhow::Result<String> {
    let arguments = Arguments::try_parse_from(arguments)?;
    let settings = Settings::of_environment(environment, arguments.hf_token_file);
    let fetched = hub::fetch(&arguments.checkpoint, &settings)?;
    Ok(report(&fetched))
}

fn report(Fetched { folder, record }: &Fetched) -> String {
    let files = record
        .files
        .iter()
        .map(|file| format!("{}  {:>12}  {}\n", file.sha256, file.length, file.path));
    let files: String = files.collect();
    let pinned = format!("hf:{}@{}", record.repository, record.commit);
    format!("{files}{}\nServe it:\n  diptych-server --bundle {pinned}", folder.display())
}
