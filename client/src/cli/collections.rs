//! `diptych collections`.

use anyhow::{Context as _, Result};
use diptych::v1::create_collection_request::VectorsBy;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::args::{CollectionsCommand, CreateArgs, GraphArg, StorageArg};
use super::items::time;
use super::out::{Out, say};
use super::table::{number, table};

/// The domain of the bundle that is built into the server.
const SAMPLE_DOMAIN: &str = "emoji";

/// Lists, makes or deletes.
pub(crate) async fn run(
    client: &Client,
    command: Option<CollectionsCommand>,
    out: Out,
) -> Result<()> {
    match command.unwrap_or(CollectionsCommand::List) {
        CollectionsCommand::List => list(client, out).await,
        CollectionsCommand::Create(args) => {
            let collection = create(client, request(args)).await?;
            tell_sample(&collection);
            if out.json {
                return out.value(&collection_json(&collection));
            }
            let by = if collection.embedding_digest.is_empty() {
                "vectors that are put".to_owned()
            } else {
                format!("bundle {}", collection.embedding_digest)
            };
            Ok(out.line(&format!("made collection {} of {by}", collection.name))?)
        }
        CollectionsCommand::Update { name, keep_source } => {
            let collection = update(client, name, keep_source).await?;
            if out.json {
                return out.value(&collection_json(&collection));
            }
            let does = if collection.keep_source { "keep" } else { "do not keep" };
            Ok(out.line(&format!("items put into {} {does} their sources", collection.name))?)
        }
        CollectionsCommand::Delete { name } => {
            let request = v1::DeleteCollectionRequest { name: name.clone(), ..Default::default() };
            client.delete_collection(request).await?;
            if out.json {
                return out.value(&json!({ "deleted": name }));
            }
            Ok(out.line(&format!("deleted collection {name}"))?)
        }
    }
}

async fn list(client: &Client, out: Out) -> Result<()> {
    let collections = client.collections().await?;
    if out.json {
        let all: Vec<Json> = collections.iter().map(collection_json).collect();
        return out.value(&json!({ "collections": all }));
    }
    let mut table =
        table(out, &["name", "pictures", "texts", "domain", "bundle", "state", "aliases"]);
    for collection in &collections {
        let counts = collection.counts.unwrap_or_default();
        let digest: String = collection.embedding_digest.chars().take(12).collect();
        table.add_row([
            collection.name.clone().into(),
            number(&counts.images),
            number(&counts.texts),
            collection.domain.clone().into(),
            digest.into(),
            state(collection).into(),
            collection.aliases.join(", ").into(),
        ]);
    }
    Ok(out.line(&table.trim_fmt())?)
}

async fn update(client: &Client, name: String, keep_source: bool) -> Result<v1::Collection> {
    let collection = v1::Collection { name, keep_source, ..Default::default() };
    let request = v1::UpdateCollectionRequest {
        collection: Some(collection),
        update_mask: Some(diptych::mask(&["keep_source"])),
        ..Default::default()
    };
    let reply = client.update_collection(request).await?;
    reply.collection.context("the server's answer holds no collection")
}

fn request(args: CreateArgs) -> v1::CreateCollectionRequest {
    let dims = |shared| VectorsBy::Dimensions(v1::Dimensions { shared, ..Default::default() });
    let vectors_by = args.bundle.map(VectorsBy::EmbeddingDigest).or(args.dims.map(dims));
    let vector_storage = match args.storage {
        StorageArg::F32 => v1::VectorStorage::F32,
        StorageArg::I16 => v1::VectorStorage::I16,
        StorageArg::I8 => v1::VectorStorage::I8,
    };
    let graph_builder = match args.graph {
        GraphArg::Native => v1::GraphBuilder::Native,
        GraphArg::HnswRs => v1::GraphBuilder::HnswRs,
    };
    v1::CreateCollectionRequest {
        name: args.name,
        vectors_by,
        vector_storage: vector_storage.into(),
        graph_builder: graph_builder.into(),
        ..Default::default()
    }
}

/// Makes a collection.
pub(crate) async fn create(
    client: &Client,
    request: v1::CreateCollectionRequest,
) -> Result<v1::Collection> {
    let reply = client.create_collection(request).await?;
    reply.collection.context("the server's answer holds no collection")
}

/// Says what a collection made of the sample bundle is good for, and how to have another.
pub(crate) fn tell_sample(collection: &v1::Collection) {
    if collection.domain == SAMPLE_DOMAIN {
        say(&format!(
            "note: {} is made with the server's sample bundle, which knows emoji and little else; for other pictures start \
             the server with a bundle trained on such: diptych-server --bundle DIR",
            collection.name
        ));
    }
}

fn state(collection: &v1::Collection) -> &'static str {
    match collection.state() {
        v1::CollectionState::Ready => "ready",
        v1::CollectionState::BundleMissing => "bundle missing",
        v1::CollectionState::Unspecified => "unknown",
    }
}

fn index_json(part: &v1::IndexState) -> Json {
    json!({
        "modality": part.modality().as_str_name(),
        "space": part.space().as_str_name(),
        "rows": part.rows,
        "graph_rows": part.graph_rows,
        "ended_rows": part.ended_rows,
        "segments": part.segments,
    })
}

pub(crate) fn collection_json(collection: &v1::Collection) -> Json {
    let counts = collection.counts.unwrap_or_default();
    let dims = collection.dimensions.unwrap_or_default();
    json!({
        "name": collection.name,
        "embedding_digest": collection.embedding_digest,
        "domain": collection.domain,
        "state": state(collection),
        "images": counts.images,
        "texts": counts.texts,
        "dimensions": {
            "shared": dims.shared,
            "exclusive_image": dims.exclusive_image,
            "exclusive_text": dims.exclusive_text,
        },
        "keep_source": collection.keep_source,
        "vector_storage": collection.vector_storage().as_str_name(),
        "graph_builder": collection.graph_builder().as_str_name(),
        "generation": collection.generation,
        "engine": collection.engine,
        "aliases": collection.aliases,
        "index": collection.index.iter().map(index_json).collect::<Vec<Json>>(),
        "online_recall": collection.online_recall.map(|online| {
            json!({ "recall": online.recall, "searches": online.searches })
        }),
        "create_time": time(collection.create_time.as_ref()),
    })
}
