//! The wire: every service of `diptych.v1`, health, reflection and gRPC-Web on one listener.
//!
//! A call passes `gate.rs`, `observe.rs`, `deadline.rs` and `admission.rs`, its service's file, `convert.rs` and `value.rs` (all field checks),
//! one use case, and back; an error passes `status.rs`, and `details.rs` where the transport itself refuses. `replies.rs` carries
//! the replies of streams, `receive.rs` and `reply.rs` bound the bytes of requests and replies (`room.rs`), and replies end in time.

mod admin;
mod admission;
mod alias;
mod batch;
mod collection;
mod convert;
mod deadline;
mod details;
mod door;
mod embedding;
mod export;
pub mod fuzzing;
mod gate;
mod health;
mod hit;
mod info;
mod ingest;
mod item;
mod observe;
mod operation;
mod receive;
mod replies;
mod reply;
mod room;
mod search;
mod snapshot;
mod status;
mod value;
mod write;

use std::sync::Arc;

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
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::ServiceBuilder;

use self::admission::AdmissionLayer;
use self::deadline::DeadlineLayer;
use self::details::DetailsLayer;
pub use self::door::Door;
use self::gate::Gate;
pub use self::health::{Conditions, HealthReporter, health, set_health, set_health_of};
use self::observe::ObserveLayer;
use self::receive::ReceiveLayer;
use self::room::Rooms;
use crate::config::Config;
use crate::encoder::EncoderSettings;
use crate::limits::{CallLimits, ConnectionLimits};
use crate::listen::{self, Counters, Ends};
use crate::observe::Settings;
use crate::service::Service;

/// Services, and the limits of what reaches them.
#[derive(Debug)]
pub struct Stack {
    routes: Routes,
    calls: CallLimits,
    connections: ConnectionLimits,
    message_bytes: usize,
    receive_bytes: u64,
    reply_bytes: u64,
    observe: Settings,
}

impl Stack {
    fn new(routes: Routes, config: &Config) -> Self {
        Self {
            routes,
            calls: config.calls.clone(),
            connections: config.connections,
            message_bytes: config.limits.message_bytes,
            receive_bytes: config.receive_bytes,
            reply_bytes: config.reply_bytes,
            observe: config.observe.clone(),
        }
    }
}

/// The most bytes of requests under way that are not counted because each is small.
pub(crate) fn uncounted_bytes(config: &Config) -> u64 {
    (config.calls.calls + config.calls.streams) as u64 * receive::FREE_BYTES
}

/// One handler type for all services, over the shared use cases; with the limits around them, to be told.
#[derive(Debug, Clone)]
pub(crate) struct Handler(pub(crate) Arc<Service>, Arc<SystemLimits>);

/// The limits of what requests pass before and behind the use cases.
#[derive(Debug)]
struct SystemLimits {
    calls: CallLimits,
    connections: ConnectionLimits,
    encoder: EncoderSettings,
    receive_bytes: u64,
    reply_bytes: u64,
    decode_bytes: u64,
    memory_bytes: u64,
}

impl Handler {
    fn new(service: Arc<Service>, config: &Config) -> Self {
        let limits = SystemLimits {
            calls: config.calls.clone(),
            connections: config.connections,
            encoder: config.encoder,
            receive_bytes: config.receive_bytes,
            reply_bytes: config.reply_bytes,
            decode_bytes: config.decode_bytes,
            memory_bytes: service.memory.limit(),
        };
        Self(service, Arc::new(limits))
    }
}

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
    let handler = Handler::new(Arc::clone(service), config);
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

/// Serves until told to end, as [`listen::serve`] does.
pub async fn serve(stack: Stack, listener: TcpListener, (ends, counters): (Ends, Arc<Counters>)) {
    let observer = ObserveLayer::new(stack.observe);
    let gate = Gate::new(&stack.calls);
    let message = stack.message_bytes as u64 + receive::PREFIX_BYTES as u64;
    let replies = Rooms::new(stack.reply_bytes.max(message), message);
    let service = ServiceBuilder::new()
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(observer.clone())
        .layer(DetailsLayer::new(stack.message_bytes))
        .layer(DeadlineLayer::new(&stack.calls, (ends.clone(), Arc::clone(&counters)), replies))
        .layer(AdmissionLayer::new(&stack.calls))
        .layer(ReceiveLayer::new(stack.receive_bytes, stack.message_bytes, stack.calls.timeout))
        .service(stack.routes.prepare());
    listen::serve(listener, (gate, service), stack.connections, (ends, counters)).await;
    observer.close().await;
}
