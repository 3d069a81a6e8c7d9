//! Checkpoints of others, in Hugging Face layout, served from their directory. Expected vectors are those of
//! `transformers`: `scripts/make-clip-fixtures.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

use diptych_model::Bundle;
use diptych_proto::v1;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::embedding_service_client::EmbeddingServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::starts::{Running, program, serving};
use super::support::*;

/// The least cosine to `transformers`, preprocessing included.
const LEAST: f32 = 0.99999;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints")
}

fn expected(name: &str) -> Value {
    let path = fixtures().join(name).join("expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn picture(name: &str) -> bytes::Bytes {
    std::fs::read(fixtures().join("pictures").join(name)).unwrap().into()
}

fn cosine(embedding: &v1::Embedding, expected: &Value) -> f32 {
    let vector = embedding.shared.as_ref().unwrap();
    let Some(v1::vector::Values::PackedF32(bytes)) = &vector.values else { panic!("{vector:?}") };
    let got = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
    let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(vector.dimension as usize, expected.len());
    got.zip(&expected).map(|(a, b)| a * b).sum()
}

async fn of_text(client: &mut EmbeddingServiceClient<Channel>, text: &str) -> v1::Embedding {
    let request =
        v1::EmbedTextRequest { text: text.to_owned(), truncate: true, ..Default::default() };
    client.embed_text(request).await.unwrap().into_inner().embedding.unwrap()
}

async fn of_picture(client: &mut EmbeddingServiceClient<Channel>, name: &str) -> v1::Embedding {
    let request = v1::EmbedImageRequest { image: picture(name), ..Default::default() };
    client.embed_image(request).await.unwrap().into_inner().embedding.unwrap()
}

/// The program with a fixture's directory as its bundle.
fn started(name: &str, data: &TempDir) -> Command {
    let mut command = program(&["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]);
    command.arg("--bundle").arg(fixtures().join(name));
    command.arg("--data-dir").arg(data.path().join("data"));
    command
}

async fn connected(command: &mut Command) -> (Running, Channel) {
    let (running, address) = serving(command).await;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (running, endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn the_program_serves_a_clip_and_a_siglip_directory_as_transformers_embeds() {
    for name in ["clip", "siglip"] {
        let data = TempDir::new().unwrap();
        let (_running, channel) = connected(&mut started(name, &data)).await;
        let mut client = EmbeddingServiceClient::new(channel);
        let expected = expected(name);
        let mut compared = 0;
        for (file, vector) in expected["images"].as_object().unwrap() {
            let embedding = of_picture(&mut client, file).await;
            assert!(embedding.exclusive.is_none());
            assert!(cosine(&embedding, vector) >= LEAST, "{name}: {file}");
            compared += 1;
        }
        for (text, vector) in expected["texts"].as_object().unwrap() {
            let embedding = of_text(&mut client, text).await;
            assert!(embedding.exclusive.is_none());
            assert!(cosine(&embedding, vector) >= LEAST, "{name}: {text}");
            compared += 1;
        }
        assert_eq!(compared, 16);
    }
}

async fn served(name: &str) -> Server {
    let bundle = Bundle::open(fixtures().join(name)).unwrap();
    Server::with(Setup { bundle, ..Setup::default() }).await
}

#[tokio::test]
async fn a_checkpoint_fills_and_searches_a_collection_and_says_that_it_has_no_exclusive_space() {
    let server = served("clip").await;
    server.collections().create_collection(create("photos")).await.unwrap();
    let collection = server.collection("photos").await;
    let dims = collection.dimensions.unwrap();
    assert_eq!((dims.shared, dims.exclusive_image, dims.exclusive_text), (20, 0, 0));
    for name in ["portrait.png", "wide.png", "photo.jpg"] {
        let item = image_item(name, picture(name).to_vec());
        server.items().upsert_item(upsert("photos", item)).await.unwrap();
    }
    let image = |name| v1::term::Source::Image(picture(name));
    let same = ask("photos", v1::Modality::Image, image("wide.png"));
    let hits = server.search().search(same).await.unwrap().into_inner().hits;
    assert_eq!(hits[0].id, "wide.png");
    assert!(hits[0].score > 0.999);
    let by_words = ask("photos", v1::Modality::Image, by_text("a red heart"));
    assert_eq!(server.search().search(by_words).await.unwrap().into_inner().hits.len(), 3);

    let mut exclusive = ask("photos", v1::Modality::Image, image("wide.png"));
    exclusive.terms[0].space = v1::Space::Exclusive.into();
    let told = refused(server.search().search(exclusive)).await;
    assert_eq!((told.code, &*told.reason), (Code::InvalidArgument, "SPACE_MISMATCH"));

    let models = server.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let model = models.into_inner().models.remove(0);
    assert_eq!(model.golden(), v1::GoldenState::Absent);
    assert_eq!(model.spaces.len(), 2);
    assert!(model.spaces.iter().all(|space| space.space() == v1::Space::Shared));
}

/// The collection is made with one checkpoint, and the next start is given another: the copy in the data
/// folder serves it.
#[tokio::test]
async fn a_checkpoint_is_kept_with_its_collections() {
    let data = TempDir::new().unwrap();
    let digest = Bundle::open(fixtures().join("clip")).unwrap().embedding_digest().to_owned();
    for name in ["clip", "siglip"] {
        let mut command = started(name, &data);
        let (_running, channel) = connected(&mut command).await;
        if name == "clip" {
            let mut collections = CollectionServiceClient::new(channel.clone());
            collections.create_collection(create("photos")).await.unwrap();
        }
        let request = v1::EmbedTextRequest {
            text: "a photo of a red heart".to_owned(),
            embedding_digest: digest.clone(),
            ..Default::default()
        };
        let mut client = EmbeddingServiceClient::new(channel);
        let embedding = client.embed_text(request).await.unwrap().into_inner().embedding.unwrap();
        let vector = &expected("clip")["texts"]["a photo of a red heart"];
        assert!(cosine(&embedding, vector) >= LEAST);
    }
}

#[tokio::test]
async fn a_sentence_encoder_serves_texts_and_says_that_it_sees_no_pictures() {
    let server = served("bert").await;
    let expected = expected("bert");
    for (text, vector) in expected["texts"].as_object().unwrap() {
        let embedding = of_text(&mut server.embedding(), text).await;
        assert!(cosine(&embedding, vector) >= LEAST, "{text}");
    }
    let image = v1::EmbedImageRequest { image: picture("wide.png"), ..Default::default() };
    let told = refused(server.embedding().embed_image(image)).await;
    assert_eq!((told.code, &*told.reason), (Code::FailedPrecondition, "MODALITY_UNSUPPORTED"));
    server.collections().create_collection(create("notes")).await.unwrap();
    server.items().upsert_item(upsert("notes", text_item("a", "a red heart"))).await.unwrap();
    let search = ask("notes", v1::Modality::Text, by_text("a red heart"));
    assert_eq!(server.search().search(search).await.unwrap().into_inner().hits[0].id, "a");
    let models = server.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let model = models.into_inner().models.remove(0);
    assert_eq!(model.spaces.len(), 1);
    assert_eq!(model.spaces[0].modality(), v1::Modality::Text);
}
