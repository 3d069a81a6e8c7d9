//! Items put over a stream that outlives its connections.

mod stream;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::sync::{mpsc, oneshot};

use self::stream::Stream;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::v1;

/// Outcomes that wait to be read before no more items are sent.
const OUTCOMES: usize = 64;

/// The end that items are put in. Dropping it says that there are no more.
#[derive(Debug)]
pub struct Ingest {
    id: String,
    next: u64,
    items: mpsc::Sender<v1::ItemInput>,
}

/// What came of one item.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// The item's number, from 1 on.
    pub sequence: u64,
    /// The item as written, durably, or why it was refused. A refusal is the item's own: the others go on.
    pub outcome: Result<v1::WrittenItem>,
}

/// The end that outcomes come out of. Dropping it ends the ingest; what was sent may still be written.
#[derive(Debug)]
pub struct Outcomes {
    told: mpsc::Receiver<Result<Ingested>>,
    throttle: Arc<AtomicI32>,
}

impl Client {
    /// Begins an ingest, or takes up one that broke off, and waits for the server's leave to send.
    ///
    /// `start` names the collection. With an `ingest_id` another process can take the ingest up, under the same id and with the
    /// last `acknowledged_sequence` that it knows of; without one the ingest gets an id of its own. Items then go on behind what
    /// is durable, which [`Ingest::next_sequence`] tells; outcomes from `acknowledged_sequence` up to there come first, as far
    /// as the server keeps them, which is 64 at least.
    ///
    /// A connection that breaks, a server that restarts, is full or sends elsewhere is none of the caller's business: the
    /// stream is opened again behind what is durable, and every item is written once. How often and how long that is tried
    /// without any item coming through, is said by [`Options::retry`](crate::Options) and `Options::deadlines.write`. At most 256
    /// items are kept for it.
    ///
    /// # Errors
    /// Those of IngestItems; a server that cannot be reached.
    pub async fn ingest(&self, mut start: v1::IngestStart) -> Result<(Ingest, Outcomes)> {
        if start.ingest_id.is_empty() {
            start.ingest_id = crate::call::fresh_id();
        }
        let id = start.ingest_id.clone();
        let (items, incoming) = mpsc::channel(1);
        let (outcomes, told) = mpsc::channel(OUTCOMES);
        let throttle = Arc::new(AtomicI32::new(0));
        let (opened, open) = oneshot::channel();
        let stream = Stream::new(self.clone(), start, (incoming, outcomes), Arc::clone(&throttle));
        tokio::spawn(stream.run(opened));
        let durable = open.await.map_err(|_| ended())??;
        let next = durable.saturating_add(1);
        Ok((Ingest { id, next, items }, Outcomes { told, throttle }))
    }
}

impl Ingest {
    /// The ingest's id, by which it can be taken up for 24 hours.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of the item that is put next.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Hands over an item and gives its number. Waits while the server has no room, or while outcomes are not read.
    ///
    /// # Errors
    /// CANCELLED when the ingest has ended; [`Outcomes::next`] says why.
    pub async fn put(&mut self, item: v1::ItemInput) -> Result<u64> {
        self.items.send(item).await.map_err(|_| ended())?;
        let sequence = self.next;
        self.next = sequence.saturating_add(1);
        Ok(sequence)
    }
}

impl Outcomes {
    /// What came of the next item, in the order in which items were put; `None` when all have been told and [`Ingest`] is
    /// dropped.
    ///
    /// # Errors
    /// Why the ingest ended: a refusal of the stream as a whole, or a break that retries did not mend. The outcomes before it
    /// stand.
    pub async fn next(&mut self) -> Result<Option<Ingested>> {
        self.told.recv().await.transpose()
    }

    /// What the server waited for when it last had the caller wait.
    pub fn throttle(&self) -> v1::IngestThrottle {
        v1::IngestThrottle::try_from(self.throttle.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

fn ended() -> Error {
    Error::new(tonic::Code::Cancelled, "the ingest has ended")
}

#[cfg(test)]
mod tests;
