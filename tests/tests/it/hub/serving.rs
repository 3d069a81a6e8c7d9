//! Servers on what came from a hub, and servers that need none.

use diptych_proto::v1;
use diptych_tests::api::components;
use diptych_tests::checkout;

use super::*;

fn bundle() -> TempDir {
    let folder = TempDir::new().unwrap();
    diptych_model::testing::tiny_bundle(7).unwrap().write(folder.path().join("bundle")).unwrap();
    folder
}

#[tokio::test]
async fn a_server_serves_a_bundle_of_a_hub_and_asks_once() {
    let folder = bundle();
    let hub = Hub::serve(NAME, &folder.path().join("bundle")).await.unwrap();
    let setup = Setup { hub, home: TempDir::new().unwrap() };
    let data = TempDir::new().unwrap();
    let arguments = ["--bundle", &pinned()];
    let mut server = Server::launch_in(data.path(), &arguments, setup.environment()).unwrap();
    server.wait_serving().await.unwrap();
    let asked = setup.hub.requests().len();
    assert!(asked > 0);
    server.restart().await.unwrap();
    assert_eq!(setup.hub.requests().len(), asked, "a start with a pinned commit asked the hub");
}

#[tokio::test]
async fn a_checkpoint_of_a_hub_embeds_as_the_one_who_made_it_says() {
    let folder = checkout().join("tests/fixtures/checkpoints/clip");
    let hub = Hub::serve(NAME, &folder).await.unwrap();
    let setup = Setup { hub, home: TempDir::new().unwrap() };
    let data = TempDir::new().unwrap();
    let arguments = ["--bundle", &pinned()];
    let mut server = Server::launch_in(data.path(), &arguments, setup.environment()).unwrap();
    server.wait_serving().await.unwrap();
    let api = server.api().await.unwrap();
    let expected = std::fs::read(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    for (text, vector) in expected["texts"].as_object().unwrap() {
        let request =
            v1::EmbedTextRequest { text: text.clone(), truncate: true, ..Default::default() };
        let reply = api.embedding().embed_text(request).await.unwrap().into_inner();
        let ours = components(&reply.embedding.unwrap().shared.unwrap());
        let theirs = vector.as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        let theirs: Vec<f64> = theirs.collect();
        let dot: f64 = ours.iter().zip(&theirs).map(|(a, b)| f64::from(*a) * b).sum();
        let length = theirs.iter().map(|value| value * value).sum::<f64>().sqrt();
        assert!(dot / length >= 0.99999, "{text}: {}", dot / length);
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_had_ends_the_start_with_a_sentence() {
    let setup = Setup::new().await;
    let data = TempDir::new().unwrap();
    let arguments = ["--bundle", "hf:org/other@main"];
    let mut server = Server::launch_in(data.path(), &arguments, setup.environment()).unwrap();
    assert!(!server.ended().await.unwrap().success());
    assert!(server.stderr().contains("no repository org/other"), "{}", server.stderr());
}

#[tokio::test]
async fn a_server_on_a_folder_connects_to_nobody() {
    let folder = bundle();
    let path = folder.path().join("bundle");
    let hub = Hub::serve(NAME, &path).await.unwrap();
    let setup = Setup { hub, home: TempDir::new().unwrap() };
    let traced = |name: &str| {
        let trace = folder.path().join(name);
        std::fs::write(&trace, "").unwrap();
        let mut environment = setup.environment();
        environment.push(("LD_PRELOAD", shim("connect").unwrap().into()));
        environment.push(("CONNECT_TRACE", trace.clone().into()));
        (trace, environment)
    };
    let data = TempDir::new().unwrap();
    let (trace, environment) = traced("plain");
    let arguments = ["--bundle", path.to_str().unwrap()];
    let mut server = Server::launch_in(data.path(), &arguments, environment).unwrap();
    server.wait_serving().await.unwrap();
    server.terminate().unwrap();
    server.ended().await.unwrap();
    assert_eq!(std::fs::read_to_string(trace).unwrap(), "");
    assert_eq!(setup.hub.requests(), []);

    // The trace tells of a server that does connect.
    let (trace, environment) = traced("hub");
    let data = TempDir::new().unwrap();
    let mut server = Server::launch_in(data.path(), &["--bundle", &pinned()], environment).unwrap();
    server.wait_serving().await.unwrap();
    assert!(std::fs::read_to_string(trace).unwrap().contains("connect"));
}
