//! Recall as it is told: measured on demand, and by samples of the searches. Prefixes, which cost recall.

use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use tonic::Code;

use super::support::*;

/// A repeatable vector of 4 components.
fn vector(seed: u32) -> [f32; 4] {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    [(); 4].map(|()| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    })
}

/// `rows` pictures as vectors in the collection `bare`.
async fn fill(server: &Server, rows: u32) {
    server.make(create_bare("bare")).await;
    for from in (0..rows).step_by(64) {
        let entries = (from..rows.min(from + 64)).map(|n| {
            let item = vector_item(&format!("p{n:04}"), &vector(n), Some(&[1.0, n as f32]));
            v1::batch_upsert_items_request::Entry { item: Some(item), ..Default::default() }
        });
        let request = v1::BatchUpsertItemsRequest {
            collection: "bare".to_owned(),
            entries: entries.collect(),
            ..Default::default()
        };
        server.items().batch_upsert_items(request).await.unwrap();
    }
}

fn measure(collection: &str) -> v1::MeasureRecallRequest {
    v1::MeasureRecallRequest { collection: collection.to_owned(), ..Default::default() }
}

async fn online(server: &Server) -> Option<v1::OnlineRecall> {
    let get = v1::GetCollectionRequest { name: "bare".to_owned() };
    let found = server.collections().get_collection(get).await.unwrap().into_inner();
    found.collection.unwrap().online_recall
}

fn by_vector(seed: u32) -> v1::SearchRequest {
    ask("bare", v1::Modality::Image, Source::Vector(floats(&vector(seed))))
}

#[tokio::test]
async fn a_measurement_tells_every_index_that_holds_rows() {
    let server = Server::start().await;
    fill(&server, 130).await;
    let request = v1::MeasureRecallRequest { queries: 40, seed: 9, ..measure("bare") };
    let told = server.collections().measure_recall(request).await.unwrap().into_inner();
    let indexes: Vec<_> = told
        .indexes
        .iter()
        .map(|index| (index.modality(), index.space(), index.rows, index.queries, index.recall))
        .collect();
    let image = v1::Modality::Image;
    assert_eq!(
        indexes,
        [(image, v1::Space::Shared, 130, 40, 1.0), (image, v1::Space::Exclusive, 130, 40, 1.0)]
    );
}

#[tokio::test]
async fn a_measurement_has_limits() {
    let server = Server::start().await;
    server.make(create_bare("bare")).await;
    let told = |field, most| invalid("FIELD_INVALID", field, Some(most));
    let many = v1::MeasureRecallRequest { queries: 1001, ..measure("bare") };
    assert_eq!(refused(server.collections().measure_recall(many)).await, told("queries", 1000));
    let deep = v1::MeasureRecallRequest { limit: 1001, ..measure("bare") };
    assert_eq!(refused(server.collections().measure_recall(deep)).await, told("limit", 1000));
    let wide = v1::MeasureRecallRequest { ef_search: 10_001, ..measure("bare") };
    let refusal = refused(server.collections().measure_recall(wide)).await;
    assert_eq!(refusal, told("ef_search", 10_000));
    let gone = refused(server.collections().measure_recall(measure("none"))).await;
    assert_eq!((gone.code, gone.field.as_str()), (Code::NotFound, "collection"));
    let empty = server.collections().measure_recall(measure("bare")).await.unwrap();
    assert!(empty.into_inner().indexes.is_empty());
}

#[tokio::test]
async fn a_collection_tells_what_its_searches_find() {
    let server = Server::with(Setup { recall_share: 1.0, ..Setup::default() }).await;
    fill(&server, 900).await;
    assert_eq!(online(&server).await, None);
    for seed in 0..5 {
        server.search().search(by_vector(5000 + seed)).await.unwrap();
    }
    // A scan is the right answer, and counts at once.
    assert_eq!(online(&server).await, Some(v1::OnlineRecall { recall: 1.0, searches: 5 }));
    // Exact searches and later pages say nothing of the usual way.
    let exact = v1::SearchRequest { exact: true, ..by_vector(1) };
    let reply = server.search().search(exact).await.unwrap().into_inner();
    let page_token = reply.next_page_token;
    let later = v1::SearchRequest { exact: true, page_token, ..by_vector(1) };
    server.search().search(later).await.unwrap();
    assert_eq!(online(&server).await.unwrap().searches, 5);
    // Candidates by two of four components miss some, which is found out in the background.
    for seed in 0..5 {
        let prefix = v1::SearchRequest { prefix_dims: 2, ..by_vector(6000 + seed) };
        assert!(server.search().search(prefix).await.unwrap().into_inner().info.unwrap().cut);
    }
    let running = loop {
        let running = online(&server).await.unwrap();
        if running.searches == 10 {
            break running;
        }
        tokio::task::yield_now().await;
    };
    assert!((0.5..1.0).contains(&running.recall), "{running:?}");
}

#[tokio::test]
async fn a_server_that_compares_nothing_tells_nothing() {
    let server = Server::start().await;
    fill(&server, 20).await;
    server.search().search(by_vector(1)).await.unwrap();
    assert_eq!(online(&server).await, None);
}

#[tokio::test]
async fn prefixes_of_a_bundle_are_those_it_was_trained_for_and_of_bare_vectors_any() {
    let server = Server::with_things().await;
    for n in 0..5 {
        server.put("things", text_item(&format!("t{n}"), &format!("thing {n}"))).await;
    }
    let text = |prefix_dims, space: v1::Space| {
        let mut request = ask("things", v1::Modality::Text, by_text("thing 3"));
        request.terms[0].space = space.into();
        v1::SearchRequest { prefix_dims, ..request }
    };
    for prefix_dims in [8, 16] {
        let found = server.search().search(text(prefix_dims, v1::Space::Shared)).await.unwrap();
        let found = found.into_inner();
        assert_eq!(found.hits[0].id, "t3");
        assert!((found.hits[0].score - 1.0).abs() < 1e-5);
    }
    let told = invalid("FIELD_INVALID", "prefix_dims", None);
    for (prefix_dims, space) in
        [(9, v1::Space::Shared), (32, v1::Space::Shared), (8, v1::Space::Exclusive)]
    {
        assert_eq!(refused(server.search().search(text(prefix_dims, space))).await, told);
    }
    let exact = v1::SearchRequest { exact: true, ..text(8, v1::Space::Shared) };
    assert_eq!(refused(server.search().search(exact)).await, told);
    let status = server.search().search(text(9, v1::Space::Shared)).await.unwrap_err();
    assert!(status.message().contains("8, 16"), "{status:?}");

    fill(&server, 10).await;
    for prefix_dims in [1, 3] {
        let request = v1::SearchRequest { prefix_dims, ..by_vector(1) };
        assert_eq!(server.search().search(request).await.unwrap().into_inner().hits.len(), 10);
    }
    let whole = v1::SearchRequest { prefix_dims: 4, ..by_vector(1) };
    let told = invalid("FIELD_INVALID", "prefix_dims", Some(3));
    assert_eq!(refused(server.search().search(whole)).await, told);
}
