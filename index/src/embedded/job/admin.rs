//! Writes beside items: settings, aliases, notes, and the collections that a snapshot becomes.

use std::sync::Arc;

use super::{Attempt, Fatal, missing};
use crate::{
    embedded::{
        Collection,
        load::new_entry,
        state::{Change, Names, State},
        view::View,
    },
    engine::{AliasChange, CollectionUpdate},
    error::{Error, Result},
    store::{
        HIDDEN,
        key::{CollectionId, Slot},
        record::{AliasRecord, CollectionRecord, ItemRecord},
        write::{ItemWrite, NewSource},
    },
    types::{CollectionInfo, CollectionSpec, ItemId},
};

/// A write beside items.
#[derive(Debug)]
pub(crate) enum AdminWrite {
    Update {
        collection: Arc<Collection>,
        update: CollectionUpdate,
    },
    Alias(AliasChange),
    Note {
        key: String,
        value: Option<Vec<u8>>,
    },
    /// Makes a collection that nobody sees until it is revealed.
    Hide {
        spec: CollectionSpec,
    },
    /// Puts items into it, as they were.
    Restore {
        collection: Arc<Collection>,
        items: Vec<Restored>,
    },
    /// Gives it its name and the last sequence number of what it was made of.
    Reveal {
        collection: Arc<Collection>,
        name: String,
        sequence: u64,
        created_at_ms: u64,
    },
}

/// An item as a snapshot holds it.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) id: ItemId,
    pub(crate) record: ItemRecord,
    pub(crate) source: NewSource,
    pub(crate) vectors: Vec<(Slot, Vec<f32>)>,
}

/// Answer to an [`AdminWrite`].
#[derive(Debug)]
pub(crate) enum AdminAnswer {
    Info(CollectionInfo),
    /// What the alias stood for before.
    Alias(Option<String>),
    Hidden(Arc<Collection>),
    Done,
}

impl<'a> Attempt<'a, '_> {
    pub(super) fn admin(&mut self, write: &'a AdminWrite) -> Result<Result<AdminAnswer>, Fatal> {
        match write {
            AdminWrite::Update { collection, update } => self.update(collection, *update),
            AdminWrite::Alias(change) => self.alias(change),
            AdminWrite::Note { key, value } => {
                self.txn.put_note(key, value.as_deref())?;
                Ok(Ok(AdminAnswer::Done))
            }
            AdminWrite::Hide { spec } => self.hide(spec),
            AdminWrite::Restore { collection, items } => self.restore(collection, items),
            AdminWrite::Reveal { collection, name, sequence, created_at_ms } => {
                self.reveal(collection, name, (*sequence, *created_at_ms))
            }
        }
    }

    /// Whether a collection or an alias has this name.
    pub(super) fn is_taken(&self, name: &str) -> Result<bool, Fatal> {
        Ok(self.txn.has_collection(name)? || self.txn.alias(name)?.is_some())
    }

    fn update(
        &mut self,
        collection: &Arc<Collection>,
        update: CollectionUpdate,
    ) -> Result<Result<AdminAnswer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        let staged = self.staged.updated.get(&collection.id).cloned();
        let mut spec = staged.unwrap_or_else(|| self.present(collection).spec.clone());
        spec.keep_source = update.keep_source.unwrap_or(spec.keep_source);
        let created_at_ms = collection.created_at_ms;
        let record = CollectionRecord { id: collection.id, spec: spec.clone(), created_at_ms };
        self.txn.put_collection(&record)?;
        self.staged.updated.insert(collection.id, spec.clone());
        let info = CollectionInfo { spec, ..self.present(collection).info() };
        Ok(Ok(AdminAnswer::Info(info)))
    }

    /// The collection as it was last committed; a caller may hold an older one.
    fn present(&self, collection: &Arc<Collection>) -> Arc<Collection> {
        let state = self.states.get(&collection.id);
        Arc::clone(state.map_or(collection, |state| &state.shared))
    }

    fn alias(&mut self, change: &AliasChange) -> Result<Result<AdminAnswer>, Fatal> {
        let name = change.name.clone();
        if self.txn.has_collection(&name)? {
            return Ok(Err(Error::CollectionExists { name }));
        }
        let actual = self.txn.alias(&name)?.map(|record| record.name);
        if change.collection.is_none() && actual.is_none() {
            return Ok(Err(Error::AliasMissing { name }));
        }
        if let Some(expected) = &change.expected
            && *expected != actual
        {
            let expected = expected.clone();
            return Ok(Err(Error::AliasMismatch { name, expected, actual }));
        }
        if let Some((collection, expected)) = &change.at_generation {
            let Some(id) = self.number_of(collection) else {
                return Ok(Err(Error::CollectionMissing { name: collection.clone() }));
            };
            let actual = self.sequence(id);
            if actual != *expected {
                let (name, expected) = (collection.clone(), *expected);
                return Ok(Err(Error::GenerationMoved { name, expected, actual }));
            }
        }
        let record = match &change.collection {
            None => None,
            Some(target) => match self.number_of(target) {
                None => return Ok(Err(Error::CollectionMissing { name: target.clone() })),
                Some(collection) => Some(AliasRecord { collection, name: target.clone() }),
            },
        };
        self.txn.put_alias(&name, record.as_ref())?;
        if let Some((key, value)) = &change.note {
            self.txn.put_note(key, Some(value))?;
        }
        self.staged.aliases = Some(self.txn.aliases()?);
        Ok(Ok(AdminAnswer::Alias(actual)))
    }

    /// Number of a collection that callers see, those of this transaction included.
    fn number_of(&self, name: &str) -> Option<CollectionId> {
        if name.starts_with(HIDDEN) {
            return None;
        }
        let created = self.staged.created.iter().map(|made| (made.id, made));
        let known = self.states.iter().map(|(id, state)| (*id, &state.shared));
        created
            .chain(known)
            .find(|(id, found)| found.spec.name == name && !self.staged.dropped.contains(id))
            .map(|(id, _)| id)
    }

    fn hide(&mut self, spec: &CollectionSpec) -> Result<Result<AdminAnswer>, Fatal> {
        let id = self.txn.fresh_collection_id()?;
        let spec = CollectionSpec { name: format!("{HIDDEN}{id}"), ..spec.clone() };
        let record = CollectionRecord { id, spec, created_at_ms: self.now_ms };
        self.txn.put_collection(&record)?;
        let view = View::new(&record.spec, 0);
        let hidden = Arc::new(Collection::new(&record, view));
        self.staged.created.push(Arc::clone(&hidden));
        Ok(Ok(AdminAnswer::Hidden(hidden)))
    }

    fn restore(
        &mut self,
        collection: &Arc<Collection>,
        items: &'a [Restored],
    ) -> Result<Result<AdminAnswer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        for item in items {
            let names = self.states.get_mut(&collection.id).map(State::names);
            let entry = match names {
                Some(names) => new_entry(item.id.clone(), &item.record, names),
                None => new_entry(item.id.clone(), &item.record, &mut Names::default()),
            };
            let old = self.txn.item(collection.id, &item.id)?;
            let write = ItemWrite {
                id: &item.id,
                record: item.record.clone(),
                source: &item.source,
                vectors: &item.vectors,
                storage: collection.spec.storage,
            };
            self.txn.put_item(collection.id, &write, old.as_ref())?;
            self.reach_sequence(collection.id, item.record.version);
            let change = Change::Put { entry: Arc::new(entry), vectors: &item.vectors };
            self.change(collection.id, change);
        }
        Ok(Ok(AdminAnswer::Done))
    }

    fn reveal(
        &mut self,
        collection: &Arc<Collection>,
        name: &str,
        (sequence, created_at_ms): (u64, u64),
    ) -> Result<Result<AdminAnswer>, Fatal> {
        if self.is_gone(collection) {
            return Ok(Err(missing(collection)));
        }
        if self.is_taken(name)? {
            return Ok(Err(Error::CollectionExists { name: name.to_owned() }));
        }
        self.reach_sequence(collection.id, sequence);
        self.txn.put_log_floor(collection.id, sequence)?;
        let spec = CollectionSpec { name: name.to_owned(), ..collection.spec.clone() };
        let record = CollectionRecord { id: collection.id, spec: spec.clone(), created_at_ms };
        self.txn.rename_collection(&collection.spec.name, &record)?;
        self.staged.updated.insert(collection.id, spec.clone());
        let generation = self.sequence(collection.id);
        let info = self.present(collection).info();
        Ok(Ok(AdminAnswer::Info(CollectionInfo { spec, generation, ..info })))
    }

    /// Sets the sequence number, which never falls.
    fn reach_sequence(&mut self, collection: CollectionId, sequence: u64) {
        let reached = self.sequence(collection).max(sequence);
        self.staged.changes.entry(collection).or_default().0 = reached;
    }
}
