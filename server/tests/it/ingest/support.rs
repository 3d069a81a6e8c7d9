//! A caller of IngestItems, and what must have become of what it sent.

use std::collections::BTreeMap;

use diptych_proto::v1;
use diptych_proto::v1::ingest_items_request::Message as Asked;
use diptych_proto::v1::ingest_items_response::Message as Told;
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::support::*;

/// Items that a caller may send before the first acknowledgement.
pub(super) const WINDOW: u32 = 64;

/// A caller's two ends of a stream.
pub(super) struct Stream {
    pub(super) asked: Sender<v1::IngestItemsRequest>,
    pub(super) told: Streaming<v1::IngestItemsResponse>,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Its version.
    Written(u64),
    Refused(Refusal),
}

pub(super) fn start(collection: &str, id: &str, acknowledged_sequence: u64) -> Asked {
    let (collection, ingest_id) = (collection.to_owned(), id.to_owned());
    Asked::Start(v1::IngestStart { collection, ingest_id, acknowledged_sequence })
}

pub(super) fn item(sequence: u64, item: v1::ItemInput) -> Asked {
    Asked::Item(v1::IngestItem { sequence, item: Some(item) })
}

/// An item of a collection of bare vectors; every seventh one is bad. Of 50 ids each is put again and again.
pub(super) fn vector(sequence: u64) -> v1::ItemInput {
    let dims = if is_bad(sequence) { 3 } else { 4 };
    let mut shared = vec![1.0; dims];
    shared[1] = sequence as f32;
    vector_item(&format!("i{}", sequence % 50), &shared, Some(&[1.0, 0.0]))
}

pub(super) fn is_bad(sequence: u64) -> bool {
    sequence.is_multiple_of(7)
}

impl Stream {
    pub(super) async fn raw(server: &Server) -> Self {
        let (asked, requests) = mpsc::channel(256);
        let told = server.items().ingest_items(ReceiverStream::new(requests)).await.unwrap();
        Self { asked, told: told.into_inner() }
    }

    pub(super) async fn open(
        server: &Server,
        collection: &str,
        id: &str,
        acknowledged: u64,
    ) -> Self {
        let stream = Self::raw(server).await;
        stream.ask(start(collection, id, acknowledged)).await;
        stream
    }

    /// Sends, unless the server has ended the stream.
    pub(super) async fn ask(&self, message: Asked) {
        drop(self.asked.send(v1::IngestItemsRequest { message: Some(message) }).await);
    }

    pub(super) async fn next(&mut self) -> Result<Option<Told>, Status> {
        Ok(self.told.message().await?.map(|reply| reply.message.unwrap()))
    }

    /// Closes the caller's side and reads the rest.
    pub(super) async fn finish(mut self, acks: &mut BTreeMap<u64, Outcome>) -> Result<(), Status> {
        drop(self.asked);
        while let Some(reply) = self.told.message().await? {
            if let Some(Told::Ack(ack)) = reply.message {
                note(acks, ack);
            }
        }
        Ok(())
    }

    /// The first credit, behind the acknowledgements that are repeated.
    pub(super) async fn credit(&mut self, acks: &mut BTreeMap<u64, Outcome>) -> v1::IngestCredit {
        loop {
            match self.next().await.unwrap().unwrap() {
                Told::Ack(ack) => note(acks, ack),
                Told::Credit(credit) => return credit,
            }
        }
    }

    /// What the stream ends with.
    pub(super) async fn end(mut self) -> Status {
        loop {
            match self.told.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended well"),
                Err(status) => return status,
            }
        }
    }
}

/// Notes an acknowledgement; one that comes again says the same.
pub(super) fn note(acks: &mut BTreeMap<u64, Outcome>, ack: v1::IngestAck) {
    let outcome = match ack.outcome.unwrap() {
        v1::ingest_ack::Outcome::Written(written) => Outcome::Written(written.version),
        v1::ingest_ack::Outcome::Status(status) => Outcome::Refused(refusal_of(&status)),
    };
    let before = acks.insert(ack.sequence, outcome.clone());
    assert!(before.is_none_or(|before| before == outcome), "{} is {outcome:?}", ack.sequence);
}

/// Each of the first `count` items was acknowledged once, in order, written or refused as it should be, and nothing was
/// written twice: every put makes a generation.
pub(super) async fn check(server: &Server, acks: &BTreeMap<u64, Outcome>, count: u64) {
    assert!(acks.keys().copied().eq(1..=count), "{:?}", acks.keys());
    let mut version = 0;
    for (sequence, outcome) in acks {
        match outcome {
            Outcome::Written(written) => {
                assert!(!is_bad(*sequence));
                version += 1;
                assert_eq!(*written, version, "item {sequence}");
            }
            Outcome::Refused(refused) => {
                assert!(is_bad(*sequence));
                assert_eq!(refused.code, Code::InvalidArgument);
                assert_eq!(refused.field, "item.item.vectors.shared");
            }
        }
    }
    assert_eq!(server.collection("bare").await.generation, version);
}

pub(super) async fn bare() -> Server {
    let server = Server::start().await;
    server.make(create_bare("bare")).await;
    server
}

/// Sends the items up to `count` from where the stream stands, as far as credits go, and reads what comes, for at most
/// `replies` replies. True when all are acknowledged.
pub(super) async fn go_on(
    stream: &mut Stream,
    acks: &mut BTreeMap<u64, Outcome>,
    (count, replies): (u64, usize),
) -> bool {
    let credit = stream.credit(acks).await;
    let mut next = credit.durable_sequence + 1;
    let mut most = credit.durable_sequence + u64::from(credit.items);
    for _ in 0..replies {
        while next <= count.min(most) {
            stream.ask(item(next, vector(next))).await;
            next += 1;
        }
        if acks.len() as u64 == count {
            return true;
        }
        match stream.next().await.unwrap().unwrap() {
            Told::Ack(ack) => note(acks, ack),
            Told::Credit(credit) => most += u64::from(credit.items),
        }
    }
    false
}
