//! Rust client of Diptych, a gRPC service for cross-modal retrieval.
//!
//! A [`Client`] is connected to one server or to several and is cheap to clone. A call goes to a server that says it serves, has a
//! deadline, is sent again when that is safe and may help, and fails with an [`Error`] whose [`Kind`] and reason a program can
//! branch on.
//!
//! ```no_run
//! use diptych::{Client, Kind, v1};
//!
//! # async fn example() -> Result<(), diptych::Error> {
//! let client = Client::connect("127.0.0.1:50051").await?;
//! let request = v1::SearchTextToImageRequest {
//!     collection: "emoji".to_owned(),
//!     text: "a red heart".to_owned(),
//!     one_per_group: true,
//!     ..Default::default()
//! };
//! for hit in client.search_text_to_image(request).await?.hits {
//!     println!("{} {:.3}", hit.id, hit.score);
//! }
//! match client.get_item(diptych::get_item("emoji", "no such id")).await {
//!     Err(error) if error.kind() == Kind::NotFound => println!("{error}"),
//!     other => println!("{:?}", other?),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`]: a method for each thing one does; the generated clients for all else
//! - [`Answers`]: those of a batch of searches, as they come
//! - [`Ingest`]: items over a stream that outlives its connections, with their [`Outcomes`]
//! - [`Options`]: [`Deadlines`], [`RetryPolicy`] with its [`RetryBudget`], [`Hedge`], [`TransportOptions`]
//! - [`Transport`]: connections to all servers, as a service for generated clients
//! - [`TraceContext`]: the trace that calls belong to
//! - [`Error`]: kind, reason, fields at fault, when to come back
//! - the functions: short ways to make common requests
//! - [`v1`]: the messages of the contract

mod answers;
mod call;
mod client;
mod deadline;
mod error;
mod hedge;
mod ingest;
mod options;
mod request;
mod retry;
mod trace;
mod transport;

pub use diptych_proto::v1;

pub use self::answers::Answers;
pub use self::call::Statistics;
pub use self::client::Client;
pub use self::deadline::Deadlines;
pub use self::error::{Error, FieldViolation, Kind, Resource, Result};
pub use self::hedge::Hedge;
pub use self::ingest::{Ingest, Ingested, Outcomes};
pub use self::options::Options;
pub use self::request::{
    all_of, any_of, components, equals, get_item, image_item, mask, text_item, value,
};
pub use self::retry::{RetryBudget, RetryPolicy};
pub use self::trace::{TraceContext, TraceContextError};
pub use self::transport::{Transport, TransportError, TransportOptions};
