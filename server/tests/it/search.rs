//! What searches find, and what a collection must have for them.

use diptych_model::testing::disc;
use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::support::*;

/// Pictures `p1` to `p4` and texts `t1` to `t4`; those of one number share a group.
async fn filled() -> Server {
    let server = Server::with_things().await;
    let texts = ["a red heart", "ein roter Ball", "corazón", "赤い円"];
    for (n, text) in (1_u32..).zip(texts) {
        let mut image = image_item(&format!("p{n}"), disc(8 * n, 20).unwrap());
        let mut text = text_item(&format!("t{n}"), text);
        for item in [&mut image, &mut text] {
            item.group = format!("g{n}");
            let number = v1::Value { kind: Some(v1::value::Kind::IntValue(n.into())) };
            item.metadata = [("n".to_owned(), number)].into();
        }
        server.put("things", image).await;
        server.put("things", text).await;
    }
    server
}

async fn search(server: &Server, request: v1::SearchRequest) -> v1::SearchResponse {
    server.search().search(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_text_finds_pictures_with_what_a_caller_needs() {
    let server = filled().await;
    let request = v1::SearchTextToImageRequest {
        collection: "things".to_owned(),
        text: "a red heart".to_owned(),
        limit: 3,
        ..Default::default()
    };
    let reply = server.search().search_text_to_image(request).await.unwrap().into_inner();
    assert_eq!(reply.hits.len(), 3);
    assert!(!reply.next_page_token.is_empty());
    for hit in &reply.hits {
        assert_eq!(hit.modality(), v1::Modality::Image);
        assert_eq!(hit.group, hit.id.replace('p', "g"));
        assert!(hit.metadata.contains_key("n") && hit.source.is_none());
        assert!((-1.001..=1.001).contains(&hit.score));
    }
    assert!(reply.hits.is_sorted_by(|a, b| a.score >= b.score));
    let info = reply.info.unwrap();
    assert_eq!(info.embedding_digest, server.digest);
    assert!(info.generation > 0 && !info.cut);
}

#[tokio::test]
async fn a_picture_finds_texts() {
    let server = filled().await;
    let request = v1::SearchImageToTextRequest {
        collection: "things".to_owned(),
        image: disc(8, 20).unwrap().into(),
        ..Default::default()
    };
    let reply = server.search().search_image_to_text(request).await.unwrap().into_inner();
    assert_eq!(reply.hits.len(), 4);
    assert!(reply.hits.iter().all(|hit| hit.modality() == v1::Modality::Text));
}

#[tokio::test]
async fn an_input_finds_itself_first_in_either_space_and_by_its_id() {
    let server = filled().await;
    for (space, weight) in [(v1::Space::Shared, 0.0), (v1::Space::Exclusive, 2.0)] {
        let image = Source::Image(disc(16, 20).unwrap().into());
        for source in [image, Source::ItemId("p2".to_owned())] {
            let mut request = ask("things", v1::Modality::Image, source);
            request.terms[0].space = space.into();
            request.terms[0].weight = weight;
            let reply = search(&server, request).await;
            assert_eq!(reply.hits[0].id, "p2");
            let expected = if weight == 0.0 { 1.0 } else { f64::from(weight) };
            assert!((reply.hits[0].score - expected).abs() < 1e-5);
        }
    }
}

#[tokio::test]
async fn the_score_is_the_weighted_sum_of_the_term_scores() {
    let server = filled().await;
    let mut request = ask("things", v1::Modality::Image, by_text("a red heart"));
    let term = |source, weight, space: v1::Space| v1::Term {
        source: Some(source),
        weight,
        space: space.into(),
    };
    let pushed = Source::ItemId("p3".to_owned());
    request.terms.push(term(pushed.clone(), -0.5, v1::Space::Shared));
    request.terms.push(term(pushed, -0.25, v1::Space::Exclusive));
    let image = Source::Image(disc(32, 20).unwrap().into());
    request.terms.push(term(image, 0.75, v1::Space::Exclusive));
    request.with_term_scores = true;
    let reply = search(&server, request.clone()).await;
    assert_eq!(reply.hits.len(), 4);
    for hit in &reply.hits {
        let weights = [1.0, -0.5, -0.25, 0.75];
        let sum: f64 = weights.iter().zip(&hit.term_scores).map(|(w, score)| w * score).sum();
        assert!((sum - hit.score).abs() < 1e-5, "{hit:?}");
    }
    request.exact = true;
    request.with_term_scores = false;
    let exact = search(&server, request).await;
    assert_eq!(ids(&exact.hits), ids(&reply.hits));
    assert!(exact.hits.iter().all(|hit| hit.term_scores.is_empty()));
}

#[tokio::test]
async fn filter_least_score_and_mask_do_what_they_say() {
    let server = filled().await;
    let asked = ask("things", v1::Modality::Text, by_text("a red heart"));
    let range = v1::Range { key: "n".to_owned(), at_least: Some(2.0), at_most: Some(3.0) };
    let filter = Some(v1::Filter { condition: Some(v1::filter::Condition::Range(range)) });
    let reply = search(&server, v1::SearchRequest { filter, ..asked.clone() }).await;
    let mut found = ids(&reply.hits);
    found.sort_unstable();
    assert_eq!(found, ["t2", "t3"]);
    let reply =
        search(&server, v1::SearchRequest { min_score: Some(0.999), ..asked.clone() }).await;
    assert_eq!(ids(&reply.hits), ["t1"]);
    let read_mask = mask(&["source"]);
    let reply = search(&server, v1::SearchRequest { read_mask, limit: 1, ..asked }).await;
    let text = v1::source::Content::Text("a red heart".to_owned());
    assert_eq!(reply.hits[0].source.clone().unwrap().content, Some(text));
    assert!(reply.hits[0].metadata.is_empty());
}

#[tokio::test]
async fn a_long_text_is_cut_only_when_asked() {
    let server = filled().await;
    let long = "heart ".repeat(2000);
    let mut request = ask("things", v1::Modality::Image, by_text(&long));
    assert_eq!(
        refused(server.search().search(request.clone())).await,
        invalid("TEXT_TOO_LONG", "terms[0].text", Some(8192))
    );
    request.truncate = true;
    let cut = search(&server, request).await.info.unwrap().truncation.unwrap();
    assert_eq!(cut.total_bytes, 12_000);
    assert!(cut.used_bytes <= 8192 && cut.used_bytes > 8000);
}

#[tokio::test]
async fn the_answers_of_a_batch_carry_their_place_and_a_bad_one_stands_alone() {
    use v1::batch_search_response::Outcome;
    let server = filled().await;
    let good = ask("things", v1::Modality::Text, by_text("corazón"));
    let bad = v1::SearchRequest { limit: 100_000, ..good.clone() };
    let gone = v1::SearchRequest { collection: "none".to_owned(), ..good.clone() };
    let request = v1::BatchSearchRequest { searches: vec![good, bad, gone] };
    let stream = server.search().batch_search(request).await.unwrap().into_inner();
    let mut replies: Vec<_> = stream.map(Result::unwrap).collect().await;
    replies.sort_by_key(|reply| reply.index);
    let outcomes: Vec<Outcome> = replies.into_iter().map(|reply| reply.outcome.unwrap()).collect();
    let [Outcome::Response(answer), Outcome::Status(bad), Outcome::Status(gone)] =
        outcomes.as_slice()
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!(answer.hits[0].id, "t3");
    assert_eq!(refusal_of(bad), invalid("FIELD_INVALID", "searches[1].limit", Some(1000)));
    assert_eq!(refusal_of(gone).field, "searches[2].collection");
}

#[tokio::test]
async fn a_batch_is_let_in_as_a_whole_and_ends_though_the_door_closes() {
    let server = filled().await;
    let good = ask("things", v1::Modality::Text, by_text("corazón"));
    let request = v1::BatchSearchRequest { searches: vec![good; 64] };
    let stream = server.search().batch_search(request.clone()).await.unwrap().into_inner();
    server.service.set_ready(false);
    let replies: Vec<_> = stream.map(Result::unwrap).collect().await;
    let answered = |reply: &v1::BatchSearchResponse| {
        matches!(reply.outcome, Some(v1::batch_search_response::Outcome::Response(_)))
    };
    assert_eq!(replies.iter().filter(|reply| answered(reply)).count(), 64);
    let told = refused(server.search().batch_search(request)).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "DRAINING"));
}

#[tokio::test]
async fn a_collection_of_bare_vectors_is_searched_by_vector_and_item_only() {
    let server = Server::start().await;
    server.make(create_bare("bare")).await;
    server.put("bare", vector_item("x", &[1.0, 0.0, 0.0, 0.0], Some(&[1.0, 0.0]))).await;
    server.put("bare", vector_item("y", &[0.0, 2.0, 0.0, 0.0], Some(&[1.0, 1.0]))).await;
    let vector = Source::Vector(floats(&[0.1, 3.0, 0.0, 0.0]));
    let reply = search(&server, ask("bare", v1::Modality::Image, vector)).await;
    assert_eq!(ids(&reply.hits), ["y", "x"]);
    assert_eq!(reply.info.unwrap().embedding_digest, "");
    let item = Source::ItemId("x".to_owned());
    let reply = search(&server, ask("bare", v1::Modality::Image, item)).await;
    assert_eq!(ids(&reply.hits), ["x", "y"]);
    no_encoders(&server, "bare", "COLLECTION_HAS_NO_BUNDLE").await;
}

#[tokio::test]
async fn a_collection_whose_bundle_is_missing_is_searched_by_vector_and_item_only() {
    let server = Server::start().await;
    let dims =
        diptych_index::Dims { shared: Some(4), exclusive_image: Some(2), exclusive_text: None };
    let spec = diptych_index::CollectionSpec {
        embedding_digest: Some("ab".repeat(32)),
        ..diptych_index::CollectionSpec::new("orphan", dims)
    };
    server.engine.create_collection(spec).await.unwrap();
    server.put("orphan", vector_item("x", &[1.0; 4], Some(&[1.0; 2]))).await;
    let item = Source::ItemId("x".to_owned());
    let reply = search(&server, ask("orphan", v1::Modality::Image, item)).await;
    assert_eq!(ids(&reply.hits), ["x"]);
    no_encoders(&server, "orphan", "BUNDLE_MISSING").await;
    let get = v1::GetCollectionRequest { name: "orphan".to_owned() };
    let found = server.collections().get_collection(get).await.unwrap().into_inner();
    let state = found.collection.unwrap().state();
    assert_eq!(state, v1::CollectionState::BundleMissing);
    let delete = v1::DeleteCollectionRequest { name: "orphan".to_owned(), ..Default::default() };
    server.collections().delete_collection(delete).await.unwrap();
}

/// By image or text, neither search nor put.
async fn no_encoders(server: &Server, collection: &str, reason: &str) {
    let told = Refusal {
        code: Code::FailedPrecondition,
        reason: reason.to_owned(),
        field: String::new(),
        limit: None,
    };
    let text = v1::SearchTextToImageRequest {
        collection: collection.to_owned(),
        text: "a".to_owned(),
        ..Default::default()
    };
    assert_eq!(refused(server.search().search_text_to_image(text)).await, told);
    let image = v1::SearchImageToTextRequest {
        collection: collection.to_owned(),
        image: black_png(1, 1).into(),
        ..Default::default()
    };
    assert_eq!(refused(server.search().search_image_to_text(image)).await, told);
    let put = upsert(collection, text_item("t", "a"));
    assert_eq!(refused(server.items().upsert_item(put)).await, told);
}

#[tokio::test]
async fn the_time_of_a_search_is_told_by_parts_when_asked_for() {
    let server = Server::start().await;
    let create = v1::CreateCollectionRequest { name: "things".to_owned(), ..Default::default() };
    server.collections().create_collection(create).await.unwrap();
    server.put("things", text_item("t", "a heart")).await;
    // Two pictures: what is asked again is not decoded again.
    let ask = |with_timings| v1::SearchImageToTextRequest {
        collection: "things".to_owned(),
        image: black_png(if with_timings { 64 } else { 32 }, 48).into(),
        with_timings,
        ..Default::default()
    };
    let info = |reply: v1::SearchImageToTextResponse| reply.info.unwrap().timings;
    let plain = server.search().search_image_to_text(ask(false)).await.unwrap().into_inner();
    assert_eq!(info(plain), None);
    let timed = server.search().search_image_to_text(ask(true)).await.unwrap().into_inner();
    let timings = info(timed).unwrap();
    let again = server.search().search_image_to_text(ask(true)).await.unwrap().into_inner();
    let again = info(again).unwrap();
    let time =
        |part: Option<prost_types::Duration>| std::time::Duration::try_from(part.unwrap()).unwrap();
    assert!(time(again.decode).is_zero() && time(again.encode).is_zero());
    let parts = [timings.check, timings.wait, timings.decode, timings.resize, timings.encode];
    let parts: std::time::Duration =
        parts.into_iter().chain([timings.search, timings.fill]).map(time).sum();
    assert!(!time(timings.decode).is_zero() && !time(timings.encode).is_zero());
    assert!(time(timings.tokenize).is_zero());
    assert!(parts <= time(timings.total), "{timings:?}");
}
