//! A change of bundle amid kills: begun while others write, carried on by itself after each start, finished, taken back.

use anyhow::{Context as _, Result, ensure};
use diptych_proto::v1;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_tests::Api;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::keeper::ended;
use crate::history::{Model, THINGS, collections, listed, same_content};

/// The alias whose collection gets another bundle, and the new collection.
const ALIAS: &str = "changing";
pub(super) const AGAIN: &str = "again";

/// Has the alias point at the collection whose bundle is to be changed.
pub(super) async fn prepare(api: &Api) -> Result<(), Status> {
    api.set_alias(ALIAS, THINGS).await
}

/// Begins a change to the bundle that is not the default. One may be under way already.
pub(super) async fn begin(channel: &Channel) -> Result<(), Status> {
    let models = v1::info_service_client::InfoServiceClient::new(channel.clone())
        .list_models(v1::ListModelsRequest::default())
        .await?
        .into_inner()
        .models;
    let other = models.into_iter().find(|model| !model.is_default);
    let request = v1::StartReembedRequest {
        alias: ALIAS.to_owned(),
        embedding_digest: other.map(|model| model.embedding_digest).unwrap_or_default(),
        collection: AGAIN.to_owned(),
        ..Default::default()
    };
    match CollectionServiceClient::new(channel.clone()).start_reembed(request).await {
        Err(status) if status.code() != Code::FailedPrecondition => Err(status),
        _ => Ok(()),
    }
}

/// After a start, nobody writing: a change that was begun comes to its end, holds what the model holds, and can be taken back.
/// Returns whether there was one.
pub(super) async fn finish(api: &Api, channel: &Channel, model: &Model) -> Result<bool> {
    if !collections(api).await?.iter().any(|collection| collection.name == AGAIN) {
        return Ok(false);
    }
    // Killed between the collection and the note of what it is for, it is begun again, and that takes the collection over.
    begin(channel).await.context("a change begun again")?;
    let mut operations = OperationServiceClient::new(channel.clone());
    let list = v1::ListOperationsRequest { page_size: 1000, ..Default::default() };
    for operation in operations.list_operations(list).await?.into_inner().operations {
        if operation.kind == "StartReembed" {
            ended(channel, Some(operation)).await.context("a change of bundle")?;
        }
    }
    let mut client = CollectionServiceClient::new(channel.clone());
    let request = v1::FinishReembedRequest { alias: ALIAS.to_owned(), ..Default::default() };
    client.finish_reembed(request).await.context("the end of a change of bundle")?;
    ensure!(api.collection(ALIAS).await?.name == AGAIN, "the alias did not move");
    let found = listed(api, AGAIN).await?;
    let items = model.items.iter().filter(|(key, _)| key.0 == THINGS);
    let expected: Vec<_> = items.map(|(key, (input, _))| (key.1.as_str(), input)).collect();
    let (many, all) = (found.len(), expected.len());
    ensure!(many == all, "{many} of {all} under the new bundle");
    for (item, (id, input)) in found.iter().zip(expected) {
        ensure!(item.id == id, "{id} is not there under the new bundle");
        same_content(input, item).with_context(|| format!("{id}, under the new bundle"))?;
    }
    let request = v1::RollbackReembedRequest { alias: ALIAS.to_owned(), ..Default::default() };
    client.rollback_reembed(request).await.context("a change of bundle taken back")?;
    ensure!(api.collection(ALIAS).await?.name == THINGS, "the alias did not move back");
    let request = v1::DeleteCollectionRequest { name: AGAIN.to_owned(), ..Default::default() };
    client.delete_collection(request).await?;
    Ok(true)
}
