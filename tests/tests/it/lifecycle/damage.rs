//! Bundles and data folders that are damaged: the process ends with a sentence that names the place and what to do.

use std::path::{Path, PathBuf};

use diptych_tests::api::*;
use diptych_tests::{Server, checkout};
use tempfile::TempDir;

use super::refused_start;

/// A way to damage a folder.
type Damage = fn(&Path);

fn bundle_copy(folder: &Path) -> PathBuf {
    let copy = folder.join("bundle");
    copy_folder(&checkout().join("server/sample/bundle"), &copy);
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            std::fs::copy(&path, &copy).unwrap();
        }
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_whole_bundle_folder_is_served() {
    let data = TempDir::new().unwrap();
    let bundle = bundle_copy(data.path());
    let arguments = ["--bundle", bundle.to_str().unwrap()];
    let server = Server::start(&data.path().join("data"), &arguments).await.unwrap();
    assert!(server.api().await.unwrap().create(create("things")).await.is_ok());
}

#[tokio::test]
async fn a_damaged_bundle_ends_the_start_with_a_sentence() {
    let damages: [(&str, Damage); 8] = [
        ("no folder", |folder| std::fs::remove_dir_all(folder).unwrap()),
        ("no weights", |folder| std::fs::remove_file(folder.join("model.safetensors")).unwrap()),
        ("weights cut off", |folder| {
            change(&folder.join("model.safetensors"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("a flipped weight", |folder| {
            change(&folder.join("model.safetensors"), |bytes| *bytes.last_mut().unwrap() ^= 0x40);
        }),
        ("a manifest cut off", |folder| {
            change(&folder.join("bundle.json"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("no manifest", |folder| std::fs::remove_file(folder.join("bundle.json")).unwrap()),
        ("a manifest of the future", |folder| {
            change(&folder.join("bundle.json"), |bytes| {
                let text = String::from_utf8(bytes.clone()).unwrap();
                *bytes = text.replace("\"min_reader\": 1", "\"min_reader\": 99").into_bytes();
            });
        }),
        ("a golden input changed", |folder| {
            change(&folder.join("golden/text-000.txt"), |bytes| bytes.push(b'x'));
        }),
    ];
    for (what, damage) in damages {
        let folder = TempDir::new().unwrap();
        let bundle = bundle_copy(folder.path());
        damage(&bundle);
        let bundle = bundle.to_str().unwrap();
        let told = refused_start(&folder.path().join("data"), &["--bundle", bundle]).await;
        println!("{what}: {told}");
        assert!(told.contains(bundle), "{what}: {told}");
    }
}

#[tokio::test]
async fn a_damaged_data_folder_ends_the_start_with_a_sentence() {
    let whole = TempDir::new().unwrap();
    let server = Server::plain(whole.path()).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create("things")).await.unwrap();
    for number in 0..20 {
        api.put("things", text_item(&format!("t{number}"), "a text")).await.unwrap();
    }
    drop(server);
    let damages: [(&str, Damage); 4] = [
        ("noise for a database", |store| {
            change(&store.join("db/data.mdb"), |bytes| bytes.fill(0xa5));
        }),
        ("a database cut off", |store| {
            change(&store.join("db/data.mdb"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("a garbled marker", |store| {
            std::fs::write(store.join("diptych-store.json"), "garbled").unwrap();
        }),
        ("a store of the future", |store| {
            change(&store.join("diptych-store.json"), |bytes| {
                let mut marker: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                marker["version"] = 99.into();
                *bytes = serde_json::to_vec(&marker).unwrap();
            });
        }),
    ];
    for (what, damage) in damages {
        let folder = TempDir::new().unwrap();
        copy_folder(whole.path(), folder.path());
        let store = folder.path().join("store");
        damage(&store);
        let told = refused_start(folder.path(), &["--sample", "false"]).await;
        println!("{what}: {told}");
        assert!(told.contains(store.to_str().unwrap()), "{what}: {told}");
    }
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let data = file.join("data");
    let told = refused_start(&data, &["--sample", "false"]).await;
    assert!(told.contains(data.to_str().unwrap()), "{told}");
}
