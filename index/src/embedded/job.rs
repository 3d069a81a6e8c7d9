//! The writes of one commit, run in one transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

mod admin;
mod select;

pub(crate) use self::admin::{AdminAnswer, AdminWrite, Restored};
use super::{
    Aliases, Collection, Collections, by_name,
    load::new_entry,
    prepare::{Prepared, PreparedBatch},
    state::{Change, Names, State},
    view::View,
    writer::Write,
};
use crate::{
    background,
    engine::{
        DeleteBatch, DeleteOutcome, PutOutcome, RequestKey, StoredMark, StoredOutcome, Written,
    },
    error::{Error, Rejection, Result},
    store::{
        key::CollectionId,
        record::{AliasRecord, CollectionRecord, ItemRecord, RequestRecord},
        write::{ItemWrite, Unused, WriteTxn},
    },
    types::{CollectionInfo, CollectionSpec, Counts, ItemId},
};

/// An error that ends the transaction; others are answers to one caller.
pub(crate) type Fatal = Error;

/// Answer to one write.
#[derive(Debug)]
pub(crate) enum Answer {
    Put(PutOutcome),
    Delete(DeleteOutcome),
    Created(CollectionInfo),
    Dropped,
    Admin(AdminAnswer),
}

/// A transaction with what it will change in memory.
pub(crate) struct Attempt<'a, 'm> {
    txn: WriteTxn<'m>,
    states: &'m mut HashMap<CollectionId, State>,
    now_ms: u64,
    staged: Staged<'a>,
}

/// What a commit changes in memory.
#[derive(Default)]
pub(crate) struct Staged<'a> {
    changes: BTreeMap<CollectionId, (u64, Vec<Change<'a>>)>,
    created: Vec<Arc<Collection>>,
    dropped: HashSet<CollectionId>,
    /// New settings of collections.
    updated: BTreeMap<CollectionId, CollectionSpec>,
    /// All aliases, when one of them changed.
    aliases: Option<BTreeMap<String, AliasRecord>>,
}

impl<'a, 'm> Attempt<'a, 'm> {
    pub(crate) fn new(
        txn: WriteTxn<'m>,
        states: &'m mut HashMap<CollectionId, State>,
        now_ms: u64,
    ) -> Self {
        Self { txn, states, now_ms, staged: Staged::default() }
    }

    /// Runs one write. The outer error ends the transaction, the inner one is the caller's answer.
    pub(crate) fn run(&mut self, write: &'a Write) -> Result<Result<Answer>, Fatal> {
        match write {
            Write::Put { collection, batch, .. } => self.put(collection, batch),
            Write::Delete { collection, batch, .. } => self.delete(collection, batch),
            Write::Create { spec, .. } => self.create(spec),
            Write::Drop { collection, .. } => self.drop_collection(collection),
            Write::Admin { write, .. } => Ok(self.admin(write)?.map(Answer::Admin)),
        }
    }

    pub(crate) fn commit(mut self, unused: Unused) -> Result<Staged<'a>, Fatal> {
        for (collection, (sequence, _)) in &self.staged.changes {
            if !self.staged.dropped.contains(collection) {
                self.txn.put_sequence(*collection, *sequence)?;
            }
        }
        self.txn.commit(unused)?;
        Ok(self.staged)
    }

    fn put(
        &mut self,
        collection: &Arc<Collection>,
        batch: &'a PreparedBatch,
    ) -> Result<Result<Answer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        if let Some(answer) = self.repeated(collection.id, batch.request.as_ref())? {
            return Ok(answer);
        }
        let mut results = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            results.push(match item {
                Ok(item) => self.put_item(collection.id, item)?,
                Err(rejection) => Err(rejection.clone()),
            });
            background::pause();
        }
        let generation = self.sequence(collection.id);
        let outcome = PutOutcome { results, generation, note: batch.note.clone() };
        self.remember(collection.id, batch.request.as_ref(), || {
            StoredOutcome::Put(outcome.clone())
        })?;
        if let Some(mark) = &batch.mark {
            let stored = StoredMark { value: mark.value.clone(), outcome: outcome.clone() };
            self.txn.put_mark(&mark.key, &stored)?;
        }
        Ok(Ok(Answer::Put(outcome)))
    }

    fn put_item(
        &mut self,
        collection: CollectionId,
        item: &'a Prepared,
    ) -> Result<Result<Written, Rejection>, Fatal> {
        let old = self.txn.item(collection, &item.id)?;
        let actual = old.as_ref().map(|old| old.version);
        if let Some(expected) = item.expected_version
            && expected != actual.unwrap_or(0)
        {
            return Ok(Err(Rejection::VersionConflict { expected, actual }));
        }
        let version = self.next_sequence(collection);
        let record = ItemRecord {
            version,
            modality: item.modality,
            group: item.group.clone(),
            metadata: item.metadata.clone(),
            source: item.source.reference(),
            created_at_ms: old.as_ref().map_or(self.now_ms, |old| old.created_at_ms),
            updated_at_ms: self.now_ms,
        };
        let names = self.states.get_mut(&collection).map(State::names);
        let entry = match names {
            Some(names) => new_entry(item.id.clone(), &record, names),
            None => new_entry(item.id.clone(), &record, &mut Names::default()),
        };
        let write = ItemWrite {
            id: &item.id,
            record,
            source: &item.source,
            vectors: &item.vectors,
            storage: item.storage,
        };
        self.txn.put_item(collection, &write, old.as_ref())?;
        self.change(collection, Change::Put { entry: Arc::new(entry), vectors: &item.vectors });
        Ok(Ok(Written { version, created: old.is_none() }))
    }

    fn delete(
        &mut self,
        collection: &Arc<Collection>,
        batch: &DeleteBatch,
    ) -> Result<Result<Answer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        if let Some(answer) = self.repeated(collection.id, batch.request.as_ref())? {
            return Ok(answer);
        }
        let (ids, not_found) = self.select(collection.id, &batch.selection)?;
        let deleted = ids.len() as u64;
        if let Some(expected) = batch.expected_count.filter(|expected| *expected != deleted) {
            return Ok(Err(Error::CountMismatch { expected, actual: deleted }));
        }
        for id in &ids {
            self.delete_item(collection.id, id)?;
            background::pause();
        }
        let generation = self.sequence(collection.id);
        let outcome = DeleteOutcome { deleted, not_found, generation };
        self.remember(collection.id, batch.request.as_ref(), || StoredOutcome::Delete(outcome))?;
        Ok(Ok(Answer::Delete(outcome)))
    }

    fn delete_item(&mut self, collection: CollectionId, id: &ItemId) -> Result<bool, Fatal> {
        let Some(old) = self.txn.item(collection, id)? else { return Ok(false) };
        let generation = self.next_sequence(collection);
        self.txn.delete_item(collection, (id, &old), generation)?;
        self.change(collection, Change::Delete { id: id.clone(), generation });
        Ok(true)
    }

    fn create(&mut self, spec: &CollectionSpec) -> Result<Result<Answer>, Fatal> {
        if self.is_taken(&spec.name)? {
            return Ok(Err(Error::CollectionExists { name: spec.name.clone() }));
        }
        let id = self.txn.fresh_collection_id()?;
        let record = CollectionRecord { id, spec: spec.clone(), created_at_ms: self.now_ms };
        self.txn.put_collection(&record)?;
        self.staged.created.push(Arc::new(Collection::new(&record, View::new(spec, 0))));
        Ok(Ok(Answer::Created(CollectionInfo {
            number: id,
            spec: spec.clone(),
            created_at_ms: self.now_ms,
            generation: 0,
            counts: Counts::default(),
            index: Vec::new(),
        })))
    }

    fn drop_collection(&mut self, collection: &Arc<Collection>) -> Result<Result<Answer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        if let Some(alias) = self.txn.alias_of(collection.id)? {
            let name = collection.spec.name.clone();
            return Ok(Err(Error::CollectionHasAlias { name, alias }));
        }
        self.txn.drop_collection(&collection.spec.name, collection.id)?;
        self.staged.dropped.insert(collection.id);
        Ok(Ok(Answer::Dropped))
    }

    fn is_gone(&self, collection: &Collection) -> bool {
        self.staged.dropped.contains(&collection.id) || !self.states.contains_key(&collection.id)
    }

    /// The stored answer of a request that came before.
    fn repeated(
        &self,
        collection: CollectionId,
        request: Option<&RequestKey>,
    ) -> Result<Option<Result<Answer>>, Fatal> {
        let Some(request) = request else { return Ok(None) };
        let Some(found) = self.txn.request(collection, &request.id)? else { return Ok(None) };
        if found.digest != request.digest {
            let request_id = request.id.clone();
            return Ok(Some(Err(Error::RequestConflict { request_id })));
        }
        Ok(Some(Ok(match found.outcome {
            StoredOutcome::Put(outcome) => Answer::Put(outcome),
            StoredOutcome::Delete(outcome) => Answer::Delete(outcome),
        })))
    }

    fn remember(
        &mut self,
        collection: CollectionId,
        request: Option<&RequestKey>,
        outcome: impl FnOnce() -> StoredOutcome,
    ) -> Result<(), Fatal> {
        let Some(request) = request else { return Ok(()) };
        let record =
            RequestRecord { digest: request.digest, at_ms: self.now_ms, outcome: outcome() };
        self.txn.put_request(collection, &request.id, &record)
    }

    fn sequence(&mut self, collection: CollectionId) -> u64 {
        let committed = || {
            let state = self.states.get(&collection);
            state.map_or(0, |state| state.shared.view.load().generation)
        };
        self.staged.changes.get(&collection).map_or_else(committed, |(sequence, _)| *sequence)
    }

    fn next_sequence(&mut self, collection: CollectionId) -> u64 {
        let next = self.sequence(collection) + 1;
        self.staged.changes.entry(collection).or_default().0 = next;
        next
    }

    fn change(&mut self, collection: CollectionId, change: Change<'a>) {
        self.staged.changes.entry(collection).or_default().1.push(change);
    }
}

impl Staged<'_> {
    /// Collections that are no more.
    pub(crate) fn dropped(&self) -> &HashSet<CollectionId> {
        &self.dropped
    }

    /// Shows a commit to the searches.
    pub(crate) fn show(
        self,
        states: &mut HashMap<CollectionId, State>,
        (collections, aliases): (&Collections, &Aliases),
    ) {
        for (id, (generation, changes)) in self.changes {
            if let Some(state) = states.get_mut(&id) {
                state.apply(changes, generation);
            }
        }
        if let Some(changed) = self.aliases {
            aliases.store(Arc::new(changed));
        }
        if self.created.is_empty() && self.dropped.is_empty() && self.updated.is_empty() {
            return;
        }
        for id in &self.dropped {
            states.remove(id);
        }
        for created in self.created {
            let slots = Default::default();
            let state = State::new(Arc::clone(&created), [], Names::default(), slots);
            states.insert(created.id, state);
        }
        for (id, spec) in self.updated {
            if let Some(state) = states.get_mut(&id) {
                state.shared = Arc::new(state.shared.with_spec(spec));
            }
        }
        collections.store(Arc::new(by_name(states.values())));
    }
}

fn missing(collection: &Collection) -> Error {
    Error::CollectionMissing { name: collection.spec.name.clone() }
}
