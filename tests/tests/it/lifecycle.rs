//! From start to end: health, readiness, draining, and starts that are refused with a sentence.

use std::path::Path;

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::process::{http_get, server_output};
use diptych_tests::program::command;
use diptych_tests::{Api, Refusal, Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

mod damage;
mod settings;

/// A channel as soon as the server listens.
async fn connected(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(server.url()).unwrap();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn health_turns_serving_only_when_search_answers() {
    let data = TempDir::new().unwrap();
    // The first start fills the sample, so that there is a time in which nothing can be answered.
    let server = Server::launch(data.path(), &[]).unwrap();
    let channel = connected(&server).await;
    let request = HealthCheckRequest { service: "diptych.v1.SearchService".to_owned() };
    let reply = HealthClient::new(channel.clone()).watch(request).await.unwrap();
    let mut states = reply.into_inner();
    let first = states.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::NotServing);
    let (status, why) = http_get(server.ops(), "/readyz").await.unwrap();
    assert_eq!(status, 503, "{why}");
    assert_eq!(http_get(server.ops(), "/livez").await.unwrap().0, 200);
    let api = Api::new(channel);
    let search = || v1::SearchTextToImageRequest {
        collection: "emoji".to_owned(),
        text: "red heart".to_owned(),
        ..Default::default()
    };
    let refused = api.search().search_text_to_image(search()).await.unwrap_err();
    let told = Refusal::of(&refused);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STARTING"));

    let next = states.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::Serving);
    let reply = api.search().search_text_to_image(search()).await.unwrap().into_inner();
    assert_eq!(reply.hits.len(), 10);
    assert_eq!(http_get(server.ops(), "/readyz").await.unwrap().0, 200);
    assert!(server.stdout().contains(server.listen()), "no line to paste: {}", server.stdout());
}

#[tokio::test]
async fn sigterm_ends_with_success_and_in_spite_of_idle_connections() {
    let data = TempDir::new().unwrap();
    let mut server = Server::plain(data.path()).await.unwrap();
    // One that never says a word, one that speaks HTTP/2 and keeps a stream open.
    let silent = TcpStream::connect(server.listen()).await.unwrap();
    let silent_ops = TcpStream::connect(server.ops()).await.unwrap();
    let channel = server.channel().await.unwrap();
    let request = HealthCheckRequest { service: String::new() };
    let watching = HealthClient::new(channel.clone()).watch(request).await.unwrap();
    let mut states = watching.into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.terminate().unwrap();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let status = server.ended().await.unwrap();
    assert!(status.success(), "{status}: {}", server.stderr());
    drop((silent, silent_ops, channel));
}

#[tokio::test]
async fn calls_that_run_when_sigterm_comes_are_answered_and_kept() {
    let data = TempDir::new().unwrap();
    let mut server = Server::plain(data.path()).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create("things")).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..64 {
        let api = api.clone();
        calls.spawn(async move {
            let image = inputs::png(&mut ChaCha8Rng::seed_from_u64(number));
            api.put("things", image_item(&format!("p{number}"), image)).await.map(|item| item.id)
        });
    }
    let mut kept = vec![calls.join_next().await.unwrap().unwrap().unwrap()];
    server.terminate().unwrap();
    for outcome in calls.join_all().await {
        match outcome {
            Ok(id) => kept.push(id),
            // What came too late is told so; nothing is cut off in the middle.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
    }
    assert!(server.ended().await.unwrap().success(), "{}", server.stderr());
    server.restart().await.unwrap();
    let api = server.api().await.unwrap();
    for id in kept {
        assert!(api.get("things", &id).await.is_ok(), "{id} is lost");
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let data = TempDir::new().unwrap();
    let first = Server::plain(data.path()).await.unwrap();
    let told = refused_start(data.path(), &["--sample", "false"]).await;
    assert!(told.contains("in use") || told.contains("another"), "{told}");
    assert!(first.api().await.unwrap().create(create("things")).await.is_ok());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_setting() {
    let data = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [("--listen", "--ops-listen"), ("--ops-listen", "--listen")] {
        let output = command("diptych-server")
            .args(["--sample", "false", flag, &address, other, "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(told.contains(&address) && told.contains(flag), "{told}");
    }
}

/// Starts a server that must end by itself, and gives the sentence in which it says what is wrong. It must say what to do, too.
async fn refused_start(data: &Path, arguments: &[&str]) -> String {
    let output = server_output(data, arguments).await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    // Bad settings have a code of their own.
    assert!(matches!(output.status.code(), Some(1 | 64)), "{:?}: {told}", output.status);
    assert!(!told.contains("panicked"), "{told}");
    let ways_out = ["restore", "give", "export", "stop", "must be", "take"];
    assert!(ways_out.iter().any(|way| told.contains(way)), "says not what to do: {told}");
    told
}
