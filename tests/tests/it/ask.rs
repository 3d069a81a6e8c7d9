//! `diptych search` and `diptych recall` from end to end: pages, explanations, probabilities, prefixes.

use std::process::{Command, Stdio};

use diptych_tests::api::*;
use diptych_tests::program::command;
use diptych_tests::{Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

const COLLECTION: &str = "pictures";
const ITEMS: usize = 25;

struct Fixture {
    server: Server,
    _folder: TempDir,
}

impl Fixture {
    /// As many pictures as texts, made by the built-in bundle.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let server = Server::plain(&folder.path().join("data")).await.unwrap();
        let api = server.api().await.unwrap();
        api.create(create(COLLECTION)).await.unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for n in 0..ITEMS {
            let picture = image_item(&format!("p{n:02}"), inputs::png(&mut rng));
            let words = inputs::words(&mut rng, n as u64);
            let text = text_item(&format!("t{n:02}"), &words);
            let put = upserts(COLLECTION, vec![picture, text]);
            api.items().batch_upsert_items(put).await.unwrap();
        }
        Self { server, _folder: folder }
    }

    fn diptych(&self, arguments: &str) -> Command {
        let mut command = command("diptych");
        command.args(arguments.split(' ')).args(["--server", &self.server.url(), "--json"]);
        command.stdin(Stdio::null());
        command
    }

    /// What a command prints that must end well.
    fn told(&self, arguments: &str) -> Value {
        let output = self.diptych(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn ids(&self, arguments: &str) -> Vec<Value> {
        let told = self.told(arguments);
        told["hits"].as_array().unwrap().iter().map(|hit| hit["id"].clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_followed_as_far_as_asked() {
    let fixture = Fixture::new().await;
    let search = "search heart --collection pictures --limit";
    let all = fixture.ids(&format!("{search} 1000"));
    assert_eq!(all.len(), ITEMS);
    assert_eq!(fixture.ids(&format!("{search} 4")), all[..4]);
    assert_eq!(fixture.ids(&format!("{search} 4 --pages 3")), all[..12]);
    assert_eq!(fixture.ids(&format!("{search} 4 --all")), all);
    assert_eq!(fixture.ids(&format!("{search} 100 --pages 9")), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_explained_as_the_search_has_it() {
    let fixture = Fixture::new().await;
    let search = "search heart --collection pictures --limit 1000";
    let hits = fixture.told(search);
    let hits = hits["hits"].as_array().unwrap();
    let mut last = 1.0;
    for (rank, hit) in (1..).zip(hits).step_by(6) {
        let id = hit["id"].as_str().unwrap();
        let told = fixture.told(&format!("{search} --explain {id}"));
        assert_eq!((&told["rank"], &told["passes"]), (&json!(rank), &json!(true)), "{told}");
        assert_eq!(told["hit"], *hit);
        assert_eq!(told["route"], "exact");
        // The built-in bundle is calibrated.
        let probability = hit["probability"].as_f64().unwrap();
        assert!((0.0..=last).contains(&probability), "{hit}");
        last = probability;
    }
    let missing = fixture.diptych(&format!("{search} --explain none")).output().unwrap();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_by_a_prefix_of_few_items_are_the_right_ones() {
    let fixture = Fixture::new().await;
    let info = fixture.told("info");
    let spaces = info["models"][0]["spaces"].as_array().unwrap();
    let shared = spaces.iter().find(|space| space["space"] == "shared").unwrap();
    let prefix = &shared["prefixes"][0];
    let search = "search heart --collection pictures";
    assert_eq!(fixture.ids(&format!("{search} --prefix-dims {prefix}")), fixture.ids(search));
    let refused = fixture.diptych(&format!("{search} --prefix-dims 7")).output().unwrap();
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains(&prefix.to_string()), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn info_tells_every_limit_of_the_contract() {
    use prost::Message as _;
    let fixture = Fixture::new().await;
    let told = fixture.told("info");
    let set = diptych_proto::FILE_DESCRIPTOR_SET;
    let set = prost_types::FileDescriptorSet::decode(set).unwrap();
    let mut messages = set.file.iter().flat_map(|file| &file.message_type);
    let limits = messages.find(|message| message.name() == "Limits").unwrap();
    for field in &limits.field {
        let name = field.name();
        let value =
            told["limits"].get(name).or_else(|| told["limits"].get(format!("{name}_seconds")));
        assert!(value.is_some_and(|value| !value.is_null()), "{name} is not told: {told}");
    }
    assert_eq!(told["limits"]["ingest_window"], 64);
    assert_eq!(told["limits"]["call_timeout_seconds"], 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recall_of_every_index_is_told() {
    let fixture = Fixture::new().await;
    let told = fixture.told("recall pictures --queries 10 --limit 5");
    let indexes = told["indexes"].as_array().unwrap();
    assert_eq!(indexes.len(), 4);
    for index in indexes {
        assert_eq!(
            (&index["rows"], &index["queries"], &index["recall"]),
            (&json!(ITEMS), &json!(10), &json!(1.0)),
            "{index}"
        );
    }
    let missing = fixture.diptych("recall nowhere").output().unwrap();
    assert!(!missing.status.success());
}
