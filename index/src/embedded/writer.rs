//! The one thread that writes. It takes what waits (group commit), runs it in one transaction,
//! commits, shows it to the searches, and only then answers: acknowledged is durable and visible.

use std::{
    collections::HashMap,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Aliases, Collection, Collections,
    builder::{Done, Order, Outcome},
    job::{AdminAnswer, AdminWrite, Answer, Attempt, Fatal},
    prepare::PreparedBatch,
    segment::file::{Files, Place},
    slots::Policy,
    state::State,
};
use crate::{
    engine::{DeleteBatch, DeleteOutcome, PutOutcome},
    error::{Error, Kind, Result},
    store::{
        Store,
        env::is_map_full,
        key::{CollectionId, Slot},
        manifest::Manifest,
        write::Unused,
    },
    types::{CollectionInfo, CollectionSpec},
};

/// Most writes in one commit.
const GROUP_MAX: usize = 256;
/// Most times the map is doubled for one commit.
const GROW_MAX: usize = 24;
/// How often a disk that refused is asked whether it takes writes again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

mod reserve;

pub(crate) use self::reserve::Reserve;

/// Where an answer goes, and the place in the queue that is given back with it.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    pub(crate) sender: oneshot::Sender<Result<T>>,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl<T> Reply<T> {
    fn send(self, answer: Result<T>) {
        // A caller that left does not need its answer.
        drop(self.sender.send(answer));
        drop(self.permit);
    }
}

/// A write.
#[derive(Debug)]
pub(crate) enum Write {
    Put { collection: Arc<Collection>, batch: PreparedBatch, reply: Reply<PutOutcome> },
    Delete { collection: Arc<Collection>, batch: DeleteBatch, reply: Reply<DeleteOutcome> },
    Create { spec: CollectionSpec, reply: Reply<CollectionInfo> },
    Drop { collection: Arc<Collection>, reply: Reply<()> },
    Admin { write: AdminWrite, reply: Reply<AdminAnswer> },
}

impl Write {
    fn answer(self, answer: Result<Answer>) {
        match (self, answer) {
            (Self::Put { reply, .. }, Ok(Answer::Put(outcome))) => reply.send(Ok(outcome)),
            (Self::Delete { reply, .. }, Ok(Answer::Delete(outcome))) => reply.send(Ok(outcome)),
            (Self::Create { reply, .. }, Ok(Answer::Created(info))) => reply.send(Ok(info)),
            (Self::Drop { reply, .. }, Ok(Answer::Dropped)) => reply.send(Ok(())),
            (Self::Admin { reply, .. }, Ok(Answer::Admin(answer))) => reply.send(Ok(answer)),
            (write, Ok(_)) => write.fail(Error::internal("an answer of another write")),
            (write, Err(error)) => write.fail(error),
        }
    }

    fn fail(self, error: Error) {
        match self {
            Self::Put { reply, .. } => reply.send(Err(error)),
            Self::Delete { reply, .. } => reply.send(Err(error)),
            Self::Create { reply, .. } => reply.send(Err(error)),
            Self::Drop { reply, .. } => reply.send(Err(error)),
            Self::Admin { reply, .. } => reply.send(Err(error)),
        }
    }

    /// Whether it gives room back, so that it may use what is held for a full disk.
    fn frees(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Drop { .. })
    }
}

/// What reaches the writing thread.
#[derive(Debug)]
pub(crate) enum Message {
    Write(Box<Write>),
    Done(Done),
    /// Answered when nothing is due or under way in the building thread.
    Settle(oneshot::Sender<()>),
    /// Answered when the collection's rows are one segment each, without ended ones.
    Compact(Arc<Collection>, oneshot::Sender<Result<()>>),
    Close,
}

/// The writing thread's own data.
pub(crate) struct Writer {
    pub(crate) store: Arc<Store>,
    pub(crate) collections: Arc<Collections>,
    pub(crate) aliases: Arc<Aliases>,
    pub(crate) states: HashMap<CollectionId, State>,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) files: Arc<Files>,
    pub(crate) exact_below: usize,
    pub(crate) idle_after: Duration,
    pub(crate) last_write: Instant,
    pub(crate) now_ms: fn() -> u64,
    pub(crate) settling: Vec<oneshot::Sender<()>>,
    pub(crate) compacting: Vec<(CollectionId, oneshot::Sender<Result<()>>)>,
    /// The disk refused the last write.
    pub(crate) refused: Arc<AtomicBool>,
    /// Room on the disk that deletes may use when it is full.
    pub(crate) reserve: Reserve,
    /// When a disk that refused was last asked.
    pub(crate) probed: Instant,
}

impl Writer {
    /// Runs until told to close, or until nobody can send any more.
    pub(crate) fn run(mut self, messages: &mpsc::Receiver<Message>) {
        self.tidy_all();
        while let Some(first) = self.next(messages) {
            let mut group = Vec::new();
            let mut next = Some(first);
            let mut close = false;
            while let Some(message) = next {
                match message {
                    Message::Write(write) => group.push(*write),
                    Message::Done(done) => self.publish(done),
                    Message::Settle(sender) => self.start_settling(sender),
                    Message::Compact(collection, sender) => self.compact(&collection, sender),
                    Message::Close => close = true,
                }
                let more = !close && group.len() < GROUP_MAX;
                next = if more { messages.try_recv().ok() } else { None };
            }
            if self.refused.load(Ordering::Relaxed) && self.probed.elapsed() >= PROBE_PERIOD {
                self.probe();
            }
            if !group.is_empty() {
                self.last_write = Instant::now();
                self.write(group, Unused::Remove);
                self.tidy_all();
            }
            self.settle();
            self.answer_compacted();
            if close {
                return;
            }
        }
    }

    /// What comes next. Until it does, a disk that refused is asked now and then, and what is due
    /// at a later time is looked at.
    fn next(&mut self, messages: &mpsc::Receiver<Message>) -> Option<Message> {
        while self.refused.load(Ordering::Relaxed) || self.states.values().any(State::waits) {
            match messages.recv_timeout(PROBE_PERIOD) {
                Err(RecvTimeoutError::Timeout) => {
                    if self.refused.load(Ordering::Relaxed) {
                        self.probe();
                    }
                    self.tidy_all();
                }
                received => return received.ok(),
            }
        }
        messages.recv().ok()
    }

    fn publish(&mut self, done: Done) {
        let (collection, slot) = (done.collection, done.slot);
        match self.states.get_mut(&collection) {
            Some(state) => {
                state.publish(done);
                self.commit_manifest(collection, slot);
                self.tidy(collection);
            }
            None => {
                // It was dropped while the segment was made.
                if let Outcome::Merged { segment: Some(segment), .. } = done.outcome {
                    self.files.remove(&Place { collection, slot, number: segment.number });
                }
                self.files.remove_collection(collection);
            }
        }
    }

    /// Names the files of a slot, if that has changed and all are there; then those go that are
    /// named no more.
    fn commit_manifest(&mut self, collection: CollectionId, slot: Slot) {
        let Some(state) = self.states.get_mut(&collection) else { return };
        let Some(manifest) = state.manifest(slot) else { return };
        match name_segments(&self.store, (collection, slot), &manifest) {
            Ok(()) => {
                for number in state.slot_mut(slot).commit(manifest) {
                    self.files.remove(&Place { collection, slot, number });
                }
            }
            Err(error) => {
                tracing::warn!(cause = error.chain(), "a list of segments was not committed");
                state.slot_mut(slot).note_refused();
            }
        }
    }

    fn start_settling(&mut self, sender: oneshot::Sender<()>) {
        self.states.values_mut().for_each(State::retry);
        self.tidy_all();
        self.settling.push(sender);
    }

    fn settle(&mut self) {
        if !self.states.values().any(State::is_busy) {
            for sender in self.settling.drain(..) {
                if sender.send(()).is_err() {
                    tracing::debug!("the one who waited for the index has left");
                }
            }
        }
    }

    fn compact(&mut self, collection: &Collection, sender: oneshot::Sender<Result<()>>) {
        let Some(state) = self.states.get_mut(&collection.id) else {
            let name = collection.spec.name.clone();
            return drop(sender.send(Err(Error::CollectionMissing { name })));
        };
        state.compact();
        self.compacting.push((collection.id, sender));
        self.tidy(collection.id);
    }

    fn answer_compacted(&mut self) {
        let waiting = std::mem::take(&mut self.compacting);
        for (id, sender) in waiting {
            let answer = match self.states.get(&id) {
                Some(state) if !state.is_compact() => {
                    self.compacting.push((id, sender));
                    continue;
                }
                Some(state) if !state.is_saved() => Err(Error::NotCommitted {
                    cause: "the disk refused a segment, which is tried again".to_owned(),
                    kind: Kind::Unavailable,
                }),
                Some(_) => Ok(()),
                None => Err(Error::internal("the collection was dropped while it was compacted")),
            };
            // Whoever left does not need the answer.
            drop(sender.send(answer));
        }
    }

    fn tidy_all(&mut self) {
        let ids: Vec<_> = self.states.keys().copied().collect();
        for id in ids {
            self.tidy(id);
        }
    }

    fn tidy(&mut self, id: CollectionId) {
        let idle = self.last_write.elapsed() >= self.idle_after;
        for slot in Slot::ALL {
            self.commit_manifest(id, slot);
        }
        let Some(state) = self.states.get_mut(&id) else { return };
        for order in state.tidy(Policy { exact_below: self.exact_below, idle }) {
            // The builder ends only after this thread was told to close.
            drop(self.orders.send(order));
        }
    }

    /// One commit. When it fails, each write gets its own try, so that one that can't be stored
    /// does not take its neighbours down. Files stay then: the first of them may free one that a
    /// later one placed already.
    ///
    /// When the disk is full, a delete gets what is held in reserve, since a delete needs new pages
    /// before it gives any back. From then on all that could use up the rest is refused without a
    /// try, until [`Writer::probe`] has filled the reserve again.
    fn write(&mut self, group: Vec<Write>, unused: Unused) {
        let group = if self.reserve.is_spent() { refuse_growth(group) } else { group };
        if group.is_empty() {
            return;
        }
        match self.try_group(&group, unused) {
            Ok(answers) => {
                if !self.reserve.is_spent() {
                    self.refused.store(false, Ordering::Relaxed);
                }
                for (write, answer) in group.into_iter().zip(answers) {
                    write.answer(answer);
                }
            }
            Err(error) if group.len() == 1 => {
                let error = self.named_full(error);
                let full = error.kind() == Kind::Full;
                if full && group.iter().all(Write::frees) && self.reserve.spend() {
                    tracing::warn!("the disk is full: a delete takes what is held in reserve");
                    self.refused.store(true, Ordering::Relaxed);
                    return self.write(group, unused);
                }
                if full || error.kind() == Kind::Unavailable {
                    self.refused.store(true, Ordering::Relaxed);
                }
                let cause = error.chain();
                tracing::error!(cause, "a write was not committed");
                for write in group {
                    write.answer(Err(error.not_committed()));
                }
            }
            Err(error) => {
                tracing::warn!(
                    cause = error.chain(),
                    "a commit failed; its writes are tried alone"
                );
                for write in group {
                    self.write(vec![write], Unused::Keep);
                }
            }
        }
    }

    /// The error by its name, when what broke a write is that the disk is full.
    fn named_full(&self, error: Error) -> Error {
        match error {
            Error::Io { action, path, source }
                if source.kind() != ErrorKind::StorageFull && self.reserve.is_disk_full() =>
            {
                tracing::warn!(%source, "a write failed on a full disk");
                Error::io(action, path, ErrorKind::StorageFull.into())
            }
            error => error,
        }
    }

    /// Finds out whether the disk takes writes again, when no caller does.
    fn probe(&mut self) {
        self.probed = Instant::now();
        if !self.reserve.refill() {
            return;
        }
        let probed = self.store.write().and_then(|mut txn| {
            txn.put_probe()?;
            txn.commit(Unused::Keep)
        });
        if probed.is_ok() {
            tracing::info!("the store takes writes again");
            self.refused.store(false, Ordering::Relaxed);
        }
    }

    fn try_group(&mut self, group: &[Write], unused: Unused) -> Result<Vec<Result<Answer>>, Fatal> {
        for _ in 0..GROW_MAX {
            match self.attempt(group, unused) {
                Err(error) if is_map_full(&error) => self.store.grow()?,
                result => return result,
            }
        }
        Err(Error::internal("the map of the store is full after growing"))
    }

    fn attempt(&mut self, group: &[Write], unused: Unused) -> Result<Vec<Result<Answer>>, Fatal> {
        let store = Arc::clone(&self.store);
        let mut attempt = Attempt::new(store.write()?, &mut self.states, (self.now_ms)());
        let mut answers = Vec::with_capacity(group.len());
        for write in group {
            answers.push(attempt.run(write)?);
        }
        let shown = attempt.commit(unused)?;
        for &dropped in shown.dropped() {
            self.files.remove_collection(dropped);
        }
        shown.show(&mut self.states, (&self.collections, &self.aliases));
        Ok(answers)
    }
}

fn name_segments(
    store: &Store,
    (collection, slot): (CollectionId, Slot),
    manifest: &Manifest,
) -> Result<()> {
    let attempt = || -> Result<()> {
        let mut txn = store.write()?;
        txn.put_manifest(collection, slot, manifest)?;
        txn.commit(Unused::Keep)
    };
    for _ in 0..GROW_MAX {
        match attempt() {
            Err(error) if is_map_full(&error) => store.grow()?,
            result => return result,
        }
    }
    Err(Error::internal("the map of the store is full after growing"))
}

/// Answers what needs room on a full disk, and gives back the rest.
fn refuse_growth(group: Vec<Write>) -> Vec<Write> {
    let (frees, grows): (Vec<_>, Vec<_>) = group.into_iter().partition(Write::frees);
    for write in grows {
        let cause = "the disk is full".to_owned();
        write.fail(Error::NotCommitted { cause, kind: Kind::Full });
    }
    frees
}

#[cfg(test)]
mod tests;
