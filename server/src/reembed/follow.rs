//! From one collection's log of changes to the other collection.

use std::sync::Arc;

use bytes::Bytes;
use diptych_index::{
    ChangeKind, CollectionInfo, DeleteBatch, Engine, Fields, ItemId, Modality, NewItem, PutBatch,
    Scan, Selection, Vectors,
};
use diptych_proto::v1::ErrorReason;
use tokio::task::JoinSet;

use super::job::{Job, Side};
use crate::embedding::Input;
use crate::encoder::{Lane, Work};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::service::Service;

/// Changes taken over in one step: their sources are in memory together.
const STEP: usize = 32;
/// Items of a page of a listing.
const PAGE: usize = 1000;
/// Ids of items without a source that an error names.
const NAMED: usize = 5;

/// What a step came to.
pub(super) struct Step {
    /// Whether there are more changes.
    pub(super) more: bool,
    /// Generation of the collection whose changes were read.
    pub(super) generation: u64,
    /// Items that are to be there, and those that are.
    pub(super) total: u64,
    pub(super) there: u64,
}

/// Whether a step may make the server hold more than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Puts wait for room.
    Bounded,
    /// The few that keep both sides alike are put in any case: with them the old side can go.
    Allowed,
}

impl Service {
    /// Takes over the next changes and notes how far it came.
    ///
    /// # Errors
    /// NOT_FOUND when one of the collections is gone; FAILED_PRECONDITION `SOURCE_MISSING`, `BUNDLE_MISSING`, or an item that
    /// the bundle cannot embed; a store that refuses; no memory for more, where it goes with room.
    pub(super) async fn follow(&self, job: &mut Job, growth: Growth) -> Result<Step> {
        let (from, to) = job.way();
        let (source, target) = (self.side(from).await?, self.side(to).await?);
        let model = self.encoders_of(&target)?;
        let page = self.engine.changes(&from.name, job.cursor, STEP).await?;
        if !page.complete {
            self.remove_surplus(from, to).await?;
        }
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        let last = page.changes.last().map(|change| change.sequence);
        for change in page.changes {
            match change.kind {
                ChangeKind::Put => puts.push(change.id),
                ChangeKind::Deleted => deletes.push(change.id),
            }
        }
        // An item that was deleted and put again has both entries, the delete first.
        self.delete_ids(&target, deletes).await?;
        if growth == Growth::Bounded && !puts.is_empty() {
            self.memory.check()?;
        }
        let items = self.embed_anew(&model, &from.name, puts).await?;
        if !items.is_empty() {
            self.put_over(&target, items).await?;
        }
        if let Some(last) = last {
            job.cursor = last;
            self.save(job).await?;
        }
        let there = self.engine.collection(&target.spec.name).await?.counts.total();
        let total = source.counts.total();
        Ok(Step { more: page.more, generation: page.generation, total, there })
    }

    async fn put_over(&self, target: &CollectionInfo, items: Vec<NewItem>) -> Result<()> {
        let batch = PutBatch { items, collection: Some(target.number), ..PutBatch::default() };
        let outcome = self.engine.put(&target.spec.name, batch).await?;
        for result in outcome.results {
            result?;
        }
        Ok(())
    }

    async fn delete_ids(&self, target: &CollectionInfo, ids: Vec<ItemId>) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let selection = Selection::Ids(ids);
        let batch = DeleteBatch { selection, expected_count: None, request: None };
        self.engine.delete(&target.spec.name, batch).await?;
        Ok(())
    }

    /// Items as they are now, with vectors of `model`; those that are gone are left out. Behind all callers.
    async fn embed_anew(
        &self,
        model: &Arc<Model>,
        from: &str,
        ids: Vec<ItemId>,
    ) -> Result<Vec<NewItem>> {
        let mut running = JoinSet::new();
        for id in ids {
            let (engine, model) = (Arc::clone(&self.engine), Arc::clone(model));
            let from = from.to_owned();
            running.spawn(async move { embed_one(&*engine, &model, (&from, id)).await });
        }
        let mut items = Vec::new();
        while let Some(done) = running.join_next().await {
            items.extend(done.map_err(|_| Error::internal("an item ended early"))??);
        }
        Ok(items)
    }

    /// Removes what the other side does not have: the log had no room for deletes that were not taken over yet.
    async fn remove_surplus(&self, from: &Side, to: &Side) -> Result<()> {
        let target = self.side(to).await?;
        let mut after = None;
        loop {
            let scan = Scan { after, limit: PAGE, ..Scan::default() };
            let page = self.engine.scan(&to.name, scan).await?;
            let ids: Vec<ItemId> = page.items.into_iter().map(|item| item.id).collect();
            let known = self.engine.get(&from.name, &ids, Fields::default()).await?;
            let gone = ids.into_iter().zip(known).filter(|(_, known)| known.is_none());
            self.delete_ids(&target, gone.map(|(id, _)| id).collect()).await?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Makes sure that every item can be embedded anew.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `SOURCE_MISSING`: how many cannot, some of them, and what to do.
    pub(super) async fn check_sources(&self, old: &CollectionInfo) -> Result<()> {
        let (mut after, mut without, mut named) = (None, 0_u64, Vec::new());
        loop {
            let scan = Scan { after, limit: PAGE, ..Scan::default() };
            let page = self.engine.scan(&old.spec.name, scan).await?;
            for item in page.items.into_iter().filter(|item| item.source_bytes == 0) {
                without += 1;
                if named.len() < NAMED {
                    named.push(item.id.as_str().to_owned());
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if without == 0 {
            return Ok(());
        }
        let total = old.counts.total();
        let message = format!(
            "{without} of {total} items keep no source, among them {}: put them again as pictures or texts while keep_source \
             is on, or delete them",
            named.join(", ")
        );
        Err(Error::precondition(ErrorReason::SourceMissing, message).at("alias"))
    }
}

async fn embed_one(
    engine: &dyn Engine,
    model: &Model,
    (from, id): (&str, ItemId),
) -> Result<Option<NewItem>> {
    let fields = Fields { source: true, vectors: false };
    let found = engine.get(from, std::slice::from_ref(&id), fields).await?.pop().flatten();
    let Some(item) = found else { return Ok(None) };
    let Some(source) = item.source else {
        let message = format!(
            "the item {id} keeps no source: put it again as a picture or a text while keep_source is on, or delete it"
        );
        return Err(Error::precondition(ErrorReason::SourceMissing, message));
    };
    let input = match item.modality {
        Modality::Image => Input::Image(Bytes::from(source.clone())),
        Modality::Text => {
            let text = String::from_utf8(source.clone());
            let text = text.map_err(|_| Error::internal("a stored text is no UTF-8"))?;
            Input::Text { text, truncate: true }
        }
    };
    let embedded =
        model.embed(input, Work::here(Lane::Bulk).patient()).await.map_err(|error| match error
            .kind()
        {
            Kind::Invalid => {
                let message = format!("the new bundle cannot embed the item {id}: {error}");
                Error::precondition(error.details().reason, message)
            }
            _ => error,
        })?;
    Ok(Some(NewItem {
        id,
        modality: item.modality,
        group: item.group,
        metadata: item.metadata,
        source: Some(source),
        vectors: Vectors {
            shared: Some(embedded.vectors.shared),
            exclusive: embedded.vectors.exclusive,
        },
        expected_version: None,
    }))
}
