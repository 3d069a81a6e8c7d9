//! Use case: a collection's sources under another bundle, in a new collection beside it, and the alias from one to the other.
//!
//! - `job`: what is written down, so that a restart or a kill loses nothing
//! - `follow`: from the old collection's log of changes to the new one, and the other way after a rollback
//! - `verify`: whether the new collection is as it should be
//! - `turn`: the moment in which the alias moves
//!
//! A job goes `Filling -> Ready -> Finished`, and a rollback takes it from `Finished` back to `Ready`. It ends when one of its
//! two collections is deleted. While it is filling or ready the new collection follows the old one.

mod follow;
mod job;
mod turn;
mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diptych_index::{Alias, CollectionInfo, CollectionSpec, RequestKey};
use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;
use tokio::sync::watch;

use self::follow::Growth;
use self::job::{Job, Phase, Side};
use crate::collections::{check_name_at, dims_of};
use crate::error::{Error, Kind, Result};
use crate::operations::{Handle, OperationView, Outcome, new_name};
use crate::requests::Answer;
use crate::service::{Service, named_at};

/// The method that begins it, as operations are called.
const KIND: &str = "StartReembed";
/// Between two tries while the disk or the server refuses for a while.
const RETRY: Duration = Duration::from_secs(1);

/// A re-embedding in memory. Whoever works on it holds its job.
#[derive(Debug)]
struct Reembed {
    job: tokio::sync::Mutex<Job>,
    /// Its operation has not ended.
    running: AtomicBool,
}

/// All re-embeddings by alias.
#[derive(Debug, Default)]
pub(crate) struct Reembeds {
    by_alias: Mutex<BTreeMap<String, Arc<Reembed>>>,
    /// Moves with every write to any collection: followers look again.
    written: watch::Sender<u64>,
}

impl Reembeds {
    /// Says that something was written.
    pub(crate) fn wake(&self) {
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn find(&self, alias: &str) -> Result<Arc<Reembed>> {
        let found = self.by_alias.lock().get(alias).cloned();
        found.ok_or_else(|| {
            let message =
                format!("there is no change of bundle of {alias:?}: begin with StartReembed");
            Error::precondition(ErrorReason::ReembedState, message).at("alias")
        })
    }

    fn add(&self, job: Job) -> Arc<Reembed> {
        let alias = job.alias.clone();
        let job = tokio::sync::Mutex::new(job);
        let reembed = Arc::new(Reembed { job, running: AtomicBool::new(false) });
        self.by_alias.lock().insert(alias, Arc::clone(&reembed));
        reembed
    }
}

impl Service {
    /// Begins to embed the collection of an alias by another bundle into a new collection. Asked for again after it failed, it
    /// goes on where it was.
    ///
    /// # Errors
    /// An unknown alias or bundle, a name that is taken, FAILED_PRECONDITION `SOURCE_MISSING` for items without a source,
    /// `REEMBED_STATE` while another one of the alias is under way.
    pub async fn start_reembed(
        self: &Arc<Self>,
        alias: &str,
        (digest, collection): (&str, &str),
        request: Option<RequestKey>,
    ) -> Result<OperationView> {
        self.admit()?;
        check_name_at("alias", alias)?;
        check_name_at("collection", collection)?;
        let work = async {
            let begun = self.begin_reembed(alias, digest, collection).await?;
            Ok(Answer::Operation(Box::new(begun)))
        };
        self.requests.once(request, work).await?.operation()
    }

    async fn begin_reembed(
        self: &Arc<Self>,
        alias: &str,
        digest: &str,
        collection: &str,
    ) -> Result<OperationView> {
        let old = self.behind_alias(alias).await?;
        if digest.is_empty() {
            return Err(Error::field("embedding_digest", "is required; ListModels has them"));
        }
        let model = self.models.find(digest).map_err(|error| error.at("embedding_digest"))?;
        if old.spec.embedding_digest.as_deref() == Some(digest) {
            let text = "is the digest of the bundle that the collection is made with";
            return Err(Error::field("embedding_digest", text));
        }
        if let Some(job) = self.begun_before(alias, (digest, collection)).await? {
            return Ok(self.run_reembed(Job { operation: new_name(KIND), ..job }));
        }
        self.check_sources(&old).await?;
        self.models.keep(&model).await?;
        // Not unloaded between this and the collection that needs it.
        let _held = self.models.hold(digest).await.map_err(|error| error.at("embedding_digest"))?;
        let spec = CollectionSpec {
            name: collection.to_owned(),
            embedding_digest: Some(digest.to_owned()),
            dims: dims_of(&model),
            ..old.spec.clone()
        };
        let new = match self.engine.create_collection(spec.clone()).await {
            // A server that was killed before it noted the job left one that nobody has written to.
            Err(error) => match self.engine.collection(collection).await {
                Ok(found) if found.generation == 0 && found.spec == spec => found,
                _ => return Err(named_at("collection", error)),
            },
            Ok(made) => made,
        };
        let job = Job {
            alias: alias.to_owned(),
            operation: new_name(KIND),
            old: Side::of(&old),
            new: Side::of(&new),
            phase: Phase::Filling,
            cursor: 0,
        };
        if let Err(error) = self.save(&job).await {
            self.drop_side(&job.new).await;
            return Err(error);
        }
        Ok(self.run_reembed(job))
    }

    /// The collection that an alias points at; a collection's own name is none.
    async fn behind_alias(&self, alias: &str) -> Result<CollectionInfo> {
        let aliases = self.engine.aliases().await?;
        if !aliases.iter().any(|known| known.name == alias) {
            let missing = Error::missing(ErrorReason::AliasNotFound, "alias", alias);
            return Err(missing.at("alias"));
        }
        self.collection_at("alias", alias).await
    }

    /// A job of the alias that failed and is asked for again: it goes on. One whose new collection is gone is forgotten.
    async fn begun_before(
        &self,
        alias: &str,
        (digest, collection): (&str, &str),
    ) -> Result<Option<Job>> {
        let Ok(known) = self.reembeds.find(alias) else { return Ok(None) };
        let job = known.job.lock().await;
        if job.phase == Phase::Finished {
            return Ok(None);
        }
        let running = known.running.load(Ordering::Acquire);
        match self.side(&job.new).await {
            Err(error) if error.kind() == Kind::NotFound && !running => {
                self.forget(&job, &known).await;
                return Ok(None);
            }
            Err(error) => return Err(error),
            Ok(new) => {
                let same = new.spec.embedding_digest.as_deref() == Some(digest);
                if same && job.new.name == collection && job.phase == Phase::Filling && !running {
                    return Ok(Some(job.clone()));
                }
            }
        }
        let message = format!(
            "the alias has a change of bundle under way, to {:?}: finish it, cancel {}, or delete that collection",
            job.new.name, job.operation
        );
        Err(Error::precondition(ErrorReason::ReembedState, message).at("alias"))
    }

    /// Takes up what a restart or a kill cut off. The door is open by then.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn resume(self: &Arc<Self>) -> Result<()> {
        for (key, value) in self.engine.notes().await? {
            if !key.starts_with(job::NOTE) {
                continue;
            }
            match serde_json::from_slice::<Job>(&value) {
                Ok(job) if job.phase == Phase::Finished => drop(self.reembeds.add(job)),
                Ok(job) => {
                    tracing::info!(alias = job.alias, "a change of bundle goes on");
                    // One that was ready is verified again: the bundle or the index may be another one now.
                    drop(self.run_reembed(Job { phase: Phase::Filling, ..job }));
                }
                Err(error) => tracing::error!(key, %error, "a change of bundle is not readable"),
            }
        }
        Ok(())
    }

    /// Runs a job in the background, as an operation until its new collection is verified.
    fn run_reembed(self: &Arc<Self>, job: Job) -> OperationView {
        let name = job.operation.clone();
        let reembed = self.reembeds.add(job);
        reembed.running.store(true, Ordering::Release);
        let service = Arc::clone(self);
        self.operations.begin_named(KIND, name, |handle| async move {
            let filled = service.fill_reembed(&reembed, &handle).await;
            reembed.running.store(false, Ordering::Release);
            match &filled {
                Ok(_) => drop(tokio::spawn(async move { service.keep_following(&reembed).await })),
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::NotFound) => {
                    service.take_back(&reembed).await;
                }
                // What is there stays: the same call again, or the next start, goes on with it.
                Err(_) => {}
            }
            filled
        })
    }

    /// Fills the new collection and verifies it.
    async fn fill_reembed(&self, reembed: &Reembed, handle: &Handle) -> Result<Outcome> {
        loop {
            let filled = tokio::select! {
                filled = self.fill_once(reembed, handle) => filled,
                () = handle.cancelled.cancelled() => return Err(Error::cancelled()),
            };
            match filled {
                Err(error)
                    if matches!(error.kind(), Kind::Unavailable | Kind::Overloaded)
                        && self.is_ready() =>
                {
                    tracing::warn!(%error, "a change of bundle waits");
                    let wait = error.details().retry_after.unwrap_or(RETRY).max(RETRY);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = handle.cancelled.cancelled() => return Err(Error::cancelled()),
                    }
                }
                done => return done,
            }
        }
    }

    async fn fill_once(&self, reembed: &Reembed, handle: &Handle) -> Result<Outcome> {
        loop {
            let mut job = reembed.job.lock().await;
            let step = self.follow(&mut job, Growth::Bounded).await?;
            handle.progress.expect(step.total.max(1));
            handle.progress.reach(step.there);
            if !step.more {
                self.verify_reembed(&job).await?;
                job.phase = Phase::Ready;
                self.save(&job).await?;
                let info = self.engine.collection(&job.new.name).await?;
                return Ok(Outcome::Collection(Box::new(self.seen(info).await?)));
            }
        }
    }

    /// Follows the old collection until the alias has moved or one of the two is gone.
    async fn keep_following(&self, reembed: &Arc<Reembed>) {
        let mut written = self.reembeds.written.subscribe();
        loop {
            // Seen before the log is read, so that a write after that wakes this again.
            written.borrow_and_update();
            let mut job = reembed.job.lock().await;
            if job.phase != Phase::Ready || !self.is_ready() {
                return;
            }
            match self.follow(&mut job, Growth::Allowed).await {
                Ok(step) if step.more => continue,
                Ok(_) => {}
                Err(error) if error.kind() == Kind::NotFound => {
                    tracing::info!(
                        alias = job.alias,
                        "a change of bundle ended: a collection is gone"
                    );
                    self.forget(&job, reembed).await;
                    return;
                }
                // The one who finishes meets it again, and is told.
                Err(error) => tracing::warn!(alias = job.alias, %error, "a change of bundle waits"),
            }
            drop(job);
            if written.changed().await.is_err() {
                return;
            }
        }
    }

    /// Moves the alias to the new collection.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `REEMBED_STATE` before it is ready, `VERIFICATION_FAILED`, `SOURCE_MISSING`; ABORTED
    /// `ALIAS_MISMATCH` when somebody moved the alias elsewhere.
    pub async fn finish_reembed(&self, alias: &str, request: Option<RequestKey>) -> Result<Alias> {
        self.admit()?;
        let work = async {
            let reembed = self.reembeds.find(alias)?;
            let mut job = reembed.job.lock().await;
            match job.phase {
                Phase::Filling => {
                    let message = format!("the operation {} has not ended well yet", job.operation);
                    return Err(Error::precondition(ErrorReason::ReembedState, message).at("alias"));
                }
                Phase::Ready => self.turn(&mut job).await.map_err(|error| error.at("alias"))?,
                Phase::Finished => {}
            }
            Ok(Answer::Alias(Some(job.new.name.clone())))
        };
        alias_of(alias, self.requests.once(request, work).await?)
    }

    /// Takes what was written since back to the old collection, and moves the alias there.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `REEMBED_STATE` when it is not finished, `BUNDLE_MISSING`, `SOURCE_MISSING`; NOT_FOUND when the old
    /// collection is gone.
    pub async fn rollback_reembed(
        self: &Arc<Self>,
        alias: &str,
        request: Option<RequestKey>,
    ) -> Result<Alias> {
        self.admit()?;
        let work = async {
            let reembed = self.reembeds.find(alias)?;
            let mut job = reembed.job.lock().await;
            if job.phase != Phase::Finished {
                let message = format!(
                    "it is not finished, so that there is nothing to take back: cancel {} or delete {:?} to end it",
                    job.operation, job.new.name
                );
                return Err(Error::precondition(ErrorReason::ReembedState, message).at("alias"));
            }
            self.turn(&mut job).await.map_err(|error| error.at("alias"))?;
            let old = job.old.name.clone();
            drop(job);
            let service = Arc::clone(self);
            tokio::spawn(async move { service.keep_following(&reembed).await });
            Ok(Answer::Alias(Some(old)))
        };
        alias_of(alias, self.requests.once(request, work).await?)
    }
}

fn alias_of(alias: &str, answer: Answer) -> Result<Alias> {
    match answer {
        Answer::Alias(Some(collection)) => Ok(Alias { name: alias.to_owned(), collection }),
        _ => Err(Error::internal("a request has the answer of another method")),
    }
}
