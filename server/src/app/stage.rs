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
    watched: OnceLock<Watched>,
}

impl Stage {
    pub(super) fn starting() -> Arc<Self> {
        let why_not = ArcSwap::from_pointee(Cow::Borrowed("opening the bundle and the store"));
        Arc::new(Self { why_not, watched: OnceLock::new() })
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
        match self.watched.get() {
            Some(parts) if parts.models.healthy() => Ok(()),
            _ => Err("an encoder thread is dead or stuck".into()),
        }
    }

    /// What health tells apart.
    pub(super) fn conditions(&self) -> Conditions {
        let writing = self.watched.get().is_some_and(|parts| parts.engine.takes_writes());
        Conditions { serving: self.readiness().is_ok(), writing }
    }
}
