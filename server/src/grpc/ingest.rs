//! IngestItems: the rules of the stream, and three stages that hand items on.
//!
//! The *reader* takes messages, checks their order, and grants credits; it takes no item before there is room for its
//! acknowledgement. The *preparing* stage gathers what was read into chunks and has them embedded. The *writing* stage commits
//! them in order and acknowledges. Each stage ends when the one before it has, so that what was read is always finished, and
//! the one behind it, which says why.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_proto::v1;
use diptych_proto::v1::IngestThrottle as Throttle;
use diptych_proto::v1::ingest_items_request::Message as Asked;
use diptych_proto::v1::ingest_items_response::Message as Told;
use prost::Message as _;
use tokio::sync::mpsc::{OwnedPermit, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use super::admission::caller;
use super::export::stalled;
use super::item::{item_put, within, written_out};
use super::receive::Received;
use super::replies::{Replies, Share, answered, next_within};
use super::room::Room;
use super::status::{complete, to_message};
use crate::deadline;
use crate::encoder::{Lane, Work};
use crate::error::{Error, Result};
use crate::ingest::{CHUNK, Ingest, Outcome, Preparer, Ready, WINDOW, taken_over};
use crate::items::ItemPut;
use crate::service::{Service, draining};

/// Replies that may wait to be read: what the window may bring, and credits.
const REPLIES: usize = WINDOW + 8;
/// Credits are granted in steps of so many items, unless the caller has none left.
const STEP: u64 = WINDOW as u64 / 4;

type Reply = v1::IngestItemsResponse;
type Requests = Streaming<v1::IngestItemsRequest>;

/// Answers an ingest stream.
pub(super) fn ingest(
    service: &Arc<Service>,
    request: Request<Requests>,
    idle: Duration,
) -> Result<Replies<Reply>> {
    service.admit()?;
    let service = Arc::clone(service);
    let received = request.extensions().get::<Received>().cloned().unwrap_or_default();
    let from = caller(request.extensions());
    let requests = request.into_inner();
    Ok(answered(REPLIES, |replies| async move {
        let message_bytes = service.limits.message_bytes;
        let mut wire = Wire { requests, received, message_bytes, idle };
        let winding_down = service.winding_down.clone();
        let caller = Caller { replies, winding_down, taken: CancellationToken::new(), idle };
        match open(&service, (&mut wire, from), &caller).await {
            Ok(Some((ingest, acknowledged))) => run(ingest, acknowledged, wire, caller).await,
            Ok(None) => Ok(()),
            Err(end) => end.status(),
        }
    }))
}

/// Why a stage stops.
enum End {
    /// The caller left: nobody needs to be told.
    Left,
    /// This is told.
    Told(Status),
}

impl End {
    fn status(self) -> Result<(), Status> {
        match self {
            Self::Left => Ok(()),
            Self::Told(status) => Err(status),
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Told(error.into())
    }
}

/// Where messages come from.
struct Wire {
    requests: Requests,
    received: Received,
    message_bytes: usize,
    /// The longest wait for a message.
    idle: Duration,
}

impl Wire {
    /// The next message and its room; `None` once the caller has closed its side. A caller who may send one is not waited for
    /// without end.
    async fn next(&mut self, may_send: bool) -> Result<Option<(Asked, Option<Room>)>, End> {
        let next = match may_send {
            true => next_within(&mut self.requests, self.idle).await,
            false => self.requests.message().await,
        };
        match next {
            Ok(None) => Ok(None),
            Ok(Some(v1::IngestItemsRequest { message: Some(asked) })) => {
                Ok(Some((asked, self.received.take())))
            }
            Ok(Some(_)) => Err(Error::field("message", "is required: a start, then items").into()),
            Err(status) => Err(End::Told(complete(&status, self.message_bytes).unwrap_or(status))),
        }
    }
}

/// Who reads the replies, and what else ends the stream.
#[derive(Clone)]
struct Caller {
    replies: Sender<Reply>,
    winding_down: CancellationToken,
    taken: CancellationToken,
    /// The longest wait for it to read.
    idle: Duration,
}

impl Caller {
    /// `work`, unless the stream ends first.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            biased;
            () = self.taken.cancelled() => Err(taken_over().into()),
            () = self.replies.closed() => Err(End::Left),
            () = self.winding_down.cancelled() => Err(draining().into()),
            done = work => Ok(done),
        }
    }

    /// A place for one reply.
    async fn place(&self) -> Result<OwnedPermit<Reply>, End> {
        let place = timeout(self.idle, self.replies.clone().reserve_owned());
        match self.unless_over(place).await? {
            Ok(place) => place.map_err(|_| End::Left),
            Err(_) => Err(stalled(self.idle).into()),
        }
    }
}

fn reply(told: Told) -> Reply {
    Reply { message: Some(told) }
}

fn ack(sequence: u64, outcome: Outcome) -> Reply {
    use v1::ingest_ack::Outcome as Wire;
    let outcome = Some(match outcome {
        Ok(written) => Wire::Written(written_out(&written)),
        Err(error) => Wire::Status(to_message(&within("item.item", error))),
    });
    reply(Told::Ack(v1::IngestAck { sequence, outcome }))
}

/// Reads the start and opens the ingest; with it, what the caller has seen acknowledged. `None` for a stream without messages.
async fn open(
    service: &Arc<Service>,
    (wire, from): (&mut Wire, Option<IpAddr>),
    caller: &Caller,
) -> Result<Option<(Ingest, u64)>, End> {
    let v1::IngestStart { collection, ingest_id, acknowledged_sequence } =
        match caller.unless_over(wire.next(true)).await?? {
            None => return Ok(None),
            Some((Asked::Start(start), _)) => start,
            Some((Asked::Item(_), _)) => {
                let text = "is required as the first message, an item came before it";
                return Err(Error::field("start", text).into());
            }
        };
    let opened = service.open_ingest(collection, &ingest_id, acknowledged_sequence, from);
    let ingest = caller.unless_over(opened).await?.map_err(|error| within("start", error))?;
    Ok(Some((ingest, acknowledged_sequence)))
}

/// Runs the stages of an open ingest.
async fn run(ingest: Ingest, acknowledged: u64, wire: Wire, caller: Caller) -> Result<(), Status> {
    let caller = Caller { taken: ingest.taken(), ..caller };
    let known: Vec<(u64, Outcome)> =
        ingest.outcomes_after(0).map(|(sequence, outcome)| (sequence, outcome.clone())).collect();
    let (read, to_prepare) = mpsc::channel(WINDOW);
    // One chunk is prepared while the one before is committed.
    let (prepared, to_write) = mpsc::channel(1);
    let durable = ingest.durable();
    let (written, progress) = watch::channel((durable, Throttle::Unspecified));
    // No more is read than is worked on, so each item waits for its turn.
    let preparer = ingest.preparer(Work::here(Lane::Bulk).patient());
    let reader = Reader {
        wire,
        caller,
        share: Share::new(),
        known,
        durable,
        granted: durable,
        next: None,
        progress,
    };
    let (reading, (), writing) = tokio::join!(
        reader.run(acknowledged, read),
        prepare(preparer, to_prepare, prepared),
        write(ingest, to_write, written)
    );
    writing.map_err(|error| within("start", error))?;
    match reading {
        Ok(()) => Ok(()),
        Err(end) => end.status(),
    }
}

/// An item that was read.
struct Arrived {
    put: Result<ItemPut>,
    receipt: Receipt,
}

/// Where an item is acknowledged, and the room it takes until then.
struct Receipt {
    place: OwnedPermit<Reply>,
    /// In the stream's share, and among all requests.
    _room: (Option<OwnedSemaphorePermit>, Option<Room>),
}

struct Reader {
    wire: Wire,
    caller: Caller,
    share: Share,
    /// What became of the last items before this stream.
    known: Vec<(u64, Outcome)>,
    /// The last sequence number that was durable when the stream began.
    durable: u64,
    /// The last sequence number that may be sent.
    granted: u64,
    /// The sequence number that must come next; `None` before the first item.
    next: Option<u64>,
    /// The last sequence number that is durable now, and what took longest on the way there.
    progress: watch::Receiver<(u64, Throttle)>,
}

impl Reader {
    /// Tells what the caller may have missed, then reads until it closes its side, or something ends the stream.
    async fn run(mut self, acknowledged: u64, read: Sender<Arrived>) -> Result<(), End> {
        for (sequence, outcome) in std::mem::take(&mut self.known) {
            if sequence > acknowledged {
                self.caller.place().await?.send(ack(sequence, outcome.clone()));
            }
            self.known.push((sequence, outcome));
        }
        loop {
            let place = self.caller.place().await?;
            if let Some(credit) = self.credit() {
                place.send(reply(Told::Credit(credit)));
                continue;
            }
            // Who has no credit says nothing because it must not.
            let may_send = self.next.is_none_or(|next| next <= self.granted);
            let asked = tokio::select! {
                biased;
                // The writing stage has ended, and says why.
                () = read.closed() => return Ok(()),
                Ok(()) = self.progress.changed() => continue,
                asked = self.caller.unless_over(self.wire.next(may_send)) => asked??,
            };
            match asked {
                None => return Ok(()),
                Some((Asked::Start(_), _)) => {
                    return Err(Error::field("start", "is sent once, as the first message").into());
                }
                Some((Asked::Item(item), counted)) => {
                    if let Some(arrived) = self.item(item, (place, counted)).await?
                        && read.send(arrived).await.is_err()
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The credit that is due. A caller that has some left gets more in steps.
    fn credit(&mut self) -> Option<v1::IngestCredit> {
        let (durable, waited_for) = *self.progress.borrow_and_update();
        let due = durable + WINDOW as u64 - self.granted;
        let waits = self.next.is_some_and(|next| next > self.granted);
        if due == 0 || (due < STEP && !waits) {
            return None;
        }
        self.granted += due;
        let throttle = if waits { waited_for } else { Throttle::Unspecified };
        let items = u32::try_from(due).unwrap_or(u32::MAX);
        Some(v1::IngestCredit { items, durable_sequence: durable, throttle: throttle.into() })
    }

    /// Checks an item's number. One that is durable already is acknowledged as it was.
    async fn item(
        &mut self,
        item: v1::IngestItem,
        (place, counted): (OwnedPermit<Reply>, Option<Room>),
    ) -> Result<Option<Arrived>, End> {
        let bytes = item.encoded_len();
        let v1::IngestItem { sequence, item } = item;
        let in_order = match self.next {
            Some(next) => sequence == next,
            None => (1..=self.durable + 1).contains(&sequence),
        };
        if !in_order {
            return Err(self.out_of_order(sequence).into());
        }
        if sequence > self.granted {
            let text = format!(
                "is {sequence}, which no credit allows yet: the last that may be sent is {}",
                self.granted
            );
            return Err(Error::field("item.sequence", text).into());
        }
        self.next = Some(sequence + 1);
        if sequence <= self.durable {
            let Some((_, outcome)) = self.known.iter().find(|(known, _)| *known == sequence) else {
                let text = format!(
                    "is {sequence}, of which nothing is kept any more: it is durable, go on behind {}",
                    self.durable
                );
                return Err(Error::field("item.sequence", text).into());
            };
            place.send(ack(sequence, outcome.clone()));
            return Ok(None);
        }
        let room = self.caller.unless_over(self.share.take(bytes)).await?;
        let put = item.ok_or_else(|| Error::field("", "is required"));
        let put = put.and_then(|item| item_put(item, None));
        Ok(Some(Arrived { put, receipt: Receipt { place, _room: (room, counted) } }))
    }

    fn out_of_order(&self, sequence: u64) -> Error {
        let expected = match self.next {
            Some(next) => next.to_string(),
            None if self.durable == 0 => "1".to_owned(),
            None => format!("1 to {}", self.durable + 1),
        };
        Error::field("item.sequence", format!("is {sequence}, expected {expected}"))
    }
}

/// A chunk on its way to the writing stage.
struct Chunk {
    receipts: Vec<Receipt>,
    preparing: JoinHandle<Result<Ready>>,
}

/// Gathers what was read into chunks, and has them prepared one beside the other.
async fn prepare(preparer: Preparer, mut read: Receiver<Arrived>, prepared: Sender<Chunk>) {
    loop {
        // Room for the chunk first: what arrives until then joins it.
        let Ok(place) = prepared.reserve().await else { return };
        let mut chunk = Vec::with_capacity(CHUNK);
        tokio::select! {
            biased;
            () = prepared.closed() => return,
            count = read.recv_many(&mut chunk, CHUNK) => if count == 0 { return },
        }
        let (puts, receipts) =
            chunk.into_iter().map(|Arrived { put, receipt }| (put, receipt)).unzip();
        let preparing = tokio::spawn(deadline::inherited(preparer.clone().prepare(puts)));
        place.send(Chunk { receipts, preparing });
    }
}

/// Writes chunks in order and acknowledges their items. Nothing here waits for the caller.
async fn write(
    mut ingest: Ingest,
    mut prepared: Receiver<Chunk>,
    progress: watch::Sender<(u64, Throttle)>,
) -> Result<()> {
    while let Some(Chunk { receipts, preparing }) = prepared.recv().await {
        let began = Instant::now();
        let ready = preparing.await.map_err(|_| Error::internal("a chunk ended early"))??;
        let embedding = began.elapsed();
        let outcomes = ingest.commit(ready).await?;
        let slower = slower(embedding, began.elapsed().saturating_sub(embedding));
        for (Receipt { place, _room }, (sequence, outcome)) in receipts.into_iter().zip(outcomes) {
            place.send(ack(sequence, outcome));
        }
        progress.send_replace((ingest.durable(), slower));
    }
    Ok(())
}

/// What a caller that waits for credit waits for.
fn slower(embedding: Duration, writing: Duration) -> Throttle {
    if embedding > writing { Throttle::Encoder } else { Throttle::Storage }
}
