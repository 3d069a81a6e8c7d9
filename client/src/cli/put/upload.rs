//! Sends batches, a few at a time, and notes what is acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use diptych::v1::batch_upsert_items_request::Entry;
use diptych::v1::batch_upsert_items_response::result::Outcome;
use diptych::{Client, Error, Kind, v1};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::item::Piece;
use super::journal::Journal;
use super::report::Report;

/// Batches on their way at once: one that the server computes, one that waits, one that travels.
const IN_FLIGHT: usize = 3;
/// Most items of a batch: it is to end within a server's longest call on a slow machine.
const ITEMS: usize = 32;
/// Times that items are sent again which the server has no room for.
const ROUNDS: u32 = 60;
/// Wait before that, when the server says none.
const PAUSE: Duration = Duration::from_millis(500);

/// The size of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// What a server takes in one batch, with room for the message around the items.
pub(crate) fn most(limits: &v1::Limits) -> Most {
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let items = size(limits.batch_items.into()).clamp(1, ITEMS);
    Most { items, bytes: size(limits.receive_message_bytes / 2).max(1) }
}

/// Sends to one collection.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) client: Client,
    pub(crate) collection: String,
    pub(crate) report: Arc<Report>,
    pub(crate) journal: Journal,
}

/// What came of a batch: items written, and items refused with the reason.
#[derive(Debug, Default)]
struct Sent {
    written: Vec<Piece>,
    refused: Vec<(Piece, Error)>,
}

impl Upload {
    /// Sends what comes, until there is no more or `stop` is set; batches under way are waited for.
    ///
    /// # Errors
    /// A server that cannot be reached or refuses a batch as a whole; a journal that cannot be written.
    pub(crate) async fn run(
        mut self,
        mut incoming: mpsc::Receiver<Vec<Piece>>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let mut under_way: JoinSet<Result<Sent, Error>> = JoinSet::new();
        let mut more = true;
        while more || !under_way.is_empty() {
            if more && under_way.len() < IN_FLIGHT {
                tokio::select! {
                    batch = incoming.recv() => match batch {
                        Some(batch) if !stop.load(Ordering::Relaxed) => {
                            under_way.spawn(send(self.client.clone(), self.collection.clone(), batch));
                        }
                        _ => more = false,
                    },
                    Some(sent) = under_way.join_next() => {
                        self.settle(&sent.context("a batch ended early")??)?;
                    }
                }
            } else if let Some(sent) = under_way.join_next().await {
                self.settle(&sent.context("a batch ended early")??)?;
            }
        }
        Ok(())
    }

    fn settle(&mut self, sent: &Sent) -> Result<()> {
        self.journal.note(sent.written.iter())?;
        self.report.put(sent.written.len());
        for (piece, error) in &sent.refused {
            self.report.failed(&piece.place, &format!("{} ({})", told(error), piece.item.id));
        }
        Ok(())
    }
}

/// A refusal without the path inside the batch, which says nothing to who put a file.
fn told(error: &Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("entries[").and_then(|rest| rest.split_once("].item.")) {
        Some((_, rest)) => rest.to_owned(),
        None => text,
    }
}

/// Sends a batch, and again what the server had no room for.
async fn send(client: Client, collection: String, batch: Vec<Piece>) -> Result<Sent, Error> {
    let mut sent = Sent::default();
    // A stack, so that a part which is too much is parted again before the rest goes on.
    let mut parts = vec![batch];
    let mut rounds = 0;
    while let Some(mut part) = parts.pop() {
        match client.batch_upsert_items(request(&collection, &part)).await {
            Ok(reply) => {
                let again = sort(part, reply.results, &mut sent, rounds < ROUNDS);
                if let Some((again, wait)) = again {
                    rounds += 1;
                    tokio::time::sleep(wait).await;
                    parts.push(again);
                }
            }
            Err(error) if too_much(&error) && part.len() > 1 => {
                let half = part.split_off(part.len() / 2);
                parts.extend([half, part]);
            }
            Err(error) if of_the_item(&error) && part.len() == 1 => {
                sent.refused.extend(part.into_iter().map(|piece| (piece, error.clone())));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn request(collection: &str, pieces: &[Piece]) -> v1::BatchUpsertItemsRequest {
    let entry = |piece: &Piece| Entry { item: Some(piece.item.clone()), expected_version: None };
    v1::BatchUpsertItemsRequest {
        collection: collection.to_owned(),
        entries: pieces.iter().map(entry).collect(),
        ..Default::default()
    }
}

/// Sorts outcomes; gives the items to send again, if `again`, and the wait before that.
fn sort(
    pieces: Vec<Piece>,
    results: Vec<v1::batch_upsert_items_response::Result>,
    sent: &mut Sent,
    again: bool,
) -> Option<(Vec<Piece>, Duration)> {
    let (mut later, mut wait) = (Vec::new(), Duration::ZERO);
    let mut results = results.into_iter();
    for piece in pieces {
        match results.next().and_then(|result| result.outcome) {
            Some(Outcome::Written(_)) => sent.written.push(piece),
            Some(Outcome::Status(status)) => {
                let error = Error::from(status);
                if again && passes(&error) {
                    wait = wait.max(error.retry_after().unwrap_or(PAUSE));
                    later.push(piece);
                } else {
                    sent.refused.push((piece, error));
                }
            }
            None => {
                let missing = v1::Status {
                    code: tonic::Code::Internal.into(),
                    message: "the server's answer leaves the item out".to_owned(),
                    details: Vec::new(),
                };
                sent.refused.push((piece, missing.into()));
            }
        }
    }
    (!later.is_empty()).then_some((later, wait))
}

/// Whether half of a batch may succeed where all of it did not.
fn too_much(error: &Error) -> bool {
    error.kind() == Kind::Deadline || error.reason() == v1::ErrorReason::MessageTooLarge
}

/// Whether a batch of one was refused for what is in it.
fn of_the_item(error: &Error) -> bool {
    too_much(error) && error.kind() != Kind::Deadline
}

/// Whether an item may succeed later.
fn passes(error: &Error) -> bool {
    let busy = matches!(error.kind(), Kind::Unavailable | Kind::Deadline);
    busy || (error.kind() == Kind::Overloaded && error.retry_after().is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::super::table::Place;
    use super::*;

    fn piece(id: &str) -> Piece {
        Piece::new(diptych::text_item(id, "x"), Place::file(Path::new("f")))
    }

    fn status(code: tonic::Code, retry_ms: Option<u64>) -> Outcome {
        let mut details = ErrorDetails::with_error_info("X", "diptych", HashMap::new());
        if let Some(wait) = retry_ms {
            details.set_retry_info(Some(Duration::from_millis(wait)));
        }
        let status = tonic::Status::with_error_details(code, "no", details);
        let details = prost::Message::decode(status.details())
            .map(|status: tonic_types::pb::Status| status.details);
        let details = details.unwrap();
        Outcome::Status(v1::Status { code: code.into(), message: "no".to_owned(), details })
    }

    #[test]
    fn outcomes_are_sorted_by_item() {
        let outcomes = [
            Outcome::Written(v1::WrittenItem::default()),
            status(tonic::Code::InvalidArgument, None),
            status(tonic::Code::ResourceExhausted, Some(70)),
        ];
        let results = outcomes
            .map(|outcome| v1::batch_upsert_items_response::Result { outcome: Some(outcome) });
        let pieces = || ["a", "b", "c", "d"].map(piece).to_vec();
        let mut sent = Sent::default();
        let (later, wait) = sort(pieces(), results.to_vec(), &mut sent, true).unwrap();
        assert_eq!((sent.written.len(), sent.refused.len()), (1, 2));
        assert_eq!((later[0].item.id.as_str(), wait), ("c", Duration::from_millis(70)));
        let mut sent = Sent::default();
        assert!(sort(pieces(), results.to_vec(), &mut sent, false).is_none());
        assert_eq!(sent.refused.len(), 3);
    }

    #[test]
    fn batches_leave_room_for_the_message_around_them() {
        let limits =
            v1::Limits { batch_items: 64, receive_message_bytes: 16 << 20, ..Default::default() };
        let Most { items, bytes } = most(&limits);
        assert_eq!((items, bytes), (ITEMS, 8 << 20));
        assert_eq!(most(&v1::Limits::default()).items, 1);
    }

    #[test]
    fn refusals_name_what_was_put_and_not_its_place_in_a_batch() {
        let status = tonic::Status::invalid_argument("entries[3].item.image: is empty");
        assert_eq!(told(&status.into()), "image: is empty");
    }
}
