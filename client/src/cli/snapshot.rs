//! `diptych snapshot`.

use anyhow::Result;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::Outcome;
use super::args::{Shared, SnapshotCommand};
use super::items::time;
use super::operation;
use super::out::Out;
use super::table::{number, table};

/// Makes, lists, restores or deletes.
pub(crate) async fn run(
    client: &Client,
    shared: &Shared,
    command: SnapshotCommand,
    out: Out,
) -> Result<Outcome> {
    match command {
        SnapshotCommand::Create { of, waiting } => {
            let request = v1::CreateSnapshotRequest { collection: of, ..Default::default() };
            let begun = client.create_snapshot(request).await?.operation;
            operation::follow(client, shared, (begun, waiting), out).await
        }
        SnapshotCommand::List { of } => list(client, of.as_deref().unwrap_or_default(), out).await,
        SnapshotCommand::Restore { name, into, waiting } => {
            let collection = into.unwrap_or_default();
            let request = v1::RestoreSnapshotRequest { name, collection, ..Default::default() };
            let begun = client.restore_snapshot(request).await?.operation;
            operation::follow(client, shared, (begun, waiting), out).await
        }
        SnapshotCommand::Delete { name } => {
            let request = v1::DeleteSnapshotRequest { name: name.clone(), ..Default::default() };
            client.delete_snapshot(request).await?;
            if out.json {
                out.value(&json!({ "deleted": name }))?;
            } else {
                out.line(&format!("deleted snapshot {name}"))?;
            }
            Ok(Outcome::Done)
        }
    }
}

async fn list(client: &Client, of: &str, out: Out) -> Result<Outcome> {
    let snapshots = client.snapshots(of).await?;
    if out.json {
        let all: Vec<Json> = snapshots.iter().map(snapshot_json).collect();
        out.value(&json!({ "snapshots": all }))?;
        return Ok(Outcome::Done);
    }
    let mut table = table(out, &["name", "collection", "bytes", "created"]);
    for snapshot in &snapshots {
        table.add_row([
            snapshot.name.clone().into(),
            snapshot.collection.clone().into(),
            number(&snapshot.size_bytes),
            time(snapshot.create_time.as_ref()).into(),
        ]);
    }
    out.line(&table.trim_fmt())?;
    Ok(Outcome::Done)
}

/// A snapshot for programs.
pub(crate) fn snapshot_json(snapshot: &v1::Snapshot) -> Json {
    json!({
        "name": snapshot.name,
        "collection": snapshot.collection,
        "size_bytes": snapshot.size_bytes,
        "sha256": snapshot.sha256,
        "generation": snapshot.generation,
        "create_time": time(snapshot.create_time.as_ref()),
    })
}
