//! gRPC over the encoders and the index.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | settings: flag, environment, file, built-in; checked whole |
//! | [`app`] | wires the parts, serves, drains; the only place that makes long-lived things |
//! | [`grpc`] | the wire: field checks, one file per service, errors to statuses |
//! | [`service`] | what use cases share; [`embedding`], [`retrieval`], [`items`], [`collections`], [`aliases`], [`snapshots`], [`reembed`], [`compaction`], [`ingest`], [`export`], [`loading`], [`activation`], [`self_test`] are they |
//! | [`operations`] | work that outlives a call: progress, outcome, cancelling, waiting |
//! | [`encoder`] | one thread and queue per tower behind an async handle: admission, lanes, batches, cache |
//! | [`overload`] | how many calls of a method are let in when more come than can be answered |
//! | [`memory`], `process_status` | how much the process may hold; what Linux tells of it |
//! | [`models`] | bundles by digest |
//! | [`hub`], [`pull`] | checkpoints of a Hugging Face hub: `--bundle hf:...`, and the command `pull` |
//! | [`page`], `reply`, `requests`, `gates` | page tokens, the size of replies, repeated requests, when writes wait |
//! | [`sample`] | the built-in bundle and collection |
//! | [`listen`], [`limits`], [`deadline`] | connections within limits; what the transport takes; the deadline of the call that runs |
//! | [`probe`] | a golden input through a bundle's queues, now and then |
//! | [`ops`], [`observe`] | /livez, /readyz; /metrics, request ids, traces |
//! | [`telemetry`], [`timings`] | logs; where the time of one search went |
//! | [`bench_index`] | the command `bench-index`: graphs measured on a file of vectors |

pub mod activation;
pub mod aliases;
pub mod app;
pub mod bench_index;
mod callers;
pub mod collections;
pub mod compaction;
pub mod config;
pub mod deadline;
pub mod embedding;
pub mod encoder;
pub mod error;
pub mod explain;
pub mod export;
mod gates;
pub mod grpc;
pub mod hub;
pub mod ingest;
pub mod items;
pub mod limits;
pub mod listen;
pub mod loading;
pub mod memory;
pub mod models;
pub mod observe;
pub mod operations;
pub mod ops;
pub mod overload;
pub mod page;
mod probability;
pub mod probe;
mod process_status;
pub mod pull;
pub mod recall;
pub mod reembed;
mod reply;
mod requests;
pub mod retrieval;
pub mod sample;
pub mod self_test;
pub mod service;
pub mod snapshots;
pub mod telemetry;
pub mod timings;
