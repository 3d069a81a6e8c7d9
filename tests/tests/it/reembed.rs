//! A change of bundle by the real server, which is killed in the middle of it, and goes on.

use std::path::{Path, PathBuf};

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::process::until;
use diptych_tests::{Api, Server, checkout, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

/// The bundle of the sample, and one beside it that takes shorter texts: the same vectors by another digest.
fn bundles(folder: &Path) -> (PathBuf, PathBuf) {
    let sample = checkout().join("server/sample/bundle");
    let other = folder.join("other");
    copy(&sample, &other);
    let manifest = other.join("bundle.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let changed = text.replace("\"max_bytes\": 8192", "\"max_bytes\": 4096");
    assert_ne!(changed, text);
    std::fs::write(manifest, changed).unwrap();
    (sample, other)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).unwrap();
        }
    }
}

/// Ids, metadata and sources, in the order of ids.
async fn content(api: &Api, collection: &str) -> Vec<(String, Option<v1::Source>)> {
    let list = v1::ListItemsRequest {
        collection: collection.to_owned(),
        page_size: 200,
        read_mask: mask(&["source"]),
        ..Default::default()
    };
    let items = api.list(list).await.unwrap();
    items.into_iter().map(|item| (item.id, item.source)).collect()
}

async fn total(api: &Api, collection: &str) -> u64 {
    let counts = api.collection(collection).await.map(|found| found.counts.unwrap_or_default());
    counts.map_or(0, |counts| counts.images + counts.texts)
}

/// Pictures and texts `i0`, `i1`, ... through the alias.
async fn fill(api: &Api, count: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for first in (0..count).step_by(50) {
        let items = (first..first + 50).map(|n| match n % 5 {
            0 => image_item(&format!("i{n}"), inputs::png(&mut rng)),
            _ => text_item(&format!("i{n}"), &inputs::words(&mut rng, n)),
        });
        let request = upserts("now", items.collect());
        api.items().batch_upsert_items(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_bundle_goes_on_after_kills_and_follows_what_is_written_meanwhile() {
    const ITEMS: u64 = 600;
    let folder = TempDir::new().unwrap();
    let (first, second) = bundles(folder.path());
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let arguments = ["--bundle", first, "--bundle", second];
    let mut server = Server::start(&folder.path().join("data"), &arguments).await.unwrap();
    let api = server.api().await.unwrap();
    let models = api.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let models = models.into_inner().models;
    assert_eq!(models.len(), 2);
    let digest = |default| {
        let found = models.iter().find(|model| model.is_default == default);
        found.unwrap().embedding_digest.clone()
    };
    let made = api.create(create("old")).await.unwrap();
    assert_eq!(made.embedding_digest, digest(true), "the first bundle is the default");
    api.set_alias("now", "old").await.unwrap();
    fill(&api, ITEMS).await;
    let start = v1::StartReembedRequest {
        alias: "now".to_owned(),
        embedding_digest: digest(false),
        collection: "new".to_owned(),
        ..Default::default()
    };
    let begun = api.collections().start_reembed(start).await.unwrap().into_inner();
    let operation = begun.operation.unwrap().name;

    let mut api = api;
    for least in [1, 200] {
        until("some of the new collection", async || total(&api, "new").await >= least)
            .await
            .unwrap();
        server.kill().unwrap();
        server.restart().await.unwrap();
        api = server.api().await.unwrap();
        api.put("now", text_item(&format!("later{least}"), "a red heart")).await.unwrap();
        api.delete("now", &format!("i{least}")).await.unwrap();
    }
    // It went on by itself, under its name.
    let ended = api.ended(&operation).await.unwrap();
    assert!(matches!(ended.outcome, Some(v1::operation::Outcome::Result(_))), "{ended:?}");
    api.put("now", text_item("last", "a green tree")).await.unwrap();
    let finish = v1::FinishReembedRequest { alias: "now".to_owned(), ..Default::default() };
    api.collections().finish_reembed(finish).await.unwrap();
    let now = api.collection("now").await.unwrap();
    assert_eq!((now.name.as_str(), now.embedding_digest), ("new", digest(false)));
    assert_eq!(content(&api, "new").await, content(&api, "old").await);
    assert_eq!(total(&api, "now").await, ITEMS + 1);

    // Finished is finished after a kill too, and can be taken back.
    server.kill().unwrap();
    server.restart().await.unwrap();
    let api = server.api().await.unwrap();
    assert_eq!(api.collection("now").await.unwrap().name, "new");
    api.put("now", text_item("since", "a blue house")).await.unwrap();
    let back = v1::RollbackReembedRequest { alias: "now".to_owned(), ..Default::default() };
    api.collections().rollback_reembed(back).await.unwrap();
    assert_eq!(api.collection("now").await.unwrap().name, "old");
    assert!(api.get("now", "since").await.is_ok());
}
