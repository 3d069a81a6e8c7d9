//! Use case: rewrite what is derived from a collection without what was deleted.

use std::sync::Arc;

use crate::error::Result;
use crate::operations::{OperationView, Outcome};
use crate::service::Service;

impl Service {
    /// Begins to compact a collection.
    ///
    /// # Errors
    /// NOT_FOUND.
    pub async fn compact(self: &Arc<Self>, collection: &str) -> Result<OperationView> {
        self.admit()?;
        let name = self.collection(collection).await?.spec.name;
        let service = Arc::clone(self);
        Ok(self.operations.begin("Compact", |handle| async move {
            service.engine.compact(&name, handle.progress).await?;
            let info = service.collection(&name).await?;
            Ok(Outcome::Collection(Box::new(service.seen(info).await?)))
        }))
    }
}
