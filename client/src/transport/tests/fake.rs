//! A server with health and one service, on a runtime of its own so that it can die.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::info_service_server::{InfoService, InfoServiceServer};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_types::{ErrorDetails, StatusExt as _};

/// What a call comes to.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Ok,
    Never,
    Status(Code),
    RetryInfo(Code, Duration),
    Draining,
}

impl Answer {
    pub(super) fn retry_info(code: Code, after: Duration) -> Self {
        Self::RetryInfo(code, after)
    }
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Answer>,
    otherwise: Answer,
    calls: usize,
    ports: BTreeSet<u16>,
    request_ids: Vec<String>,
    timeouts: Vec<String>,
    traces: Vec<[String; 2]>,
}

#[derive(Debug, Clone)]
struct Handler {
    name: String,
    script: Arc<Mutex<Script>>,
}

impl Handler {
    fn note<T>(&self, request: &Request<T>) -> Answer {
        let text = |name: &str| {
            let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let mut script = self.script.lock();
        script.calls += 1;
        script.ports.extend(request.remote_addr().map(|address| address.port()));
        script.request_ids.push(text("x-request-id"));
        script.timeouts.push(text("grpc-timeout"));
        script.traces.push([text("traceparent"), text("tracestate")]);
        script.next.pop_front().unwrap_or_else(|| script.otherwise.clone())
    }
}

#[tonic::async_trait]
impl InfoService for Handler {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        match self.note(&request) {
            Answer::Ok => {
                let version = self.name.clone();
                Ok(Response::new(v1::GetServerInfoResponse { version, ..Default::default() }))
            }
            Answer::Never => std::future::pending().await,
            Answer::Status(code) => Err(Status::new(code, "no")),
            Answer::Draining => {
                let mut details = ErrorDetails::new();
                details.set_error_info("DRAINING", "diptych", HashMap::new());
                details.set_retry_info(Some(Duration::from_secs(3600)));
                Err(Status::with_error_details(Code::Unavailable, "going down", details))
            }
            Answer::RetryInfo(code, after) => {
                let mut details = ErrorDetails::new();
                details.set_retry_info(Some(after));
                Err(Status::with_error_details(code, "later", details))
            }
        }
    }

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A server that answers `GetServerInfo` with its name, unless told otherwise.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    health: Option<HealthReporter>,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<()>>,
    runtime: Option<Runtime>,
}

impl Fake {
    pub(super) async fn start(name: &str) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        Self::serve(name, Server::builder().add_service(service), Some(health)).await
    }

    /// Ends every connection, by a GOAWAY, when it is so old.
    pub(super) async fn aging(name: &str, age: Duration) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        let server = Server::builder().max_connection_age(age).add_service(service);
        Self::serve(name, server, Some(health)).await
    }

    pub(super) async fn without_health(name: &str) -> Self {
        let server = Server::builder().add_optional_service(None::<InfoServiceServer<Handler>>);
        Self::serve(name, server, None).await
    }

    async fn serve(
        name: &str,
        router: tonic::transport::server::Router,
        health: Option<HealthReporter>,
    ) -> Self {
        let script = Arc::new(Mutex::new(Script {
            next: VecDeque::new(),
            otherwise: Answer::Ok,
            calls: 0,
            ports: BTreeSet::new(),
            request_ids: Vec::new(),
            timeouts: Vec::new(),
            traces: Vec::new(),
        }));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let handler = Handler { name: name.to_owned(), script: Arc::clone(&script) };
        let router = router.add_service(InfoServiceServer::new(handler));
        let (stop, stopped) = oneshot::channel::<()>();
        let (over, ended) = oneshot::channel();
        let (bound, address) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            let stopped = async { drop(stopped.await) };
            let incoming = TcpListenerStream::new(listener);
            router.serve_with_incoming_shutdown(incoming, stopped).await.unwrap();
            over.send(()).ok();
        });
        let address = address.await.unwrap();
        let (stop, ended, runtime) = (Some(stop), Some(ended), Some(runtime));
        let fake = Self { address, script, health, stop, ended, runtime };
        fake.serving(true).await;
        fake
    }

    pub(super) fn next(&self, answer: Answer) {
        self.script.lock().next.push_back(answer);
    }

    pub(super) fn always(&self, answer: Answer) {
        self.script.lock().otherwise = answer;
    }

    pub(super) fn calls(&self) -> usize {
        self.script.lock().calls
    }

    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.script.lock().ports.clone()
    }

    pub(super) fn request_ids(&self) -> Vec<String> {
        self.script.lock().request_ids.clone()
    }

    pub(super) fn timeouts(&self) -> Vec<String> {
        self.script.lock().timeouts.clone()
    }

    /// `traceparent` and `tracestate` of each call.
    pub(super) fn traces(&self) -> Vec<[String; 2]> {
        self.script.lock().traces.clone()
    }

    pub(super) async fn serving(&self, well: bool) {
        let status = if well { ServingStatus::Serving } else { ServingStatus::NotServing };
        if let Some(health) = &self.health {
            health.set_service_status("", status).await;
        }
    }

    /// Asks connections to end, and waits until all have.
    pub(super) async fn shut_down(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        self.ended.take().unwrap().await.unwrap();
    }

    /// Ends everything at once, as `kill -9` does.
    pub(super) fn die(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.die();
    }
}
