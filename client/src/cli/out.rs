//! Where answers go: standard output for what was asked for, standard error for what is said about it.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// Answers are for programs.
    pub(crate) json: bool,
    /// Someone looks at them.
    pub(crate) terminal: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Prints a text and a line break.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }

    /// Prints a value as JSON: on one line, or indented where someone looks at it.
    pub(crate) fn value(self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = if self.terminal {
            serde_json::to_string_pretty(value)?
        } else {
            serde_json::to_string(value)?
        };
        Ok(self.line(&text)?)
    }
}

/// Tells something on standard error. When that is closed there is nobody to tell.
pub(crate) fn say(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether the reader of our output has left, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(closed)
}

fn closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
