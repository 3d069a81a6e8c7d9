//! CollectionService.

use std::sync::Arc;

use diptych_index::{BuilderKind, CollectionUpdate, Dims, Measured, VectorStorage};
use diptych_proto::v1;
use diptych_proto::v1::collection_service_server::CollectionService;
use tonic::{Request, Response, Status};

use super::convert::{bundle_digest, modality_out, request_key, space_out, timestamp};
use super::write::write;
use super::{Handler, alias, snapshot};
use crate::collections::{CollectionView, NewCollection, VectorsBy};
use crate::error::{Error, Result};
use crate::recall::{Measurement, Running};

/// Methods that change something: each runs in a task of its own, so that a caller that leaves never leaves it half done.
macro_rules! writes {
    ($($method:ident($request:ident) -> $reply:ident = $work:path;)*) => {$(
        fn $method<'life, 'future>(
            &'life self,
            request: Request<v1::$request>,
        ) -> std::pin::Pin<
            Box<dyn Future<Output = Result<Response<v1::$reply>, Status>> + Send + 'future>,
        >
        where
            'life: 'future,
            Self: 'future,
        {
            let service = Arc::clone(&self.0);
            Box::pin(write(request, |wire| async move { $work(&service, wire).await }))
        }
    )*};
}
pub(super) use writes;

#[tonic::async_trait]
impl CollectionService for Handler {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionResponse>, Status> {
        let service = Arc::clone(&self.0);
        write(request, |mut wire| async move {
            let request_id = std::mem::take(&mut wire.request_id);
            let key = request_key(request_id, "CreateCollection", &wire).await?;
            let view = service.create_collection(new_collection(wire)?, key).await?;
            Ok(v1::CreateCollectionResponse { collection: Some(collection_out(view)) })
        })
        .await
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Result<Response<v1::GetCollectionResponse>, Status> {
        let view = self.0.get_collection(&request.into_inner().name).await?;
        Ok(Response::new(v1::GetCollectionResponse { collection: Some(collection_out(view)) }))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Result<Response<v1::ListCollectionsResponse>, Status> {
        let request = request.into_inner();
        let listed = self.0.list_collections(request.page_size, &request.page_token).await;
        let (views, next_page_token) = listed?;
        let collections = views.into_iter().map(collection_out).collect();
        Ok(Response::new(v1::ListCollectionsResponse { collections, next_page_token }))
    }

    async fn delete_collection(
        &self,
        request: Request<v1::DeleteCollectionRequest>,
    ) -> Result<Response<v1::DeleteCollectionResponse>, Status> {
        let service = Arc::clone(&self.0);
        write(request, |mut wire| async move {
            let request_id = std::mem::take(&mut wire.request_id);
            let key = request_key(request_id, "DeleteCollection", &wire).await?;
            service.delete_collection(&wire.name, key).await?;
            Ok(v1::DeleteCollectionResponse {})
        })
        .await
    }

    async fn measure_recall(
        &self,
        request: Request<v1::MeasureRecallRequest>,
    ) -> Result<Response<v1::MeasureRecallResponse>, Status> {
        let v1::MeasureRecallRequest { collection, queries, limit, ef_search, seed } =
            request.into_inner();
        let asked = Measurement { collection, queries, limit, ef_search, seed };
        let measured = self.0.measure_recall(asked).await?;
        let indexes = measured.into_iter().map(measured_out).collect();
        Ok(Response::new(v1::MeasureRecallResponse { indexes }))
    }

    async fn update_collection(
        &self,
        request: Request<v1::UpdateCollectionRequest>,
    ) -> Result<Response<v1::UpdateCollectionResponse>, Status> {
        let service = Arc::clone(&self.0);
        write(request, |mut wire| async move {
            let request_id = std::mem::take(&mut wire.request_id);
            let key = request_key(request_id, "UpdateCollection", &wire).await?;
            let (name, update) = update(wire)?;
            let view = service.update_collection(&name, update, key).await?;
            Ok(v1::UpdateCollectionResponse { collection: Some(collection_out(view)) })
        })
        .await
    }

    async fn list_aliases(
        &self,
        request: Request<v1::ListAliasesRequest>,
    ) -> Result<Response<v1::ListAliasesResponse>, Status> {
        Ok(Response::new(alias::list(&self.0, request.into_inner()).await?))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        Ok(Response::new(snapshot::list(&self.0, request.into_inner()).await?))
    }

    writes! {
        set_alias(SetAliasRequest) -> SetAliasResponse = alias::set;
        delete_alias(DeleteAliasRequest) -> DeleteAliasResponse = alias::delete;
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse = snapshot::create;
        restore_snapshot(RestoreSnapshotRequest) -> RestoreSnapshotResponse = snapshot::restore;
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse = snapshot::delete;
        start_reembed(StartReembedRequest) -> StartReembedResponse = alias::start_reembed;
        finish_reembed(FinishReembedRequest) -> FinishReembedResponse = alias::finish_reembed;
        rollback_reembed(RollbackReembedRequest) -> RollbackReembedResponse = alias::rollback_reembed;
    }
}

/// What an update changes, and where.
fn update(wire: v1::UpdateCollectionRequest) -> Result<(String, CollectionUpdate)> {
    let collection = wire.collection.ok_or_else(|| Error::field("collection", "is required"))?;
    let paths = wire.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(Error::field("update_mask", "is required; known: keep_source"));
    }
    let mut update = CollectionUpdate::default();
    for (place, path) in paths.iter().enumerate() {
        match path.as_str() {
            "keep_source" => update.keep_source = Some(collection.keep_source),
            _ => {
                let field = format!("update_mask.paths[{place}]");
                return Err(Error::field(field, "is unknown; known: keep_source"));
            }
        }
    }
    Ok((collection.name, update))
}

fn new_collection(wire: v1::CreateCollectionRequest) -> Result<NewCollection> {
    use v1::create_collection_request::VectorsBy as Wire;
    let some = |dimension: u32| (dimension > 0).then_some(dimension as usize);
    let vectors_by = match wire.vectors_by {
        None => VectorsBy::Bundle(String::new()),
        Some(Wire::EmbeddingDigest(digest)) => VectorsBy::Bundle(bundle_digest(digest)?),
        Some(Wire::Dimensions(dims)) => VectorsBy::Caller(Dims {
            shared: some(dims.shared),
            exclusive_image: some(dims.exclusive_image),
            exclusive_text: some(dims.exclusive_text),
        }),
    };
    Ok(NewCollection {
        vector_storage: vector_storage(wire.vector_storage)?,
        graph_builder: graph_builder(wire.graph_builder)?,
        name: wire.name,
        vectors_by,
        keep_source: wire.keep_source.unwrap_or(true),
        engine: wire.engine,
    })
}

fn measured_out(measured: Measured) -> v1::measure_recall_response::Index {
    let Measured { modality, space, recall, rows, queries } = measured;
    v1::measure_recall_response::Index {
        modality: modality_out(modality),
        space: space_out(space),
        recall,
        rows,
        queries: u32::try_from(queries).unwrap_or(u32::MAX),
    }
}

fn vector_storage(wire: i32) -> Result<VectorStorage> {
    match v1::VectorStorage::try_from(wire) {
        Ok(v1::VectorStorage::Unspecified | v1::VectorStorage::F32) => Ok(VectorStorage::F32),
        Ok(v1::VectorStorage::I16) => Ok(VectorStorage::I16),
        Ok(v1::VectorStorage::I8) => Ok(VectorStorage::I8),
        Err(_) => Err(Error::field("vector_storage", "is no value of VectorStorage")),
    }
}

fn graph_builder(wire: i32) -> Result<BuilderKind> {
    match v1::GraphBuilder::try_from(wire) {
        Ok(v1::GraphBuilder::Unspecified | v1::GraphBuilder::Native) => Ok(BuilderKind::Native),
        Ok(v1::GraphBuilder::HnswRs) => Ok(BuilderKind::HnswRs),
        Err(_) => Err(Error::field("graph_builder", "is no value of GraphBuilder")),
    }
}

/// A collection as replies carry it.
pub(super) fn collection_out(view: CollectionView) -> v1::Collection {
    let CollectionView { info, domain, bundle_missing, engine, recall, aliases } = view;
    let size = |dims: Option<usize>| u32::try_from(dims.unwrap_or(0)).unwrap_or(u32::MAX);
    let state = if bundle_missing {
        v1::CollectionState::BundleMissing
    } else {
        v1::CollectionState::Ready
    };
    let vector_storage = match info.spec.storage {
        VectorStorage::F32 => v1::VectorStorage::F32,
        VectorStorage::I16 => v1::VectorStorage::I16,
        VectorStorage::I8 => v1::VectorStorage::I8,
    };
    let graph_builder = match info.spec.graph {
        BuilderKind::Native => v1::GraphBuilder::Native,
        BuilderKind::HnswRs => v1::GraphBuilder::HnswRs,
    };
    let index = info.index.iter().map(|part| v1::IndexState {
        modality: modality_out(part.modality),
        space: space_out(part.space),
        rows: part.rows as u64,
        graph_rows: part.graph_rows as u64,
        ended_rows: part.ended as u64,
        segments: u32::try_from(part.segments).unwrap_or(u32::MAX),
    });
    v1::Collection {
        index: index.collect(),
        vector_storage: vector_storage.into(),
        graph_builder: graph_builder.into(),
        name: info.spec.name,
        embedding_digest: info.spec.embedding_digest.unwrap_or_default(),
        dimensions: Some(v1::Dimensions {
            shared: size(info.spec.dims.shared),
            exclusive_image: size(info.spec.dims.exclusive_image),
            exclusive_text: size(info.spec.dims.exclusive_text),
        }),
        keep_source: info.spec.keep_source,
        state: state.into(),
        counts: Some(v1::ItemCounts { images: info.counts.images, texts: info.counts.texts }),
        generation: info.generation,
        engine: engine.to_owned(),
        aliases,
        domain,
        create_time: Some(timestamp(info.created_at_ms)),
        online_recall: recall
            .map(|Running { recall, searches }| v1::OnlineRecall { recall, searches }),
    }
}
