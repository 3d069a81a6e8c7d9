//! Requests that are wrong in themselves: vectors, spaces, names, ids, limits, tokens, sizes.

use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::{Refusal, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tonic::Code;

use super::Fixture;

#[tokio::test]
async fn a_bad_vector_is_named_with_its_dimension() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    api.create(create_bare("bare", (4, 2, 0))).await.unwrap();
    let cases = [
        (packed(&[1.0, f32::NAN, 0.0, 0.0]), "VECTOR_INVALID", None),
        (floats(&[1.0, f32::NAN, 0.0, 0.0]), "VECTOR_INVALID", None),
        (packed(&[1.0, f32::INFINITY, 0.0, 0.0]), "VECTOR_INVALID", None),
        (packed(&[0.0; 4]), "VECTOR_INVALID", None),
        (packed(&[1.0; 3]), "DIMENSION_MISMATCH", Some(4)),
        (floats(&[1.0; 5]), "DIMENSION_MISMATCH", Some(4)),
    ];
    for (vector, reason, limit) in cases {
        let search = ask("bare", v1::Modality::Image, Source::Vector(vector.clone()));
        let told = Refusal::from_call(api.search().search(search)).await;
        told.must_be_invalid(reason, "terms[0].vector", limit);
        let vectors = v1::Vectors { shared: Some(vector), exclusive: None };
        let bad = v1::ItemInput {
            id: "bad".to_owned(),
            input: Some(v1::item_input::Input::Vectors(vectors)),
            modality: v1::Modality::Image.into(),
            ..Default::default()
        };
        let near = vector_item("near", v1::Modality::Image, &[1.0; 4], Some(&[1.0; 2]));
        let batch = upserts("bare", vec![near.clone(), bad, near]);
        let reply = api.items().batch_upsert_items(batch).await.unwrap().into_inner();
        let outcomes: Vec<_> =
            reply.results.into_iter().map(|result| result.outcome.unwrap()).collect();
        use v1::batch_upsert_items_response::result::Outcome;
        let [Outcome::Written(_), Outcome::Status(status), Outcome::Written(_)] = &outcomes[..]
        else {
            panic!("{outcomes:?}")
        };
        let told = Refusal::of_element(status);
        told.must_be_invalid(reason, "entries[1].item.vectors.shared", limit);
        let own = ask("bare", v1::Modality::Image, Source::Vector(packed(&[1.0; 4])));
        assert_eq!(ids(&api.hits(own).await.unwrap()), ["near"]);
    }
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_wrong_space_is_named() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    api.create(create_bare("bare", (4, 2, 0))).await.unwrap();
    let picture = inputs::png(&mut ChaCha8Rng::seed_from_u64(3));
    api.put("things", image_item("picture", picture.clone())).await.unwrap();
    let exclusive = |collection: &str, target, source| {
        let mut search = ask(collection, target, source);
        search.terms[0].space = v1::Space::Exclusive.into();
        search
    };
    let (image, text) = (v1::Modality::Image, v1::Modality::Text);
    let cases = [
        (exclusive("things", image, by_text("red")), "EXCLUSIVE_MODALITY_MISMATCH"),
        (exclusive("things", image, by_item("good")), "EXCLUSIVE_MODALITY_MISMATCH"),
        (exclusive("things", text, Source::Image(picture.into())), "EXCLUSIVE_MODALITY_MISMATCH"),
        (exclusive("things", text, by_item("picture")), "EXCLUSIVE_MODALITY_MISMATCH"),
        (exclusive("bare", text, Source::Vector(floats(&[1.0; 2]))), "SPACE_MISMATCH"),
    ];
    for (search, reason) in cases {
        let told = Refusal::from_call(api.search().search(search)).await;
        told.must_be_invalid(reason, "terms[0].space", None);
    }
    let mut item = vector_item("t", text, &[1.0; 4], Some(&[1.0; 2]));
    item.group = "g".to_owned();
    let told = Refusal::of(&api.put("bare", item).await.unwrap_err());
    told.must_be_invalid("SPACE_MISMATCH", "item.vectors.exclusive", None);
    fixture.still_answers().await;
}

#[tokio::test]
async fn an_unknown_collection_is_not_found_and_named() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    let collection = || "nowhere".to_owned();
    let search = v1::SearchTextToImageRequest {
        collection: collection(),
        text: "red".to_owned(),
        ..Default::default()
    };
    let mut told = vec![
        Refusal::from_call(api.search().search_text_to_image(search)).await,
        Refusal::of(&api.hits(ask("nowhere", v1::Modality::Text, by_text("a"))).await.unwrap_err()),
        Refusal::of(&api.put("nowhere", text_item("a", "a")).await.unwrap_err()),
        Refusal::of(&api.get("nowhere", "a").await.unwrap_err()),
        Refusal::of(&api.delete("nowhere", "a").await.unwrap_err()),
    ];
    let list = v1::ListItemsRequest { collection: collection(), ..Default::default() };
    told.push(Refusal::of(&api.list(list).await.unwrap_err()));
    for told in told {
        told.must_be(Code::NotFound, "COLLECTION_NOT_FOUND", "collection", None);
    }
    let get = v1::GetCollectionRequest { name: collection() };
    let told = Refusal::from_call(api.collections().get_collection(get)).await;
    told.must_be(Code::NotFound, "COLLECTION_NOT_FOUND", "name", None);
    fixture.still_answers().await;
}

#[tokio::test]
async fn an_id_of_300_bytes_is_refused_wherever_one_is_taken() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    // 150 letters of two bytes each: bytes are counted, not letters.
    let id = "é".repeat(150);
    let told = Refusal::of(&api.put("things", text_item(&id, "a")).await.unwrap_err());
    told.must_be_invalid("FIELD_INVALID", "item.id", Some(256));
    let told = Refusal::of(&api.get("things", &id).await.unwrap_err());
    told.must_be_invalid("FIELD_INVALID", "id", Some(256));
    let told = Refusal::of(&api.delete("things", &id).await.unwrap_err());
    told.must_be_invalid("FIELD_INVALID", "ids.ids[0]", Some(256));
    let search = ask("things", v1::Modality::Text, by_item(&id));
    let told = Refusal::of(&api.hits(search).await.unwrap_err());
    told.must_be_invalid("FIELD_INVALID", "terms[0].item_id", Some(256));
    let longest = "é".repeat(128);
    api.put("things", text_item(&longest, "a")).await.unwrap();
    assert_eq!(api.get("things", &longest).await.unwrap().id, longest);
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_limit_of_100000_is_refused_and_the_largest_one_works() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    let text = |limit| v1::SearchTextToImageRequest {
        collection: "things".to_owned(),
        text: "red".to_owned(),
        limit,
        ..Default::default()
    };
    let told = Refusal::from_call(api.search().search_text_to_image(text(100_000))).await;
    told.must_be_invalid("FIELD_INVALID", "limit", Some(1000));
    api.search().search_text_to_image(text(1000)).await.unwrap();
    let image = v1::SearchImageToTextRequest {
        collection: "things".to_owned(),
        image: inputs::black_png(4, 4).into(),
        limit: 100_000,
        ..Default::default()
    };
    let told = Refusal::from_call(api.search().search_image_to_text(image)).await;
    told.must_be_invalid("FIELD_INVALID", "limit", Some(1000));
    let general = ask("things", v1::Modality::Text, by_text("red"));
    let told =
        Refusal::from_call(api.search().search(v1::SearchRequest { limit: 100_000, ..general }))
            .await;
    told.must_be_invalid("FIELD_INVALID", "limit", Some(1000));
    let list = v1::ListItemsRequest {
        collection: "things".to_owned(),
        page_size: 100_000,
        ..Default::default()
    };
    let told = Refusal::of(&api.list(list).await.unwrap_err());
    told.must_be_invalid("FIELD_INVALID", "page_size", Some(1000));
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_page_token_of_another_query_is_refused() {
    let fixture = Fixture::new().await;
    let api = &fixture.api;
    for number in 0..5 {
        let text = inputs::words(&mut ChaCha8Rng::seed_from_u64(4), number);
        api.put("things", text_item(&format!("t{number}"), &text)).await.unwrap();
    }
    let first = v1::SearchRequest { limit: 2, ..ask("things", v1::Modality::Text, by_text("red")) };
    let reply = api.search().search(first.clone()).await.unwrap().into_inner();
    let page_token = reply.next_page_token;
    assert!(!page_token.is_empty());
    let changed = [
        ask("things", v1::Modality::Text, by_text("green")),
        v1::SearchRequest { one_per_group: true, ..first.clone() },
        v1::SearchRequest { min_score: Some(-0.5), ..first.clone() },
        v1::SearchRequest { filter: Some(equals("a", int_value(1))), ..first.clone() },
    ];
    for other in changed {
        let other = v1::SearchRequest { page_token: page_token.clone(), ..other };
        let told = Refusal::from_call(api.search().search(other)).await;
        told.must_be_invalid("PAGE_TOKEN_INVALID", "page_token", None);
    }
    let list = v1::ListItemsRequest {
        collection: "things".to_owned(),
        page_token: page_token.clone(),
        ..Default::default()
    };
    let told = Refusal::of(&api.list(list).await.unwrap_err());
    told.must_be_invalid("PAGE_TOKEN_INVALID", "page_token", None);
    // With its own query, and another limit, it works.
    let own = v1::SearchRequest { page_token, limit: 3, ..first };
    assert_eq!(api.hits(own).await.unwrap().len(), 3);
    fixture.still_answers().await;
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_with_the_limit() {
    let fixture = Fixture::new().await;
    let embed = v1::EmbedTextRequest { text: "a".repeat(17 << 20), ..Default::default() };
    let told = Refusal::from_call(fixture.api.embedding().embed_text(embed)).await;
    assert_eq!(told.code, Code::ResourceExhausted, "{told:?}");
    assert_eq!(told.reason, "MESSAGE_TOO_LARGE");
    assert_eq!(told.limit, Some(16 << 20));
    fixture.still_answers().await;
}
