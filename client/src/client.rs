//! A method for each thing one does, over connections to all servers.

mod lasting;

use std::sync::Arc;

use http::Uri;
use tonic::{Request, Response, Status};

use crate::answers::Answers;
use crate::call::{Call, Shared, Statistics};
use crate::deadline::Class;
use crate::error::Result;
use crate::options::Options;
use crate::trace::TraceContext;
use crate::transport::Transport;
use crate::v1;
use crate::v1::admin_service_client::AdminServiceClient;
use crate::v1::collection_service_client::CollectionServiceClient;
use crate::v1::embedding_service_client::EmbeddingServiceClient;
use crate::v1::info_service_client::InfoServiceClient;
use crate::v1::item_service_client::ItemServiceClient;
use crate::v1::operation_service_client::OperationServiceClient;
use crate::v1::search_service_client::SearchServiceClient;

/// Connections to one server or to several that stand in for one another. Clones share them.
///
/// Methods take the messages of the contract and fail with an [`Error`](crate::Error). A write without a `request_id` gets one,
/// so that it can be sent again without being done twice.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    options: Options,
    shared: Arc<Shared>,
}

macro_rules! raw {
    ($name:ident, $client:ident) => {
        #[doc = concat!("The generated `", stringify!($client), "`: balanced over the servers; no deadline, no retries.")]
        pub fn $name(&self) -> $client<Transport> {
            // The transport puts the address of the server that it chooses in place of this one.
            $client::with_origin(self.transport.clone(), Uri::from_static("http://diptych"))
                .max_decoding_message_size(self.options.message_bytes)
                .max_encoding_message_size(self.options.message_bytes)
        }
    };
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $class:ident = $service:ident.$method:ident($request:ident) -> $reply:ident;)+) => {
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
                self.call(Class::$class, request, send).await
            }
        )+
    };
}

macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident: $class:ident = $service:ident.$method:ident($request:ident) -> $reply:ident;)+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The server's refusal, a deadline that passed, a server that cannot be reached.
            pub async fn $name(&self, mut request: v1::$request) -> Result<v1::$reply> {
                if request.request_id.is_empty() {
                    request.request_id = crate::call::fresh_id();
                }
                let send = |request| {
                    let mut client = self.$service();
                    async move { client.$method(request).await }
                };
                self.call(Class::$class, request, send).await
            }
        )+
    };
}

impl Client {
    /// Connects with the default [`Options`] to `addresses`: `host:port` or `http://host:port`, several of them separated by
    /// commas. A name may stand for several servers, all of which are called.
    ///
    /// # Errors
    /// An address that is none, servers none of which can be reached.
    pub async fn connect(addresses: &str) -> Result<Self> {
        Self::connect_with(addresses, Options::default()).await
    }

    /// Connects with these options.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_with(addresses: &str, options: Options) -> Result<Self> {
        let client = Self::lazy(addresses, options)?;
        client.transport.connected(addresses).await?;
        Ok(client)
    }

    /// Begins to connect and waits for nothing: the first call does, for as long as [`TransportOptions::ready_wait`] says. Needs
    /// a Tokio runtime.
    ///
    /// [`TransportOptions::ready_wait`]: crate::TransportOptions::ready_wait
    ///
    /// # Errors
    /// An address that is none.
    pub fn lazy(addresses: &str, options: Options) -> Result<Self> {
        let transport = Transport::open(addresses, options.transport.clone())?;
        Ok(Self::over(transport, options))
    }

    #[cfg(test)]
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(crate) fn over(transport: Transport, options: Options) -> Self {
        let shared = Arc::new(Shared::new(&options));
        Self { transport, options, shared }
    }

    /// The same connections with other deadlines, retries, hedges and message sizes; how servers are reached stays as it is, and
    /// so does the trace. The retry budget is a new one.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        Self::over(self.transport.clone(), options)
    }

    /// The same client for calls that belong to this trace: each of them carries it to the server, repeats and hedges, ingests and
    /// those of the generated clients included, unless the caller of a generated client puts a `traceparent` into the metadata.
    /// Connections, the retry budget and statistics are shared with this one.
    #[must_use]
    pub fn in_trace(&self, trace: TraceContext) -> Self {
        Self { transport: self.transport.in_trace(trace), ..self.clone() }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What this client and its clones have done so far.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
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
        search_text_to_image: Search = search_service.search_text_to_image(SearchTextToImageRequest) -> SearchTextToImageResponse;
        /// The texts that describe a picture.
        search_image_to_text: Search = search_service.search_image_to_text(SearchImageToTextRequest) -> SearchImageToTextResponse;
        /// The items nearest to a weighted sum of pictures, texts, vectors and stored items.
        search: Search = search_service.search(SearchRequest) -> SearchResponse;
        /// Why one item scores as it does for a search, and where it stands among all.
        explain_match: Search = search_service.explain_match(ExplainMatchRequest) -> ExplainMatchResponse;
        /// The vectors of a picture.
        embed_image: Embed = embedding_service.embed_image(EmbedImageRequest) -> EmbedImageResponse;
        /// The vectors of a text.
        embed_text: Embed = embedding_service.embed_text(EmbedTextRequest) -> EmbedTextResponse;
        /// The vectors of several inputs, each with an outcome of its own.
        batch_embed: Embed = embedding_service.batch_embed(BatchEmbedRequest) -> BatchEmbedResponse;
        /// One item.
        get_item: Read = item_service.get_item(GetItemRequest) -> GetItemResponse;
        /// A page of items in the order of ids.
        list_items: Read = item_service.list_items(ListItemsRequest) -> ListItemsResponse;
        /// One collection.
        get_collection: Read = collection_service.get_collection(GetCollectionRequest) -> GetCollectionResponse;
        /// A page of collections by name.
        list_collections: Read = collection_service.list_collections(ListCollectionsRequest) -> ListCollectionsResponse;
        /// How much of the exact answer each index of a collection finds.
        measure_recall: Admin = collection_service.measure_recall(MeasureRecallRequest) -> MeasureRecallResponse;
        /// A page of the bundles that are loaded.
        list_models: Read = info_service.list_models(ListModelsRequest) -> ListModelsResponse;
        /// A page of aliases by name.
        list_aliases: Read = collection_service.list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        /// A page of snapshots, newest first.
        list_snapshots: Read = collection_service.list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse;
        /// One operation.
        get_operation: Read = operation_service.get_operation(GetOperationRequest) -> GetOperationResponse;
        /// A page of operations, newest first.
        list_operations: Read = operation_service.list_operations(ListOperationsRequest) -> ListOperationsResponse;
        /// Asks an operation to stop; what it did is taken back.
        cancel_operation: Admin = operation_service.cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
        /// An operation once it has ended, or as it is when the time is up; [`Client::wait`] waits for longer than one call.
        wait_operation: Read = operation_service.wait_operation(WaitOperationRequest) -> WaitOperationResponse;
        /// Begins to rewrite what is derived from a collection without what was deleted. Done twice it does no harm.
        compact: Admin = admin_service.compact(CompactRequest) -> CompactResponse;
    }

    writes! {
        /// Puts an item, new or in place of the one with its id.
        upsert_item: Write = item_service.upsert_item(UpsertItemRequest) -> UpsertItemResponse;
        /// Puts several items, each with an outcome of its own.
        batch_upsert_items: Write = item_service.batch_upsert_items(BatchUpsertItemsRequest) -> BatchUpsertItemsResponse;
        /// Deletes items by id, group or filter; what is not there is no error.
        delete_items: Write = item_service.delete_items(DeleteItemsRequest) -> DeleteItemsResponse;
        /// Makes a collection.
        create_collection: Admin = collection_service.create_collection(CreateCollectionRequest) -> CreateCollectionResponse;
        /// Deletes a collection with all its items.
        delete_collection: Admin = collection_service.delete_collection(DeleteCollectionRequest) -> DeleteCollectionResponse;
        /// Changes settings of a collection.
        update_collection: Admin = collection_service.update_collection(UpdateCollectionRequest) -> UpdateCollectionResponse;
        /// Points an alias at a collection.
        set_alias: Admin = collection_service.set_alias(SetAliasRequest) -> SetAliasResponse;
        /// Deletes an alias; its collection stays.
        delete_alias: Admin = collection_service.delete_alias(DeleteAliasRequest) -> DeleteAliasResponse;
        /// Begins to write a snapshot of a collection.
        create_snapshot: Admin = collection_service.create_snapshot(CreateSnapshotRequest) -> CreateSnapshotResponse;
        /// Begins to make a collection of a snapshot.
        restore_snapshot: Admin = collection_service.restore_snapshot(RestoreSnapshotRequest) -> RestoreSnapshotResponse;
        /// Deletes a snapshot.
        delete_snapshot: Admin = collection_service.delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
        /// Begins to embed the collection of an alias by another bundle, into a new collection.
        start_reembed: Admin = collection_service.start_reembed(StartReembedRequest) -> StartReembedResponse;
        /// Moves the alias to the new collection.
        finish_reembed: Admin = collection_service.finish_reembed(FinishReembedRequest) -> FinishReembedResponse;
        /// Takes what was written since back to the old collection, and moves the alias there.
        rollback_reembed: Admin = collection_service.rollback_reembed(RollbackReembedRequest) -> RollbackReembedResponse;
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
        self.call(Class::Read, v1::GetServerInfoRequest {}, send).await
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
        Ok(Answers::new(self.call(Class::Search, request, send).await?))
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

    async fn call<Q, R, F>(
        &self,
        class: Class,
        request: Q,
        send: impl Fn(Request<Q>) -> F,
    ) -> Result<R>
    where
        Q: Clone,
        F: Future<Output = std::result::Result<Response<R>, Status>>,
    {
        Call::new((&self.options, &self.shared), class, request, send).run().await
    }
}
