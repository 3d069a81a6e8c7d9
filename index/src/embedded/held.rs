//! Pins of this engine: a view by its generation.

use std::sync::Arc;

use super::{Collection, EmbeddedEngine, pins::Pins, read, view::View};
use crate::{
    engine::{Pin, PinId, StoredVector},
    error::{Error, Result},
    types::{ItemId, Space},
};

impl EmbeddedEngine {
    pub(super) fn pin_now(&self, collection: &str) -> Result<Pin> {
        let collection = self.open_collection(collection)?;
        Ok(self.pin_of(&collection, collection.view.load_full()))
    }

    pub(super) fn keep_pin(&self, collection: &str, pin: &Pin) -> Result<bool> {
        let collection = self.open_collection(collection)?;
        let view = held(&self.pins, &collection, pin)?;
        Ok(self.pins.keep(collection.id, &view, &self.collections))
    }

    pub(super) fn find_pin(&self, collection: &str, id: PinId) -> Result<Option<Pin>> {
        let collection = self.open_collection(collection)?;
        if id.epoch != self.pins.epoch(collection.id) {
            return Ok(None);
        }
        let found = self.pins.find(collection.id, id.generation, &self.collections);
        Ok(found.map(|view| self.pin_of(&collection, view)))
    }

    pub(super) async fn vectors_of_pin(
        &self,
        collection: &str,
        pin: &Pin,
        (ids, space): (&[ItemId], Space),
    ) -> Result<Vec<Option<StoredVector>>> {
        let (ids, pin, pins) = (ids.to_vec(), pin.clone(), Arc::clone(&self.pins));
        self.read(collection, move |store, collection| {
            let view = held(&pins, collection, &pin)?;
            read::vectors_at(store, collection, &view, (&ids, space))
        })
        .await
    }

    fn pin_of(&self, collection: &Collection, view: Arc<View>) -> Pin {
        let epoch = self.pins.epoch(collection.id);
        Pin::new(PinId { generation: view.generation, epoch }, view)
    }
}

/// The view that a pin of this collection holds.
pub(super) fn held(pins: &Pins, collection: &Collection, pin: &Pin) -> Result<Arc<View>> {
    let own = pin.id().epoch == pins.epoch(collection.id);
    let view = if own { pin.held() } else { None };
    // The collection may have been deleted, and made anew, since it was pinned.
    view.ok_or_else(|| Error::CollectionMissing { name: collection.spec.name.clone() })
}
