//! Use case: all items of a collection, page by page.
//!
//! Each page is read at one moment, and nothing is held between two of them: no transaction, no file, no generation. So a
//! reader may take as long as it likes without keeping old data on the disk, and a page in memory is all that it costs.

use std::sync::Arc;

use diptych_index::{CollectionInfo, Fields, Filter, Item, ItemId, Scan};

use crate::error::Result;
use crate::service::{Service, named_at};

/// Items looked for at a time; a page ends earlier where one message would be full.
const PAGE_ITEMS: usize = 256;

/// An export under way.
#[derive(Debug)]
pub struct Export {
    service: Arc<Service>,
    collection: CollectionInfo,
    filter: Option<Arc<Filter>>,
    fields: Fields,
    after: Option<ItemId>,
    done: bool,
}

/// Some items.
#[derive(Debug)]
pub struct ExportPage {
    /// In the order of ids.
    pub items: Vec<Item>,
    /// Generation of the collection when they were read.
    pub generation: u64,
}

impl Service {
    /// Begins an export behind the id `after`.
    ///
    /// # Errors
    /// A missing collection.
    pub async fn export(
        self: &Arc<Self>,
        collection: &str,
        filter: Option<Filter>,
        (fields, after): (Fields, Option<ItemId>),
    ) -> Result<Export> {
        self.admit()?;
        let collection = self.collection(collection).await?;
        let (service, filter) = (Arc::clone(self), filter.map(Arc::new));
        Ok(Export { service, collection, filter, fields, after, done: false })
    }
}

impl Export {
    /// The next items, of which there may be none though more follow; `None` at the end.
    ///
    /// # Errors
    /// A filter that is refused, a collection that was deleted meanwhile, an item that no message can hold.
    pub async fn page(&mut self) -> Result<Option<ExportPage>> {
        if self.done {
            return Ok(None);
        }
        let scan = Scan {
            after: self.after.clone(),
            limit: PAGE_ITEMS,
            modality: None,
            group: None,
            filter: self.filter.clone(),
            fields: Fields::default(),
        };
        let name = &self.collection.spec.name;
        let page = self.service.engine.scan(name, scan).await;
        let page = page.map_err(|error| named_at("collection", error))?;
        let whole = self.service.whole_page(&self.collection, page.items, self.fields).await?;
        // Both reads were by name, which may be another collection's by now.
        self.service.same(&self.collection).await?;
        let (items, next) = whole;
        let next = next.or(page.next);
        self.done = next.is_none();
        self.after = next;
        Ok(Some(ExportPage { items, generation: page.generation }))
    }
}
