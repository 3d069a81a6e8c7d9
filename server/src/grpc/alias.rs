//! Aliases and changes of bundle, between wire and use cases.

use std::sync::Arc;

use diptych_index::Alias;
use diptych_proto::v1;

use super::convert::{bundle_digest, request_key};
use super::operation::operation_out;
use crate::error::{Error, Result};
use crate::service::Service;

pub(super) async fn set(
    service: &Service,
    mut wire: v1::SetAliasRequest,
) -> Result<v1::SetAliasResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "SetAlias", &wire).await?;
    let alias = wire.alias.ok_or_else(|| Error::field("alias", "is required"))?;
    let named = Alias { name: alias.name.clone(), collection: alias.collection.clone() };
    let previous = service.set_alias(named, wire.expected_collection, key).await?;
    let previous_collection = previous.unwrap_or_default();
    Ok(v1::SetAliasResponse { alias: Some(alias), previous_collection })
}

pub(super) async fn list(
    service: &Service,
    wire: v1::ListAliasesRequest,
) -> Result<v1::ListAliasesResponse> {
    let (aliases, next_page_token) = service.list_aliases(wire.page_size, &wire.page_token).await?;
    let aliases = aliases.into_iter().map(alias_out).collect();
    Ok(v1::ListAliasesResponse { aliases, next_page_token })
}

pub(super) async fn delete(
    service: &Service,
    mut wire: v1::DeleteAliasRequest,
) -> Result<v1::DeleteAliasResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "DeleteAlias", &wire).await?;
    service.delete_alias(&wire.name, key).await?;
    Ok(v1::DeleteAliasResponse {})
}

pub(super) async fn start_reembed(
    service: &Arc<Service>,
    mut wire: v1::StartReembedRequest,
) -> Result<v1::StartReembedResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "StartReembed", &wire).await?;
    let digest = bundle_digest(wire.embedding_digest)?;
    let begun = service.start_reembed(&wire.alias, (&digest, &wire.collection), key).await?;
    Ok(v1::StartReembedResponse { operation: Some(operation_out(begun)) })
}

pub(super) async fn finish_reembed(
    service: &Service,
    mut wire: v1::FinishReembedRequest,
) -> Result<v1::FinishReembedResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "FinishReembed", &wire).await?;
    let alias = service.finish_reembed(&wire.alias, key).await?;
    Ok(v1::FinishReembedResponse { alias: Some(alias_out(alias)) })
}

pub(super) async fn rollback_reembed(
    service: &Arc<Service>,
    mut wire: v1::RollbackReembedRequest,
) -> Result<v1::RollbackReembedResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "RollbackReembed", &wire).await?;
    let alias = service.rollback_reembed(&wire.alias, key).await?;
    Ok(v1::RollbackReembedResponse { alias: Some(alias_out(alias)) })
}

fn alias_out(alias: Alias) -> v1::Alias {
    v1::Alias { name: alias.name, collection: alias.collection }
}
