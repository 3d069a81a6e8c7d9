//! Checkpoints of a hub, against a stand-in on loopback: what is fetched, how a broken transfer goes on, what is refused, and
//! when nobody is asked.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use diptych_tests::Server;
use diptych_tests::hub::{COMMIT, Fault, Hub};
use diptych_tests::program::{command, shim};
use rand::SeedableRng as _;
use tempfile::TempDir;

mod offline;
mod serving;

const NAME: &str = "org/name";
/// Bytes of the weights: several reads, redirected.
const WEIGHTS: usize = 1 << 20;

/// A hub and a home for its cache.
struct Setup {
    hub: Hub,
    home: TempDir,
}

impl Setup {
    async fn new() -> Self {
        Self::of(checkpoint()).await
    }

    async fn of(files: BTreeMap<String, Vec<u8>>) -> Self {
        let hub = Hub::of_files(NAME, files).await.unwrap();
        Self { hub, home: TempDir::new().unwrap() }
    }

    /// The environment of a program that uses both.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("HF_ENDPOINT", self.hub.url().into()),
            ("HF_HOME", self.home.path().into()),
            ("NO_PROXY", "*".into()),
        ]
    }

    /// `diptych-server pull` with further variables and flags.
    fn command(&self, spec: &str, variables: &[(&str, &str)], flags: &[&str]) -> Command {
        let mut command = command("diptych-server");
        command.arg("pull").arg(spec).args(flags).env("HOME", self.home.path());
        for name in ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "SSL_CERT_FILE"]
        {
            command.env_remove(name);
        }
        command.envs(self.environment()).envs(variables.iter().copied());
        command
    }

    async fn run(&self, spec: &str, variables: &[(&str, &str)], flags: &[&str]) -> Output {
        let command = self.command(spec, variables, flags);
        tokio::process::Command::from(command).output().await.unwrap()
    }

    /// Pulls and gives the folder that is to be served.
    async fn pull(&self, spec: &str) -> PathBuf {
        folder_of(&self.run(spec, &[], &[]).await)
    }

    /// Pulls in vain and gives what was said.
    async fn refused(&self, spec: &str) -> String {
        said(&self.run(spec, &[], &[]).await)
    }

    /// Where the cache keeps the repository.
    fn cache(&self) -> PathBuf {
        self.home.path().join("hub/models--org--name")
    }
}

fn folder_of(output: &Output) -> PathBuf {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    let folder = told.lines().find(|line| line.starts_with('/')).unwrap();
    folder.into()
}

fn said(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn pinned() -> String {
    format!("hf:{NAME}@{COMMIT}")
}

/// A repository as they are: what serves, and what does not.
fn checkpoint() -> BTreeMap<String, Vec<u8>> {
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(12);
    let mut bytes = |length: usize| {
        let mut bytes = vec![0; length];
        rand::RngCore::fill_bytes(&mut random, &mut bytes);
        bytes
    };
    let files = [
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", bytes(9000)),
        ("model.safetensors", bytes(WEIGHTS)),
        ("pytorch_model.bin", bytes(5000)),
        ("README.md", b"# Name".to_vec()),
    ];
    files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect()
}

/// Files below `folder` with their contents.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

/// What serves of [`checkpoint`].
fn needed() -> BTreeMap<String, Vec<u8>> {
    let mut files = checkpoint();
    files.retain(|name, _| !["pytorch_model.bin", "README.md"].contains(&name.as_str()));
    files
}

#[tokio::test]
async fn what_serving_needs_is_fetched_and_nothing_else() {
    let setup = Setup::new().await;
    let output = setup.run("hf:org/name", &[], &[]).await;
    let folder = folder_of(&output);
    assert_eq!(contents(&folder), needed());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&pinned()), "the commit is not told: {told}");
    let snapshot = setup.cache().join("snapshots").join(COMMIT);
    assert_eq!(contents(&snapshot), needed(), "other clients of the hub find nothing");
    assert_eq!(std::fs::read_to_string(setup.cache().join("refs/main")).unwrap(), COMMIT);
    let asked = setup.hub.requests();
    assert!(asked.iter().all(|request| !request.path.ends_with(".bin")), "{asked:?}");
    let record = setup.cache().join("diptych").join(format!("{COMMIT}.json"));
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(record["files"].as_array().unwrap().len(), 3);
    assert_eq!(record["files"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn a_commit_that_is_whole_in_the_cache_needs_no_request_and_a_branch_one() {
    let setup = Setup::new().await;
    let first = setup.pull(&pinned()).await;
    let asked = setup.hub.requests().len();
    assert_eq!(setup.pull(&pinned()).await, first);
    assert_eq!(setup.hub.requests().len(), asked);
    assert_eq!(setup.pull("hf:org/name@main").await, first);
    assert_eq!(setup.hub.requests().len(), asked + 1);
}

#[tokio::test]
async fn a_transfer_that_broke_off_goes_on_where_it_was() {
    let setup = Setup::new().await;
    setup.hub.fault("model.safetensors", Fault::CutAfter(300_000));
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
    let parts = setup.hub.contents("model.safetensors");
    assert_eq!(parts.len(), 2, "{parts:?}");
    assert_eq!(parts[0], (0, 300_000));
    // All that was sent may not have arrived, but most of it did, and none of what did is sent again.
    let (start, sent) = parts[1];
    assert!(start > 0 && start <= 300_000 && start + sent == WEIGHTS, "{parts:?}");
}

#[tokio::test]
async fn a_fetch_that_ended_goes_on_in_the_next_run() {
    let setup = Setup::new().await;
    setup.hub.fault("model.safetensors", Fault::UpTo(300_000));
    let told = setup.refused(&pinned()).await;
    assert!(told.contains("300000 of 1048576 bytes are kept"), "{told}");
    setup.hub.heal();
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
    let parts = setup.hub.contents("model.safetensors");
    assert_eq!(parts.last(), Some(&(300_000, WEIGHTS - 300_000)));
}

#[tokio::test]
async fn what_an_earlier_run_left_is_given_up_when_it_does_not_fit() {
    let setup = Setup::new().await;
    let blobs = setup.cache().join("blobs");
    setup.pull(&pinned()).await;
    let record = setup.cache().join("diptych").join(format!("{COMMIT}.json"));
    let record = String::from_utf8(std::fs::read(record).unwrap()).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    let files = record["files"].as_array().unwrap();
    let weights = files.iter().find(|file| file["path"] == "model.safetensors").unwrap();
    let part = format!("{}.incomplete", weights["etag"].as_str().unwrap());
    // Other bytes of a part, and more bytes than there are: the sum of both is the same file again.
    for length in [WEIGHTS / 2, WEIGHTS + 1] {
        std::fs::remove_dir_all(setup.cache()).unwrap();
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(&part), vec![7; length]).unwrap();
        assert_eq!(contents(&setup.pull(&pinned()).await), needed(), "{length}");
    }
}

#[tokio::test]
async fn a_hub_without_ranges_is_asked_for_the_whole() {
    let setup = Setup::new().await;
    setup.hub.fault("model.safetensors", Fault::UpTo(200_000));
    setup.refused(&pinned()).await;
    setup.hub.fault("model.safetensors", Fault::Whole);
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
}

#[tokio::test]
async fn a_hub_that_is_busy_is_asked_again() {
    let setup = Setup::new().await;
    setup.hub.fault("model.safetensors", Fault::Status(503));
    setup.hub.fault("config.json", Fault::Status(429));
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_nothing_of_it_is_kept() {
    let setup = Setup::new().await;
    setup.hub.fault("model.safetensors", Fault::Wrong);
    let told = setup.refused(&pinned()).await;
    assert!(told.contains("model.safetensors") && told.contains("SHA-256"), "{told}");
    let kept = contents(&setup.cache().join("blobs"));
    assert!(kept.values().all(|content| content.len() < WEIGHTS), "{:?}", kept.keys());
    assert!(!setup.cache().join("diptych").join(COMMIT).join("model.safetensors").exists());
    setup.hub.heal();
    assert_eq!(contents(&setup.pull(&pinned()).await), needed());
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_to_do() {
    let setup = Setup::new().await;
    let rows = [
        ("hf:org/other@main".to_owned(), ["no repository org/other", "check its spelling"]),
        ("hf:org/name@v9".to_owned(), ["no revision v9", "name a branch, a tag or a whole commit"]),
        ("org/name".to_owned(), ["names no checkpoint of a hub", "hf:ORG/NAME@REVISION"]),
    ];
    for (spec, parts) in rows {
        let told = setup.refused(&spec).await;
        assert!(parts.iter().all(|part| told.contains(part)), "{spec}: {told}");
    }
    setup.hub.lose("tokenizer.json");
    let told = setup.refused(&pinned()).await;
    assert!(told.contains("lacks tokenizer.json"), "{told}");
}

#[tokio::test]
async fn pickle_is_never_fetched() {
    let mut files = checkpoint();
    files.remove("model.safetensors");
    let setup = Setup::of(files).await;
    let told = setup.refused(&pinned()).await;
    assert!(told.contains("pytorch_model.bin") && told.contains("diptych-train import"), "{told}");
    assert_eq!(setup.hub.requests().len(), 1);
}

#[tokio::test]
async fn a_private_repository_takes_the_token_of_a_file() {
    let setup = Setup::new().await;
    setup.hub.demand_token("hf_right");
    let told = setup.refused(&pinned()).await;
    assert!(told.contains("hf_token_file"), "{told}");
    let file = setup.home.path().join("own-token");
    std::fs::write(&file, "hf_wrong\n").unwrap();
    let flags = ["--hf-token-file", file.to_str().unwrap()];
    let told = said(&setup.run(&pinned(), &[], &flags).await);
    assert!(told.contains("403") && told.contains("ask for access"), "{told}");
    assert!(!told.contains("hf_wrong"), "a secret was told");

    std::fs::write(&file, "hf_right\n").unwrap();
    folder_of(&setup.run(&pinned(), &[], &flags).await);
    // What the hub's own command line leaves does as well.
    std::fs::remove_dir_all(setup.cache()).unwrap();
    std::fs::rename(&file, setup.home.path().join("token")).unwrap();
    setup.pull(&pinned()).await;
}
