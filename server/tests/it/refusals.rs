//! Bad input, RPC by RPC: the code, the reason, the field and the limit of each refusal; and that the server goes on.

use diptych_model::testing::disc;
use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use tonic::Code;

use super::support::*;

/// A picture, and what its refusal must say.
fn bad_images() -> Vec<(&'static str, Vec<u8>, &'static str, Option<u64>)> {
    let disc = disc(40, 40).unwrap();
    let bomb = black_png(8000, 8000);
    assert!(bomb.len() < 10_000, "{} bytes", bomb.len());
    vec![
        ("empty", Vec::new(), "IMAGE_EMPTY", None),
        ("truncated", disc[..disc.len() / 2].to_vec(), "IMAGE_CORRUPT", None),
        ("a text", b"a red heart".to_vec(), "IMAGE_FORMAT_UNSUPPORTED", None),
        ("a bomb", bomb, "IMAGE_TOO_LARGE", Some(25_000_000)),
        ("too many bytes", vec![0xff; (10 << 20) + 1], "IMAGE_TOO_LARGE", Some(10 << 20)),
    ]
}

fn bad_texts() -> Vec<(String, &'static str, Option<u64>)> {
    vec![
        (String::new(), "TEXT_EMPTY", None),
        (" \n".to_owned(), "TEXT_EMPTY", None),
        ("a ".repeat(500_000), "TEXT_TOO_LONG", Some(8192)),
    ]
}

#[tokio::test]
async fn bad_pictures_are_refused_wherever_one_is_taken() {
    let server = Server::with_things().await;
    for (what, image, reason, limit) in bad_images() {
        let told = |field| invalid(reason, field, limit);
        let bytes = bytes::Bytes::from(image.clone());
        let embed = v1::EmbedImageRequest { image: bytes.clone(), ..Default::default() };
        let call = server.embedding().embed_image(embed).await;
        assert_eq!(refusal(&call.unwrap_err()), told("image"), "{what}");
        let search = v1::SearchImageToTextRequest {
            collection: "things".to_owned(),
            image: bytes.clone(),
            ..Default::default()
        };
        let call = server.search().search_image_to_text(search).await;
        assert_eq!(refusal(&call.unwrap_err()), told("image"), "{what}");
        let search = ask("things", v1::Modality::Text, Source::Image(bytes));
        let call = server.search().search(search).await;
        assert_eq!(refusal(&call.unwrap_err()), told("terms[0].image"), "{what}");
        let call = server.items().upsert_item(upsert("things", image_item("a", image))).await;
        assert_eq!(refusal(&call.unwrap_err()), told("item.image"), "{what}");
    }
    server.put("things", image_item("one", black_png(1, 1))).await;
}

#[tokio::test]
async fn bad_texts_are_refused_wherever_one_is_taken() {
    let server = Server::with_things().await;
    for (text, reason, limit) in bad_texts() {
        let told = |field| invalid(reason, field, limit);
        let embed = v1::EmbedTextRequest { text: text.clone(), ..Default::default() };
        assert_eq!(refused(server.embedding().embed_text(embed)).await, told("text"));
        let search = v1::SearchTextToImageRequest {
            collection: "things".to_owned(),
            text: text.clone(),
            ..Default::default()
        };
        assert_eq!(refused(server.search().search_text_to_image(search)).await, told("text"));
        let search = ask("things", v1::Modality::Image, by_text(&text));
        assert_eq!(refused(server.search().search(search)).await, told("terms[0].text"));
        let put = upsert("things", text_item("a", &text));
        assert_eq!(refused(server.items().upsert_item(put)).await, told("item.text"));
    }
}

#[tokio::test]
async fn bad_vectors_are_refused_wherever_one_is_taken() {
    let server = Server::start().await;
    server.make(create_bare("bare")).await;
    server.put("bare", vector_item("a", &[1.0; 4], Some(&[1.0; 2]))).await;
    let packed = |bytes: &'static [u8]| v1::Vector {
        dimension: 0,
        values: Some(v1::vector::Values::PackedF32(bytes.into())),
    };
    let cases = [
        (floats(&[1.0, f32::NAN, 0.0, 0.0]), "VECTOR_INVALID", None),
        (floats(&[f32::INFINITY; 4]), "VECTOR_INVALID", None),
        (floats(&[0.0; 4]), "VECTOR_INVALID", None),
        (floats(&[]), "VECTOR_INVALID", None),
        (packed(&[1, 2, 3, 4, 5]), "VECTOR_INVALID", None),
        (floats(&[1.0; 3]), "DIMENSION_MISMATCH", Some(4)),
        (v1::Vector { dimension: 3, ..floats(&[1.0; 4]) }, "DIMENSION_MISMATCH", None),
        (v1::Vector::default(), "FIELD_INVALID", None),
    ];
    for (vector, reason, limit) in cases {
        let good = v1::Term { source: Some(Source::ItemId("a".to_owned())), ..Default::default() };
        let mut search = ask("bare", v1::Modality::Image, Source::Vector(vector.clone()));
        search.terms.insert(0, good);
        let told = invalid(reason, "terms[1].vector", limit);
        assert_eq!(refused(server.search().search(search)).await, told, "{vector:?}");
        let mut item = vector_item("b", &[1.0; 4], Some(&[1.0; 2]));
        let vectors = v1::Vectors { shared: Some(vector), exclusive: Some(floats(&[1.0; 2])) };
        item.input = Some(v1::item_input::Input::Vectors(vectors));
        let told = invalid(reason, "item.vectors.shared", limit);
        assert_eq!(refused(server.items().upsert_item(upsert("bare", item))).await, told);
    }
}

#[tokio::test]
async fn a_wrong_space_is_refused() {
    let server = Server::with_things().await;
    server.make(create_bare("bare")).await;
    let image = disc(24, 24).unwrap();
    server.put("things", image_item("disc", image.clone())).await;
    let mismatch = invalid("EXCLUSIVE_MODALITY_MISMATCH", "terms[0].space", None);
    let foreign = [Source::Image(image.into()), Source::ItemId("disc".to_owned())];
    for source in foreign {
        let mut search = ask("things", v1::Modality::Text, source);
        search.terms[0].space = v1::Space::Exclusive.into();
        assert_eq!(refused(server.search().search(search)).await, mismatch);
    }
    let mut search = ask("bare", v1::Modality::Text, Source::Vector(floats(&[1.0; 2])));
    search.terms[0].space = v1::Space::Exclusive.into();
    let told = invalid("SPACE_MISMATCH", "terms[0].space", None);
    assert_eq!(refused(server.search().search(search.clone())).await, told);
    search.terms[0].space = 9;
    let told = invalid("FIELD_INVALID", "terms[0].space", None);
    assert_eq!(refused(server.search().search(search)).await, told);
    let mut item = vector_item("t", &[1.0; 4], Some(&[1.0; 2]));
    item.modality = v1::Modality::Text.into();
    let told = invalid("SPACE_MISMATCH", "item.vectors.exclusive", None);
    assert_eq!(refused(server.items().upsert_item(upsert("bare", item))).await, told);
}

#[tokio::test]
async fn a_collection_that_is_not_there_is_not_found_by_every_method() {
    let server = Server::start().await;
    let name = || "nowhere".to_owned();
    let told = |field: &str| Refusal {
        code: Code::NotFound,
        reason: "COLLECTION_NOT_FOUND".to_owned(),
        field: field.to_owned(),
        limit: None,
    };
    let text = v1::SearchTextToImageRequest {
        collection: name(),
        text: "a".to_owned(),
        ..Default::default()
    };
    assert_eq!(refused(server.search().search_text_to_image(text)).await, told("collection"));
    let image = v1::SearchImageToTextRequest { collection: name(), ..Default::default() };
    assert_eq!(refused(server.search().search_image_to_text(image)).await, told("collection"));
    let general = ask("nowhere", v1::Modality::Image, by_text("a"));
    assert_eq!(refused(server.search().search(general)).await, told("collection"));
    let put = upsert("nowhere", text_item("a", "a"));
    assert_eq!(refused(server.items().upsert_item(put)).await, told("collection"));
    let entry = v1::batch_upsert_items_request::Entry {
        item: Some(text_item("a", "a")),
        expected_version: None,
    };
    let batch = v1::BatchUpsertItemsRequest {
        collection: name(),
        entries: vec![entry],
        ..Default::default()
    };
    assert_eq!(refused(server.items().batch_upsert_items(batch)).await, told("collection"));
    let get = v1::GetItemRequest { collection: name(), id: "a".to_owned(), read_mask: None };
    assert_eq!(refused(server.items().get_item(get)).await, told("collection"));
    let list = v1::ListItemsRequest { collection: name(), ..Default::default() };
    assert_eq!(refused(server.items().list_items(list)).await, told("collection"));
    let selection = Some(v1::delete_items_request::Selection::Group("g".to_owned()));
    let delete = v1::DeleteItemsRequest { collection: name(), selection, ..Default::default() };
    assert_eq!(refused(server.items().delete_items(delete)).await, told("collection"));
    let get = v1::GetCollectionRequest { name: name() };
    assert_eq!(refused(server.collections().get_collection(get)).await, told("name"));
    let delete = v1::DeleteCollectionRequest { name: name(), ..Default::default() };
    assert_eq!(refused(server.collections().delete_collection(delete)).await, told("name"));
    let long = v1::GetCollectionRequest { name: "a".repeat(64) };
    let told = invalid("FIELD_INVALID", "name", Some(63));
    assert_eq!(refused(server.collections().get_collection(long)).await, told);
}

#[tokio::test]
async fn a_bad_search_is_refused_by_field() {
    let server = Server::with_things().await;
    let good = || ask("things", v1::Modality::Image, by_text("a"));
    let weighted = |weight| {
        let mut search = good();
        search.terms[0].weight = weight;
        search
    };
    let field = |name: &str| invalid("FIELD_INVALID", name, None);
    let limited = |name: &str, limit| invalid("FIELD_INVALID", name, Some(limit));
    let many = vec![good().terms.remove(0); 17];
    let item = |id: String| ask("things", v1::Modality::Image, Source::ItemId(id));
    let cases = [
        (v1::SearchRequest { collection: String::new(), ..good() }, field("collection")),
        (v1::SearchRequest { target: 0, ..good() }, field("target")),
        (v1::SearchRequest { target: 7, ..good() }, field("target")),
        (v1::SearchRequest { terms: Vec::new(), ..good() }, field("terms")),
        (
            v1::SearchRequest { terms: vec![v1::Term::default()], ..good() },
            field("terms[0].source"),
        ),
        (v1::SearchRequest { terms: many, ..good() }, limited("terms", 16)),
        (v1::SearchRequest { limit: 100_000, ..good() }, limited("limit", 1000)),
        (v1::SearchRequest { ef_search: 10_001, ..good() }, limited("ef_search", 10_000)),
        (v1::SearchRequest { min_score: Some(f64::NAN), ..good() }, field("min_score")),
        (v1::SearchRequest { min_score: Some(f64::INFINITY), ..good() }, field("min_score")),
        (
            v1::SearchRequest { read_mask: mask(&["vectors"]), ..good() },
            field("read_mask.paths[0]"),
        ),
        (weighted(f32::NAN), field("terms[0].weight")),
        (weighted(-1.0), field("terms")),
        (item(String::new()), field("terms[0].item_id")),
        (item("i".repeat(300)), limited("terms[0].item_id", 256)),
        (
            v1::SearchRequest { page_token: "x".to_owned(), ..good() },
            invalid("PAGE_TOKEN_INVALID", "page_token", None),
        ),
    ];
    for (search, told) in cases {
        assert_eq!(refused(server.search().search(search)).await, told);
    }
    let missing = refused(server.search().search(item("none".to_owned()))).await;
    assert_eq!((missing.code, missing.reason.as_str()), (Code::NotFound, "ITEM_NOT_FOUND"));
    assert_eq!(missing.field, "terms[0].item_id");
    let plain = v1::SearchTextToImageRequest {
        collection: "things".to_owned(),
        text: "a".to_owned(),
        limit: 100_000,
        ..Default::default()
    };
    assert_eq!(refused(server.search().search_text_to_image(plain)).await, limited("limit", 1000));
}

#[tokio::test]
async fn a_bad_filter_is_refused() {
    use v1::filter::Condition;
    let server = Server::with_things().await;
    let exists =
        |key: String| v1::Filter { condition: Some(Condition::Exists(v1::Exists { key })) };
    let deep = (0..9).fold(exists("a".to_owned()), |inner, _| v1::Filter {
        condition: Some(Condition::Not(Box::new(inner))),
    });
    let wide = v1::FilterList { filters: vec![exists("a".to_owned()); 200] };
    let range = v1::Range { key: "a".to_owned(), at_least: None, at_most: None };
    let compare = v1::Compare { key: "a".to_owned(), operator: 0, value: None };
    let member = v1::In { key: "a".to_owned(), values: Vec::new() };
    let node = |condition| v1::Filter { condition: Some(condition) };
    let cases = [
        (deep, "FILTER_TOO_LARGE", "filter", Some(8)),
        (node(Condition::And(wide)), "FILTER_TOO_LARGE", "filter", Some(128)),
        (v1::Filter { condition: None }, "FIELD_INVALID", "filter", None),
        (exists(String::new()), "FIELD_INVALID", "filter.exists.key", None),
        (exists("k".repeat(65)), "FIELD_INVALID", "filter.exists.key", Some(64)),
        (node(Condition::Range(range)), "FIELD_INVALID", "filter.range", None),
        (node(Condition::Compare(compare)), "FIELD_INVALID", "filter.compare.value", None),
        (node(Condition::In(member)), "FIELD_INVALID", "filter.in.values", None),
    ];
    for (filter, reason, field, limit) in cases {
        let filter = Some(filter);
        let search = v1::SearchRequest {
            filter: filter.clone(),
            ..ask("things", v1::Modality::Image, by_text("a"))
        };
        let told = invalid(reason, field, limit);
        assert_eq!(refused(server.search().search(search)).await, told);
        let collection = "things".to_owned();
        let list = v1::ListItemsRequest { collection, filter, ..Default::default() };
        assert_eq!(refused(server.items().list_items(list)).await, told);
    }
}

#[tokio::test]
async fn a_bad_item_is_refused_by_field() {
    let server = Server::with_things().await;
    let good = || text_item("a", "a heart");
    let with = |key: &str, kind| {
        let value = v1::Value { kind };
        v1::ItemInput { metadata: [(key.to_owned(), value)].into(), ..good() }
    };
    let float = |value| Some(v1::value::Kind::FloatValue(value));
    let text = |length| Some(v1::value::Kind::TextValue("x".repeat(length)));
    let field = |name: &str| invalid("FIELD_INVALID", name, None);
    let limited = |name: &str, limit| invalid("FIELD_INVALID", name, Some(limit));
    let many = (0..65).map(|n| (format!("k{n}"), text_value("x"))).collect();
    let image = v1::Modality::Image.into();
    let bare = v1::item_input::Input::Vectors(v1::Vectors::default());
    let cases = [
        (v1::ItemInput { id: String::new(), ..good() }, field("item.id")),
        (v1::ItemInput { id: "i".repeat(300), ..good() }, limited("item.id", 256)),
        (v1::ItemInput { id: "a\nb".to_owned(), ..good() }, field("item.id")),
        (v1::ItemInput { input: None, ..good() }, field("item.input")),
        (v1::ItemInput { modality: image, ..good() }, field("item.modality")),
        (v1::ItemInput { modality: 5, ..good() }, field("item.modality")),
        (v1::ItemInput { group: "g".repeat(257), ..good() }, limited("item.group", 256)),
        (v1::ItemInput { input: Some(bare), ..good() }, field("item.modality")),
        (v1::ItemInput { metadata: many, ..good() }, limited("item.metadata", 64)),
        (with("", text(1)), field("item.metadata")),
        (with(&"k".repeat(65), text(1)), limited("item.metadata", 64)),
        (with("k", None), field("item.metadata.k")),
        (with("k", float(f64::NAN)), field("item.metadata.k.float_value")),
        (with("k", text(4097)), limited("item.metadata.k.text_value", 4096)),
    ];
    for (item, told) in cases {
        let put = upsert("things", item);
        assert_eq!(refused(server.items().upsert_item(put)).await, told);
    }
    let long = v1::UpsertItemRequest { request_id: "r".repeat(129), ..upsert("things", good()) };
    assert_eq!(refused(server.items().upsert_item(long)).await, limited("request_id", 128));
    let none = v1::UpsertItemRequest { item: None, ..upsert("things", good()) };
    assert_eq!(refused(server.items().upsert_item(none)).await, field("item"));
}

#[tokio::test]
async fn bad_reads_deletes_and_batches_are_refused_by_field() {
    use v1::delete_items_request::Selection;
    let server = Server::with_things().await;
    let things = || "things".to_owned();
    let field = |name: &str| invalid("FIELD_INVALID", name, None);
    let limited = |name: &str, limit| invalid("FIELD_INVALID", name, Some(limit));
    let get = |id: &str, paths: &[&str]| v1::GetItemRequest {
        collection: things(),
        id: id.to_owned(),
        read_mask: mask(paths),
    };
    assert_eq!(refused(server.items().get_item(get("", &[]))).await, field("id"));
    let long = get(&"é".repeat(150), &[]);
    assert_eq!(refused(server.items().get_item(long)).await, limited("id", 256));
    let unknown = get("a", &["metadata", "pixels"]);
    assert_eq!(refused(server.items().get_item(unknown)).await, field("read_mask.paths[1]"));
    let list = v1::ListItemsRequest { collection: things(), page_size: 1001, ..Default::default() };
    assert_eq!(refused(server.items().list_items(list)).await, limited("page_size", 1000));
    let list = v1::ListItemsRequest { collection: things(), modality: 9, ..Default::default() };
    assert_eq!(refused(server.items().list_items(list)).await, field("modality"));

    let delete = |selection| v1::DeleteItemsRequest {
        collection: things(),
        selection,
        ..Default::default()
    };
    let of = |ids: Vec<String>| delete(Some(Selection::Ids(v1::ItemIds { ids })));
    let cases = [
        (delete(None), field("selection")),
        (of(Vec::new()), field("ids.ids")),
        (of(vec!["a".to_owned(); 1001]), limited("ids.ids", 1000)),
        (of(vec!["a".to_owned(), String::new()]), field("ids.ids[1]")),
        (of(vec!["a".repeat(300)]), limited("ids.ids[0]", 256)),
        (delete(Some(Selection::Group(String::new()))), field("group")),
    ];
    for (request, told) in cases {
        assert_eq!(refused(server.items().delete_items(request)).await, told);
    }
    let batch = v1::BatchUpsertItemsRequest { collection: things(), ..Default::default() };
    assert_eq!(refused(server.items().batch_upsert_items(batch)).await, field("entries"));
    let entries = vec![v1::batch_upsert_items_request::Entry::default(); 65];
    let batch = v1::BatchUpsertItemsRequest { collection: things(), entries, ..Default::default() };
    assert_eq!(refused(server.items().batch_upsert_items(batch)).await, limited("entries", 64));
    let inputs = vec![v1::EmbedInput::default(); 65];
    let batch = v1::BatchEmbedRequest { inputs, ..Default::default() };
    assert_eq!(refused(server.embedding().batch_embed(batch)).await, limited("inputs", 64));
    let searches = vec![v1::SearchRequest::default(); 65];
    let batch = v1::BatchSearchRequest { searches };
    assert_eq!(refused(server.search().batch_search(batch)).await, limited("searches", 64));
    let models = v1::ListModelsRequest { page_size: 1001, ..Default::default() };
    assert_eq!(refused(server.info().list_models(models)).await, limited("page_size", 1000));
}
