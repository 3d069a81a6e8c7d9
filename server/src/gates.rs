//! When writes wait: a gate for each collection, which every write passes and a moving alias closes.
//!
//! A write resolves the name it was given, embeds, and commits. If the alias moved in between, the write would land in the
//! collection that nobody asks any more. So writes hold the gate of their collection open from before they resolve until they
//! are committed, and the one who moves the alias waits for those under way and lets no new one in for the short time of its
//! last look at the log of changes and the swap. Searches never pass a gate.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Gates that are kept though nobody passes them.
const IDLE_MOST: usize = 1024;

/// Leave to write to a collection.
pub(crate) type WriteGuard = OwnedRwLockReadGuard<()>;

/// A gate for each collection, by its number.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<u32, Arc<RwLock<()>>>>);

impl Gates {
    /// Leave for one write; waits while the gate is closed.
    pub(crate) async fn enter(&self, collection: u32) -> WriteGuard {
        self.of(collection).read_owned().await
    }

    /// Waits for the writes under way and lets no other in until the guard is dropped.
    pub(crate) async fn close(&self, collection: u32) -> OwnedRwLockWriteGuard<()> {
        self.of(collection).write_owned().await
    }

    fn of(&self, collection: u32) -> Arc<RwLock<()>> {
        let mut gates = self.0.lock();
        if gates.len() > IDLE_MOST {
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        Arc::clone(gates.entry(collection).or_default())
    }
}
