//! A whole request of every method that has something to leave out.

use std::collections::BTreeMap;

use diptych_proto::v1;
use prost::Message as _;

use super::super::support::*;

/// Paths, without what all have in common, and requests.
type Requests = Vec<(&'static str, Vec<u8>)>;

/// A request of every method that has something to leave out, each saying all it can.
pub(super) fn whole_requests() -> BTreeMap<&'static str, Vec<u8>> {
    let all = [
        searches(),
        embeddings(),
        items_to_change(),
        items_to_read(),
        collections(),
        changes_of_collections(),
        administration(),
        operations(),
    ];
    all.into_iter().flatten().collect()
}

fn things() -> String {
    "things".to_owned()
}

fn whole_search() -> v1::SearchRequest {
    v1::SearchRequest {
        limit: 3,
        filter: Some(filter()),
        min_score: Some(-1.0),
        read_mask: mask(&["metadata"]),
        ef_search: 100,
        one_per_group: true,
        ..ask("things", v1::Modality::Text, by_text("a heart"))
    }
}

fn whole_item() -> v1::ItemInput {
    v1::ItemInput {
        group: "g".to_owned(),
        modality: v1::Modality::Text.into(),
        metadata: [("k".to_owned(), text_value("v"))].into(),
        ..text_item("b", "another heart")
    }
}

fn whole_input() -> v1::EmbedInput {
    let input = Some(v1::embed_input::Input::Text("a heart".to_owned()));
    v1::EmbedInput { truncate: true, input }
}

fn searches() -> Requests {
    vec![
        ("SearchService/Search", whole_search().encode_to_vec()),
        (
            "SearchService/SearchTextToImage",
            v1::SearchTextToImageRequest {
                collection: things(),
                text: "a heart".to_owned(),
                limit: 3,
                filter: Some(filter()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "SearchService/SearchImageToText",
            v1::SearchImageToTextRequest {
                collection: things(),
                image: diptych_model::testing::disc(20, 20).unwrap().into(),
                limit: 3,
                filter: Some(filter()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "SearchService/BatchSearch",
            v1::BatchSearchRequest { searches: vec![whole_search()] }.encode_to_vec(),
        ),
        (
            "SearchService/ExplainMatch",
            v1::ExplainMatchRequest { search: Some(whole_search()), item_id: "a".to_owned() }
                .encode_to_vec(),
        ),
    ]
}

fn embeddings() -> Requests {
    vec![
        (
            "EmbeddingService/EmbedText",
            v1::EmbedTextRequest {
                text: "a heart".to_owned(),
                truncate: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "EmbeddingService/EmbedImage",
            v1::EmbedImageRequest {
                image: diptych_model::testing::disc(20, 20).unwrap().into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "EmbeddingService/BatchEmbed",
            v1::BatchEmbedRequest { inputs: vec![whole_input()], ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "EmbeddingService/EmbedStream",
            v1::EmbedStreamRequest {
                sequence: 1,
                input: Some(whole_input()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn items_to_change() -> Requests {
    vec![
        ("ItemService/UpsertItem", upsert("things", whole_item()).encode_to_vec()),
        (
            "ItemService/IngestItems",
            v1::IngestItemsRequest {
                message: Some(v1::ingest_items_request::Message::Start(v1::IngestStart {
                    collection: things(),
                    ingest_id: "i".to_owned(),
                    acknowledged_sequence: 1,
                })),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/BatchUpsertItems",
            v1::BatchUpsertItemsRequest {
                collection: things(),
                entries: vec![v1::batch_upsert_items_request::Entry {
                    item: Some(whole_item()),
                    expected_version: Some(1),
                }],
                request_id: "r".to_owned(),
            }
            .encode_to_vec(),
        ),
    ]
}

fn items_to_read() -> Requests {
    vec![
        (
            "ItemService/GetItem",
            v1::GetItemRequest {
                collection: things(),
                id: "a".to_owned(),
                read_mask: mask(&["metadata"]),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/ListItems",
            v1::ListItemsRequest {
                collection: things(),
                page_size: 3,
                filter: Some(filter()),
                modality: v1::Modality::Text.into(),
                read_mask: mask(&["metadata"]),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/ExportItems",
            v1::ExportItemsRequest {
                collection: things(),
                filter: Some(filter()),
                read_mask: mask(&["metadata"]),
                after_id: "0".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/DeleteItems",
            v1::DeleteItemsRequest {
                collection: things(),
                selection: Some(v1::delete_items_request::Selection::Group("none".to_owned())),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn collections() -> Requests {
    vec![
        (
            "CollectionService/CreateCollection",
            v1::CreateCollectionRequest {
                vectors_by: create_bare("bare").vectors_by,
                ..create("bare")
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/GetCollection",
            v1::GetCollectionRequest { name: things() }.encode_to_vec(),
        ),
        (
            "CollectionService/DeleteCollection",
            v1::DeleteCollectionRequest { name: "none".to_owned(), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/SetAlias",
            v1::SetAliasRequest {
                alias: Some(v1::Alias { name: "alias".to_owned(), collection: things() }),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/UpdateCollection",
            v1::UpdateCollectionRequest {
                collection: Some(v1::Collection { name: things(), ..Default::default() }),
                update_mask: mask(&["metadata"]),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn changes_of_collections() -> Requests {
    vec![
        (
            "CollectionService/DeleteAlias",
            v1::DeleteAliasRequest { name: "alias".to_owned(), request_id: "d".to_owned() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/MeasureRecall",
            v1::MeasureRecallRequest {
                collection: things(),
                queries: 1,
                limit: 1,
                ef_search: 100,
                seed: 1,
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/CreateSnapshot",
            v1::CreateSnapshotRequest { collection: things(), request_id: "s".to_owned() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/RestoreSnapshot",
            v1::RestoreSnapshotRequest {
                name: "snapshots/none".to_owned(),
                collection: "restored".to_owned(),
                request_id: "t".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/StartReembed",
            v1::StartReembedRequest {
                alias: "live".to_owned(),
                embedding_digest: "0".repeat(64),
                collection: "again".to_owned(),
                request_id: "u".to_owned(),
            }
            .encode_to_vec(),
        ),
    ]
}

fn administration() -> Requests {
    let digest = "0".repeat(64);
    vec![
        ("AdminService/Compact", v1::CompactRequest { collection: things() }.encode_to_vec()),
        (
            "AdminService/LoadModel",
            v1::LoadModelRequest { path: "none".to_owned(), activate: true }.encode_to_vec(),
        ),
        (
            "AdminService/ActivateModel",
            v1::ActivateModelRequest { embedding_digest: digest.clone() }.encode_to_vec(),
        ),
        (
            "AdminService/UnloadModel",
            v1::UnloadModelRequest { embedding_digest: digest.clone(), force: true }
                .encode_to_vec(),
        ),
        (
            "AdminService/RunSelfTest",
            v1::RunSelfTestRequest { embedding_digest: digest }.encode_to_vec(),
        ),
    ]
}

fn operations() -> Requests {
    vec![
        (
            "OperationService/WaitOperation",
            v1::WaitOperationRequest {
                name: "operations/none".to_owned(),
                timeout: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
            }
            .encode_to_vec(),
        ),
        (
            "OperationService/GetOperation",
            v1::GetOperationRequest { name: "operations/none".to_owned() }.encode_to_vec(),
        ),
    ]
}

fn filter() -> v1::Filter {
    let value = Some(text_value("v"));
    let compare = v1::Compare { key: "k".to_owned(), operator: 1, value };
    v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) }
}
