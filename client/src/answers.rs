//! Answers that come one by one.

use tonic::Streaming;

use crate::error::{Error, Result};
use crate::v1;

/// The answers to the searches of a batch, in the order in which they are done.
#[derive(Debug)]
pub struct Answers(Streaming<v1::BatchSearchResponse>);

impl Answers {
    pub(crate) fn new(stream: Streaming<v1::BatchSearchResponse>) -> Self {
        Self(stream)
    }

    /// The next answer, with its search's place in the batch; `None` after the last one. A search that failed is an answer with
    /// a status. Dropping the rest unread ends the work on it.
    ///
    /// # Errors
    /// A connection that broke. The answers before it stand; the batch is not sent again.
    pub async fn next(&mut self) -> Result<Option<v1::BatchSearchResponse>> {
        self.0.message().await.map_err(Error::from)
    }
}
