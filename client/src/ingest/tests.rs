//! An ingest into a server whose streams break, again and again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use diptych_proto::v1::item_service_server::{ItemService, ItemServiceServer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::v1::ingest_ack::Outcome;
use crate::v1::ingest_items_request::Message as Asked;
use crate::v1::ingest_items_response::Message as Told;
use crate::{Client, Options, RetryBudget, RetryPolicy, TransportOptions, text_item, v1};

/// Items that a stream takes before it breaks: a few more than what earns a retry.
const EACH: u64 = 12;
const BREAKS: u64 = 60;
/// Items that it may send ahead.
const CREDIT: u32 = 64;

/// Keeps nothing but how many items there were.
#[derive(Debug, Clone, Default)]
struct Breaking {
    durable: Arc<AtomicU64>,
    traces: Arc<Mutex<Vec<String>>>,
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Reply = Result<v1::IngestItemsResponse, Status>;

fn reply(message: Told) -> Reply {
    Ok(v1::IngestItemsResponse { message: Some(message) })
}

/// Takes items in their order, and breaks off.
async fn take(
    mut items: Streaming<v1::IngestItemsRequest>,
    durable: &AtomicU64,
    replies: &mpsc::Sender<Reply>,
) -> Option<()> {
    let mut last = durable.load(Ordering::Relaxed);
    assert!(matches!(items.message().await.ok()??.message, Some(Asked::Start(_))));
    let credit = v1::IngestCredit { items: CREDIT, durable_sequence: last, ..Default::default() };
    replies.send(reply(Told::Credit(credit))).await.ok()?;
    for _ in 0..EACH {
        let Some(Asked::Item(item)) = items.message().await.ok()??.message else { return None };
        last += 1;
        assert_eq!(item.sequence, last);
        durable.store(last, Ordering::Relaxed);
        let outcome = Some(Outcome::Written(v1::WrittenItem::default()));
        let ack = v1::IngestAck { sequence: last, outcome };
        replies.send(reply(Told::Ack(ack))).await.ok()?;
    }
    replies.send(Err(Status::unavailable("broken"))).await.ok()
}

#[tonic::async_trait]
impl ItemService for Breaking {
    type IngestItemsStream = Replies<v1::IngestItemsResponse>;
    type ExportItemsStream = Replies<v1::ExportItemsResponse>;

    async fn ingest_items(
        &self,
        request: Request<Streaming<v1::IngestItemsRequest>>,
    ) -> Result<Response<Self::IngestItemsStream>, Status> {
        let trace = request.metadata().get("traceparent").map(|trace| trace.to_str().unwrap());
        self.traces.lock().push(trace.unwrap_or_default().to_owned());
        let (told, replies) = mpsc::channel(1);
        let durable = Arc::clone(&self.durable);
        tokio::spawn(async move { take(request.into_inner(), &durable, &told).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn upsert_item(
        &self,
        _: Request<v1::UpsertItemRequest>,
    ) -> Result<Response<v1::UpsertItemResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn batch_upsert_items(
        &self,
        _: Request<v1::BatchUpsertItemsRequest>,
    ) -> Result<Response<v1::BatchUpsertItemsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn get_item(
        &self,
        _: Request<v1::GetItemRequest>,
    ) -> Result<Response<v1::GetItemResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_items(
        &self,
        _: Request<v1::ListItemsRequest>,
    ) -> Result<Response<v1::ListItemsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn delete_items(
        &self,
        _: Request<v1::DeleteItemsRequest>,
    ) -> Result<Response<v1::DeleteItemsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn export_items(
        &self,
        _: Request<v1::ExportItemsRequest>,
    ) -> Result<Response<Self::ExportItemsStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A server, and a client of it that retries as by default, only sooner.
async fn start() -> (Breaking, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Breaking::default();
    let service = ItemServiceServer::new(server.clone());
    let router = tonic::transport::Server::builder().add_service(service);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(router.serve_with_incoming(incoming));
    let first_backoff = Duration::from_millis(1);
    let options = Options {
        retry: RetryPolicy { first_backoff, ..RetryPolicy::default() },
        transport: TransportOptions { health_service: None, ..TransportOptions::default() },
        ..Options::default()
    };
    (server, Client::connect_with(&address, options).await.unwrap())
}

/// Puts so many items and reads what came of them.
async fn put(client: &Client, count: u64) -> crate::Result<()> {
    let (mut ingest, mut outcomes) = client.ingest(v1::IngestStart::default()).await?;
    let putting = tokio::spawn(async move {
        while ingest.next_sequence() <= count {
            ingest.put(text_item("id", "text")).await?;
        }
        Ok::<_, crate::Error>(())
    });
    for sequence in 1..=count {
        assert_eq!(outcomes.next().await?.unwrap().sequence, sequence);
    }
    putting.await.unwrap()
}

#[tokio::test]
async fn an_ingest_survives_more_breaks_than_the_retry_budget_holds_while_items_come_through() {
    let (server, client) = start().await;
    put(&client, EACH * BREAKS + 1).await.unwrap();
    assert_eq!(server.durable.load(Ordering::Relaxed), EACH * BREAKS + 1);
    let retries = client.statistics().retries;
    assert_eq!(retries, BREAKS);
    assert!(retries > u64::from(RetryBudget::default().reserve));
}

#[tokio::test]
async fn every_stream_of_an_ingest_carries_its_callers_trace() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (server, client) = start().await;
    put(&client.in_trace(TRACE.parse().unwrap()), EACH + 1).await.unwrap();
    assert_eq!(*server.traces.lock(), [TRACE, TRACE]);
}
