//! `diptych get` and `diptych delete`.

use anyhow::{Context as _, Result, bail};
use diptych::v1::delete_items_request::Selection;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::args::{DeleteArgs, GetArgs, Shared};
use super::out::Out;
use super::search::filter;
use super::table::facts;
use super::value::{metadata_json, metadata_line, modality_name, source_image, source_text};

/// Most ids that a server takes in one delete.
const DELETE_IDS: usize = 1000;

/// Prints an item.
pub(crate) async fn get(client: &Client, shared: &Shared, args: GetArgs, out: Out) -> Result<()> {
    let reply = client.get_item(diptych::get_item(&shared.collection, &args.id)).await?;
    let item = reply.item.context("the server's answer holds no item")?;
    if let Some(path) = &args.save {
        let source = item.source.as_ref();
        let bytes = source_image(source).or_else(|| source_text(source).map(str::as_bytes));
        let Some(bytes) = bytes else { bail!("the server keeps no source of {}", item.id) };
        std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if out.json {
        return out.value(&item_json(&item));
    }
    let mut lines = vec![
        ("id", item.id.clone()),
        ("modality", modality_name(item.modality).to_owned()),
        ("group", item.group.clone()),
        ("version", item.version.to_string()),
        ("created", time(item.create_time.as_ref())),
        ("updated", time(item.update_time.as_ref())),
        ("metadata", metadata_line(&item.metadata)),
    ];
    lines.extend(source_text(item.source.as_ref()).map(|text| ("text", text.to_owned())));
    let picture = source_image(item.source.as_ref());
    lines.extend(picture.map(|bytes| ("picture", format!("{} bytes", bytes.len()))));
    lines.retain(|(_, value)| !value.is_empty());
    Ok(out.line(&facts(out, &lines).trim_fmt())?)
}

fn item_json(item: &v1::Item) -> Json {
    let mut json = json!({
        "id": item.id,
        "group": item.group,
        "modality": modality_name(item.modality),
        "metadata": metadata_json(&item.metadata),
        "version": item.version,
        "create_time": time(item.create_time.as_ref()),
        "update_time": time(item.update_time.as_ref()),
    });
    if let Some(text) = source_text(item.source.as_ref()) {
        json["text"] = json!(text);
    }
    if let Some(bytes) = source_image(item.source.as_ref()) {
        let sha256 = hex::encode(Sha256::digest(bytes));
        json["image"] = json!({ "bytes": bytes.len(), "sha256": sha256 });
    }
    json
}

/// A time as RFC 3339; empty when there is none.
pub(crate) fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp.map(ToString::to_string).unwrap_or_default()
}

/// Deletes items and prints how many there were.
pub(crate) async fn delete(
    client: &Client,
    shared: &Shared,
    args: DeleteArgs,
    out: Out,
) -> Result<()> {
    let filter = filter(&args.filters);
    let selections: Vec<Selection> = match (args.group, filter) {
        (Some(group), _) => vec![Selection::Group(group)],
        (None, Some(filter)) => vec![Selection::Filter(filter)],
        (None, None) => args
            .ids
            .chunks(DELETE_IDS)
            .map(|ids| Selection::Ids(v1::ItemIds { ids: ids.to_vec() }))
            .collect(),
    };
    let (mut deleted, mut not_found) = (0, 0);
    for selection in selections {
        let request = v1::DeleteItemsRequest {
            collection: shared.collection.clone(),
            selection: Some(selection),
            dry_run: args.dry_run,
            expected_count: args.count,
            ..Default::default()
        };
        let reply = client.delete_items(request).await?;
        deleted += reply.deleted;
        not_found += reply.not_found;
    }
    if out.json {
        let json = json!({ "deleted": deleted, "not_found": not_found, "dry_run": args.dry_run });
        return out.value(&json);
    }
    let missing = if not_found == 0 { String::new() } else { format!(", {not_found} not there") };
    let done = if args.dry_run { "would be deleted" } else { "deleted" };
    Ok(out.line(&format!("{deleted} {done}{missing}"))?)
}
