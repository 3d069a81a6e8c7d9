//! Why one item scores as it does: the same numbers as the search itself gives, for hits and for others.

use diptych_model::testing::disc;
use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use tonic::Code;

use super::support::*;

async fn filled() -> Server {
    let server = Server::with_things().await;
    for n in 1..=6 {
        let mut image = image_item(&format!("p{n}"), disc(8 * n, 20).unwrap());
        image.group = format!("g{}", n % 3);
        server.put("things", image).await;
    }
    server.put("things", text_item("t", "a red heart")).await;
    server
}

/// A composed question for pictures.
fn composed() -> v1::SearchRequest {
    let mut request = ask("things", v1::Modality::Image, by_text("a red heart"));
    request.terms.push(v1::Term {
        source: Some(Source::ItemId("p3".to_owned())),
        weight: -0.5,
        space: v1::Space::Exclusive.into(),
    });
    request.with_term_scores = true;
    request
}

async fn explain(server: &Server, search: v1::SearchRequest, id: &str) -> v1::ExplainMatchResponse {
    let request = v1::ExplainMatchRequest { search: Some(search), item_id: id.to_owned() };
    server.search().explain_match(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn every_hit_is_explained_as_it_was_found() {
    let server = filled().await;
    for one_per_group in [false, true] {
        let search = v1::SearchRequest { one_per_group, ..composed() };
        let reply = server.search().search(search.clone()).await.unwrap().into_inner();
        assert_eq!(reply.hits.len(), if one_per_group { 3 } else { 6 });
        for (place, hit) in (1_u64..).zip(&reply.hits) {
            let told = explain(&server, search.clone(), &hit.id).await;
            assert_eq!(told.hit.as_ref(), Some(hit));
            assert_eq!((told.passes, told.rank), (true, place));
            assert_eq!((told.route.as_str(), told.visited), ("exact", 6));
            let info = told.info.unwrap();
            assert_eq!(info.embedding_digest, server.digest);
            assert_eq!(info.generation, reply.info.as_ref().unwrap().generation);
            assert!(!info.cut);
        }
    }
}

#[tokio::test]
async fn an_item_that_is_no_hit_is_explained_too() {
    let server = filled().await;
    let reply = server.search().search(composed()).await.unwrap().into_inner();
    let (best, last) = (&reply.hits[0], &reply.hits[5]);
    // Its limit and token are not read.
    let search = v1::SearchRequest { limit: 1, page_token: "none".to_owned(), ..composed() };
    let told = explain(&server, search, &last.id).await;
    assert_eq!((told.passes, told.rank), (true, 6));
    let search = v1::SearchRequest { min_score: Some(best.score), ..composed() };
    let told = explain(&server, search, &last.id).await;
    assert_eq!((told.passes, told.rank), (false, 0));
    assert_eq!(told.hit.unwrap().score, last.score);
    let told = explain(&server, composed(), "t").await;
    assert_eq!((told.passes, told.rank), (false, 0));
    let hit = told.hit.unwrap();
    assert_eq!(hit.modality(), v1::Modality::Text);
    assert!((hit.term_scores[0] - 1.0).abs() < 1e-5);
    assert_eq!(hit.term_scores[1], 0.0);
    // Another one of its group stands for it.
    let search = v1::SearchRequest { one_per_group: true, ..composed() };
    let mut ranks = Vec::new();
    for hit in &reply.hits {
        ranks.push(explain(&server, search.clone(), &hit.id).await.rank);
    }
    assert_eq!(ranks.iter().filter(|rank| **rank == 0).count(), 3);
}

#[tokio::test]
async fn what_is_wrong_is_told_at_its_place() {
    let server = filled().await;
    let mut call = server.search();
    let mut told = async |search, item_id: &str| {
        let request = v1::ExplainMatchRequest { search, item_id: item_id.to_owned() };
        refused(call.explain_match(request)).await
    };
    assert_eq!(told(None, "p1").await, invalid("FIELD_INVALID", "search", None));
    assert_eq!(told(Some(composed()), "").await, invalid("FIELD_INVALID", "item_id", None));
    let missing = told(Some(composed()), "none").await;
    assert_eq!((missing.code, missing.field.as_str()), (Code::NotFound, "item_id"));
    let empty = v1::SearchRequest { terms: Vec::new(), ..composed() };
    assert_eq!(told(Some(empty), "p1").await, invalid("FIELD_INVALID", "search.terms", None));
    let blank = ask("things", v1::Modality::Image, by_text(""));
    let blank = told(Some(blank), "p1").await;
    assert_eq!(blank, invalid("TEXT_EMPTY", "search.terms[0].text", None));
    let elsewhere = v1::SearchRequest { collection: "none".to_owned(), ..composed() };
    let missing = told(Some(elsewhere), "p1").await;
    assert_eq!((missing.code, missing.field.as_str()), (Code::NotFound, "search.collection"));
    let item = ask("things", v1::Modality::Image, Source::ItemId("none".to_owned()));
    let missing = told(Some(item), "p1").await;
    assert_eq!((missing.code, missing.field.as_str()), (Code::NotFound, "search.terms[0].item_id"));
}
