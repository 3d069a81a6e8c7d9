//! Where the server is in its life, in words, for probes and health.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use diptych_index::EmbeddedEngine;

use crate::grpc::Conditions;
use crate::models::Models;

/// The parts that health asks.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) engine: Arc<EmbeddedEngine>,
    pub(super) models: Arc<Models>,
}

/// Written by the stages of the server's life, read by probes.
#[derive(Debug)]
pub(super) struct Stage {
    /// Why the server does not serve yet, or no more; empty while it does.
    why_not: ArcSwap<Cow<'static, str>>,
    /// What the last self-test found wrong; empty when it passed.
    failed: ArcSwap<String>,
    watched: OnceLock<Watched>,
}

impl Stage {
    pub(super) fn starting() -> Arc<Self> {
        let why_not = ArcSwap::from_pointee(Cow::Borrowed("opening the bundle and the store"));
        Arc::new(Self { why_not, failed: ArcSwap::default(), watched: OnceLock::new() })
    }

    /// The parts are there: from now on they are asked.
    pub(super) fn watch(&self, watched: Watched) {
        // Parts are made once.
        drop(self.watched.set(watched));
    }

    pub(super) fn set(&self, why_not: impl Into<Cow<'static, str>>) {
        self.why_not.store(Arc::new(why_not.into()));
    }

    /// From now on the server serves for as long as its parts do.
    pub(super) fn serve(&self) {
        self.set("");
    }

    /// Whether the server serves, and why not.
    pub(super) fn readiness(&self) -> Result<(), Cow<'static, str>> {
        let why_not = self.why_not.load();
        if !why_not.is_empty() {
            return Err(Cow::clone(&why_not));
        }
        self.encoding()
    }

    /// Whether inputs become right vectors, and why not.
    fn encoding(&self) -> Result<(), Cow<'static, str>> {
        let failed = self.failed.load();
        match self.watched.get() {
            Some(parts) if !parts.models.healthy() => {
                Err("an encoder thread is dead or stuck".into())
            }
            Some(_) if !failed.is_empty() => Err(String::clone(&failed).into()),
            Some(_) => Ok(()),
            None => Err("the bundle is not open".into()),
        }
    }

    /// Notes how a self-test ended.
    pub(super) fn tested(&self, outcome: Result<(), String>) {
        self.failed.store(Arc::new(outcome.err().unwrap_or_default()));
    }

    /// What health tells apart.
    pub(super) fn conditions(&self) -> Conditions {
        let writing = self.watched.get().is_some_and(|parts| parts.engine.takes_writes());
        let open = self.why_not.load().is_empty();
        Conditions { open, encoding: self.encoding().is_ok(), writing }
    }
}
