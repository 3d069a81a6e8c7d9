//! A server for one test, and what tests ask it with.

use std::io::Write as _;
use std::sync::Arc;

use diptych_index::{EmbeddedConfig, EmbeddedEngine, Engine};
use diptych_model::Bundle;
use diptych_model::testing::tiny_bundle;
use diptych_proto::v1;
use diptych_proto::v1::admin_service_client::AdminServiceClient;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::embedding_service_client::EmbeddingServiceClient;
use diptych_proto::v1::info_service_client::InfoServiceClient;
use diptych_proto::v1::item_service_client::ItemServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_proto::v1::search_service_client::SearchServiceClient;
use diptych_server::config::{Config, Flags};
use diptych_server::encoder::Decoders;
use diptych_server::grpc;
use diptych_server::listen::{Counters, Ends};
use diptych_server::models::{Model, Models, ModelsFolder};
use diptych_server::page::PageKey;
use diptych_server::service::Service;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

pub(crate) const SHARED: usize = 32;
pub(crate) const EXCLUSIVE_IMAGE: usize = 8;
/// Receive and send limit of the test server in bytes: the smallest that settings allow.
pub(crate) const MESSAGE_BYTES: usize = 64 << 10;

/// A server that ends when it is dropped.
pub(crate) struct Server {
    pub(crate) channel: Channel,
    pub(crate) address: String,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) service: Arc<Service>,
    pub(crate) digest: String,
    pub(crate) ends: Ends,
    pub(crate) counters: Arc<Counters>,
    data: Option<TempDir>,
}

/// How a server differs from the plain one.
pub(crate) struct Setup {
    pub(crate) flags: Flags,
    pub(crate) bundle: Bundle,
    /// A second bundle.
    pub(crate) beside: Option<Bundle>,
    /// Share of the searches that are compared with their exact answers.
    pub(crate) recall_share: f64,
    pub(crate) engine: fn(EmbeddedConfig) -> EmbeddedConfig,
    /// The data of an earlier server.
    pub(crate) data: Option<TempDir>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            flags: Flags::default(),
            bundle: tiny_bundle(7).unwrap(),
            beside: None,
            recall_share: 0.0,
            engine: |config| config,
            data: None,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.goaway.cancel();
        self.ends.cut.cancel();
    }
}

impl Server {
    /// A server with small messages, for the limits of replies.
    pub(crate) async fn small() -> Self {
        let bytes = Some(MESSAGE_BYTES.to_string());
        let flags = Flags {
            message_bytes: bytes,
            image_bytes: Some((32 << 10).to_string()),
            ..Flags::default()
        };
        Self::with(Setup { flags, ..Setup::default() }).await
    }

    /// A server of further flags, as a command line has them.
    pub(crate) async fn with_flags(flags: &[&str]) -> Self {
        let flags = ["diptych-server"].iter().chain(flags).map(Into::into);
        let flags = Flags::read(flags).unwrap();
        Self::with(Setup { flags, ..Setup::default() }).await
    }

    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    /// This server's data under a new one, which has the same key for page tokens.
    pub(crate) async fn restart(mut self) -> Self {
        self.ends.goaway.cancel();
        self.engine.close().await.unwrap();
        Self::with(Setup { data: self.data.take(), ..Setup::default() }).await
    }

    /// A server with a second bundle beside the default, and the digest of that.
    pub(crate) async fn with_two_bundles() -> (Self, String) {
        let bundle = tiny_bundle(8).unwrap();
        let digest = bundle.embedding_digest().to_owned();
        (Self::with(Setup { beside: Some(bundle), ..Setup::default() }).await, digest)
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let data = setup.data.unwrap_or_else(|| TempDir::new().unwrap());
        let config = Config::resolve(&setup.flags, std::iter::empty()).unwrap();
        let settings = (setup.engine)(EmbeddedConfig::new(data.path().join("store")));
        let engine: Arc<dyn Engine> = Arc::new(EmbeddedEngine::open(&settings).unwrap());
        let decoders = Arc::new(Decoders::start(config.threads, config.decode_bytes).unwrap());
        let model = Model::start(setup.bundle, config.encoder, &decoders).unwrap();
        let digest = model.digest().to_owned();
        let models = Arc::new(Models::new(data.path().join("bundles"), model));
        if let Some(bundle) = setup.beside {
            models.join(Model::start(bundle, config.encoder, &decoders).unwrap());
        }
        let key = PageKey::new(*b"0123456789abcdef");
        let service = Service::new(Arc::clone(&engine), models, config.limits, key)
            .with_memory(config.memory_bytes.unwrap_or(0));
        let folder = config.models_dir.clone().map(ModelsFolder::new);
        let service = service.with_recall_share(setup.recall_share).with_models_folder(folder);
        let service = Arc::new(service);
        service.set_ready(true);
        let (reporter, health) = grpc::health().await;
        grpc::set_health(&reporter, true).await;
        let stack = grpc::routes(&service, health, &config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (ends, counters) = (Ends::default(), Arc::new(Counters::default()));
        let both = (ends.clone(), Arc::clone(&counters));
        tokio::spawn(grpc::serve(stack, listener, both));
        let channel =
            Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let data = Some(data);
        Self { channel, address, engine, service, digest, ends, counters, data }
    }

    /// A server with the collection `things` of the tiny bundle.
    pub(crate) async fn with_things() -> Self {
        let server = Self::start().await;
        server.make(create("things")).await;
        server
    }

    pub(crate) async fn make(&self, request: v1::CreateCollectionRequest) {
        self.collections().create_collection(request).await.unwrap();
    }

    pub(crate) async fn put(&self, collection: &str, item: v1::ItemInput) -> v1::WrittenItem {
        let request = upsert(collection, item);
        self.items().upsert_item(request).await.unwrap().into_inner().written.unwrap()
    }

    pub(crate) fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone())
    }

    pub(crate) fn items(&self) -> ItemServiceClient<Channel> {
        ItemServiceClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    pub(crate) fn collections(&self) -> CollectionServiceClient<Channel> {
        CollectionServiceClient::new(self.channel.clone())
    }

    pub(crate) fn embedding(&self) -> EmbeddingServiceClient<Channel> {
        EmbeddingServiceClient::new(self.channel.clone())
    }

    pub(crate) fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// An operation once it has ended.
    pub(crate) async fn ended(&self, operation: Option<v1::Operation>) -> v1::Operation {
        let name = operation.unwrap().name;
        loop {
            let request = v1::WaitOperationRequest { name: name.clone(), timeout: None };
            let reply = self.operations().wait_operation(request).await.unwrap().into_inner();
            let operation = reply.operation.unwrap();
            if operation.done {
                return operation;
            }
        }
    }

    /// The result of an operation that must go well.
    pub(crate) async fn result<T: prost::Message + Default>(
        &self,
        operation: Option<v1::Operation>,
    ) -> T {
        match self.ended(operation).await.outcome {
            Some(v1::operation::Outcome::Result(any)) => T::decode(any.value.as_slice()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn set_alias(&self, name: &str, collection: &str) -> v1::SetAliasResponse {
        let alias = v1::Alias { name: name.to_owned(), collection: collection.to_owned() };
        let request = v1::SetAliasRequest { alias: Some(alias), ..Default::default() };
        self.collections().set_alias(request).await.unwrap().into_inner()
    }

    /// A collection as the server shows it.
    pub(crate) async fn collection(&self, name: &str) -> v1::Collection {
        let get = v1::GetCollectionRequest { name: name.to_owned() };
        let reply = self.collections().get_collection(get).await.unwrap().into_inner();
        reply.collection.unwrap()
    }

    pub(crate) fn info(&self) -> InfoServiceClient<Channel> {
        InfoServiceClient::new(self.channel.clone())
    }
}

pub(crate) fn create(name: &str) -> v1::CreateCollectionRequest {
    v1::CreateCollectionRequest { name: name.to_owned(), ..Default::default() }
}

/// A collection of bare vectors of 4 shared dimensions, and 2 exclusive ones of pictures.
pub(crate) fn create_bare(name: &str) -> v1::CreateCollectionRequest {
    let dims = v1::Dimensions { shared: 4, exclusive_image: 2, exclusive_text: 0 };
    let vectors_by = Some(v1::create_collection_request::VectorsBy::Dimensions(dims));
    v1::CreateCollectionRequest { vectors_by, ..create(name) }
}

pub(crate) fn upsert(collection: &str, item: v1::ItemInput) -> v1::UpsertItemRequest {
    v1::UpsertItemRequest {
        collection: collection.to_owned(),
        item: Some(item),
        ..Default::default()
    }
}

pub(crate) fn text_item(id: &str, text: &str) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Text(text.to_owned()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

pub(crate) fn image_item(id: &str, image: Vec<u8>) -> v1::ItemInput {
    let input = Some(v1::item_input::Input::Image(image.into()));
    v1::ItemInput { id: id.to_owned(), input, ..Default::default() }
}

pub(crate) fn vector_item(id: &str, shared: &[f32], exclusive: Option<&[f32]>) -> v1::ItemInput {
    let vectors = v1::Vectors { shared: Some(floats(shared)), exclusive: exclusive.map(floats) };
    v1::ItemInput {
        id: id.to_owned(),
        input: Some(v1::item_input::Input::Vectors(vectors)),
        modality: v1::Modality::Image.into(),
        ..Default::default()
    }
}

pub(crate) fn floats(values: &[f32]) -> v1::Vector {
    let list = v1::FloatList { values: values.to_vec() };
    v1::Vector { dimension: 0, values: Some(v1::vector::Values::Floats(list)) }
}

pub(crate) fn text_value(text: &str) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::TextValue(text.to_owned())) }
}

/// A search for pictures or texts by one term.
pub(crate) fn ask(
    collection: &str,
    target: v1::Modality,
    term: v1::term::Source,
) -> v1::SearchRequest {
    v1::SearchRequest {
        collection: collection.to_owned(),
        terms: vec![v1::Term { source: Some(term), ..Default::default() }],
        target: target.into(),
        ..Default::default()
    }
}

pub(crate) fn by_text(text: &str) -> v1::term::Source {
    v1::term::Source::Text(text.to_owned())
}

pub(crate) fn ids(hits: &[v1::Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.id.as_str()).collect()
}

/// A field mask of these paths.
pub(crate) fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() })
}

/// What a refusal says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) field: String,
    pub(crate) limit: Option<u64>,
}

/// Reads a status; it must have an ErrorInfo of the domain `diptych`.
pub(crate) fn refusal(status: &Status) -> Refusal {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "diptych");
    assert!(info.reason.len() <= 63);
    let field = details.bad_request().and_then(|bad| bad.field_violations.first());
    Refusal {
        code: status.code(),
        reason: info.reason.clone(),
        field: field.map(|violation| violation.field.clone()).unwrap_or_default(),
        limit: info.metadata.get("limit").map(|limit| limit.parse().unwrap()),
    }
}

/// The refusal of a call that must be refused.
pub(crate) async fn refused<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Refusal {
    match call.await {
        Ok(_) => panic!("was not refused"),
        Err(status) => refusal(&status),
    }
}

/// INVALID_ARGUMENT for `reason` on `field`.
pub(crate) fn invalid(reason: &str, field: &str, limit: Option<u64>) -> Refusal {
    Refusal {
        code: Code::InvalidArgument,
        reason: reason.to_owned(),
        field: field.to_owned(),
        limit,
    }
}

/// A status of a batch reply as a refusal.
pub(crate) fn refusal_of(status: &v1::Status) -> Refusal {
    let wire = tonic_types::pb::Status {
        code: status.code,
        message: status.message.clone(),
        details: status.details.clone(),
    };
    let details = prost::Message::encode_to_vec(&wire);
    refusal(&Status::with_details(Code::from(status.code), &status.message, details.into()))
}

/// A PNG of one bit a pixel, all black, of any size: a large one is a bomb of a few kilobytes.
pub(crate) fn black_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // One bit, greyscale, deflate, no filter method, not interlaced.
    header.extend_from_slice(&[1, 0, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    let row = vec![0; 1 + width.div_ceil(8) as usize];
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..height {
        zlib.write_all(&row).unwrap();
    }
    chunk(&mut png, b"IDAT", &zlib.finish().unwrap());
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    png.extend_from_slice(kind);
    png.extend_from_slice(data);
    png.extend_from_slice(&crc.sum().to_be_bytes());
}
