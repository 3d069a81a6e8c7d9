//! Bundles that come and go while a real server runs: by the command line, over restarts, and with what they leave behind.

use std::path::Path;
use std::process::{Output, Stdio};

use diptych_model::config::{NgramBagConfig, TextTowerConfig};
use diptych_model::testing::{tiny_bundle, tiny_model, untrained_bundle};
use diptych_model::{Bundle, ModelConfig};
use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::process::until;
use diptych_tests::program::command;
use diptych_tests::{Api, Refusal, Server};
use serde_json::Value;
use tempfile::TempDir;

/// A folder of bundles of which `one` is the server's own, and a place for data.
struct Folders {
    folder: TempDir,
}

impl Folders {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        for (seed, name) in [(1, "one"), (2, "two"), (3, "three")] {
            let place = folder.path().join("models").join(name);
            tiny_bundle(seed).unwrap().write(place).unwrap();
        }
        Self { folder }
    }

    fn path(&self, place: &str) -> String {
        self.folder.path().join(place).to_str().unwrap().to_owned()
    }

    /// A server whose settings name the bundle `name` first.
    async fn serve(&self, name: &str) -> Server {
        let (bundle, models) = (self.path(&format!("models/{name}")), self.path("models"));
        let arguments = ["--bundle", &bundle, "--models-dir", &models];
        Server::start(Path::new(&self.path("data")), &arguments).await.unwrap()
    }
}

fn digest(seed: u64) -> String {
    tiny_bundle(seed).unwrap().embedding_digest().to_owned()
}

fn diptych(server: &Server, arguments: &str) -> Output {
    let mut command = command("diptych");
    command.args(["--json", "--server", &server.url()]).args(arguments.split(' '));
    command.stdin(Stdio::null()).output().unwrap()
}

/// What a command prints that must end well.
fn told(server: &Server, arguments: &str) -> Value {
    let output = diptych(server, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The digest that new collections get, and whether it was activated.
async fn default_of(api: &Api) -> (String, bool) {
    let info = api.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    (info.default_embedding_digest, info.default_activate_time.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_loaded_activated_tested_and_unloaded_from_the_command_line() {
    let folders = Folders::new();
    let server = folders.serve("one").await;
    let (one, two) = (digest(1), digest(2));
    let loaded = told(&server, "models load two");
    assert_eq!(loaded["model"]["embedding_digest"], two.as_str());
    assert_eq!(loaded["model"]["golden"], "passed");
    let activated = told(&server, &format!("models activate {two}"));
    assert_eq!(activated["previous_embedding_digest"], one.as_str());
    let made = told(&server, "collections create made");
    assert!(made.to_string().contains(&two), "{made}");
    let listed = told(&server, "models list");
    let default = |model: &&Value| model["is_default"] == true;
    let found = listed["models"].as_array().unwrap().iter().find(default).unwrap();
    assert!(found["embedding_digest"] == two.as_str() && found["activate_time"].is_string());
    assert!(found["weight_bytes"].as_u64().unwrap() > 0);

    let tested = told(&server, "models test");
    assert_eq!((&tested["passed"], tested["results"].as_array().unwrap().len()), (&true.into(), 8));
    told(&server, &format!("models activate {one}"));
    let refused = diptych(&server, &format!("models unload {two}"));
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && errors.contains("made"), "{errors}");
    let unloaded = told(&server, &format!("models unload {two} --force"));
    assert_eq!(unloaded["collections"], serde_json::json!(["made"]));
    let refused = diptych(&server, "models load ../models/two");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("path"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_outlives_a_kill_and_gives_way_to_other_settings() {
    let folders = Folders::new();
    let mut server = folders.serve("one").await;
    told(&server, "models load two --activate");
    // Its own copy is in the data folder by now.
    std::fs::remove_dir_all(folders.path("models/two")).unwrap();
    server.kill().unwrap();
    server.restart().await.unwrap();
    let api = server.api().await.unwrap();
    assert_eq!(default_of(&api).await, (digest(2), true));
    assert!(server.stderr().contains("the bundle that was activated"), "{}", server.stderr());
    let made = api.create(create("made")).await.unwrap();
    assert_eq!(made.embedding_digest, digest(2));
    api.put("made", text_item("a", "a red heart")).await.unwrap();
    drop(server);

    let server = folders.serve("three").await;
    let api = server.api().await.unwrap();
    assert_eq!(default_of(&api).await, (digest(3), false));
    assert!(server.stderr().contains("theirs is the default"), "{}", server.stderr());
    // What was made with it goes on.
    let search = ask("made", v1::Modality::Text, by_text("a red heart"));
    assert_eq!(ids(&api.hits(search).await.unwrap()), ["a"]);
}

/// A bundle whose weights take about 34 MB.
fn large(seed: u64) -> Bundle {
    let text = NgramBagConfig { buckets: 1 << 17, width: 64, gate: 4, hidden: 32, manner: 0 };
    let text_tower = Some(TextTowerConfig::NgramBag(text));
    untrained_bundle(ModelConfig { text_tower, ..tiny_model() }, seed).unwrap()
}

/// The bytes of memory that a process has, and how many of its threads encode.
fn footprint(server: &Server) -> (u64, usize) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")));
    let encoding = names.filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("encode-")));
    (server.resident_bytes().unwrap(), encoding.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unloaded_or_refused_gives_its_threads_and_its_memory_back() {
    const ROUNDS: usize = 6;
    let folders = Folders::new();
    let bundle = large(4);
    let digest = bundle.embedding_digest().to_owned();
    bundle.write(folders.path("models/large")).unwrap();
    // The weights of another, listed as they are: they load, and do not give the golden vectors.
    let other = large(5);
    let spoiled = folders.path("models/spoiled");
    bundle.write(&spoiled).unwrap();
    let weights = "model.safetensors";
    other.write(folders.path("other")).unwrap();
    let of_other = Path::new(&folders.path("other")).join(weights);
    std::fs::copy(of_other, Path::new(&spoiled).join(weights)).unwrap();
    let mut listed: Value = serde_json::from_slice(&bundle.files()["bundle.json"]).unwrap();
    let of_other: Value = serde_json::from_slice(&other.files()["bundle.json"]).unwrap();
    let entries = listed["files"].as_array_mut().unwrap();
    for (entry, other) in entries.iter_mut().zip(of_other["files"].as_array().unwrap()) {
        if entry["path"] == weights {
            *entry = other.clone();
        }
    }
    let manifest = Path::new(&spoiled).join("bundle.json");
    std::fs::write(manifest, serde_json::to_vec(&listed).unwrap()).unwrap();

    let server = folders.serve("one").await;
    let api = server.api().await.unwrap();
    let load = |path: &str| v1::LoadModelRequest { path: path.to_owned(), activate: false };
    until("the first bundle's threads begin", async || footprint(&server).1 == 2).await.unwrap();
    let (_, threads) = footprint(&server);
    let mut after_first = 0;
    for round in 0..ROUNDS {
        let loaded = api.admin().load_model(load("large")).await.unwrap().into_inner();
        let size = loaded.model.unwrap().weight_bytes;
        // A thread has its name only once it runs.
        until("the threads begin", async || footprint(&server).1 == threads + 2).await.unwrap();
        let refused = api.admin().load_model(load("spoiled")).await.unwrap_err();
        assert_eq!(Refusal::of(&refused).reason, "BUNDLE_REFUSED");
        let unload =
            v1::UnloadModelRequest { embedding_digest: digest.clone(), ..Default::default() };
        api.admin().unload_model(unload).await.unwrap();
        until("the threads end", async || footprint(&server).1 == threads).await.unwrap();
        if round == 0 {
            after_first = footprint(&server).0;
        }
        // What the allocator keeps does not grow with the rounds. It may keep what two bundles took, of which two were here at once.
        let bound = after_first + 2 * size;
        until("memory is given back", async || footprint(&server).0 < bound).await.unwrap();
    }
}
