//! The system as its users see it: real programs, real sockets, a data folder of its own for every test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]
#![expect(
    clippy::print_stdout,
    reason = "a failed test shows what led to it, and just long its figures"
)]

mod accuracy;
mod bad_input;
mod docs;
mod foreign;
mod invariance;
mod lifecycle;
mod put;
mod recovery;
mod tidy;
