//! The wire: every service of `diptych.v1`, health, reflection and gRPC-Web on one listener.
//!
//! A call passes the deadline layer, its service's file, `convert.rs` and `value.rs` (all field checks), one use case, and
//! back; an error passes `status.rs`, and `details.rs` where the transport itself refuses.

mod admin;
mod alias;
mod batch;
mod collection;
mod convert;
mod deadline;
mod details;
mod door;
mod embedding;
mod hit;
mod info;
mod item;
mod operation;
mod search;
mod snapshot;
mod status;
mod value;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use diptych_proto::FILE_DESCRIPTOR_SET;
use diptych_proto::v1::admin_service_server::AdminServiceServer;
use diptych_proto::v1::collection_service_server::CollectionServiceServer;
use diptych_proto::v1::embedding_service_server::EmbeddingServiceServer;
use diptych_proto::v1::info_service_server::InfoServiceServer;
use diptych_proto::v1::item_service_server::ItemServiceServer;
use diptych_proto::v1::operation_service_server::OperationServiceServer;
use diptych_proto::v1::search_service_server::SearchServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

pub use tonic_health::server::HealthReporter;

use self::deadline::DeadlineLayer;
use self::details::DetailsLayer;
pub use self::door::Door;
use crate::config::Config;
use crate::service::Service;

/// The names that health knows: the server as a whole, and every service.
const HEALTH_NAMES: [&str; 8] = [
    "",
    "diptych.v1.AdminService",
    "diptych.v1.CollectionService",
    "diptych.v1.EmbeddingService",
    "diptych.v1.InfoService",
    "diptych.v1.ItemService",
    "diptych.v1.OperationService",
    "diptych.v1.SearchService",
];

/// What tonic leaves without a limit, set to what hyper and other stacks use.
const STREAMS_PER_CONNECTION: u32 = 200;
const LOCAL_RESETS: usize = 1024;
const PENDING_RESETS: usize = 100;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls at once, over all connections, beyond those that encoders have places for.
const CALLS_BESIDE: usize = 256;

/// Services and layers, ready to be served.
#[derive(Debug)]
pub struct Stack {
    routes: Routes,
    timeout: Duration,
    message_bytes: usize,
    calls: usize,
}

impl Stack {
    fn new(routes: Routes, config: &Config) -> Self {
        Self {
            routes,
            timeout: config.timeout,
            message_bytes: config.limits.message_bytes,
            // More than both towers of a bundle have places for: an encoder that is full says so itself.
            calls: 2 * config.encoder.queue_items + CALLS_BESIDE,
        }
    }
}

/// Health that says NOT_SERVING for every name until told otherwise.
pub async fn health() -> (HealthReporter, HealthServer<impl Health>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    set_health(&reporter, false).await;
    (reporter, service)
}

/// Says SERVING or NOT_SERVING for every name.
pub async fn set_health(reporter: &HealthReporter, serving: bool) {
    set_health_of(reporter, Conditions { serving, writing: serving }).await;
}

/// What health tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Searches are answered.
    pub serving: bool,
    /// Items can be written.
    pub writing: bool,
}

/// Says SERVING or NOT_SERVING for every name: for items by whether they can be written, for all else by whether searches are
/// answered.
pub async fn set_health_of(reporter: &HealthReporter, conditions: Conditions) {
    for name in HEALTH_NAMES {
        let well = match name {
            "diptych.v1.ItemService" => conditions.serving && conditions.writing,
            _ => conditions.serving,
        };
        let status = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status(name, status).await;
    }
}

/// One handler type for all services, over the shared use cases.
#[derive(Debug, Clone)]
pub(crate) struct Handler(pub(crate) Arc<Service>);

/// All services.
///
/// # Errors
/// Descriptors that do not parse: a broken build.
pub fn routes(
    service: &Arc<Service>,
    health: HealthServer<impl Health>,
    config: &Config,
) -> Result<Stack> {
    let bytes = config.limits.message_bytes;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let handler = Handler(Arc::clone(service));
    macro_rules! limited {
        ($server:ident) => {
            $server::new(handler.clone())
                .max_decoding_message_size(bytes)
                .max_encoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let routes = Routes::new(limited!(SearchServiceServer))
        .add_service(limited!(EmbeddingServiceServer))
        .add_service(limited!(ItemServiceServer))
        .add_service(limited!(CollectionServiceServer))
        .add_service(limited!(InfoServiceServer))
        .add_service(limited!(OperationServiceServer))
        .add_service(limited!(AdminServiceServer))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(Stack::new(routes, config))
}

/// Serves until `stop`, then finishes what runs.
///
/// # Errors
/// A listener that fails.
pub async fn serve(stack: Stack, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(DetailsLayer::new(stack.message_bytes))
        .layer(DeadlineLayer::new(stack.timeout, stack.calls))
        .add_routes(stack.routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
