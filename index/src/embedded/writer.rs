//! The one thread that writes. It takes what waits (group commit), runs it in one transaction,
//! commits, shows it to the searches, and only then answers: acknowledged is durable and visible.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Collection, Collections,
    job::{Answer, Attempt, Fatal},
    prepare::PreparedBatch,
    state::{BuildOrder, Built, State},
};
use crate::{
    engine::{DeleteBatch, DeleteOutcome, PutOutcome},
    error::{Error, Kind, Result},
    store::{Store, env::is_map_full, key::CollectionId, write::Unused},
    types::{CollectionInfo, CollectionSpec},
};

/// Most writes in one commit.
const GROUP_MAX: usize = 256;
/// Most times the map is doubled for one commit.
const GROW_MAX: usize = 24;
/// How often a disk that refused is asked whether it takes writes again.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

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
}

impl Write {
    fn answer(self, answer: Result<Answer>) {
        match (self, answer) {
            (Self::Put { reply, .. }, Ok(Answer::Put(outcome))) => reply.send(Ok(outcome)),
            (Self::Delete { reply, .. }, Ok(Answer::Delete(outcome))) => reply.send(Ok(outcome)),
            (Self::Create { reply, .. }, Ok(Answer::Created(info))) => reply.send(Ok(info)),
            (Self::Drop { reply, .. }, Ok(Answer::Dropped)) => reply.send(Ok(())),
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
        }
    }
}

/// What reaches the writing thread.
#[derive(Debug)]
pub(crate) enum Message {
    Write(Box<Write>),
    Built(Built),
    /// Answered when no graph is due or under way.
    Settle(oneshot::Sender<()>),
    Close,
}

/// The writing thread's own data.
pub(crate) struct Writer {
    pub(crate) store: Arc<Store>,
    pub(crate) collections: Arc<Collections>,
    pub(crate) states: HashMap<CollectionId, State>,
    pub(crate) orders: mpsc::Sender<BuildOrder>,
    pub(crate) exact_below: usize,
    pub(crate) now_ms: fn() -> u64,
    pub(crate) settling: Vec<oneshot::Sender<()>>,
    /// The disk refused the last write.
    pub(crate) refused: Arc<AtomicBool>,
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
                    Message::Built(built) => self.publish(built),
                    Message::Settle(sender) => self.settling.push(sender),
                    Message::Close => close = true,
                }
                let more = !close && group.len() < GROUP_MAX;
                next = if more { messages.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.write(group, Unused::Remove);
                self.tidy_all();
            }
            self.settle();
            if close {
                return;
            }
        }
    }

    /// What comes next; until it does, a disk that refused is asked now and then.
    fn next(&self, messages: &mpsc::Receiver<Message>) -> Option<Message> {
        while self.refused.load(Ordering::Relaxed) {
            match messages.recv_timeout(PROBE_PERIOD) {
                Err(RecvTimeoutError::Timeout) => self.probe(),
                received => return received.ok(),
            }
        }
        messages.recv().ok()
    }

    fn publish(&mut self, built: Built) {
        let collection = built.collection;
        if let Some(state) = self.states.get_mut(&collection) {
            state.publish(built);
        }
        self.tidy(collection);
    }

    fn settle(&mut self) {
        if !self.states.values().any(State::is_building) {
            for sender in self.settling.drain(..) {
                if sender.send(()).is_err() {
                    tracing::debug!("the one who waited for graphs has left");
                }
            }
        }
    }

    fn tidy_all(&mut self) {
        let ids: Vec<_> = self.states.keys().copied().collect();
        for id in ids {
            self.tidy(id);
        }
    }

    fn tidy(&mut self, id: CollectionId) {
        let Some(state) = self.states.get_mut(&id) else { return };
        for order in state.tidy(id, self.exact_below) {
            // The builder ends only after this thread was told to close.
            drop(self.orders.send(order));
        }
    }

    /// One commit. When it fails, each write gets its own try, so that one that can't be stored
    /// does not take its neighbours down. Files stay then: the first of them may free one that a
    /// later one placed already.
    fn write(&mut self, group: Vec<Write>, unused: Unused) {
        match self.try_group(&group, unused) {
            Ok(answers) => {
                self.refused.store(false, Ordering::Relaxed);
                for (write, answer) in group.into_iter().zip(answers) {
                    write.answer(answer);
                }
            }
            Err(error) if group.len() == 1 => {
                if error.kind() == Kind::Unavailable {
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

    /// Finds out whether the disk takes writes again, when no caller does.
    fn probe(&self) {
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
        shown.show(&mut self.states, &self.collections);
        Ok(answers)
    }
}

#[cfg(test)]
mod tests;
