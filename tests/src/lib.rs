//! What the tests of the whole system share. They drive the real programs and know nothing of their insides.
//!
//! - [`mod@program`]: the programs, built once.
//! - [`process`]: a server on free ports that ends with its test.
//! - [`api`]: clients of every service and short ways to make requests.
//! - [`collector`]: a collector of traces.
//! - [`inputs`]: seeded pictures and texts.
//! - [`files`]: files of pictures, part by part.
//! - [`wire`]: messages as bytes.
//! - [`refusal`]: what an error says about itself.
//! - [`foreign`]: clients in Python and JavaScript, which have nothing of ours.
//! - [`hub`]: a stand-in of a hub of checkpoints.
//! - [`emoji`]: questions about the sample collection.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

pub mod api;
pub mod collector;
pub mod emoji;
pub mod files;
pub mod foreign;
pub mod hub;
pub mod inputs;
pub mod process;
pub mod program;
pub mod refusal;
pub mod wire;

pub use api::Api;
pub use hub::Hub;
pub use process::Server;
pub use program::{checkout, program};
pub use refusal::Refusal;
