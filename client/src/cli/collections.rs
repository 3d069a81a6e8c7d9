//! `diptych collections`.

use anyhow::{Context as _, Result};
use diptych::v1::create_collection_request::VectorsBy;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::args::{CollectionsCommand, CreateArgs};
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
    let mut table = table(out, &["name", "pictures", "texts", "domain", "bundle", "state"]);
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
        ]);
    }
    Ok(out.line(&table.trim_fmt())?)
}

fn request(args: CreateArgs) -> v1::CreateCollectionRequest {
    let dims = |shared| VectorsBy::Dimensions(v1::Dimensions { shared, ..Default::default() });
    let vectors_by = args.bundle.map(VectorsBy::EmbeddingDigest).or(args.dims.map(dims));
    v1::CreateCollectionRequest { name: args.name, vectors_by, ..Default::default() }
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

fn collection_json(collection: &v1::Collection) -> Json {
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
        "generation": collection.generation,
        "engine": collection.engine,
        "aliases": collection.aliases,
        "create_time": time(collection.create_time.as_ref()),
    })
}
