//! A collection as it was at one generation, searched more than once.

use std::{any::Any, fmt, sync::Arc};

/// Names a held generation, also in page tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PinId {
    /// Generation of the collection.
    pub generation: u64,
    /// The collection in the life of the engine that holds it, never 0: after a restart, or for a
    /// collection that was made anew under its name, it is another one.
    pub epoch: u64,
}

/// A generation of a collection, there for as long as this lives.
#[derive(Clone)]
pub struct Pin {
    id: PinId,
    held: Arc<dyn Any + Send + Sync>,
}

impl Pin {
    /// `held` is what the engine needs to search that generation.
    pub fn new(id: PinId, held: Arc<dyn Any + Send + Sync>) -> Self {
        Self { id, held }
    }

    /// Its name.
    pub fn id(&self) -> PinId {
        self.id
    }

    /// What the engine that made it holds by it; `None` for one of another engine.
    pub fn held<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.held).downcast().ok()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pin").field("id", &self.id).finish_non_exhaustive()
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && Arc::ptr_eq(&self.held, &other.held)
    }
}
