//! The engines as their callers see them: one suite over every constructor, a model, a killer.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is not as it should be, and says how far it got"
)]

mod admin;
mod batches;
mod crash;
mod damage;
mod explain;
mod formats;
mod graphs;
mod items;
mod model;
mod pages;
mod prefix;
mod property;
mod recall;
mod search;
mod segments;
mod snapshots;
mod support;
mod swaps;
mod windows;
