//! A disk without room: writes are refused with a reason, reads go on, a start is not refused, and writes come back.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use diptych_tests::api::*;
use diptych_tests::process::until;
use rand::Rng as _;
use tempfile::TempDir;

use super::Crasher;
use crate::history::{THINGS, check, seed};

/// A file system of its own in memory; it goes with the test.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// `None` where mounting is not allowed: the caller says so and does nothing.
    fn mount(path: &Path, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir(path).ok()?;
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self { path: path.to_path_buf() })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is being killed may still hold files.
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

/// Takes all room but for about `left` bytes.
fn take_room(disk: &SmallDisk, left: u64) -> Result<PathBuf> {
    let path = disk.path.join("something-else");
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(&disk.path).output()?;
    let told = String::from_utf8(output.stdout)?;
    let free: u64 = told.lines().last().unwrap_or_default().trim().parse()?;
    match std::fs::write(&path, vec![1; usize::try_from(free.saturating_sub(left))?]) {
        // The server took some of it meanwhile: full is what it was to become.
        Err(error) if error.kind() != ErrorKind::StorageFull => Err(error.into()),
        _ => Ok(path),
    }
}

async fn fill_and_kill(seed: u64, rounds: usize) -> Result<()> {
    let folder = TempDir::new()?;
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 48) else {
        println!("SKIPPED: a tmpfs cannot be mounted here; run as root to try a full disk");
        return Ok(());
    };
    let data = disk.path.join("data");
    let mut crasher = Crasher::start(seed, folder.path(), &data).await?;
    for round in 0..rounds {
        let left = crasher.rng.random_range(0..2 << 20);
        let other = take_room(&disk, left)?;
        // Without end, so that all writers are refused; or until a kill, which may come before that.
        let endless = round % 2 == 0;
        let enough = if endless { usize::MAX } else { crasher.rng.random_range(50..2000) };
        let refused = crasher.refused;
        crasher.work(enough).await?;
        ensure!(!endless || crasher.refused > refused, "the disk was never full");
        crasher.recover().await?;
        reads_go_on(&crasher).await?;
        std::fs::remove_file(other)?;
        writes_come_back(&crasher).await?;
        let api = crasher.server.api().await?;
        check(&api, &mut crasher.model, &mut crasher.rng).await?;
        ensure!(
            crasher.model.doubts.is_empty(),
            "round {round}: writes are refused with room on the disk"
        );
    }
    Ok(())
}

/// Many at once: each holds a place in a table that must have its room already.
async fn reads_go_on(crasher: &Crasher) -> Result<()> {
    let api = crasher.server.api().await?;
    let mut reads = tokio::task::JoinSet::new();
    for (collection, id) in crasher.model.items.keys().cycle().take(400).cloned() {
        let api = api.clone();
        reads.spawn(async move { api.get(collection, &id).await });
    }
    while let Some(read) = reads.join_next().await {
        read??;
    }
    Ok(())
}

/// By themselves, soon after there is room. What is put is taken away again.
async fn writes_come_back(crasher: &Crasher) -> Result<()> {
    let api = crasher.server.api().await?;
    until("writes after room was made", || async {
        api.put(THINGS, text_item("w-room", "room")).await.is_ok()
            && api.delete(THINGS, "w-room").await.is_ok()
    })
    .await
}

#[tokio::test]
async fn a_server_that_is_killed_on_a_full_disk_starts_and_answers() {
    let seed = seed();
    fill_and_kill(seed, 2).await.unwrap_or_else(|error| panic!("DIPTYCH_SEED={seed}: {error:#}"));
}

#[tokio::test]
#[ignore = "many full disks: run by just long"]
async fn a_server_that_is_killed_on_a_full_disk_again_and_again_starts_and_answers() {
    let first = seed();
    for seed in first..first + 8 {
        fill_and_kill(seed, 8)
            .await
            .unwrap_or_else(|error| panic!("DIPTYCH_SEED={seed}: {error:#}"));
    }
}
