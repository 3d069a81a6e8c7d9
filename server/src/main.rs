//! `diptych-server`: settings, then the server, then an exit code.

use std::process::ExitCode;
use std::time::Duration;

use diptych_server::config::{Config, Flags, LogFormat};
use diptych_server::{app, bench_index, pull, telemetry};

/// Settings that are refused (EX_USAGE of sysexits).
const BAD_SETTINGS: u8 = 64;
/// How long threads that still compute may hold up the end, once everything was said and closed.
const LAST_WAIT: Duration = Duration::from_secs(1);

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]
fn main() -> ExitCode {
    if let Some(ran) = other_command() {
        return match ran {
            Ok(report) => {
                println!("{report}");
                ExitCode::SUCCESS
            }
            Err(error) => refused(&error),
        };
    }
    let flags = match Flags::read(std::env::args_os()) {
        Ok(flags) => flags,
        Err(told) => {
            // Help and version arrive here too. A closed output is no reason to say more.
            drop(told.print());
            return if told.use_stderr() { BAD_SETTINGS.into() } else { ExitCode::SUCCESS };
        }
    };
    let config = match Config::resolve(&flags, environment()) {
        Ok(config) => config,
        Err(faults) => {
            eprintln!("{faults}");
            return BAD_SETTINGS.into();
        }
    };
    if flags.check_config {
        println!("{}", config.describe());
        return ExitCode::SUCCESS;
    }
    telemetry::start(config.log_format, &config.log);
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("diptych-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a command other than serving has to print, if the first word calls one.
fn other_command() -> Option<anyhow::Result<String>> {
    let arguments = || std::env::args_os().skip(1);
    let word = arguments().next()?;
    if word == bench_index::NAME {
        return Some(bench_index::run(arguments()));
    }
    if word == pull::NAME {
        telemetry::start(LogFormat::Human, "info");
        return Some(pull::run(arguments(), &environment().collect::<Vec<_>>()));
    }
    None
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Tells what is wrong with a command. Help and version arrive here too.
#[expect(clippy::print_stderr, reason = "a program speaks to its user")]
fn refused(error: &anyhow::Error) -> ExitCode {
    let Some(told) = error.downcast_ref::<clap::Error>() else {
        eprintln!("diptych-server: {error:#}");
        return ExitCode::FAILURE;
    };
    drop(told.print());
    if told.use_stderr() { BAD_SETTINGS.into() } else { ExitCode::SUCCESS }
}

fn serve(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let served = runtime.block_on(app::run(config));
    // Dropping the runtime would wait without end for work that blocks.
    runtime.shutdown_timeout(LAST_WAIT);
    served
}
