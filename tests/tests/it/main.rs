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
mod ask;
mod bad_input;
mod bench;
mod cancelled;
mod crasher;
mod disk;
mod docs;
mod foreign;
mod history;
mod hub;
mod ingest;
mod ingest_client;
mod invariance;
mod lifecycle;
mod like;
mod memory;
mod models;
mod observe;
mod power;
mod put;
mod recovery;
mod reembed;
mod restarts;
mod snapshot;
mod tidy;
