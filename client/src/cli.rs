//! From arguments to an exit code: 0 ok, 1 failure, 2 usage.
//!
//! - `args`: what can be said; `out`: where answers go
//! - `search` (with `like` and `explain`), `embed`, `put`, `items`, `collections`, `recall`, `alias`, `snapshot`, `operation`, `bench`,
//!   `info`: a command each, `alias` with `reembed`, `operation` with `compact`; `models`
//! - `value`, `table`, `pictures`: how things look, as JSON and for people

mod alias;
mod args;
mod bench;
mod collections;
mod embed;
mod explain;
mod info;
mod items;
mod like;
mod models;
mod operation;
mod out;
mod pictures;
mod put;
mod recall;
mod search;
mod snapshot;
mod table;
mod value;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use diptych::{Client, Deadlines, Options, TransportOptions};

use self::args::{Arguments, Command, Shared};
use self::out::{Out, say};

/// What a command comes to when nothing prevented it from being carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All of it is done.
    Done,
    /// Some of it is not, and it was told.
    Partly,
}

/// Reads the arguments, runs the command, and tells what went wrong in one sentence.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, to standard output and with code 0.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match runtime(&arguments.command) {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let outcome = runtime.block_on(run(arguments));
    // A picture that is being read from a slow disk must not hold up the end.
    runtime.shutdown_background();
    match outcome {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partly) => ExitCode::FAILURE,
        Err(error) if out::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// As many threads as there are processors, or as a load asks for: one alone costs least.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    match command {
        Command::Bench(args) if args.threads == 1 => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        }
        Command::Bench(args) => threads.worker_threads(args.threads as usize).enable_all().build(),
        _ => threads.enable_all().build(),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let Arguments { shared, command } = arguments;
    let out = Out::new(shared.json);
    match command {
        Command::Search(args) => search::run(&connect(&shared).await?, &shared, args, out).await?,
        Command::Embed(args) => embed::run(&connect(&shared).await?, args, out).await?,
        Command::Put(args) => return put::run(&shared, args, out).await,
        Command::Get(args) => items::get(&connect(&shared).await?, &shared, args, out).await?,
        Command::Delete(args) => {
            items::delete(&connect(&shared).await?, &shared, args, out).await?;
        }
        Command::Collections(args) => {
            collections::run(&connect(&shared).await?, args.command, out).await?;
        }
        Command::Recall(args) => recall::run(&connect(&shared).await?, &shared, args, out).await?,
        Command::Alias { command } => alias::run(&connect(&shared).await?, command, out).await?,
        Command::Reembed { command } => {
            let client = connect(&shared).await?;
            return alias::reembed(&client, &shared, command, out).await;
        }
        Command::Snapshot { command } => {
            let client = connect(&shared).await?;
            return snapshot::run(&client, &shared, command, out).await;
        }
        Command::Operation { command } => {
            let client = connect(&shared).await?;
            return operation::run(&client, &shared, command, out).await;
        }
        Command::Compact { of, waiting } => {
            let client = connect(&shared).await?;
            return operation::compact(&client, &shared, (of, waiting), out).await;
        }
        Command::Bench(args) => return bench::run(&shared, &args, out).await,
        Command::Models { command } => {
            return models::run(&connect(&shared).await?, &shared, command, out).await;
        }
        Command::Info => info::run(&connect(&shared).await?, out).await?,
    }
    Ok(Outcome::Done)
}

async fn connect(shared: &Shared) -> diptych::Result<Client> {
    let options = Options {
        deadlines: shared.deadline.map(Deadlines::all).unwrap_or_default(),
        // A server that was started a moment ago is waited for until the deadline.
        transport: TransportOptions { ready_wait: Duration::MAX, ..TransportOptions::default() },
        ..Options::default()
    };
    open(shared, options).await
}

/// Connects to the servers that were named, for calls that belong to the trace of whoever runs the command.
async fn open(shared: &Shared, options: Options) -> diptych::Result<Client> {
    let (trace, wrong) = shared.trace.context();
    if let Some(wrong) = wrong {
        say(&format!("diptych: {wrong}"));
    }
    let client = Client::connect_with(&shared.servers(), options).await?;
    Ok(match trace {
        Some(trace) => client.in_trace(trace),
        None => client,
    })
}

fn failed(error: &anyhow::Error) -> ExitCode {
    say(&format!("diptych: {error:#}"));
    std::io::stderr().flush().ok();
    ExitCode::FAILURE
}
