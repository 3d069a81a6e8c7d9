//! A stand-in of a hub that serves one folder, to try `--bundle hf:ORG/NAME` where there is no network:
//! `cargo run --release -p diptych-tests --example hub -- ORG/NAME FOLDER` prints the `HF_ENDPOINT` to set, and serves until
//! it is interrupted.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use diptych_tests::hub::Hub;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is what it is run for")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "hub ORG/NAME FOLDER";
    let name = arguments.next().and_then(|name| name.into_string().ok()).context(usage)?;
    let folder = PathBuf::from(arguments.next().context(usage)?);
    let hub = Hub::serve(&name, &folder).await?;
    println!("HF_ENDPOINT={}", hub.url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
