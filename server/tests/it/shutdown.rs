//! The end of the real program: under load, with peers that never answer, with streams that never end, and when told twice.

use std::fs::File;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::embedding_service_client::EmbeddingServiceClient;
use diptych_proto::v1::item_service_client::ItemServiceClient;
use diptych_proto::v1::search_service_client::SearchServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::starts::tiny;
use super::support::*;

/// What an HTTP/2 client says first: the preface and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A drain that no test could wait for.
const LONG: &str = "10m";

/// Far above what is promised; promises are not what is tested by it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program on a tiny bundle, its data below `folder`. It is killed when dropped.
struct Program {
    child: Child,
    listen: String,
    ops: String,
    folder: TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loopback address that nothing listens on just now.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Program {
    async fn start(flags: &[&str]) -> Self {
        Self::start_in(TempDir::new().unwrap(), flags).await
    }

    /// Waits until health says SERVING.
    async fn start_in(folder: TempDir, flags: &[&str]) -> Self {
        let (listen, ops) = (free_address(), free_address());
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let child = tiny(folder.path(), (&listen, &ops))
            .args(flags)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        let mut program = Self { child, listen, ops, folder };
        let waiting = async {
            while !program.serving().await {
                assert!(program.child.try_wait().unwrap().is_none(), "{}", program.said("stderr"));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it does not serve");
        program
    }

    async fn serving(&self) -> bool {
        let Ok(channel) = self.connected().await else { return false };
        let request = HealthCheckRequest { service: "ready".to_owned() };
        let reply = HealthClient::new(channel).check(request).await;
        reply.is_ok_and(|reply| reply.into_inner().status() == ServingStatus::Serving)
    }

    async fn connected(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(format!("http://{}", self.listen)).unwrap().connect().await
    }

    async fn channel(&self) -> Channel {
        self.connected().await.unwrap()
    }

    async fn create_things(&self) {
        let mut collections = CollectionServiceClient::new(self.channel().await);
        collections.create_collection(create("things")).await.unwrap();
    }

    /// What was written to `stdout` or `stderr`.
    fn said(&self, which: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(which)).unwrap()
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Waits until it has ended by itself, and well.
    async fn ended(&mut self) {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let status = tokio::time::timeout(PATIENCE, waiting).await.expect("it does not end");
        let told = self.said("stderr");
        assert!(status.success() && !told.contains("panicked"), "{status}: {told}");
    }

    /// Starts it again on the same data.
    async fn again(mut self) -> Self {
        let folder = std::mem::replace(&mut self.folder, TempDir::new().unwrap());
        Self::start_in(folder, &[]).await
    }
}

/// The code and the body of a reply to `GET path`.
async fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).await.unwrap();
    (reply.split(' ').nth(1).unwrap().parse().unwrap(), reply)
}

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A stream of inputs that never ends, and its replies.
async fn open_stream(server: &Program) -> tonic::Streaming<v1::EmbedStreamResponse> {
    let mut client = EmbeddingServiceClient::new(server.channel().await);
    client.embed_stream(tokio_stream::pending()).await.unwrap().into_inner()
}

/// The reply of a call that the server ends.
async fn told(mut replies: tonic::Streaming<v1::EmbedStreamResponse>) -> Refusal {
    loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => return refusal(&status),
        }
    }
}

#[tokio::test]
async fn no_call_fails_while_load_goes_on_until_the_server_stops_listening() {
    let mut server = Program::start(&["--drain-delay", "2s"]).await;
    server.create_things().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let channel = server.channel().await;
        let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
        let mut items = ItemServiceClient::new(channel.clone());
        let mut search = SearchServiceClient::new(channel);
        callers.spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let text = format!("heart {caller} {number}");
                let item = text_item(&format!("{caller}-{number}"), &text);
                items.upsert_item(upsert("things", item)).await?;
                search.search(ask("things", v1::Modality::Text, by_text(&text))).await?;
                answered.fetch_add(2, Ordering::Relaxed);
                number += 1;
            }
            Ok::<_, tonic::Status>(number)
        });
    }
    until("some answers", || async { answered.load(Ordering::Relaxed) > 50 }).await;
    let mut health = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: "ready".to_owned() };
    let mut states = health.watch(request).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.terminate();
    // Those who watch hear of it while calls still are taken.
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(http_get(&server.ops, "/readyz").await.0, 503);
    assert_eq!(http_get(&server.ops, "/livez").await.0, 200);
    let before = answered.load(Ordering::Relaxed);
    let more = || async { answered.load(Ordering::Relaxed) > before + 20 };
    until("answers after NOT_SERVING", more).await;
    // What a client does that has heard of it.
    stop.store(true, Ordering::Relaxed);
    let mut kept = 0;
    for outcome in callers.join_all().await {
        kept += outcome.unwrap();
    }
    // The watch ends with the listening, so that it holds nothing up.
    let told = states.message().await.unwrap_err();
    assert_eq!(told.code(), Code::Unavailable, "{told:?}");
    server.ended().await;
    let server = server.again().await;
    let request = v1::GetCollectionRequest { name: "things".to_owned() };
    let mut collections = CollectionServiceClient::new(server.channel().await);
    let collection = collections.get_collection(request).await.unwrap().into_inner().collection;
    assert_eq!(collection.unwrap().counts.unwrap().texts, kept);
}

#[tokio::test]
async fn peers_that_never_answer_hold_up_nothing_once_no_call_runs() {
    let mut server = Program::start(&["--drain", LONG]).await;
    let mut held = Vec::new();
    for said in [&b""[..], &PREFACE[..7], PREFACE, b"POST / HTTP/1.1\r\nx"] {
        for address in [&server.listen, &server.ops] {
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(said).await.unwrap();
            held.push(peer);
        }
    }
    let channel = server.channel().await;
    server.terminate();
    server.ended().await;
    drop((held, channel));
}

#[tokio::test]
async fn a_stream_that_never_ends_is_told_to_go_on_elsewhere() {
    let mut server = Program::start(&["--drain", LONG]).await;
    let replies = open_stream(&server).await;
    server.terminate();
    let told = told(replies).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "DRAINING"));
    server.ended().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_grace_is_told_so_and_the_end_comes() {
    let mut server = Program::start(&["--drain", "100ms"]).await;
    let stuck = stuck(&server).await;
    server.terminate();
    server.ended().await;
    assert!(stuck.await.unwrap().contains("grpc-status:14"));
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting_and_the_store_is_closed_well() {
    // Neither wait would end by itself.
    let mut server = Program::start(&["--drain", LONG, "--drain-delay", LONG]).await;
    server.create_things().await;
    let mut items = ItemServiceClient::new(server.channel().await);
    items.upsert_item(upsert("things", text_item("a", "a heart"))).await.unwrap();
    let stuck = stuck(&server).await;
    server.terminate();
    until("going down", || async { http_get(&server.ops, "/readyz").await.0 == 503 }).await;
    server.terminate();
    server.ended().await;
    assert!(stuck.await.unwrap().contains("grpc-status:14"));
    let told = server.said("stderr");
    assert!(told.contains("gone") && !told.contains("not closed"), "{told}");
    let server = server.again().await;
    let request =
        v1::GetItemRequest { collection: "things".to_owned(), id: "a".to_owned(), read_mask: None };
    ItemServiceClient::new(server.channel().await).get_item(request).await.unwrap();
}

/// A call whose body never ends, on a connection of its own; gives all that is answered, in lower case and without blanks.
async fn stuck(server: &Program) -> tokio::task::JoinHandle<String> {
    let mut socket = TcpStream::connect(&server.listen).await.unwrap();
    let head = format!(
        "POST /diptych.v1.EmbeddingService/EmbedText HTTP/1.1\r\nhost: {}\r\nx-grpc-web: 1\r\n\
         content-type: application/grpc-web+proto\r\ncontent-length: 100\r\n\r\n\0",
        server.listen
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A call that is answered on the same listener afterwards says that the server has come to this one, most likely.
    assert!(server.serving().await);
    tokio::spawn(async move {
        let mut answer = Vec::new();
        drop(socket.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).to_lowercase().replace(' ', "")
    })
}

#[tokio::test]
async fn a_program_that_reads_the_log_finds_nothing_but_json() {
    let mut server = Program::start(&["--log-format", "json"]).await;
    server.terminate();
    server.ended().await;
    assert_eq!(server.said("stdout"), "");
    let log = server.said("stderr");
    for line in log.lines() {
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(read.get("level").is_some(), "{line}");
    }
    assert!(log.contains(&server.listen), "{log}");
}
