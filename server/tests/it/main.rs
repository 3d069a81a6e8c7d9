//! Every service over a real connection, in this process: a temporary engine and a tiny bundle with untrained weights.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

mod aliases;
mod checkpoints;
mod collections;
mod connections;
mod embedding;
mod every_call;
mod explain;
mod export;
mod ingest;
mod items;
mod live_models;
mod pages;
mod probability;
mod recall;
mod reembed;
mod refusals;
mod resets;
mod search;
mod shutdown;
mod snapshots;
mod starts;
mod support;
mod wire;
