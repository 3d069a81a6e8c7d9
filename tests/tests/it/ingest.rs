//! An ingest stream over the real server: every item once, whatever is killed, told to stop, or cut off in between.

use std::collections::BTreeMap;

use diptych_proto::v1;
use diptych_proto::v1::ingest_ack::Outcome;
use diptych_proto::v1::ingest_items_request::Message as Asked;
use diptych_proto::v1::ingest_items_response::Message as Told;
use diptych_tests::api::*;
use diptych_tests::{Server, inputs};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const COLLECTION: &str = "things";

/// What breaks a stream.
#[derive(Debug, Clone, Copy)]
enum Break {
    /// The caller drops its connection.
    Cut,
    /// `kill -9`.
    Kill,
    /// SIGTERM.
    Terminate,
}

/// A caller that has `count` items to put, and what it was told of them.
struct Caller {
    rng: ChaCha8Rng,
    count: u64,
    acknowledged: BTreeMap<u64, Option<v1::WrittenItem>>,
}

/// One in eleven is no picture.
fn is_bad(sequence: u64) -> bool {
    sequence.is_multiple_of(11)
}

impl Caller {
    fn item(&mut self, sequence: u64) -> v1::ItemInput {
        let id = format!("n{sequence:05}");
        if is_bad(sequence) {
            return image_item(&id, b"no picture".to_vec());
        }
        match sequence % 9 {
            0 => image_item(&id, inputs::png(&mut self.rng)),
            _ => text_item(&id, &inputs::words(&mut self.rng, sequence)),
        }
    }

    /// Notes an acknowledgement; one that comes again says the same.
    fn note(&mut self, ack: v1::IngestAck) {
        let written = match ack.outcome.unwrap() {
            Outcome::Written(written) => Some(written),
            Outcome::Status(status) => {
                assert!(is_bad(ack.sequence), "{status:?}");
                None
            }
        };
        let before = self.acknowledged.insert(ack.sequence, written.clone());
        assert!(before.is_none_or(|before| before == written), "{} is another one", ack.sequence);
    }

    /// Goes on from where the last stream broke until all is acknowledged. After so many acknowledgements the stream is broken.
    async fn go_on(&mut self, server: &mut Server, breaks: Option<(usize, Break)>) {
        let api = server.api().await.unwrap();
        let (asked, requests) = mpsc::channel(1);
        let start = v1::IngestStart {
            collection: COLLECTION.to_owned(),
            ingest_id: "the whole".to_owned(),
            acknowledged_sequence: self.acknowledged.keys().next_back().copied().unwrap_or(0),
        };
        let first = v1::IngestItemsRequest { message: Some(Asked::Start(start)) };
        asked.send(first).await.unwrap();
        let mut told =
            api.items().ingest_items(ReceiverStream::new(requests)).await.unwrap().into_inner();
        let target = breaks.map(|(more, how)| (self.acknowledged.len() + more, how));
        let (mut next, mut most) = (None, 0);
        let mut broken = false;
        loop {
            match told.message().await {
                Ok(Some(v1::IngestItemsResponse { message })) => match message.unwrap() {
                    Told::Ack(ack) => self.note(ack),
                    Told::Credit(credit) => {
                        next = next.or_else(|| {
                            most = credit.durable_sequence;
                            Some(credit.durable_sequence + 1)
                        });
                        most += u64::from(credit.items);
                    }
                },
                Ok(None) => panic!("the server ended the stream"),
                Err(status) => {
                    assert!(broken, "{status:?}");
                    return;
                }
            }
            if let Some((target, how)) = target
                && !broken
                && self.acknowledged.len() >= target
            {
                broken = true;
                match how {
                    Break::Cut => return,
                    Break::Kill => server.kill().unwrap(),
                    Break::Terminate => server.terminate().unwrap(),
                }
            }
            if self.acknowledged.len() as u64 == self.count {
                return;
            }
            while let Some(sequence) = next.filter(|next| *next <= most.min(self.count)) {
                let item = Some(self.item(sequence));
                let message = Some(Asked::Item(v1::IngestItem { sequence, item }));
                if asked.send(v1::IngestItemsRequest { message }).await.is_err() {
                    break;
                }
                next = Some(sequence + 1);
            }
        }
    }

    /// Every item was acknowledged, and is there as it was acknowledged; every put made a generation, so none was made twice.
    async fn check(&self, server: &Server) {
        assert!(self.acknowledged.keys().copied().eq(1..=self.count));
        let api = server.api().await.unwrap();
        let list = v1::ListItemsRequest {
            collection: COLLECTION.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let items = api.list(list).await.unwrap();
        let stored: Vec<(&str, u64)> =
            items.iter().map(|item| (item.id.as_str(), item.version)).collect();
        let written = self.acknowledged.values().flatten();
        let told: Vec<(&str, u64)> = written.map(|item| (item.id.as_str(), item.version)).collect();
        assert_eq!(stored, told);
        assert!((1..).zip(&told).all(|(version, (_, told))| version == *told), "in order");
        let good = (1..=self.count).filter(|sequence| !is_bad(*sequence)).count() as u64;
        assert_eq!(told.len() as u64, good);
        assert_eq!(api.collection(COLLECTION).await.unwrap().generation, good);
    }
}

/// Breaks the stream of an ingest of `count` items again and again, by all means.
async fn ingest_with_breaks(count: u64, seed: u64) {
    let data = TempDir::new().unwrap();
    let mut server = Server::plain(data.path()).await.unwrap();
    server.api().await.unwrap().create(create(COLLECTION)).await.unwrap();
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let mut caller = Caller { rng, count, acknowledged: BTreeMap::new() };
    for how in [Break::Cut, Break::Kill, Break::Terminate].into_iter().cycle() {
        let more = caller.rng.random_range(1..150);
        if caller.acknowledged.len() + more + 100 > usize::try_from(count).unwrap() {
            break;
        }
        caller.go_on(&mut server, Some((more, how))).await;
        match how {
            Break::Cut => {}
            Break::Kill => server.restart().await.unwrap(),
            Break::Terminate => {
                assert!(server.ended().await.unwrap().success());
                server.restart().await.unwrap();
            }
        }
    }
    caller.go_on(&mut server, None).await;
    caller.check(&server).await;
}

#[tokio::test]
async fn every_item_of_a_broken_ingest_is_written_once() {
    ingest_with_breaks(700, 1).await;
}

#[tokio::test]
#[ignore = "many kills: run by just long"]
async fn every_item_of_an_often_broken_ingest_is_written_once() {
    let seed = rand::random_range(1..1_000_000);
    println!("seed {seed}");
    ingest_with_breaks(6000, seed).await;
}
