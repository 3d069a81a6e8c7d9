//! What outlives a call, and listings of it: operations, aliases, snapshots.

use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use crate::error::Result;
use crate::v1;

/// Longest that one call of [`Client::wait`] waits, whatever the deadline of calls is.
const ONE_WAIT: Duration = Duration::from_secs(20);

impl Client {
    /// Waits until an operation has ended, well or not, or `longest` has passed; gives it as it is then.
    ///
    /// # Errors
    /// As every call; NOT_FOUND for an operation that is unknown or forgotten.
    pub async fn wait(&self, name: &str, longest: Duration) -> Result<v1::Operation> {
        let end = Instant::now() + longest;
        // The answer must be here before the call's own deadline.
        let most = ONE_WAIT.min(self.options().deadlines.read / 2);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = prost_types::Duration::try_from(left.min(most)).unwrap_or_default();
            let request =
                v1::WaitOperationRequest { name: name.to_owned(), timeout: Some(timeout) };
            let operation = self.wait_operation(request).await?.operation.unwrap_or_default();
            if operation.done || left.is_zero() {
                return Ok(operation);
            }
        }
    }

    /// All aliases, by name.
    ///
    /// # Errors
    /// As every call.
    pub async fn aliases(&self) -> Result<Vec<v1::Alias>> {
        let mut request = v1::ListAliasesRequest::default();
        let mut aliases = Vec::new();
        loop {
            let page = self.list_aliases(request.clone()).await?;
            aliases.extend(page.aliases);
            if page.next_page_token.is_empty() {
                return Ok(aliases);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All snapshots, newest first; of one collection, or of all when that is empty.
    ///
    /// # Errors
    /// As every call.
    pub async fn snapshots(&self, collection: &str) -> Result<Vec<v1::Snapshot>> {
        let collection = collection.to_owned();
        let mut request = v1::ListSnapshotsRequest { collection, ..Default::default() };
        let mut snapshots = Vec::new();
        loop {
            let page = self.list_snapshots(request.clone()).await?;
            snapshots.extend(page.snapshots);
            if page.next_page_token.is_empty() {
                return Ok(snapshots);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All operations that are not forgotten, newest first.
    ///
    /// # Errors
    /// As every call.
    pub async fn operations(&self) -> Result<Vec<v1::Operation>> {
        let mut request = v1::ListOperationsRequest::default();
        let mut operations = Vec::new();
        loop {
            let page = self.list_operations(request.clone()).await?;
            operations.extend(page.operations);
            if page.next_page_token.is_empty() {
                return Ok(operations);
            }
            request.page_token = page.next_page_token;
        }
    }
}
