//! Work that outlives a call: what runs, how far it is, and what came of it.
//!
//! Operations live in memory. Those that must survive a restart (re-embedding) keep their own state in the store and are
//! registered again under their name when the server starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diptych_index::{Progress, SnapshotInfo};
use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::collections::CollectionView;
use crate::error::{Error, Result};
use crate::page::Mark;
use crate::service::{DEFAULT_PAGE_SIZE, Service};

/// How long an operation is kept that has ended.
const RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Most operations kept that have ended; beyond, the oldest goes.
const MOST: usize = 1000;

/// The result of an operation that went well.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A snapshot was made.
    Snapshot(SnapshotInfo),
    /// A collection was made or rewritten.
    Collection(Box<CollectionView>),
}

/// An operation as callers see it.
#[derive(Debug, Clone)]
pub struct OperationView {
    /// Its name.
    pub name: String,
    /// The method that began it.
    pub kind: &'static str,
    /// Share done, 0 to 1.
    pub progress: f64,
    /// What came of it, once it has ended.
    pub outcome: Option<Result<Outcome>>,
    /// When it began, milliseconds since 1970-01-01 UTC.
    pub created_ms: u64,
    /// When it last moved.
    pub updated_ms: u64,
}

/// All operations that are not forgotten yet.
#[derive(Debug, Default)]
pub struct Operations(Mutex<Registry>);

#[derive(Debug, Default)]
struct Registry {
    /// In the order in which they began.
    all: BTreeMap<u64, Arc<Operation>>,
    last: u64,
}

/// What an operation's work is given.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// How far it is, and whether it shall end.
    pub(crate) progress: Arc<Progress>,
    /// Cancelled with the operation, for work that waits.
    pub(crate) cancelled: CancellationToken,
}

#[derive(Debug)]
struct Operation {
    name: String,
    kind: &'static str,
    handle: Handle,
    created_ms: u64,
    /// Share that was last seen, and when it was first seen.
    moved: Mutex<(f64, u64)>,
    outcome: watch::Sender<Option<Result<Outcome>>>,
}

impl Operation {
    fn view(&self) -> OperationView {
        let outcome = self.outcome.borrow().clone();
        let share = match &outcome {
            Some(Ok(_)) => 1.0,
            _ => self.handle.progress.share(),
        };
        let mut moved = self.moved.lock();
        if moved.0 < share {
            *moved = (share, now_ms());
        }
        OperationView {
            name: self.name.clone(),
            kind: self.kind,
            progress: share,
            outcome,
            created_ms: self.created_ms,
            updated_ms: moved.1,
        }
    }

    fn is_done(&self) -> bool {
        self.outcome.borrow().is_some()
    }
}

impl Operations {
    /// Begins work under a name of its own. It goes on when its caller leaves.
    pub(crate) fn begin<F>(
        &self,
        kind: &'static str,
        work: impl FnOnce(Handle) -> F,
    ) -> OperationView
    where
        F: Future<Output = Result<Outcome>> + Send + 'static,
    {
        self.begin_named(kind, new_name(kind), work)
    }

    /// [`Operations::begin`] under a known name: work that a restart cut off goes on.
    pub(crate) fn begin_named<F>(
        &self,
        kind: &'static str,
        name: String,
        work: impl FnOnce(Handle) -> F,
    ) -> OperationView
    where
        F: Future<Output = Result<Outcome>> + Send + 'static,
    {
        let handle = Handle { progress: Arc::default(), cancelled: CancellationToken::new() };
        let operation = Arc::new(Operation {
            name,
            kind,
            handle: handle.clone(),
            created_ms: now_ms(),
            moved: Mutex::new((0.0, now_ms())),
            outcome: watch::Sender::new(None),
        });
        self.register(&operation);
        let running = tokio::spawn(work(handle));
        let ended = Arc::clone(&operation);
        tokio::spawn(async move {
            let outcome = running.await;
            let outcome =
                outcome.unwrap_or_else(|_| Err(Error::internal("the operation ended early")));
            if let Err(error) = &outcome {
                tracing::warn!(kind = ended.kind, name = ended.name, %error, "an operation failed");
            }
            *ended.moved.lock() = (ended.handle.progress.share(), now_ms());
            ended.outcome.send_replace(Some(outcome));
        });
        operation.view()
    }

    fn register(&self, operation: &Arc<Operation>) {
        let mut registry = self.0.lock();
        registry.last += 1;
        let number = registry.last;
        registry.all.insert(number, Arc::clone(operation));
        let oldest = now_ms().saturating_sub(u64::try_from(RETENTION.as_millis()).unwrap_or(0));
        let done = registry.all.values().filter(|known| known.is_done()).count();
        let mut surplus = done.saturating_sub(MOST);
        registry.all.retain(|_, known| {
            let old = known.is_done() && (surplus > 0 || known.moved.lock().1 < oldest);
            surplus = surplus.saturating_sub(usize::from(old));
            !old
        });
    }

    fn find(&self, name: &str) -> Result<Arc<Operation>> {
        if name.is_empty() {
            return Err(Error::field("name", "is required"));
        }
        let registry = self.0.lock();
        let found = registry.all.values().find(|known| known.name == name).cloned();
        let missing = || Error::missing(ErrorReason::OperationNotFound, "operation", name);
        found.ok_or_else(|| missing().at("name"))
    }

    /// Asks one to end, by name.
    pub(crate) fn cancel(&self, name: &str) -> Result<()> {
        let operation = self.find(name)?;
        operation.handle.progress.cancel();
        operation.handle.cancelled.cancel();
        Ok(())
    }
}

/// A name that says what it is and is never given twice.
pub(crate) fn new_name(kind: &str) -> String {
    format!("{}-{}", kind.to_lowercase(), uuid::Uuid::new_v4().simple())
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Service {
    /// One operation.
    ///
    /// # Errors
    /// NOT_FOUND `OPERATION_NOT_FOUND`.
    pub fn operation(&self, name: &str) -> Result<OperationView> {
        self.admit()?;
        Ok(self.operations.find(name)?.view())
    }

    /// A page of operations, newest first, and the token of the next.
    ///
    /// # Errors
    /// A bad size or token.
    pub fn list_operations(
        &self,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<OperationView>, String)> {
        /// Listings of operations differ in nothing but their page.
        const QUERY: [u8; 32] = *b"diptych.v1.ListOperations.......";
        self.admit()?;
        let sizes = (DEFAULT_PAGE_SIZE, self.limits.page_size);
        let size = Self::bounded("page_size", page_size, sizes)?;
        let before = match self.pages.read(&QUERY, page_token)? {
            Some(mark) => mark.generation,
            None => u64::MAX,
        };
        let registry = self.operations.0.lock();
        let page: Vec<_> = registry.all.range(..before).rev().take(size).collect();
        let last = page.last().map(|(number, _)| **number);
        let more = last.is_some_and(|last| registry.all.range(..last).next().is_some());
        let mark = last.filter(|_| more).map(|number| Mark::listed(number, String::new()));
        let token = mark.map(|mark| self.pages.issue(&QUERY, &mark));
        let views = page.into_iter().map(|(_, operation)| operation.view()).collect();
        Ok((views, token.unwrap_or_default()))
    }

    /// Asks an operation to end; what it did is taken back.
    ///
    /// # Errors
    /// NOT_FOUND `OPERATION_NOT_FOUND`.
    pub fn cancel_operation(&self, name: &str) -> Result<()> {
        self.admit()?;
        self.operations.cancel(name)
    }

    /// An operation once it has ended, or as it is when the time is up.
    ///
    /// # Errors
    /// NOT_FOUND `OPERATION_NOT_FOUND`.
    pub async fn wait_operation(&self, name: &str, time: Duration) -> Result<OperationView> {
        self.admit()?;
        let operation = self.operations.find(name)?;
        let mut outcome = operation.outcome.subscribe();
        // All ways out are fine: it has ended, or it is told as it is.
        tokio::select! {
            _ = tokio::time::timeout(time, outcome.wait_for(Option::is_some)) => {}
            () = self.winding_down.cancelled() => {}
        }
        Ok(operation.view())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn operations_that_ended_are_forgotten_oldest_first_and_those_that_run_are_not() {
        let operations = Operations::default();
        let running = operations.begin("Compact", |handle| async move {
            handle.cancelled.cancelled().await;
            Err(Error::cancelled())
        });
        let mut names = Vec::new();
        for _ in 0..MOST + 5 {
            let made = operations.begin("Compact", |_| async { Err(Error::internal("no")) });
            let mut outcome = operations.find(&made.name).unwrap().outcome.subscribe();
            outcome.wait_for(Option::is_some).await.unwrap();
            names.push(made.name);
        }
        assert!(operations.find(&names[0]).is_err());
        assert!(operations.find(&names[MOST + 4]).is_ok());
        let mut outcome = operations.find(&running.name).unwrap().outcome.subscribe();
        operations.cancel(&running.name).unwrap();
        outcome.wait_for(Option::is_some).await.unwrap();
    }
}
