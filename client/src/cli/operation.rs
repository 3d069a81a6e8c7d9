//! `diptych operation` and `diptych compact`, and waiting for what other commands begin.

use std::time::Duration;

use anyhow::{Context as _, Result};
use diptych::{Client, v1};
use prost::Message as _;
use serde_json::{Value as Json, json};

use super::Outcome;
use super::args::{OperationCommand, Shared, Waiting};
use super::collections::collection_json;
use super::items::time;
use super::out::{Out, say};
use super::snapshot::snapshot_json;
use super::table::{number, table};

/// Without --deadline: as long as it takes.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// Lists, waits or cancels.
pub(crate) async fn run(
    client: &Client,
    shared: &Shared,
    command: OperationCommand,
    out: Out,
) -> Result<Outcome> {
    match command {
        OperationCommand::List => list(client, out).await,
        OperationCommand::Wait { name } => wait(client, shared, &name, out).await,
        OperationCommand::Cancel { name } => {
            let request = v1::CancelOperationRequest { name: name.clone() };
            client.cancel_operation(request).await?;
            if out.json {
                out.value(&json!({ "cancelled": name }))?;
            } else {
                out.line(&format!("asked {name} to stop"))?;
            }
            Ok(Outcome::Done)
        }
    }
}

/// Begins to compact a collection.
pub(crate) async fn compact(
    client: &Client,
    shared: &Shared,
    (collection, waiting): (String, Waiting),
    out: Out,
) -> Result<Outcome> {
    let begun = client.compact(v1::CompactRequest { collection }).await?.operation;
    follow(client, shared, (begun, waiting), out).await
}

/// Waits for what was begun, unless told not to, and prints it.
pub(crate) async fn follow(
    client: &Client,
    shared: &Shared,
    (begun, waiting): (Option<v1::Operation>, Waiting),
    out: Out,
) -> Result<Outcome> {
    let begun = begun.context("the server's answer holds no operation")?;
    if waiting.no_wait {
        return print(&begun, out);
    }
    wait(client, shared, &begun.name, out).await
}

async fn wait(client: &Client, shared: &Shared, name: &str, out: Out) -> Result<Outcome> {
    let ended = client.wait(name, shared.deadline.unwrap_or(FOREVER)).await?;
    let outcome = print(&ended, out)?;
    // One that goes on is not what was waited for.
    Ok(if ended.done { outcome } else { Outcome::Partly })
}

async fn list(client: &Client, out: Out) -> Result<Outcome> {
    let operations = client.operations().await?;
    if out.json {
        let all: Vec<Json> = operations.iter().map(operation_json).collect();
        out.value(&json!({ "operations": all }))?;
        return Ok(Outcome::Done);
    }
    let mut table = table(out, &["name", "kind", "state", "progress", "begun"]);
    for operation in &operations {
        table.add_row([
            operation.name.clone().into(),
            operation.kind.clone().into(),
            state(operation).into(),
            number(&format!("{:.0} %", 100.0 * operation.progress)),
            time(operation.create_time.as_ref()).into(),
        ]);
    }
    out.line(&table.trim_fmt())?;
    Ok(Outcome::Done)
}

fn state(operation: &v1::Operation) -> &'static str {
    match (&operation.outcome, operation.done) {
        (Some(v1::operation::Outcome::Error(_)), _) => "failed",
        (_, true) => "done",
        (_, false) => "running",
    }
}

fn print(operation: &v1::Operation, out: Out) -> Result<Outcome> {
    if out.json {
        out.value(&operation_json(operation))?;
    } else {
        let made = match result(operation) {
            Some(Made::Snapshot(snapshot)) => format!(": snapshot {}", snapshot.name),
            Some(Made::Collection(collection)) => format!(": collection {}", collection.name),
            None => String::new(),
        };
        let share = 100.0 * operation.progress;
        let state = state(operation);
        let line = format!("{} {} {state}, {share:.0} %{made}", operation.kind, operation.name);
        out.line(&line)?;
    }
    match &operation.outcome {
        Some(v1::operation::Outcome::Error(status)) => {
            say(&format!("diptych: {} failed: {}", operation.kind, status.message));
            Ok(Outcome::Partly)
        }
        _ => Ok(Outcome::Done),
    }
}

/// What an operation made.
enum Made {
    Snapshot(v1::Snapshot),
    Collection(Box<v1::Collection>),
}

fn result(operation: &v1::Operation) -> Option<Made> {
    let Some(v1::operation::Outcome::Result(any)) = &operation.outcome else { return None };
    let bytes = any.value.as_slice();
    match any.type_url.rsplit('/').next()? {
        "diptych.v1.Snapshot" => v1::Snapshot::decode(bytes).ok().map(Made::Snapshot),
        "diptych.v1.Collection" => {
            v1::Collection::decode(bytes).ok().map(|made| Made::Collection(Box::new(made)))
        }
        _ => None,
    }
}

fn operation_json(operation: &v1::Operation) -> Json {
    let mut json = json!({
        "name": operation.name,
        "kind": operation.kind,
        "state": state(operation),
        "progress": operation.progress,
        "create_time": time(operation.create_time.as_ref()),
        "update_time": time(operation.update_time.as_ref()),
    });
    match result(operation) {
        Some(Made::Snapshot(snapshot)) => json["snapshot"] = snapshot_json(&snapshot),
        Some(Made::Collection(made)) => json["collection"] = collection_json(&made),
        None => {}
    }
    if let Some(v1::operation::Outcome::Error(status)) = &operation.outcome {
        json["error"] = json!({ "code": status.code, "message": status.message });
    }
    json
}
