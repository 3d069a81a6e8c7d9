//! gRPC over the encoders and the index.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | settings: flag, environment, file, built-in; checked whole |
//! | [`app`] | wires the parts, serves, drains; the only place that makes long-lived things |
//! | [`grpc`] | the wire: field checks, one file per service, errors to statuses |
//! | [`service`] | what use cases share; [`embedding`], [`retrieval`], [`items`], [`collections`] are they |
//! | [`encoder`] | one thread and queue per tower behind an async handle |
//! | [`models`] | bundles by digest |
//! | [`page`], `reply`, `requests` | page tokens, the size of replies, repeated requests |
//! | [`sample`] | the built-in bundle and collection |
//! | [`ops`] | /livez and /readyz |
//! | [`telemetry`] | logs |

pub mod app;
pub mod collections;
pub mod config;
pub mod embedding;
pub mod encoder;
pub mod error;
pub mod grpc;
pub mod items;
pub mod models;
pub mod ops;
pub mod page;
mod reply;
mod requests;
pub mod retrieval;
pub mod sample;
pub mod service;
pub mod telemetry;
