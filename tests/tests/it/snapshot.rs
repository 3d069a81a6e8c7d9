//! Snapshots, aliases and operations by the command line, and a restore that is killed.

use std::process::{Command, Stdio};

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::program::command;
use diptych_tests::{Api, Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs a command that must end well, and gives what it printed.
fn diptych(server: &Server, arguments: &[&str]) -> Value {
    let output = run(server, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(server: &Server, arguments: &[&str]) -> Command {
    let mut command = command("diptych");
    command.args(arguments).args(["--json", "--server", &server.url()]).stdin(Stdio::null());
    command
}

async fn whole(api: &Api, collection: &str) -> Vec<v1::Item> {
    let list = v1::ListItemsRequest {
        collection: collection.to_owned(),
        page_size: 100,
        read_mask: mask(&["metadata", "source", "vectors"]),
        ..Default::default()
    };
    api.list(list).await.unwrap()
}

async fn filled(folder: &TempDir, count: u64) -> (Server, Api) {
    let server = Server::plain(&folder.path().join("data")).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create("things")).await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for first in (0..count).step_by(40) {
        let items = (first..first + 40).map(|n| {
            let mut item = match n % 20 {
                0 => image_item(&format!("i{n}"), inputs::noise_png(&mut rng, 160)),
                _ => text_item(&format!("i{n}"), &inputs::words(&mut rng, n)),
            };
            let lang = if n % 2 == 0 { "de" } else { "en" };
            item.metadata.insert("lang".to_owned(), text_value(lang));
            item
        });
        api.items().batch_upsert_items(upserts("things", items.collect())).await.unwrap();
    }
    (server, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_aliases_snapshots_settings_and_deletes_by_filter() {
    let folder = TempDir::new().unwrap();
    let (server, api) = filled(&folder, 80).await;
    let set = diptych(&server, &["alias", "set", "now", "things", "--expect", ""]);
    assert_eq!(set["previous_collection"], "");
    let listed = diptych(&server, &["alias", "list"]);
    assert_eq!(listed, json!({ "aliases": [{ "name": "now", "collection": "things" }] }));

    let made = diptych(&server, &["snapshot", "create", "now"]);
    assert_eq!((&made["kind"], &made["state"]), (&json!("CreateSnapshot"), &json!("done")));
    let name = made["snapshot"]["name"].as_str().unwrap().to_owned();
    assert_eq!(diptych(&server, &["snapshot", "list"])["snapshots"][0]["name"], name);
    let before = whole(&api, "things").await;

    let filter = ["delete", "--collection", "now", "--filter", "lang=de"];
    let counted = diptych(&server, &[&filter[..], &["--dry-run"]].concat());
    assert_eq!((&counted["deleted"], &counted["dry_run"]), (&json!(40), &json!(true)));
    let unsure = run(&server, &filter).output().unwrap();
    assert_eq!(unsure.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unsure.stderr).contains("expected_count"));
    assert_eq!(diptych(&server, &[&filter[..], &["--count", "40"]].concat())["deleted"], 40);
    assert_eq!(whole(&api, "things").await.len(), 40);

    let begun = diptych(&server, &["snapshot", "restore", &name, "--into", "copy", "--no-wait"]);
    let operation = begun["name"].as_str().unwrap();
    let ended = diptych(&server, &["operation", "wait", operation]);
    assert_eq!((&ended["state"], &ended["collection"]["name"]), (&json!("done"), &json!("copy")));
    assert_eq!(whole(&api, "copy").await, before);
    let taken = run(&server, &["snapshot", "restore", &name]).output().unwrap();
    assert_eq!(taken.status.code(), Some(1));

    diptych(&server, &["alias", "set", "now", "copy", "--expect", "things"]);
    let update = ["collection", "update", "now", "--keep-source", "false"];
    assert_eq!(diptych(&server, &update)["keep_source"], false);
    assert_eq!(diptych(&server, &["compact", "now"])["collection"]["name"], "copy");
    assert_eq!(diptych(&server, &["operation", "list"])["operations"].as_array().unwrap().len(), 3);
    diptych(&server, &["operation", "cancel", operation]);
    diptych(&server, &["snapshot", "delete", &name]);
    diptych(&server, &["alias", "delete", "now"]);
    assert_eq!(diptych(&server, &["snapshot", "list"]), json!({ "snapshots": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_no_collection_and_can_be_done_again() {
    let folder = TempDir::new().unwrap();
    let (mut server, api) = filled(&folder, 800).await;
    let before = whole(&api, "things").await;
    let made = diptych(&server, &["snapshot", "create", "things"]);
    let name = made["snapshot"]["name"].as_str().unwrap().to_owned();
    let restore = ["snapshot", "restore", &name, "--into", "copy"];
    for _ in 0..3 {
        diptych(&server, &[&restore[..], &["--no-wait"]].concat());
        server.kill().unwrap();
        server.restart().await.unwrap();
        let api = server.api().await.unwrap();
        let mut collections = api.collections();
        let listed = collections.list_collections(v1::ListCollectionsRequest::default()).await;
        let listed = listed.unwrap().into_inner().collections;
        // Cut off, or whole: nothing in between.
        match listed.iter().find(|found| found.name == "copy") {
            None => assert_eq!(listed.len(), 1),
            Some(_) => {
                assert_eq!(whole(&api, "copy").await, before);
                diptych(&server, &["collections", "delete", "copy"]);
            }
        }
    }
    diptych(&server, &restore);
    let api = server.api().await.unwrap();
    assert_eq!(whole(&api, "copy").await, before);
    assert_eq!(whole(&api, "things").await, before);
}
