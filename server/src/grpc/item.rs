//! ItemService.

use std::sync::Arc;

use diptych_index::{ItemId, Modality, Selection, Vectors};
use diptych_proto::v1;
use diptych_proto::v1::item_service_server::ItemService;
use tonic::{Request, Response, Status, Streaming};

use super::Handler;
use super::convert::{count, digest, group, item_id, mask, modality, request_key, truncation};
use super::export::{Items, export};
use super::hit::item_out;
use super::ingest::ingest;
use super::replies::Replies;
use super::status::to_message;
use super::value::{filter, metadata, vector};
use super::write::write;
use crate::error::{Error, Result};
use crate::items::{Content, ItemDelete, ItemPut, ItemWritten, Listing, MAX_DELETE_IDS};
use crate::service::Service;

/// Parts of an item that may be asked for.
pub(super) const ITEM_PARTS: [&str; 3] = ["metadata", "source", "vectors"];

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ItemService for Handler {
    async fn upsert_item(
        &self,
        request: Request<v1::UpsertItemRequest>,
    ) -> Reply<v1::UpsertItemResponse> {
        let service = Arc::clone(&self.0);
        write(request, |wire| async move { upsert(&service, wire).await }).await
    }

    async fn batch_upsert_items(
        &self,
        request: Request<v1::BatchUpsertItemsRequest>,
    ) -> Reply<v1::BatchUpsertItemsResponse> {
        let service = Arc::clone(&self.0);
        write(request, |wire| async move { batch_upsert(&service, wire).await }).await
    }

    async fn get_item(&self, request: Request<v1::GetItemRequest>) -> Reply<v1::GetItemResponse> {
        Ok(Response::new(get(&self.0, request.into_inner()).await?))
    }

    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Reply<v1::ListItemsResponse> {
        Ok(Response::new(list(&self.0, request.into_inner()).await?))
    }

    async fn delete_items(
        &self,
        request: Request<v1::DeleteItemsRequest>,
    ) -> Reply<v1::DeleteItemsResponse> {
        let service = Arc::clone(&self.0);
        write(request, |wire| async move { delete(&service, wire).await }).await
    }

    type IngestItemsStream = Replies<v1::IngestItemsResponse>;

    async fn ingest_items(
        &self,
        request: Request<Streaming<v1::IngestItemsRequest>>,
    ) -> Reply<Self::IngestItemsStream> {
        Ok(Response::new(ingest(&self.0, request, self.1.calls.stream_idle)?))
    }

    type ExportItemsStream = Items;

    async fn export_items(
        &self,
        request: Request<v1::ExportItemsRequest>,
    ) -> Reply<Self::ExportItemsStream> {
        Ok(Response::new(export(&self.0, request).await?))
    }
}

async fn upsert(
    service: &Service,
    mut wire: v1::UpsertItemRequest,
) -> Result<v1::UpsertItemResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "UpsertItem", &wire).await?;
    let item = wire.item.ok_or_else(|| Error::field("item", "is required"))?;
    let put = item_put(item, wire.expected_version).map_err(|error| error.inside("item"))?;
    let (mut results, generation) = service.put(&wire.collection, vec![Ok(put)], key).await?;
    let written = results.pop().unwrap_or_else(|| Err(Error::internal("a put has no outcome")));
    let written = written.map_err(|error| within("item", error))?;
    Ok(v1::UpsertItemResponse { written: Some(written_out(&written)), generation })
}

async fn batch_upsert(
    service: &Service,
    mut wire: v1::BatchUpsertItemsRequest,
) -> Result<v1::BatchUpsertItemsResponse> {
    count("entries", "items", wire.entries.len(), service.limits.batch_items)?;
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "BatchUpsertItems", &wire).await?;
    let puts = wire.entries.into_iter().map(|entry| {
        let item = entry.item.ok_or_else(|| Error::field("", "is required"))?;
        item_put(item, entry.expected_version)
    });
    let (results, generation) = service.put(&wire.collection, puts.collect(), key).await?;
    let results = results.into_iter().enumerate().map(|(place, result)| {
        use v1::batch_upsert_items_response::result::Outcome;
        let outcome = match result {
            Ok(written) => Outcome::Written(written_out(&written)),
            Err(error) => {
                Outcome::Status(to_message(&within(&format!("entries[{place}].item"), error)))
            }
        };
        v1::batch_upsert_items_response::Result { outcome: Some(outcome) }
    });
    Ok(v1::BatchUpsertItemsResponse { results: results.collect(), generation })
}

/// The same error with its fields' paths from the request's root on, when they are not yet.
pub(super) fn within(prefix: &str, error: Error) -> Error {
    let rooted = error.details().violations.iter().any(|found| found.field.starts_with(prefix));
    if rooted { error } else { error.inside(prefix) }
}

async fn get(service: &Service, wire: v1::GetItemRequest) -> Result<v1::GetItemResponse> {
    let id = item_id("id", wire.id)?;
    let mask = mask(wire.read_mask.as_ref(), &ITEM_PARTS)?;
    let item = service.item(&wire.collection, &id, mask.fields).await?;
    Ok(v1::GetItemResponse { item: Some(item_out(item, mask)) })
}

async fn list(service: &Service, mut wire: v1::ListItemsRequest) -> Result<v1::ListItemsResponse> {
    let page_token = std::mem::take(&mut wire.page_token);
    let page_size = std::mem::take(&mut wire.page_size);
    let digest = digest("ListItems", &wire).await?;
    let mask = mask(wire.read_mask.as_ref(), &ITEM_PARTS)?;
    let listing = Listing {
        modality: modality("modality", wire.modality)?,
        group: group(wire.group)?,
        filter: filter(wire.filter)?,
        fields: mask.fields,
        collection: wire.collection,
        page_size,
        page_token,
        digest,
    };
    let page = service.list(listing).await?;
    Ok(v1::ListItemsResponse {
        items: page.items.into_iter().map(|item| item_out(item, mask)).collect(),
        next_page_token: page.next_page_token,
        generation: page.generation,
    })
}

async fn delete(
    service: &Service,
    mut wire: v1::DeleteItemsRequest,
) -> Result<v1::DeleteItemsResponse> {
    use v1::delete_items_request::Selection as Wire;
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "DeleteItems", &wire).await?;
    let selection = wire.selection.ok_or_else(|| Error::field("selection", "is required"))?;
    let selection = match selection {
        Wire::Ids(list) => {
            count("ids.ids", "ids", list.ids.len(), MAX_DELETE_IDS)?;
            let read = |(place, id)| item_id(&format!("ids.ids[{place}]"), id);
            let ids: Result<Vec<ItemId>> = list.ids.into_iter().enumerate().map(read).collect();
            Selection::Ids(ids?)
        }
        Wire::Group(name) => {
            Selection::Group(group(name)?.ok_or_else(|| Error::field("group", "is empty"))?)
        }
        Wire::Filter(wire) => {
            let read = filter(Some(wire))?.ok_or_else(|| Error::field("filter", "is required"))?;
            Selection::Filter(Arc::new(read))
        }
    };
    let delete = ItemDelete {
        collection: wire.collection,
        selection,
        expected_count: wire.expected_count,
        dry_run: wire.dry_run,
        request: key,
    };
    let outcome = service.delete(delete).await?;
    Ok(v1::DeleteItemsResponse {
        deleted: outcome.deleted,
        not_found: outcome.not_found,
        generation: outcome.generation,
    })
}

/// An item to put, every field checked; paths are relative to the item.
pub(super) fn item_put(wire: v1::ItemInput, expected_version: Option<u64>) -> Result<ItemPut> {
    use v1::item_input::Input;
    let id = item_id("id", wire.id)?;
    let said = modality("modality", wire.modality)?;
    let content = match wire.input.ok_or_else(|| Error::field("input", "is required"))? {
        Input::Image(bytes) => {
            check_modality(said, Modality::Image)?;
            Content::Image(bytes)
        }
        Input::Text(text) => {
            check_modality(said, Modality::Text)?;
            Content::Text { text, truncate: wire.truncate }
        }
        Input::Vectors(vectors) => {
            let modality =
                said.ok_or_else(|| Error::field("modality", "is required with vectors"))?;
            Content::Vectors { modality, vectors: vectors_in(vectors)? }
        }
    };
    let group = group(wire.group)?;
    let metadata = metadata(wire.metadata)?;
    diptych_index::types::check_metadata(&metadata)?;
    Ok(ItemPut { id, content, group, metadata, expected_version })
}

fn check_modality(said: Option<Modality>, is: Modality) -> Result<()> {
    match said {
        Some(said) if said != is => {
            Err(Error::field("modality", format!("is {said}, but the input is {is}")))
        }
        _ => Ok(()),
    }
}

fn vectors_in(wire: v1::Vectors) -> Result<Vectors> {
    if wire.shared.is_none() && wire.exclusive.is_none() {
        return Err(Error::field("vectors", "holds neither shared nor exclusive"));
    }
    let read = |field: &str, wire: Option<v1::Vector>| {
        wire.map(|wire| vector(&format!("vectors.{field}"), wire)).transpose()
    };
    Ok(Vectors {
        shared: read("shared", wire.shared)?,
        exclusive: read("exclusive", wire.exclusive)?,
    })
}

pub(super) fn written_out(item: &ItemWritten) -> v1::WrittenItem {
    v1::WrittenItem {
        id: item.id.as_str().to_owned(),
        version: item.written.version,
        created: item.written.created,
        truncation: truncation(item.truncation),
    }
}
