//! The work behind an ingest: one stream after the other, each going on behind what is durable.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Streaming};

use super::Ingested;
use crate::call::REQUEST_ID;
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::retry::{Next, Tries};
use crate::transport::{Route, after};
use crate::v1;
use crate::v1::ErrorReason;
use crate::v1::ingest_ack::Outcome;
use crate::v1::ingest_items_request::Message as Asked;
use crate::v1::ingest_items_response::Message as Told;

/// Most items that are kept until they are acknowledged, whatever the server allows.
const UNDER_WAY: usize = 256;
/// A stream that lived so long was none that broke at once.
const SOUND: Duration = Duration::from_secs(10);

/// Why one stream ended.
enum End {
    /// All is acknowledged.
    Done,
    /// Nobody reads outcomes any more.
    Left,
    Broke(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Broke(error)
    }
}

impl From<tonic::Status> for End {
    fn from(status: tonic::Status) -> Self {
        Self::Broke(status.into())
    }
}

/// What one stream knows beside its replies.
struct Open {
    /// `None` once all was sent.
    requests: Option<mpsc::Sender<v1::IngestItemsRequest>>,
    /// The last number sent, or durable before.
    sent: u64,
    /// The last number that may be sent.
    most: u64,
}

/// What has failed since an item last came through.
struct Halt {
    since: Instant,
    failed: bool,
    tries: Tries,
}

impl Halt {
    fn new() -> Self {
        Self { since: Instant::now(), failed: false, tries: Tries::default() }
    }
}

/// An ingest.
pub(super) struct Stream {
    client: Client,
    start: v1::IngestStart,
    items: mpsc::Receiver<v1::ItemInput>,
    outcomes: mpsc::Sender<Result<Ingested>>,
    throttle: Arc<AtomicI32>,
    /// Handed over and not acknowledged; the first one's number is that of `start.acknowledged_sequence`, and 1.
    under_way: VecDeque<v1::ItemInput>,
    /// No more items come.
    closed: bool,
    request_id: String,
    route: Route,
    /// Whether the last stream gave its first credit.
    was_open: bool,
}

impl Stream {
    pub(super) fn new(
        client: Client,
        start: v1::IngestStart,
        (items, outcomes): (mpsc::Receiver<v1::ItemInput>, mpsc::Sender<Result<Ingested>>),
        throttle: Arc<AtomicI32>,
    ) -> Self {
        let request_id = crate::call::fresh_id();
        let (under_way, route) = (VecDeque::new(), Route::default());
        Self {
            client,
            start,
            items,
            outcomes,
            throttle,
            under_way,
            closed: false,
            request_id,
            route,
            was_open: false,
        }
    }

    /// Runs to the end; tells `opened` what was durable when the first stream opened, or why none did.
    pub(super) async fn run(mut self, opened: oneshot::Sender<Result<u64>>) {
        self.client.shared().called();
        let mut opened = Some(opened);
        let mut halt = Halt::new();
        loop {
            let (began, before) = (Instant::now(), self.start.acknowledged_sequence);
            let Err(end) = self.one(&mut opened).await;
            let error = match end {
                End::Done | End::Left => return,
                End::Broke(error) => error,
            };
            let was_open = std::mem::take(&mut self.was_open);
            if self.start.acknowledged_sequence > before || (was_open && began.elapsed() >= SOUND) {
                halt = Halt::new();
            }
            let Some(wait) = self.wait(&error, &mut halt) else {
                let error = error.of_request(&self.request_id);
                match opened.take() {
                    Some(opened) => drop(opened.send(Err(error))),
                    None => drop(self.outcomes.send(Err(error)).await),
                }
                return;
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.outcomes.closed() => return,
            }
        }
    }

    /// How long to wait before the stream is opened again; `None` when that does not help.
    fn wait(&self, error: &Error, halt: &mut Halt) -> Option<Duration> {
        let shared = self.client.shared();
        let first = !std::mem::replace(&mut halt.failed, true);
        // A stream that did its work until the server's time for streams was over, or had none to do, is opened again as a matter
        // of course.
        let over = error.kind() == Kind::Deadline || error.reason() == ErrorReason::StreamIdle;
        if first && over {
            shared.resent();
            return Some(Duration::ZERO);
        }
        let options = self.client.options();
        let left = options.deadlines.write.saturating_sub(halt.since.elapsed());
        let others = self.route.has_others();
        match halt.tries.next(&options.retry, error, others, (left, rand::random())) {
            Next::AtOnce => {
                shared.resent();
                Some(Duration::ZERO)
            }
            Next::After(wait) if shared.retried() => Some(wait),
            Next::After(_) | Next::GiveUp => None,
        }
    }

    /// Opens a stream and works until it ends.
    async fn one(
        &mut self,
        opened: &mut Option<oneshot::Sender<Result<u64>>>,
    ) -> std::result::Result<Infallible, End> {
        let longest = self.client.options().deadlines.write;
        let opening = timeout_at(after(longest), self.open()).await;
        let (mut open, mut replies, acks) = opening.map_err(|_| Error::too_late(longest))??;
        self.was_open = true;
        if let Some(opened) = opened.take() {
            drop(opened.send(Ok(open.sent)));
        }
        for ack in acks {
            self.acknowledged(ack).await?;
        }
        // Of what the server keeps no outcome for any more, nothing more is heard.
        self.pass(open.sent);
        loop {
            self.work(&mut open, &mut replies).await?;
        }
    }

    /// Opens a stream and reads its first credit; with the acknowledgements that came before that.
    async fn open(&self) -> Result<(Open, Streaming<v1::IngestItemsResponse>, Vec<v1::IngestAck>)> {
        // The start, and all that may be under way: sending never waits.
        let (requests, stream) = mpsc::channel(UNDER_WAY + 1);
        send(&requests, Asked::Start(self.start.clone()));
        let mut request = Request::new(ReceiverStream::new(stream));
        request.extensions_mut().insert(self.route.clone());
        if let Ok(id) = MetadataValue::try_from(self.request_id.as_str()) {
            request.metadata_mut().insert(REQUEST_ID, id);
        }
        let mut replies = self.client.item_service().ingest_items(request).await?.into_inner();
        let mut acks = Vec::new();
        loop {
            match next(&mut replies).await? {
                Some(Told::Ack(ack)) => acks.push(ack),
                Some(Told::Credit(credit)) => {
                    let sent = credit.durable_sequence;
                    if sent < self.start.acknowledged_sequence {
                        return Err(broken("its first credit lies behind what it acknowledged"));
                    }
                    let most = sent.saturating_add(credit.items.into());
                    return Ok((Open { requests: Some(requests), sent, most }, replies, acks));
                }
                None => return Err(broken("it ended the stream before its first credit")),
            }
        }
    }

    /// Sends what may be sent, and takes one reply or one item.
    async fn work(
        &mut self,
        open: &mut Open,
        replies: &mut Streaming<v1::IngestItemsResponse>,
    ) -> std::result::Result<(), End> {
        let acknowledged = self.start.acknowledged_sequence;
        let last = acknowledged.saturating_add(self.under_way.len() as u64);
        if let Some(requests) = &open.requests {
            while open.sent < open.most.min(last) {
                let place = usize::try_from(open.sent - acknowledged).unwrap_or(usize::MAX);
                let Some(item) = self.under_way.get(place).cloned() else { break };
                open.sent += 1;
                let item = v1::IngestItem { sequence: open.sent, item: Some(item) };
                send(requests, Asked::Item(item));
            }
            if self.closed && open.sent >= last {
                open.requests = None;
            }
        }
        let room = open.sent == last && last < open.most && self.under_way.len() < UNDER_WAY;
        tokio::select! {
            reply = next(replies) => match reply? {
                Some(Told::Ack(ack)) if ack.sequence == acknowledged.saturating_add(1) && ack.sequence <= open.sent => {
                    self.acknowledged(ack).await?;
                }
                Some(Told::Ack(_)) => return Err(broken("it acknowledged an item out of turn").into()),
                Some(Told::Credit(credit)) => {
                    open.most = open.most.saturating_add(credit.items.into());
                    if credit.throttle != 0 {
                        self.throttle.store(credit.throttle, Ordering::Relaxed);
                    }
                }
                None if self.closed && self.under_way.is_empty() => return Err(End::Done),
                None => return Err(Error::new(Code::Unavailable, "the server ended the stream early").into()),
            },
            item = self.items.recv(), if room && !self.closed => match item {
                Some(item) => self.under_way.push_back(item),
                None => self.closed = true,
            },
            () = self.outcomes.closed() => return Err(End::Left),
        }
        Ok(())
    }

    /// Forgets the items up to this number; whether there is anything new in that.
    fn pass(&mut self, sequence: u64) -> bool {
        let passed = sequence.saturating_sub(self.start.acknowledged_sequence);
        let ours = usize::try_from(passed).unwrap_or(usize::MAX).min(self.under_way.len());
        self.under_way.drain(..ours);
        // An ingest that goes on for days meets more breaks than one call may: what comes through in between earns their mending.
        self.client.shared().progressed(ours as u64);
        self.start.acknowledged_sequence = self.start.acknowledged_sequence.max(sequence);
        passed > 0
    }

    /// Tells what came of an item, once.
    async fn acknowledged(&mut self, ack: v1::IngestAck) -> std::result::Result<(), End> {
        if !self.pass(ack.sequence) {
            return Ok(());
        }
        let outcome = match ack.outcome {
            Some(Outcome::Written(written)) => Ok(written),
            Some(Outcome::Status(status)) => Err(status.into()),
            None => Err(broken("it acknowledged an item without saying what came of it")),
        };
        let told = Ingested { sequence: ack.sequence, outcome };
        self.outcomes.send(Ok(told)).await.map_err(|_| End::Left)
    }
}

/// The next message of the server; `None` at its end. One of a kind that is newer than this client is passed over.
async fn next(replies: &mut Streaming<v1::IngestItemsResponse>) -> Result<Option<Told>> {
    while let Some(reply) = replies.message().await? {
        if let Some(message) = reply.message {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

/// Sends a message. When the stream has ended, its replies say so.
fn send(requests: &mpsc::Sender<v1::IngestItemsRequest>, message: Asked) {
    drop(requests.try_send(v1::IngestItemsRequest { message: Some(message) }));
}

fn broken(how: &str) -> Error {
    Error::new(Code::Internal, format!("the server breaks the rules of the stream: {how}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::Options;

    #[tokio::test]
    async fn a_stream_that_had_nothing_to_do_is_opened_again_and_costs_no_retry() {
        let mut options = Options::default();
        options.transport.health_service = None;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepting = tokio::spawn(async move { listener.accept().await.unwrap() });
        let client = Client::connect_with(&address, options).await.unwrap();
        let (_put, items) = mpsc::channel(1);
        let (outcomes, _told) = mpsc::channel(1);
        let start = v1::IngestStart::default();
        let stream = Stream::new(client.clone(), start, (items, outcomes), Arc::default());
        let details = ErrorDetails::with_error_info("STREAM_IDLE", "diptych", HashMap::new());
        let idle = tonic::Status::with_error_details(Code::Unavailable, "no message", details);
        assert_eq!(stream.wait(&idle.into(), &mut Halt::new()), Some(Duration::ZERO));
        assert_eq!((client.statistics().resent, client.statistics().retries), (1, 0));
        drop(accepting);
    }
}
