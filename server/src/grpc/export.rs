//! ExportItems.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use diptych_proto::v1::{self, ErrorReason};
use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::convert::{Mask, item_id, mask};
use super::hit::item_out;
use super::item::ITEM_PARTS;
use super::replies::{Replies, answered};
use super::reply::Sending;
use super::room::Room;
use super::value::filter;
use crate::error::{Error, Kind, Result};
use crate::export::{Export, ExportPage};
use crate::service::{Service, draining};

/// Items that wait to be read, beside the page that is being told.
const REPLIES: usize = 2;
/// How long the caller may take nothing. Longer than any pause of a program that works on what it reads.
const PATIENCE: Duration = Duration::from_secs(600);

type Reply = v1::ExportItemsResponse;

/// Answers an export. What is wrong with the request is told before the first item.
pub(super) async fn export(
    service: &Arc<Service>,
    request: Request<v1::ExportItemsRequest>,
) -> Result<Items> {
    let sending = request.extensions().get::<Sending>().cloned();
    let wire = request.into_inner();
    let v1::ExportItemsRequest { collection, filter: condition, read_mask, after_id } = wire;
    let mask = mask(read_mask.as_ref(), &ITEM_PARTS)?;
    let after = match after_id.is_empty() {
        true => None,
        false => Some(item_id("after_id", after_id)?),
    };
    let winding_down = service.winding_down.clone();
    let whole = (mask.fields, after);
    let mut export = service.export(&collection, filter(condition)?, whole).await?;
    let first = export.page().await?;
    let items = answered(REPLIES, move |replies| async move {
        let caller = Caller { replies, sending, winding_down, patience: PATIENCE };
        tell(export, first, (mask, caller)).await
    });
    Ok(Items { items, sent: None })
}

/// An item, and its page's room.
type Told = (Reply, Option<Arc<Room>>);

/// What the caller reads.
#[derive(Debug)]
pub(crate) struct Items {
    items: Replies<Told>,
    /// Room of the page of the item that is being sent: who asks for the next one has handed it on.
    sent: Option<Arc<Room>>,
}

impl Stream for Items {
    type Item = Result<Reply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent = None;
        let next = ready!(Pin::new(&mut self.items).poll_next(context));
        Poll::Ready(next.map(|told| {
            let (reply, room) = told?;
            self.sent = room;
            Ok(reply)
        }))
    }
}

/// Who reads.
struct Caller {
    replies: Sender<Told>,
    sending: Option<Sending>,
    winding_down: CancellationToken,
    patience: Duration,
}

/// Tells page after page; the next one is read when the one before was taken.
async fn tell(
    mut export: Export,
    first: Option<ExportPage>,
    (mask, caller): (Mask, Caller),
) -> Result<(), Status> {
    let mut page = first;
    while let Some(ExportPage { items, generation }) = page {
        let out = |item| Reply { item: Some(item_out(item, mask)), generation };
        let told: Vec<Reply> = items.into_iter().map(out).collect();
        let bytes = told.iter().map(Reply::encoded_len).sum();
        // The page stays until its last item was handed on, however slow the caller is.
        let room = match &caller.sending {
            Some(sending) => sending.room(bytes)?.map(Arc::new),
            None => None,
        };
        for reply in told {
            let reply = (reply, room.clone());
            if !caller.tell(reply).await? {
                return Ok(());
            }
        }
        page = tokio::select! {
            biased;
            () = caller.winding_down.cancelled() => return Err(draining().into()),
            () = caller.replies.closed() => return Ok(()),
            page = export.page() => page?,
        };
    }
    Ok(())
}

impl Caller {
    /// Waits until there is room for a reply; false when the caller has left.
    async fn tell(&self, reply: Told) -> Result<bool> {
        tokio::select! {
            biased;
            () = self.winding_down.cancelled() => Err(draining()),
            sent = self.replies.send(reply) => Ok(sent.is_ok()),
            () = tokio::time::sleep(self.patience) => Err(stalled(self.patience)),
        }
    }
}

/// What a caller is told who reads nothing.
pub(super) fn stalled(patience: Duration) -> Error {
    let message = format!(
        "no reply was read for {} seconds; go on behind the last one that was read",
        patience.as_secs()
    );
    Error::new(Kind::Deadline, ErrorReason::DeadlineExceeded, message)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_let_go_of() {
        let (replies, mut reader) = mpsc::channel(1);
        let patience = Duration::from_millis(20);
        let winding_down = CancellationToken::new();
        let caller = Caller { replies, sending: None, winding_down, patience };
        assert!(caller.tell(Told::default()).await.unwrap());
        let refused = caller.tell(Told::default()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Deadline);
        assert!(reader.recv().await.is_some());
        assert!(caller.tell(Told::default()).await.unwrap());
        drop(reader);
        assert!(!caller.tell(Told::default()).await.unwrap(), "it has left");
    }
}
