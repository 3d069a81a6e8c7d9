//! A collector of traces: takes what the server sends over OTLP/gRPC, and reads of it what tests ask about, by the numbers of
//! opentelemetry-proto 1.x.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A span as it came.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    /// 8 bytes, or none.
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    /// Its name.
    #[prost(string, tag = "5")]
    pub name: String,
    /// 1 internal, 2 server.
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start: u64,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "8")]
    pub end: u64,
    /// What it says beside.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    /// Other spans that it has to do with.
    #[prost(message, repeated, tag = "13")]
    pub links: Vec<Link>,
}

/// Another span.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
}

/// An attribute that is a text or a whole number.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attribute {
    /// Its key.
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    text: String,
    #[prost(int64, tag = "3")]
    number: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Exported {}

impl Span {
    /// The text of an attribute; empty without it.
    pub fn attribute(&self, key: &str) -> &str {
        self.value(key).map_or("", |value| &value.text)
    }

    /// The number of an attribute; 0 without it.
    pub fn number(&self, key: &str) -> i64 {
        self.value(key).map_or(0, |value| value.number)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()
    }

    /// Whether it names another one.
    pub fn names(&self, other: &Self) -> bool {
        self.links
            .iter()
            .any(|link| link.trace_id == other.trace_id && link.span_id == other.span_id)
    }
}

/// A running collector.
#[derive(Debug, Clone, Default)]
pub struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Starts a collector; gives it with its URL. It runs as long as the test's runtime.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<(Self, String)> {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let served = Server::builder()
            .add_service(collector.clone())
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(served);
        Ok((collector, url))
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.0.lock().clone()
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Export> for Collector {
    type Response = Exported;
    type Future = Ready<Result<Response<Exported>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let scopes =
            request.into_inner().resources.into_iter().flat_map(|resource| resource.scopes);
        self.0.lock().extend(scopes.flat_map(|scope| scope.spans));
        ready(Ok(Response::new(Exported {})))
    }
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Exported, Export>::default());
            Ok(grpc.unary(collector, request).await)
        })
    }
}
