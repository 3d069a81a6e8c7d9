//! The engines as their callers see them: one suite over every constructor, a model, a killer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is not as it should be, and says how far it got"
)]

mod batches;
mod crash;
mod damage;
mod graphs;
mod items;
mod model;
mod search;
mod support;
