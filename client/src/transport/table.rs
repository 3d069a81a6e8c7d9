//! All endpoints and their states; the ready ones as a list that calls read without waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::TransportOptions;
use super::connection::Sender;
use super::endpoint::Endpoint;

/// What an endpoint is doing.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// Making a connection.
    Connecting,
    /// Connected to a server that serves.
    Ready(Sender),
    /// Connected to a server that says it does not serve.
    NotServing,
    /// Not connected, with the reason.
    Down(String),
}

/// An endpoint that takes calls.
#[derive(Debug, Clone)]
pub(super) struct Ready {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) sender: Sender,
}

/// Shared by calls and by the tasks that keep connections.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) options: TransportOptions,
    /// Asks for names to be resolved again.
    pub(super) resolve_again: Notify,
    inner: Mutex<Inner>,
    ready: ArcSwap<Vec<Ready>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    endpoints: Vec<(Arc<Endpoint>, State)>,
    /// Why the name of an authority could not be resolved when it was last tried.
    unresolved: BTreeMap<String, String>,
    /// Whether all names have been asked for once.
    resolved: bool,
}

impl Table {
    pub(super) fn new(options: TransportOptions) -> Self {
        Self {
            options,
            resolve_again: Notify::new(),
            inner: Mutex::default(),
            ready: ArcSwap::default(),
            changed: watch::Sender::default(),
        }
    }

    /// The endpoints that take calls now.
    pub(super) fn ready(&self) -> Arc<Vec<Ready>> {
        self.ready.load_full()
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn add(&self, endpoint: Arc<Endpoint>) {
        self.change(|inner| inner.endpoints.push((endpoint, State::Connecting)));
    }

    pub(super) fn remove(&self, id: u64) {
        self.change(|inner| inner.endpoints.retain(|(endpoint, _)| endpoint.id != id));
    }

    pub(super) fn set(&self, id: u64, state: State) {
        self.change(|inner| {
            let found = inner.endpoints.iter_mut().find(|(endpoint, _)| endpoint.id == id);
            if let Some((_, old)) = found {
                *old = state;
            }
        });
    }

    /// Notes that every name was asked for, and which ones could not be resolved.
    pub(super) fn resolved(&self, unresolved: BTreeMap<String, String>) {
        self.change(|inner| {
            inner.unresolved = unresolved;
            inner.resolved = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner.lock();
        change(&mut inner);
        let ready = inner.endpoints.iter().filter_map(|(endpoint, state)| match state {
            State::Ready(sender) => {
                Some(Ready { endpoint: Arc::clone(endpoint), sender: sender.clone() })
            }
            State::Connecting | State::NotServing | State::Down(_) => None,
        });
        self.ready.store(Arc::new(ready.collect()));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Whether a server was reached; nothing while that is open.
    pub(super) fn reached(&self) -> Option<Result<(), String>> {
        let inner = self.inner.lock();
        let mut open = !inner.resolved;
        for (_, state) in &inner.endpoints {
            match state {
                State::Ready(_) | State::NotServing => return Some(Ok(())),
                State::Connecting => open = true,
                State::Down(_) => {}
            }
        }
        (!open).then(|| Err(inner.summary()))
    }

    /// Every endpoint with its state, for people.
    pub(super) fn summary(&self) -> String {
        self.inner.lock().summary()
    }
}

impl Inner {
    fn summary(&self) -> String {
        let endpoint = |(endpoint, state): &(Arc<Endpoint>, State)| {
            let state = match state {
                State::Connecting => "connecting",
                State::Ready(_) => "ready",
                State::NotServing => "says NOT_SERVING",
                State::Down(why) => why,
            };
            format!("{} {state}", endpoint.address)
        };
        let name = |(name, why): (&String, &String)| format!("{name} {why}");
        let told = self.endpoints.iter().map(endpoint).chain(self.unresolved.iter().map(name));
        told.collect::<Vec<_>>().join("; ")
    }
}
