//! Doors for fuzzing (`fuzz/`): a message's bytes to the method that takes it, without a socket in between.

use std::sync::Arc;

use diptych_index::Filter;
use diptych_proto::v1;
use diptych_proto::v1::admin_service_server::AdminService;
use diptych_proto::v1::collection_service_server::CollectionService;
use diptych_proto::v1::embedding_service_server::EmbeddingService;
use diptych_proto::v1::info_service_server::InfoService;
use diptych_proto::v1::item_service_server::ItemService;
use diptych_proto::v1::operation_service_server::OperationService;
use diptych_proto::v1::search_service_server::SearchService;
use prost::Message as _;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{Handler, value};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::service::Service;

/// A filter from the bytes of a `diptych.v1.Filter`, checked; `None` for bytes that are no such message.
///
/// # Errors
/// As every method that takes one.
pub fn filter(bytes: &[u8]) -> Result<Option<Filter>> {
    value::filter(v1::Filter::decode(bytes).ok())
}

/// A metadata map from the bytes of a `diptych.v1.ItemInput`, checked; empty for bytes that are no such message.
///
/// # Errors
/// As every method that takes an item.
pub fn metadata(bytes: &[u8]) -> Result<diptych_index::Metadata> {
    let metadata = value::metadata(v1::ItemInput::decode(bytes).unwrap_or_default().metadata)?;
    diptych_index::types::check_metadata(&metadata).map_err(Error::from)?;
    Ok(metadata)
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The bytes are no message of the method's.
    NoMessage,
    /// It was answered.
    Answered,
    /// It was refused: canonical code, and reason; empty where no `ErrorInfo` came with it.
    Refused(i32, String),
}

macro_rules! methods {
    ($($service:ident::$method:ident($request:ident) -> $answer:ident;)*) => {
        /// The methods by the number that [`Methods::call`] takes.
        pub const NAMES: &[&str] = &[$(stringify!($method)),*];

        async fn dispatch(handler: &Handler, method: usize, bytes: &[u8]) -> Option<Result<(), Status>> {
            let mut number = 0;
            $(
                if number == method {
                    let message = v1::$request::decode(bytes).ok()?;
                    let answer = $service::$method(handler, Request::new(message)).await;
                    return Some(match answer {
                        Ok(answer) => $answer(answer).await,
                        Err(status) => Err(status),
                    });
                }
                number += 1;
            )*
            debug_assert_eq!(number, NAMES.len());
            None
        }
    };
}

// Without those that wait, that take streams, and that remove the collections which the others ask.
methods! {
    SearchService::search(SearchRequest) -> whole;
    SearchService::search_text_to_image(SearchTextToImageRequest) -> whole;
    SearchService::search_image_to_text(SearchImageToTextRequest) -> whole;
    SearchService::batch_search(BatchSearchRequest) -> stream;
    SearchService::explain_match(ExplainMatchRequest) -> whole;
    EmbeddingService::embed_text(EmbedTextRequest) -> whole;
    EmbeddingService::embed_image(EmbedImageRequest) -> whole;
    EmbeddingService::batch_embed(BatchEmbedRequest) -> whole;
    ItemService::upsert_item(UpsertItemRequest) -> whole;
    ItemService::batch_upsert_items(BatchUpsertItemsRequest) -> whole;
    ItemService::get_item(GetItemRequest) -> whole;
    ItemService::list_items(ListItemsRequest) -> whole;
    ItemService::delete_items(DeleteItemsRequest) -> whole;
    CollectionService::create_collection(CreateCollectionRequest) -> whole;
    CollectionService::get_collection(GetCollectionRequest) -> whole;
    CollectionService::list_collections(ListCollectionsRequest) -> whole;
    CollectionService::update_collection(UpdateCollectionRequest) -> whole;
    CollectionService::measure_recall(MeasureRecallRequest) -> whole;
    CollectionService::set_alias(SetAliasRequest) -> whole;
    CollectionService::list_aliases(ListAliasesRequest) -> whole;
    CollectionService::delete_alias(DeleteAliasRequest) -> whole;
    CollectionService::list_snapshots(ListSnapshotsRequest) -> whole;
    InfoService::get_server_info(GetServerInfoRequest) -> whole;
    InfoService::list_models(ListModelsRequest) -> whole;
    OperationService::get_operation(GetOperationRequest) -> whole;
    OperationService::list_operations(ListOperationsRequest) -> whole;
    OperationService::cancel_operation(CancelOperationRequest) -> whole;
    AdminService::compact(CompactRequest) -> whole;
    AdminService::load_model(LoadModelRequest) -> whole;
    AdminService::activate_model(ActivateModelRequest) -> whole;
    AdminService::unload_model(UnloadModelRequest) -> whole;
    AdminService::run_self_test(RunSelfTestRequest) -> whole;
    ItemService::export_items(ExportItemsRequest) -> stream;
}

/// A message as an answer: what is answered must have a form on the wire.
#[expect(clippy::unused_async, reason = "stands where answers are streams")]
async fn whole(answer: Response<impl prost::Message>) -> Result<(), Status> {
    answer.into_inner().encode_to_vec();
    Ok(())
}

/// A stream as an answer, taken to its end.
async fn stream<T>(
    answer: Response<impl Stream<Item = Result<T, Status>> + Unpin>,
) -> Result<(), Status> {
    let mut answers = answer.into_inner();
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

/// The methods of a service, called with bytes.
#[derive(Debug)]
pub struct Methods(Handler);

impl Methods {
    /// The methods of `service`, which `config` made.
    pub fn new(service: Arc<Service>, config: &Config) -> Self {
        Self(Handler::new(service, config))
    }

    /// Calls the method of this number, taken modulo [`NAMES`], with the bytes of its message.
    pub async fn call(&self, method: usize, message: &[u8]) -> Answer {
        match dispatch(&self.0, method % NAMES.len(), message).await {
            None => Answer::NoMessage,
            Some(Ok(())) => Answer::Answered,
            Some(Err(status)) => {
                let info = status.get_error_details().error_info().cloned();
                let reason = info.map(|info| info.reason).unwrap_or_default();
                Answer::Refused(status.code().into(), reason)
            }
        }
    }
}
