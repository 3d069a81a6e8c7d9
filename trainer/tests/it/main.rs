//! The trainer's program, run as a user runs it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be, and says how far it got"
)]

mod commands;
mod kills;
mod support;
