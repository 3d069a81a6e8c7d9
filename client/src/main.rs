//! The command `diptych`: search, embed, put, get, delete and list over gRPC.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
