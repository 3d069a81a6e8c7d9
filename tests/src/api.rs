//! Clients of every service, and short ways to make the requests that many tests make.

use anyhow::Result;
use diptych_proto::v1;
use diptych_proto::v1::admin_service_client::AdminServiceClient;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::embedding_service_client::EmbeddingServiceClient;
use diptych_proto::v1::info_service_client::InfoServiceClient;
use diptych_proto::v1::item_service_client::ItemServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_proto::v1::search_service_client::SearchServiceClient;
use tonic::Status;
use tonic::transport::Channel;

/// The largest message that tests send or take, in bytes; above the server's own limit, so that the server's is what is met.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// One connection to a server.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
}

macro_rules! client {
    ($name:ident, $client:ident, $what:literal) => {
        #[doc = concat!("A client of ", $what, ".")]
        pub fn $name(&self) -> $client<Channel> {
            $client::new(self.channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES)
                .max_encoding_message_size(MESSAGE_BYTES)
        }
    };
}

impl Api {
    /// Over an open channel.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The channel itself, for messages as bytes.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    client!(search, SearchServiceClient, "SearchService");
    client!(items, ItemServiceClient, "ItemService");
    client!(collections, CollectionServiceClient, "CollectionService");
    client!(embedding, EmbeddingServiceClient, "EmbeddingService");
    client!(info, InfoServiceClient, "InfoService");
    client!(operations, OperationServiceClient, "OperationService");
    client!(admin, AdminServiceClient, "AdminService");

    /// A collection, by its name or an alias.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn collection(&self, name: &str) -> Result<v1::Collection, Status> {
        let request = v1::GetCollectionRequest { name: name.to_owned() };
        let reply = self.collections().get_collection(request).await?.into_inner();
        Ok(reply.collection.unwrap_or_default())
    }

    /// Points an alias at a collection.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn set_alias(&self, name: &str, collection: &str) -> Result<(), Status> {
        let alias = v1::Alias { name: name.to_owned(), collection: collection.to_owned() };
        let request = v1::SetAliasRequest { alias: Some(alias), ..Default::default() };
        self.collections().set_alias(request).await.map(|_| ())
    }

    /// An operation once it has ended.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn ended(&self, name: &str) -> Result<v1::Operation, Status> {
        loop {
            let request = v1::WaitOperationRequest { name: name.to_owned(), timeout: None };
            let reply = self.operations().wait_operation(request).await?.into_inner();
            let operation = reply.operation.unwrap_or_default();
            if operation.done {
                return Ok(operation);
            }
        }
    }

    /// Makes a collection.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn create(&self, request: v1::CreateCollectionRequest) -> Result<v1::Collection> {
        let reply = self.collections().create_collection(request).await?.into_inner();
        Ok(reply.collection.unwrap_or_default())
    }

    /// Puts an item and gives what was acknowledged.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn put(
        &self,
        collection: &str,
        item: v1::ItemInput,
    ) -> Result<v1::WrittenItem, Status> {
        let reply = self.items().upsert_item(upsert(collection, item)).await?.into_inner();
        Ok(reply.written.unwrap_or_default())
    }

    /// An item with metadata and source.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn get(&self, collection: &str, id: &str) -> Result<v1::Item, Status> {
        let request = v1::GetItemRequest {
            collection: collection.to_owned(),
            id: id.to_owned(),
            read_mask: mask(&["metadata", "source"]),
        };
        Ok(self.items().get_item(request).await?.into_inner().item.unwrap_or_default())
    }

    /// All items, page by page, without sources unless `paths` names them.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn list(&self, request: v1::ListItemsRequest) -> Result<Vec<v1::Item>, Status> {
        let mut request = request;
        let mut items = Vec::new();
        loop {
            let reply = self.items().list_items(request.clone()).await?.into_inner();
            items.extend(reply.items);
            if reply.next_page_token.is_empty() {
                return Ok(items);
            }
            request.page_token = reply.next_page_token;
        }
    }

    /// Deletes one item by id and gives the number deleted.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete(&self, collection: &str, id: &str) -> Result<u64, Status> {
        let ids = v1::ItemIds { ids: vec![id.to_owned()] };
        let request = v1::DeleteItemsRequest {
            collection: collection.to_owned(),
            selection: Some(v1::delete_items_request::Selection::Ids(ids)),
            ..Default::default()
        };
        Ok(self.items().delete_items(request).await?.into_inner().deleted)
    }

    /// The hits of a general search.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn hits(&self, request: v1::SearchRequest) -> Result<Vec<v1::Hit>, Status> {
        Ok(self.search().search(request).await?.into_inner().hits)
    }
}

/// A collection of the server's default bundle.
pub fn create(name: &str) -> v1::CreateCollectionRequest {
    v1::CreateCollectionRequest { name: name.to_owned(), ..Default::default() }
}

/// A collection of bare vectors with these dimensions: shared, exclusive of pictures, exclusive of texts.
pub fn create_bare(
    name: &str,
    (shared, exclusive_image, exclusive_text): (u32, u32, u32),
) -> v1::CreateCollectionRequest {
    let dims = v1::Dimensions { shared, exclusive_image, exclusive_text };
    let vectors_by = Some(v1::create_collection_request::VectorsBy::Dimensions(dims));
    v1::CreateCollectionRequest { vectors_by, ..create(name) }
}

/// A put of one item.
pub fn upsert(collection: &str, item: v1::ItemInput) -> v1::UpsertItemRequest {
    v1::UpsertItemRequest {
        collection: collection.to_owned(),
        item: Some(item),
        ..Default::default()
    }
}

/// A put of several items.
pub fn upserts(collection: &str, items: Vec<v1::ItemInput>) -> v1::BatchUpsertItemsRequest {
    let entry =
        |item| v1::batch_upsert_items_request::Entry { item: Some(item), expected_version: None };
    v1::BatchUpsertItemsRequest {
        collection: collection.to_owned(),
        entries: items.into_iter().map(entry).collect(),
        request_id: String::new(),
    }
}

/// A text to put.
pub fn text_item(id: &str, text: &str) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Text(text.to_owned()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

/// A picture to put.
pub fn image_item(id: &str, image: Vec<u8>) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Image(image.into()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

/// Vectors to put.
pub fn vector_item(
    id: &str,
    modality: v1::Modality,
    shared: &[f32],
    exclusive: Option<&[f32]>,
) -> v1::ItemInput {
    let vectors = v1::Vectors { shared: Some(packed(shared)), exclusive: exclusive.map(packed) };
    v1::ItemInput {
        id: id.to_owned(),
        input: Some(v1::item_input::Input::Vectors(vectors)),
        modality: modality.into(),
        ..Default::default()
    }
}

/// A vector as a list of numbers.
pub fn floats(values: &[f32]) -> v1::Vector {
    let list = v1::FloatList { values: values.to_vec() };
    v1::Vector { dimension: 0, values: Some(v1::vector::Values::Floats(list)) }
}

/// A vector as little-endian bytes.
pub fn packed(values: &[f32]) -> v1::Vector {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dimension = u32::try_from(values.len()).unwrap();
    v1::Vector { dimension, values: Some(v1::vector::Values::PackedF32(bytes.into())) }
}

/// The components of a vector in either form.
///
/// # Panics
/// When it has no values.
pub fn components(vector: &v1::Vector) -> Vec<f32> {
    match vector.values.as_ref().unwrap() {
        v1::vector::Values::Floats(list) => list.values.clone(),
        v1::vector::Values::PackedF32(bytes) => bytes
            .chunks_exact(4)
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
            .collect(),
    }
}

/// A metadata value.
pub fn text_value(text: &str) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::TextValue(text.to_owned())) }
}

/// A metadata value.
pub fn int_value(value: i64) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::IntValue(value)) }
}

/// The condition that `key` equals `value`.
pub fn equals(key: &str, value: v1::Value) -> v1::Filter {
    let compare = v1::Compare { key: key.to_owned(), operator: 0, value: Some(value) };
    v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) }
}

/// A term of weight `weight` in `space`.
pub fn term(source: v1::term::Source, weight: f32, space: v1::Space) -> v1::Term {
    v1::Term { source: Some(source), weight, space: space.into() }
}

/// A search by one shared term of weight 1.
pub fn ask(collection: &str, target: v1::Modality, source: v1::term::Source) -> v1::SearchRequest {
    v1::SearchRequest {
        collection: collection.to_owned(),
        terms: vec![term(source, 1.0, v1::Space::Shared)],
        target: target.into(),
        ..Default::default()
    }
}

/// A text as a term.
pub fn by_text(text: &str) -> v1::term::Source {
    v1::term::Source::Text(text.to_owned())
}

/// A stored item as a term.
pub fn by_item(id: &str) -> v1::term::Source {
    v1::term::Source::ItemId(id.to_owned())
}

/// The ids of hits in their order.
pub fn ids(hits: &[v1::Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

/// A field mask of these paths.
pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}
