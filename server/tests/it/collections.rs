//! Making, reading, listing and deleting collections; what the server says about itself.

use diptych_proto::v1;
use diptych_proto::v1::create_collection_request::VectorsBy;
use tonic::Code;

use super::support::*;

#[tokio::test]
async fn a_collection_is_made_of_the_default_bundle_unless_told_otherwise() {
    let server = Server::start().await;
    let by_digest = Some(VectorsBy::EmbeddingDigest(server.digest.clone()));
    let requests =
        [create("one"), v1::CreateCollectionRequest { vectors_by: by_digest, ..create("two") }];
    for request in requests {
        let made = server.collections().create_collection(request).await.unwrap().into_inner();
        let made = made.collection.unwrap();
        assert_eq!(made.embedding_digest, server.digest);
        assert_eq!(made.state(), v1::CollectionState::Ready);
        assert_eq!(made.dimensions.unwrap().shared as usize, SHARED);
        assert!(made.keep_source && made.domain == "nothing (untrained)");
        assert_eq!(made.engine, "embedded");
    }
    server.put("one", text_item("a", "a heart")).await;
    let get = v1::GetCollectionRequest { name: "one".to_owned() };
    let found = server.collections().get_collection(get).await.unwrap().into_inner();
    let found = found.collection.unwrap();
    let counts = found.counts.unwrap();
    assert_eq!((counts.images, counts.texts), (0, 1));
    // One row in each space of texts, and too few of them for a graph.
    let index = found.index.iter().map(|part| (part.modality(), part.rows, part.graph_rows));
    let (image, text) = (v1::Modality::Image, v1::Modality::Text);
    assert_eq!(
        index.collect::<Vec<_>>(),
        [(image, 0, 0), (image, 0, 0), (text, 1, 0), (text, 1, 0)]
    );
}

#[tokio::test]
async fn a_bad_collection_is_refused_by_field() {
    let server = Server::start().await;
    server.make(create("taken")).await;
    let dims = |shared, exclusive_image| {
        let dims = v1::Dimensions { shared, exclusive_image, exclusive_text: 0 };
        v1::CreateCollectionRequest { vectors_by: Some(VectorsBy::Dimensions(dims)), ..create("a") }
    };
    let digest = |digest: String| v1::CreateCollectionRequest {
        vectors_by: Some(VectorsBy::EmbeddingDigest(digest)),
        ..create("a")
    };
    let field = |name: &str| invalid("FIELD_INVALID", name, None);
    let limited = |name: &str, limit| invalid("FIELD_INVALID", name, Some(limit));
    let told = |code, reason: &str, field: &str| Refusal {
        code,
        reason: reason.to_owned(),
        field: field.to_owned(),
        limit: None,
    };
    let cases = [
        (create(""), field("name")),
        (create("Upper"), field("name")),
        (create(&"a".repeat(64)), limited("name", 63)),
        (create("taken"), told(Code::AlreadyExists, "COLLECTION_EXISTS", "name")),
        (dims(0, 4), field("dimensions.shared")),
        (dims(4097, 0), limited("dimensions.shared", 4096)),
        (dims(4, 5000), limited("dimensions.exclusive_image", 4096)),
        (digest("cd".repeat(32)), told(Code::NotFound, "BUNDLE_NOT_FOUND", "embedding_digest")),
        (digest("x".repeat(1000)), limited("embedding_digest", 64)),
        (
            v1::CreateCollectionRequest { engine: "cloud".to_owned(), ..create("a") },
            field("engine"),
        ),
    ];
    for (request, told) in cases {
        assert_eq!(refused(server.collections().create_collection(request)).await, told);
    }
}

#[tokio::test]
async fn a_repeated_create_or_delete_is_answered_as_the_first() {
    let server = Server::start().await;
    let request = v1::CreateCollectionRequest { request_id: "one".to_owned(), ..create("things") };
    let first = server.collections().create_collection(request.clone()).await.unwrap();
    let again = server.collections().create_collection(request.clone()).await.unwrap();
    assert_eq!(first.into_inner(), again.into_inner());
    let other = v1::CreateCollectionRequest { keep_source: Some(false), ..request };
    let told = refused(server.collections().create_collection(other)).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));
    let request_id = "two".to_owned();
    let delete = v1::DeleteCollectionRequest { name: "things".to_owned(), request_id };
    server.collections().delete_collection(delete.clone()).await.unwrap();
    server.collections().delete_collection(delete).await.unwrap();
    let anew = v1::DeleteCollectionRequest { name: "things".to_owned(), ..Default::default() };
    let told = refused(server.collections().delete_collection(anew)).await;
    assert_eq!(told.code, Code::NotFound);
}

#[tokio::test]
async fn collections_are_listed_by_name_in_pages() {
    let server = Server::start().await;
    for name in ["c", "a", "e", "b", "d"] {
        server.make(create_bare(name)).await;
    }
    let mut request = v1::ListCollectionsRequest { page_size: 2, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = server.collections().list_collections(request.clone()).await.unwrap();
        let page = page.into_inner();
        assert!(page.collections.len() <= 2);
        names.extend(page.collections.into_iter().map(|collection| collection.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    let bad = v1::ListCollectionsRequest { page_token: "bad".to_owned(), ..Default::default() };
    let told = invalid("PAGE_TOKEN_INVALID", "page_token", None);
    assert_eq!(refused(server.collections().list_collections(bad)).await, told);
    let bad = v1::ListCollectionsRequest { page_size: 1001, ..Default::default() };
    let told = invalid("FIELD_INVALID", "page_size", Some(1000));
    assert_eq!(refused(server.collections().list_collections(bad)).await, told);
}

#[tokio::test]
async fn the_server_says_what_it_is_while_it_drains_and_nothing_else_answers() {
    let server = Server::with_things().await;
    server.service.set_ready(false);
    let info = server.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    let info = info.into_inner();
    assert_eq!(info.default_embedding_digest, server.digest);
    assert_eq!(info.limits.unwrap().search_limit, 1000);
    assert_eq!(info.engines[0].name, "embedded");
    let models = server.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let model = models.into_inner().models.remove(0);
    assert!(model.is_default && model.golden() == v1::GoldenState::Passed);
    assert_eq!(model.spaces.len(), 4);
    assert_eq!(model.spaces[0].prefixes, [8, 16]);
    let search = ask("things", v1::Modality::Image, by_text("a"));
    let status = server.search().search(search).await.unwrap_err();
    assert_eq!(refusal(&status).reason, "DRAINING");
    assert_eq!(status.code(), Code::Unavailable);
    let details = tonic_types::StatusExt::get_error_details(&status);
    assert!(details.retry_info().is_some());
}
