//! Use case: put, get, list and delete items.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use diptych_index::{
    CollectionInfo, DeleteBatch, DeleteOutcome, Fields, Filter, Item, ItemId, Metadata, Modality,
    NewItem, PutBatch, PutOutcome, Rejection, RequestKey, Scan, Selection, StoredOutcome, Vectors,
    Written,
};
use diptych_proto::v1::ErrorReason;
use tokio::task::JoinSet;

use crate::deadline;
use crate::embedding::Input;
use crate::embedding::InputKind;
use crate::encoder::{Lane, Work};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::observe;
use crate::page::Mark;
use crate::reply::fitting;
use crate::service::{DEFAULT_PAGE_SIZE, Service, named_at};

/// Most ids in one delete.
pub const MAX_DELETE_IDS: usize = 1000;

/// What an item is made from.
#[derive(Debug, Clone)]
pub enum Content {
    /// A picture file.
    Image(Bytes),
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Cut one that is too long.
        truncate: bool,
    },
    /// Vectors made elsewhere.
    Vectors {
        /// Of a picture or a text.
        modality: Modality,
        /// The vectors.
        vectors: Vectors,
    },
}

/// An item to put.
#[derive(Debug, Clone)]
pub struct ItemPut {
    /// Its id.
    pub id: ItemId,
    /// What it is made from.
    pub content: Content,
    /// Its group.
    pub group: Option<String>,
    /// Its metadata.
    pub metadata: Metadata,
    /// The version it must have; 0 for none.
    pub expected_version: Option<u64>,
}

/// An item that was put.
#[derive(Debug, Clone)]
pub struct ItemWritten {
    /// Its id.
    pub id: ItemId,
    /// Version and whether it is new.
    pub written: Written,
    /// Bytes used and total, when its text was cut.
    pub truncation: Option<(usize, usize)>,
}

/// A listing to make.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Name of the collection.
    pub collection: String,
    /// As asked; 0 for the default.
    pub page_size: u32,
    /// As given.
    pub page_token: String,
    /// SHA-256 of the listing without size and token.
    pub digest: [u8; 32],
    /// Only this modality.
    pub modality: Option<Modality>,
    /// Only this group.
    pub group: Option<String>,
    /// Condition on metadata.
    pub filter: Option<Filter>,
    /// Parts to read.
    pub fields: Fields,
}

/// Items to delete.
#[derive(Debug, Clone)]
pub struct ItemDelete {
    /// Name of the collection.
    pub collection: String,
    /// Which items.
    pub selection: Selection,
    /// How many there must be.
    pub expected_count: Option<u64>,
    /// Only count.
    pub dry_run: bool,
    /// Makes the delete repeatable.
    pub request: Option<RequestKey>,
}

/// A page of a listing.
#[derive(Debug, Clone)]
pub struct ItemPage {
    /// In the order of ids.
    pub items: Vec<Item>,
    /// Token of the next page; empty at the end.
    pub next_page_token: String,
    /// Generation of the collection.
    pub generation: u64,
}

/// One of several items: sent to the engine, by its id and what was cut of its text, or refused before that.
pub(crate) type Place = Result<(String, Option<(usize, usize)>)>;

/// An item with its vectors, ready for the engine.
pub(crate) type Prepared = (NewItem, Option<(usize, usize)>);

impl Service {
    /// Puts items. The outer error is of the whole call; each item has its own outcome, aligned with `puts`, where what was
    /// refused before stays refused. Returns the collection's generation too.
    ///
    /// # Errors
    /// A missing collection, a reused request id, an encoder or a store that cannot serve now, no memory for more.
    pub async fn put(
        &self,
        collection: &str,
        puts: Vec<Result<ItemPut>>,
        request: Option<RequestKey>,
    ) -> Result<(Vec<Result<ItemWritten>>, u64)> {
        self.admit()?;
        let (info, _gate) = self.open_to_write(collection).await?;
        if let Some(request) = &request {
            let known = self.engine.outcome(&info.spec.name, request).await;
            match known.map_err(|error| named_at("collection", error))? {
                Some(StoredOutcome::Put(outcome)) => return told(outcome),
                Some(StoredOutcome::Delete(_)) => {
                    return Err(Error::internal("a put has the outcome of a delete"));
                }
                None => {}
            }
        }
        self.memory.admit()?;
        let model = self.encoders_of(&info);
        let work = Work::here(Lane::Bulk);
        let work = match &model {
            Ok(model) => model.admit_batch(&kinds(&puts), work)?,
            Err(_) => work,
        };
        let (places, items) = apart(prepare(&info, puts, (model, work)).await?);
        if items.is_empty() {
            let refused = places.into_iter().filter_map(Result::err).map(Err);
            return Ok((refused.collect(), info.generation));
        }
        let note = serde_json::to_vec(&places).map_err(unsaid)?;
        let batch = PutBatch { items, request, collection: Some(info.number), note, mark: None };
        let began = Instant::now();
        let outcome = self.engine.put(&info.spec.name, batch).await;
        observe::committed("put", began);
        self.reembeds.wake();
        told(outcome.map_err(|error| named_at("collection", error))?)
    }

    /// One item.
    ///
    /// # Errors
    /// NOT_FOUND for the collection or the item.
    pub async fn item(&self, collection: &str, id: &ItemId, fields: Fields) -> Result<Item> {
        self.admit()?;
        let info = self.collection(collection).await?;
        let item = self.read(&info, std::slice::from_ref(id), fields).await?.pop().flatten();
        let missing = || Error::missing(ErrorReason::ItemNotFound, "item", id.as_str()).at("id");
        item.ok_or_else(missing)
    }

    /// Items by id, aligned with the ids from the first on, as many as one reply holds; `None` where there is none.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` when not even the first fits; a store that fails.
    pub(crate) async fn read(
        &self,
        info: &CollectionInfo,
        ids: &[ItemId],
        fields: Fields,
    ) -> Result<Vec<Option<Item>>> {
        let name = &info.spec.name;
        let mut items = self.engine.get(name, ids, Fields::default()).await?;
        let sizes = (fields, &info.spec.dims);
        let fit = fitting(items.iter().map(Option::as_ref), sizes, self.limits.message_bytes)?;
        items.truncate(fit);
        if fields == Fields::default() {
            return Ok(items);
        }
        Ok(self.engine.get(name, &ids[..fit], fields).await?)
    }

    /// A page of items in the order of ids.
    ///
    /// # Errors
    /// A missing collection, a token of another listing, a filter that is too large.
    pub async fn list(&self, listing: Listing) -> Result<ItemPage> {
        self.admit()?;
        let sizes = (DEFAULT_PAGE_SIZE, self.limits.page_size);
        let limit = Self::bounded("page_size", listing.page_size, sizes)?;
        let info = self.collection(&listing.collection).await?;
        let mark = self.pages.read(&listing.digest, &listing.page_token)?;
        let after = mark.map(|mark| ItemId::try_new(mark.id)).transpose()?;
        let scan = Scan {
            after,
            limit,
            modality: listing.modality,
            group: listing.group,
            filter: listing.filter.map(Arc::new),
            fields: Fields::default(),
        };
        let page = self.engine.scan(&info.spec.name, scan).await?;
        let (items, next) = self.whole_page(&info, page.items, listing.fields).await?;
        let next = next.or(page.next).map(|id| Mark {
            generation: page.generation,
            epoch: 0,
            seen: 0,
            score: 0.0,
            id: id.as_str().to_owned(),
        });
        let next_page_token =
            next.map(|mark| self.pages.issue(&listing.digest, &mark)).unwrap_or_default();
        Ok(ItemPage { items, next_page_token, generation: page.generation })
    }

    /// A page's items with all parts that are asked for, as many as one reply holds, and where the next page begins when
    /// these are not all.
    pub(crate) async fn whole_page(
        &self,
        info: &CollectionInfo,
        mut items: Vec<Item>,
        fields: Fields,
    ) -> Result<(Vec<Item>, Option<ItemId>)> {
        let (found, sizes) = (items.len(), (fields, &info.spec.dims));
        let fit = fitting(items.iter().map(Some), sizes, self.limits.message_bytes)?;
        items.truncate(fit);
        let next = items.last().filter(|_| fit < found).map(|last| last.id.clone());
        if fields != Fields::default() {
            let ids: Vec<ItemId> = items.into_iter().map(|item| item.id).collect();
            let whole = self.engine.get(&info.spec.name, &ids, fields).await?;
            items = whole.into_iter().flatten().collect();
        }
        Ok((items, next))
    }

    /// Deletes items by id, group or filter. A delete by filter needs the count of a dry run.
    ///
    /// # Errors
    /// A missing collection, a count that is another one, a reused request id, a store that refuses.
    pub async fn delete(&self, delete: ItemDelete) -> Result<DeleteOutcome> {
        self.admit()?;
        let ItemDelete { collection, selection, expected_count, dry_run, request } = delete;
        if dry_run {
            let info = self.collection(&collection).await?;
            return Ok(self.engine.matching(&info.spec.name, &selection).await?);
        }
        if matches!(selection, Selection::Filter(_)) && expected_count.is_none() {
            let text = "is required with filter: the count that the same call with dry_run gives";
            return Err(Error::field("expected_count", text));
        }
        let (info, _gate) = self.open_to_write(&collection).await?;
        let batch = DeleteBatch { selection, expected_count, request };
        let began = Instant::now();
        let outcome = self.engine.delete(&info.spec.name, batch).await;
        observe::committed("delete", began);
        self.reembeds.wake();
        Ok(outcome?)
    }
}

/// Embeds what needs it, all at once. An item that is wrong is refused alone; one that met an overload or came too late fails
/// the call, since sending it again will do.
///
/// # Errors
/// An overload, a deadline that passed.
pub(crate) async fn prepare(
    info: &CollectionInfo,
    puts: Vec<Result<ItemPut>>,
    (model, work): (Result<Arc<Model>>, Work),
) -> Result<Vec<Result<Prepared>>> {
    let keep_source = info.spec.keep_source;
    let mut running = JoinSet::new();
    let mut prepared: Vec<Option<Result<Prepared>>> = Vec::new();
    prepared.resize_with(puts.len(), || None);
    for (place, put) in puts.into_iter().enumerate() {
        match put {
            Ok(put) => {
                let made = make(put, (model.clone(), work), keep_source);
                running.spawn(deadline::inherited(async move { (place, made.await) }));
            }
            Err(error) => prepared[place] = Some(Err(error)),
        }
    }
    while let Some(done) = running.join_next().await {
        let (place, outcome) = done.map_err(|_| Error::internal("an item ended early"))?;
        if let Err(error) = &outcome
            && matches!(error.kind(), Kind::Overloaded | Kind::Unavailable | Kind::Deadline)
        {
            return Err(error.clone());
        }
        prepared[place] = Some(outcome);
    }
    let lost = || Error::internal("an item has no outcome");
    Ok(prepared.into_iter().map(|item| item.unwrap_or_else(|| Err(lost()))).collect())
}

/// What is sent to the engine, and the place of each in the caller's list.
pub(crate) fn apart(prepared: Vec<Result<Prepared>>) -> (Vec<Place>, Vec<NewItem>) {
    let mut items = Vec::with_capacity(prepared.len());
    let place = |prepared: Result<Prepared>| {
        prepared.map(|(item, truncation)| {
            let id = item.id.as_str().to_owned();
            items.push(item);
            (id, truncation)
        })
    };
    let places = prepared.into_iter().map(place).collect();
    (places, items)
}

/// What became of every place, of what the engine says of those that were sent to it.
pub(crate) fn aligned(
    places: Vec<Place>,
    results: Vec<Result<Written, Rejection>>,
) -> Vec<Result<ItemWritten>> {
    let mut results = results.into_iter();
    let lost = || Error::internal("an item has no outcome");
    let aligned = places.into_iter().map(|place| {
        let (id, truncation) = place?;
        let written = results.next().ok_or_else(lost)??;
        Ok(ItemWritten { id: ItemId::try_new(id)?, written, truncation })
    });
    aligned.collect()
}

/// The answer to a put, from what the engine stores of it: so a repeat gets the same, without embedding anything again.
fn told(outcome: PutOutcome) -> Result<(Vec<Result<ItemWritten>>, u64)> {
    let unread = |_| Error::internal("what became of the items cannot be read");
    let places: Vec<Place> = serde_json::from_slice(&outcome.note).map_err(unread)?;
    Ok((aligned(places, outcome.results), outcome.generation))
}

/// What cannot be written down.
pub(crate) fn unsaid(_: serde_json::Error) -> Error {
    Error::internal("what became of the items cannot be stored")
}

/// The kinds of inputs that have to be embedded.
fn kinds(puts: &[Result<ItemPut>]) -> Vec<InputKind> {
    let of = |put: &ItemPut| match &put.content {
        Content::Image(_) => Some(InputKind::Image),
        Content::Text { text, .. } => Some(InputKind::Text { bytes: text.len() }),
        Content::Vectors { .. } => None,
    };
    puts.iter().flatten().filter_map(of).collect()
}

async fn make(
    put: ItemPut,
    (model, work): (Result<Arc<Model>>, Work),
    keep_source: bool,
) -> Result<Prepared> {
    let ItemPut { id, content, group, metadata, expected_version } = put;
    let (modality, source, vectors, truncation) = match content {
        Content::Vectors { modality, vectors } => (modality, None, vectors, None),
        Content::Image(image) => {
            let (vectors, cut) = embed(model?, Input::Image(image.clone()), work).await?;
            (Modality::Image, keep_source.then(|| image.into()), vectors, cut)
        }
        Content::Text { text, truncate } => {
            let source = keep_source.then(|| text.clone().into_bytes());
            let (vectors, cut) = embed(model?, Input::Text { text, truncate }, work).await?;
            (Modality::Text, source, vectors, cut)
        }
    };
    let item = NewItem { id, modality, group, metadata, source, vectors, expected_version };
    Ok((item, truncation))
}

async fn embed(
    model: Arc<Model>,
    input: Input,
    work: Work,
) -> Result<(Vectors, Option<(usize, usize)>)> {
    let total = match &input {
        Input::Text { text, .. } => text.len(),
        Input::Image(_) => 0,
    };
    let embedded = model.embed(input, work).await?;
    let vectors =
        Vectors { shared: Some(embedded.vectors.shared), exclusive: embedded.vectors.exclusive };
    Ok((vectors, embedded.used_bytes.map(|used| (used, total))))
}
