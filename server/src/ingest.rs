//! Use case: a stream of puts that is acknowledged item by item, is taken up again after a break, and writes every item once.
//!
//! An *ingest* is what a caller's id names, over all its streams. Its items are numbered from 1; how far it came is its *mark*
//! (`mark.rs`), written in the transaction of the items themselves. One stream of an ingest is open at a time; a new one takes
//! the *seat* of the old (`seats.rs`) once that has finished what it began. A stream works in *chunks*: while one is
//! committed, the next is embedded.

mod mark;
mod seats;

use std::net::IpAddr;
use std::sync::Arc;

use diptych_index::{CollectionInfo, Mark, PutBatch};
use diptych_proto::v1::ErrorReason;
use tokio_util::sync::CancellationToken;

pub(crate) use self::mark::Outcome;
use self::mark::{Progress, Target};
use self::seats::Seat;
pub(crate) use self::seats::{Seats, taken_over};
use crate::encoder::Work;
use crate::error::{Error, Kind, Result};
use crate::gates::WriteGuard;
use crate::items::{ItemPut, Prepared, aligned, apart, prepare};
use crate::service::{Service, named_at};

/// Most items that are read and not yet acknowledged; what became of as many is kept for who lost an acknowledgement.
pub const WINDOW: usize = 64;
/// Most items that are embedded and written together.
pub const CHUNK: usize = WINDOW / 2;
/// Longest id of an ingest in bytes.
const ID_BYTES: usize = 128;
/// Most ingests that are known.
const MARKS: usize = 1000;

/// An open ingest.
#[derive(Debug)]
pub(crate) struct Ingest {
    service: Arc<Service>,
    key: String,
    target: Target,
    progress: Progress,
    seat: Seat,
}

/// Makes chunks ready to be written.
#[derive(Debug, Clone)]
pub(crate) struct Preparer {
    service: Arc<Service>,
    target: Target,
    work: Work,
}

/// A chunk that can be written. No alias moves until it is.
#[derive(Debug)]
pub(crate) struct Ready {
    collection: CollectionInfo,
    items: Vec<Result<Prepared>>,
    _gate: WriteGuard,
}

impl Service {
    /// Opens an ingest or takes it up.
    ///
    /// # Errors
    /// A missing collection; an id that is too long, or used for another collection (ABORTED `REQUEST_ID_REUSED`);
    /// FAILED_PRECONDITION `INGEST_UNKNOWN` for a caller who has seen more acknowledged than is known here; too many ingests;
    /// ABORTED `STREAM_TAKEN_OVER`.
    pub(crate) async fn open_ingest(
        self: &Arc<Self>,
        collection: String,
        id: &str,
        acknowledged: u64,
        caller: Option<IpAddr>,
    ) -> Result<Ingest> {
        match id.len() {
            0 => return Err(Error::field("ingest_id", "is required")),
            1..=ID_BYTES => {}
            length => {
                let sizes = ("bytes", ID_BYTES as u64, length as u64);
                return Err(Error::limit(ErrorReason::FieldInvalid, "ingest_id", sizes));
            }
        }
        let info = self.collection(&collection).await?;
        let target = Target::new(collection, &info);
        let seat = self.ingests.take(id, caller).await?;
        let key = format!("{}{id}", mark::KEY);
        let known = self.engine.mark(&key).await?.map(mark::read).transpose()?.flatten();
        let progress = match known {
            Some(known) if known.target.goes_on_as(&target) => known.progress,
            // That collection is gone, and the ingest with it.
            Some(known) if known.target.name == target.name => Progress::default(),
            Some(_) => return Err(reused()),
            None => Progress::default(),
        };
        if acknowledged > progress.durable {
            return Err(unknown(acknowledged, progress.durable));
        }
        if progress.durable == 0 {
            self.forget_ingests().await;
        }
        Ok(Ingest { service: Arc::clone(self), key, target, progress, seat })
    }

    /// Makes room for one more mark. What cannot be removed now is removed later.
    async fn forget_ingests(&self) {
        let forgotten = async {
            for key in mark::outlived(self.engine.marks().await?, MARKS - 1) {
                let open = key.strip_prefix(mark::KEY).is_some_and(|id| self.ingests.is_taken(id));
                if !open {
                    self.engine.forget_mark(&key).await?;
                }
            }
            Ok::<(), diptych_index::Error>(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "marks of old ingests could not be removed");
        }
    }
}

impl Ingest {
    /// Number of the last item that is durable or refused.
    pub(crate) fn durable(&self) -> u64 {
        self.progress.durable
    }

    /// What became of the items with a number above `after`, as far as it is kept: of the last [`WINDOW`] at least.
    pub(crate) fn outcomes_after(&self, after: u64) -> impl Iterator<Item = (u64, &Outcome)> {
        self.progress.after(after)
    }

    /// Cancelled when another stream takes over.
    pub(crate) fn taken(&self) -> CancellationToken {
        self.seat.taken()
    }

    /// What makes chunks ready, in any task.
    pub(crate) fn preparer(&self, work: Work) -> Preparer {
        Preparer { service: Arc::clone(&self.service), target: self.target.clone(), work }
    }

    /// Writes the chunk that follows, and the mark with it.
    ///
    /// # Errors
    /// A store that refuses; a collection that was deleted meanwhile. Whether it was written is then for the next stream to
    /// find out.
    pub(crate) async fn commit(&mut self, ready: Ready) -> Result<Vec<(u64, Outcome)>> {
        let Ready { collection, items, _gate } = ready;
        let (places, items) = apart(items);
        let target = Target { number: collection.number, ..self.target.clone() };
        let value = self.progress.mark(target, &places)?;
        let batch = PutBatch {
            items,
            collection: Some(collection.number),
            mark: Some(Mark { key: self.key.clone(), value }),
            ..PutBatch::default()
        };
        let outcome = self.service.engine.put(&collection.spec.name, batch).await;
        self.service.reembeds.wake();
        let outcome = outcome.map_err(|error| named_at("collection", error))?;
        let outcomes = aligned(places, outcome.results);
        let first = self.progress.durable + 1;
        self.progress.advance(&outcomes);
        Ok((first..).zip(outcomes).collect())
    }
}

impl Preparer {
    /// Embeds a chunk for the collection that the ingest writes to now.
    ///
    /// # Errors
    /// NOT_FOUND for a collection that was deleted, though another one may have its name; a deadline that passed; no memory for more.
    pub(crate) async fn prepare(self, puts: Vec<Result<ItemPut>>) -> Result<Ready> {
        let Self { service, target, work } = self;
        let (collection, gate) = service.open_to_write(&target.name).await?;
        if !target.goes_on_as(&Target::new(target.name.clone(), &collection)) {
            let name = target.name;
            let gone = Error::missing(ErrorReason::CollectionNotFound, "collection", name);
            return Err(gone.at("collection"));
        }
        service.memory.admit()?;
        let model = service.encoders_of(&collection);
        let items = prepare(&collection, puts, (model, work)).await?;
        Ok(Ready { collection, items, _gate: gate })
    }
}

fn reused() -> Error {
    let message = "ingest_id was used before for another collection";
    Error::new(Kind::Conflict, ErrorReason::RequestIdReused, message).at("ingest_id")
}

fn unknown(acknowledged: u64, durable: u64) -> Error {
    let message = format!(
        "the last item of this ingest that is known here is number {durable}, not {acknowledged}: begin anew with another \
         ingest_id"
    );
    Error::precondition(ErrorReason::IngestUnknown, message).at("acknowledged_sequence")
}
