//! A disk that is full: writes are refused with the reason, deletes and reads go on, writes come back by themselves.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::process::until;
use diptych_tests::{Api, Refusal, Server};
use tempfile::TempDir;
use tonic::{Code, Status};

const COLLECTION: &str = "things";
const DIMS: usize = 1024;
/// Room for some thousand items of 4 KiB, and for what is held in reserve.
const DISK: &str = "size=32m";

/// A small file system of its own, gone when dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None` where nothing may be mounted, and says so past the test harness.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "diptych-test"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        let note = "SKIPPED: the full disk. Mounting a tmpfs takes root.\n";
        drop(std::io::stderr().write_all(note.as_bytes()));
        None
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since the server may still be ending.
        drop(Command::new("umount").arg("-l").arg(self.folder.path()).output());
    }
}

/// Takes all room that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [64 << 10, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn batch(numbers: std::ops::Range<usize>) -> v1::BatchUpsertItemsRequest {
    let item = |n: usize| {
        let mut vector = vec![0.0; DIMS];
        vector[n % DIMS] = 1.0;
        vector_item(&format!("i{n}"), v1::Modality::Image, &vector, None)
    };
    upserts(COLLECTION, numbers.map(item).collect())
}

/// Puts until the disk refuses; gives the refusal and adds what was acknowledged.
async fn put_until_refused(api: &Api, known: &mut BTreeSet<String>, from: usize) -> Refusal {
    for first in (from..from + 100_000).step_by(16) {
        match api.items().batch_upsert_items(batch(first..first + 16)).await {
            Ok(_) => known.extend((first..first + 16).map(|n| format!("i{n}"))),
            Err(status) => return Refusal::of(&status),
        }
    }
    panic!("the disk takes more than it can hold");
}

async fn put_one(api: &Api, number: usize) -> Result<(), Status> {
    api.items().batch_upsert_items(batch(number..number + 1)).await.map(|_| ())
}

/// What is acknowledged is there, and nothing else; reads and searches are answered.
async fn check(api: &Api, known: &BTreeSet<String>) {
    let list = v1::ListItemsRequest {
        collection: COLLECTION.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let listed = api.list(list).await.unwrap();
    let listed: BTreeSet<String> = listed.into_iter().map(|item| item.id).collect();
    assert_eq!(&listed, known);
    let id = known.first().unwrap();
    let hits = api.hits(ask(COLLECTION, v1::Modality::Image, by_item(id))).await.unwrap();
    assert!(!hits.is_empty());
}

async fn delete(api: &Api, known: &mut BTreeSet<String>, count: usize) {
    for _ in 0..count {
        let id = known.pop_last().unwrap();
        assert_eq!(api.delete(COLLECTION, &id).await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_deletes_and_reads_go_on_and_writes_come_back_by_themselves() {
    let Some(disk) = Disk::mount() else { return };
    let mut server = Server::plain(&disk.data()).await.unwrap();
    let api = server.api().await.unwrap();
    let dims = u32::try_from(DIMS).unwrap();
    api.create(create_bare(COLLECTION, (dims, 0, 0))).await.unwrap();
    let mut known = BTreeSet::new();
    let full = |refusal: &Refusal| {
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORAGE_FULL"));
    };

    // Something else takes the room.
    for first in (0..192).step_by(64) {
        api.items().batch_upsert_items(batch(first..first + 64)).await.unwrap();
    }
    known.extend((0..192).map(|n| format!("i{n}")));
    let other = disk.folder.path().join("other");
    fill(&other);
    full(&put_until_refused(&api, &mut known, 1000).await);
    check(&api, &known).await;
    delete(&api, &mut known, 20).await;
    check(&api, &known).await;
    std::fs::remove_file(&other).unwrap();
    until("writes after room was made", async || put_one(&api, 500).await.is_ok()).await.unwrap();
    known.insert("i500".to_owned());

    // The store itself takes it; what is deleted makes room for what is put.
    full(&put_until_refused(&api, &mut known, 10_000).await);
    let half = known.len() / 2;
    delete(&api, &mut known, half).await;
    until("writes after deletes", async || put_one(&api, 501).await.is_ok()).await.unwrap();
    known.insert("i501".to_owned());
    check(&api, &known).await;

    // A start on a disk without room loses nothing and refuses nothing but writes.
    fill(&other);
    server.restart().await.unwrap();
    let api = server.api().await.unwrap();
    check(&api, &known).await;
    delete(&api, &mut known, 5).await;
    std::fs::remove_file(&other).unwrap();
    until("writes after the start", async || put_one(&api, 502).await.is_ok()).await.unwrap();
    known.insert("i502".to_owned());
    check(&api, &known).await;
}
