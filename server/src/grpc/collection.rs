//! CollectionService.

use std::sync::Arc;

use diptych_index::Dims;
use diptych_proto::v1;
use diptych_proto::v1::collection_service_server::CollectionService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::convert::{bundle_digest, request_key, timestamp};
use super::item::write;
use crate::collections::{CollectionView, NewCollection, VectorsBy};
use crate::error::{Error, Result};

/// Methods that this server does not have yet, each with its request and reply.
macro_rules! unbuilt {
    ($($method:ident($request:ident) -> $reply:ident;)*) => {$(
        fn $method<'life, 'future>(
            &'life self,
            _: Request<v1::$request>,
        ) -> std::pin::Pin<
            Box<dyn Future<Output = Result<Response<v1::$reply>, Status>> + Send + 'future>,
        >
        where
            'life: 'future,
            Self: 'future,
        {
            let name = stringify!($request).trim_end_matches("Request");
            Box::pin(std::future::ready(Err(Error::unimplemented(name).into())))
        }
    )*};
}
pub(super) use unbuilt;

#[tonic::async_trait]
impl CollectionService for Handler {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Result<Response<v1::CreateCollectionResponse>, Status> {
        let service = Arc::clone(&self.0);
        let mut wire = request.into_inner();
        write(async move {
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
        let mut wire = request.into_inner();
        write(async move {
            let request_id = std::mem::take(&mut wire.request_id);
            let key = request_key(request_id, "DeleteCollection", &wire).await?;
            service.delete_collection(&wire.name, key).await?;
            Ok(v1::DeleteCollectionResponse {})
        })
        .await
    }

    unbuilt! {
        update_collection(UpdateCollectionRequest) -> UpdateCollectionResponse;
        set_alias(SetAliasRequest) -> SetAliasResponse;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        delete_alias(DeleteAliasRequest) -> DeleteAliasResponse;
        create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
        list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        restore_snapshot(RestoreSnapshotRequest) -> RestoreSnapshotResponse;
        delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
        start_reembed(StartReembedRequest) -> StartReembedResponse;
        finish_reembed(FinishReembedRequest) -> FinishReembedResponse;
        rollback_reembed(RollbackReembedRequest) -> RollbackReembedResponse;
        measure_recall(MeasureRecallRequest) -> MeasureRecallResponse;
    }
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
        name: wire.name,
        vectors_by,
        keep_source: wire.keep_source.unwrap_or(true),
        engine: wire.engine,
    })
}

fn collection_out(view: CollectionView) -> v1::Collection {
    let CollectionView { info, domain, bundle_missing, engine } = view;
    let size = |dims: Option<usize>| u32::try_from(dims.unwrap_or(0)).unwrap_or(u32::MAX);
    let state = if bundle_missing {
        v1::CollectionState::BundleMissing
    } else {
        v1::CollectionState::Ready
    };
    v1::Collection {
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
        aliases: Vec::new(),
        domain,
        create_time: Some(timestamp(info.created_at_ms)),
    }
}
