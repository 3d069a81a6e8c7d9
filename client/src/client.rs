//! One connection, a method for each thing one does.

mod lasting;

use std::sync::Arc;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::answers::Answers;
use crate::error::{Error, Result, unreachable};
use crate::options::{Options, endpoint, url};
use crate::retry::Budget;
use crate::v1;
use crate::v1::admin_service_client::AdminServiceClient;
use crate::v1::collection_service_client::CollectionServiceClient;
use crate::v1::embedding_service_client::EmbeddingServiceClient;
use crate::v1::info_service_client::InfoServiceClient;
use crate::v1::item_service_client::ItemServiceClient;
use crate::v1::operation_service_client::OperationServiceClient;
use crate::v1::search_service_client::SearchServiceClient;

/// A connection to a server. Clones share it.
///
/// Methods take the messages of the contract and fail with an [`Error`]. A write without a `request_id` gets one, so that it
/// can be sent again without being done twice.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    options: Options,
    budget: Arc<Budget>,
}

macro_rules! raw {
    ($name:ident, $client:ident) => {
        #[doc = concat!("The generated `", stringify!($client), "`: no deadline, no retries.")]
        pub fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
                .max_decoding_message_size(self.options.message_bytes)
                .max_encoding_message_size(self.options.message_bytes)
        }
    };
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $service:ident.$method:ident($request:ident) -> $reply:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The server's refusal, a deadline that passed, a server that cannot be reached.
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$reply> {
                let send = |request| {
                    let mut client = self.$service();
                    async move { client.$method(request).await }
                };
                self.call(request, send).await
            }
        )+
    };
}

macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident = $service:ident.$method:ident($request:ident) -> $reply:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The server's refusal, a deadline that passed, a server that cannot be reached.
            pub async fn $name(&self, mut request: v1::$request) -> Result<v1::$reply> {
                if request.request_id.is_empty() {
                    request.request_id = uuid::Uuid::new_v4().to_string();
                }
                let send = |request| {
                    let mut client = self.$service();
                    async move { client.$method(request).await }
                };
                self.call(request, send).await
            }
        )+
    };
}

impl Client {
    /// Connects to `address`, `host:port` or `http://host:port`, with the default [`Options`].
    ///
    /// # Errors
    /// An address that is none, a server that cannot be reached.
    pub async fn connect(address: &str) -> Result<Self> {
        Self::connect_with(address, Options::default()).await
    }

    /// Connects to `address` with these options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(address: &str, options: Options) -> Result<Self> {
        let url = url(address)?;
        let connected = endpoint(&url, &options)?.connect().await;
        Ok(Self::new(connected.map_err(|error| unreachable(&url, &error))?, options))
    }

    /// Over an open channel, such as one with TLS or a balancer.
    pub fn new(channel: Channel, options: Options) -> Self {
        Self { channel, options, budget: Arc::default() }
    }

    /// The same connection with other options.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        Self { options, ..self.clone() }
    }

    /// How this client calls.
    pub fn options(&self) -> &Options {
        &self.options
    }

    raw!(search_service, SearchServiceClient);
    raw!(embedding_service, EmbeddingServiceClient);
    raw!(item_service, ItemServiceClient);
    raw!(collection_service, CollectionServiceClient);
    raw!(info_service, InfoServiceClient);
    raw!(operation_service, OperationServiceClient);
    raw!(admin_service, AdminServiceClient);

    calls! {
        /// The pictures that a text describes.
        search_text_to_image = search_service.search_text_to_image(SearchTextToImageRequest) -> SearchTextToImageResponse;
        /// The texts that describe a picture.
        search_image_to_text = search_service.search_image_to_text(SearchImageToTextRequest) -> SearchImageToTextResponse;
        /// The items nearest to a weighted sum of pictures, texts, vectors and stored items.
        search = search_service.search(SearchRequest) -> SearchResponse;
        /// Why one item scores as it does for a search, and where it stands among all.
        explain_match = search_service.explain_match(ExplainMatchRequest) -> ExplainMatchResponse;
        /// The vectors of a picture.
        embed_image = embedding_service.embed_image(EmbedImageRequest) -> EmbedImageResponse;
        /// The vectors of a text.
        embed_text = embedding_service.embed_text(EmbedTextRequest) -> EmbedTextResponse;
        /// The vectors of several inputs, each with an outcome of its own.
        batch_embed = embedding_service.batch_embed(BatchEmbedRequest) -> BatchEmbedResponse;
        /// One item.
        get_item = item_service.get_item(GetItemRequest) -> GetItemResponse;
        /// A page of items in the order of ids.
        list_items = item_service.list_items(ListItemsRequest) -> ListItemsResponse;
        /// One collection.
        get_collection = collection_service.get_collection(GetCollectionRequest) -> GetCollectionResponse;
        /// A page of collections by name.
        list_collections = collection_service.list_collections(ListCollectionsRequest) -> ListCollectionsResponse;
        /// How much of the exact answer each index of a collection finds.
        measure_recall = collection_service.measure_recall(MeasureRecallRequest) -> MeasureRecallResponse;
        /// A page of the bundles that are loaded.
        list_models = info_service.list_models(ListModelsRequest) -> ListModelsResponse;
        /// A page of aliases by name.
        list_aliases = collection_service.list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        /// A page of snapshots, newest first.
        list_snapshots = collection_service.list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        /// One operation.
        get_operation = operation_service.get_operation(GetOperationRequest) -> GetOperationResponse;
        /// A page of operations, newest first.
        list_operations = operation_service.list_operations(ListOperationsRequest) -> ListOperationsResponse;
        /// Asks an operation to stop; what it did is taken back.
        cancel_operation = operation_service.cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
        /// An operation once it has ended, or as it is when the time is up; [`Client::wait`] waits for longer than one call.
        wait_operation = operation_service.wait_operation(WaitOperationRequest) -> WaitOperationResponse;
        /// Begins to rewrite what is derived from a collection without what was deleted. Done twice it does no harm.
        compact = admin_service.compact(CompactRequest) -> CompactResponse;
    }

    writes! {
        /// Puts an item, new or in place of the one with its id.
        upsert_item = item_service.upsert_item(UpsertItemRequest) -> UpsertItemResponse;
        /// Puts several items, each with an outcome of its own.
        batch_upsert_items = item_service.batch_upsert_items(BatchUpsertItemsRequest) -> BatchUpsertItemsResponse;
        /// Deletes items by id, group or filter; what is not there is no error.
        delete_items = item_service.delete_items(DeleteItemsRequest) -> DeleteItemsResponse;
        /// Makes a collection.
        create_collection = collection_service.create_collection(CreateCollectionRequest) -> CreateCollectionResponse;
        /// Deletes a collection with all its items.
        delete_collection = collection_service.delete_collection(DeleteCollectionRequest) -> DeleteCollectionResponse;
        /// Changes settings of a collection.
        update_collection = collection_service.update_collection(UpdateCollectionRequest) -> UpdateCollectionResponse;
        /// Points an alias at a collection.
        set_alias = collection_service.set_alias(SetAliasRequest) -> SetAliasResponse;
        /// Deletes an alias; its collection stays.
        delete_alias = collection_service.delete_alias(DeleteAliasRequest) -> DeleteAliasResponse;
        /// Begins to write a snapshot of a collection.
        create_snapshot = collection_service.create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
        /// Begins to make a collection of a snapshot.
        restore_snapshot = collection_service.restore_snapshot(RestoreSnapshotRequest) -> RestoreSnapshotResponse;
        /// Deletes a snapshot.
        delete_snapshot = collection_service.delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
        /// Begins to embed the collection of an alias by another bundle, into a new collection.
        start_reembed = collection_service.start_reembed(StartReembedRequest) -> StartReembedResponse;
        /// Moves the alias to the new collection.
        finish_reembed = collection_service.finish_reembed(FinishReembedRequest) -> FinishReembedResponse;
        /// Takes what was written since back to the old collection, and moves the alias there.
        rollback_reembed = collection_service.rollback_reembed(RollbackReembedRequest) -> RollbackReembedResponse;
    }

    /// Version, limits and engines of the server.
    ///
    /// # Errors
    /// As every call.
    pub async fn server_info(&self) -> Result<v1::GetServerInfoResponse> {
        let send = |request| {
            let mut client = self.info_service();
            async move { client.get_server_info(request).await }
        };
        self.call(v1::GetServerInfoRequest {}, send).await
    }

    /// Several searches at once, answered as they are done. The deadline bounds the time to the first sign of the server; the
    /// answers go on at their own pace.
    ///
    /// # Errors
    /// As every call, for the batch as a whole; a search that fails is an answer with a status.
    pub async fn batch_search(&self, request: v1::BatchSearchRequest) -> Result<Answers> {
        let send = |request| {
            let mut client = self.search_service();
            async move { client.batch_search(request).await }
        };
        Ok(Answers::new(self.call(request, send).await?))
    }

    /// All bundles that are loaded.
    ///
    /// # Errors
    /// As every call.
    pub async fn models(&self) -> Result<Vec<v1::Model>> {
        let mut request = v1::ListModelsRequest::default();
        let mut models = Vec::new();
        loop {
            let page = self.list_models(request.clone()).await?;
            models.extend(page.models);
            if page.next_page_token.is_empty() {
                return Ok(models);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All collections, by name.
    ///
    /// # Errors
    /// As every call.
    pub async fn collections(&self) -> Result<Vec<v1::Collection>> {
        let mut request = v1::ListCollectionsRequest::default();
        let mut collections = Vec::new();
        loop {
            let page = self.list_collections(request.clone()).await?;
            collections.extend(page.collections);
            if page.next_page_token.is_empty() {
                return Ok(collections);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Sends `request` until it is answered, retries do not help, or the deadline passes.
    async fn call<Q, R, F>(&self, request: Q, send: impl Fn(Request<Q>) -> F) -> Result<R>
    where
        Q: Clone,
        F: Future<Output = std::result::Result<Response<R>, Status>>,
    {
        let deadline = Instant::now() + self.options.deadline;
        let left = || deadline.saturating_duration_since(Instant::now());
        let mut sent = 0;
        loop {
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(left());
            sent += 1;
            let error = match timeout_at(deadline, send(attempt)).await {
                Ok(Ok(reply)) => {
                    self.budget.succeeded();
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => Error::from(status),
                Err(_) => Error::too_late(self.options.deadline),
            };
            match self.options.retry.wait(sent, &error, left(), rand::random()) {
                Some(wait) if self.budget.failed(&error) => sleep(wait).await,
                _ => return Err(error),
            }
        }
    }
}
