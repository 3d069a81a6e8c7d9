//! `diptych alias` and `diptych reembed`.

use anyhow::{Context as _, Result};
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::Outcome;
use super::args::{AliasCommand, ReembedCommand, Shared};
use super::operation;
use super::out::Out;
use super::table::table;

/// Sets, lists or deletes.
pub(crate) async fn run(client: &Client, command: AliasCommand, out: Out) -> Result<()> {
    match command {
        AliasCommand::Set { alias, target, expect } => {
            let alias = v1::Alias { name: alias, collection: target };
            let request = v1::SetAliasRequest {
                alias: Some(alias.clone()),
                expected_collection: expect,
                ..Default::default()
            };
            let previous = client.set_alias(request).await?.previous_collection;
            if out.json {
                let mut json = alias_json(&alias);
                json["previous_collection"] = json!(previous);
                return out.value(&json);
            }
            let before =
                if previous.is_empty() { String::new() } else { format!(" (was {previous})") };
            Ok(out.line(&format!("{} points at {}{before}", alias.name, alias.collection))?)
        }
        AliasCommand::List => list(client, out).await,
        AliasCommand::Delete { alias } => {
            let request = v1::DeleteAliasRequest { name: alias.clone(), ..Default::default() };
            client.delete_alias(request).await?;
            if out.json {
                return out.value(&json!({ "deleted": alias }));
            }
            Ok(out.line(&format!("deleted alias {alias}"))?)
        }
    }
}

async fn list(client: &Client, out: Out) -> Result<()> {
    let aliases = client.aliases().await?;
    if out.json {
        let all: Vec<Json> = aliases.iter().map(alias_json).collect();
        return out.value(&json!({ "aliases": all }));
    }
    let mut table = table(out, &["alias", "collection"]);
    for alias in &aliases {
        table.add_row([&alias.name, &alias.collection]);
    }
    Ok(out.line(&table.trim_fmt())?)
}

/// Starts, finishes or rolls back a change of bundle.
pub(crate) async fn reembed(
    client: &Client,
    shared: &Shared,
    command: ReembedCommand,
    out: Out,
) -> Result<Outcome> {
    let alias = match command {
        ReembedCommand::Start { alias, bundle, into, waiting } => {
            let request = v1::StartReembedRequest {
                alias,
                embedding_digest: bundle,
                collection: into,
                ..Default::default()
            };
            let begun = client.start_reembed(request).await?.operation;
            return operation::follow(client, shared, (begun, waiting), out).await;
        }
        ReembedCommand::Finish { alias } => {
            let request = v1::FinishReembedRequest { alias, ..Default::default() };
            client.finish_reembed(request).await?.alias
        }
        ReembedCommand::Rollback { alias } => {
            let request = v1::RollbackReembedRequest { alias, ..Default::default() };
            client.rollback_reembed(request).await?.alias
        }
    };
    let alias = alias.context("the server's answer holds no alias")?;
    if out.json {
        out.value(&alias_json(&alias))?;
    } else {
        out.line(&format!("{} points at {}", alias.name, alias.collection))?;
    }
    Ok(Outcome::Done)
}

fn alias_json(alias: &v1::Alias) -> Json {
    json!({ "name": alias.name, "collection": alias.collection })
}
