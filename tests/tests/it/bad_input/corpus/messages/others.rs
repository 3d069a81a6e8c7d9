//! Collections, snapshots, operations and embeddings.

use diptych_proto::v1;
use diptych_tests::api::*;
use prost::Message as _;
use tonic::Code;

use super::{Case, Told, field, field_limit, huge};

pub(super) fn cases() -> Vec<Case> {
    [names(), counts(), unset()].concat()
}

/// Names and digests: too long, of odd letters, or paths.
fn names() -> Vec<Case> {
    const CREATE: &str = "CollectionService/CreateCollection";
    const OPERATION: &str = "OperationService/GetOperation";
    let create = |name: &str| create(name).encode_to_vec();
    let none = |name: String| v1::GetOperationRequest { name };
    let no_operation =
        || Told::Refused(Code::NotFound, "OPERATION_NOT_FOUND", "name".to_owned(), None);
    vec![
        Case::new("new collection: a path", CREATE, create("../a"), field("name")),
        Case::new("new collection: hidden", CREATE, create("~a"), field("name")),
        Case::new("new collection: a space", CREATE, create("a b"), field("name")),
        Case::new("new collection: of 8 MB", CREATE, create(&huge()), field_limit("name", 63)),
        Case::of("operation: none", OPERATION, &none(String::new()), field("name")),
        Case::of("operation: unknown", OPERATION, &none("x".to_owned()), no_operation()),
        Case::of("operation: of 8 MB", OPERATION, &none(huge()), no_operation()),
        Case::of(
            "digest: of 8 MB",
            "EmbeddingService/EmbedText",
            &v1::EmbedTextRequest {
                text: "a".to_owned(),
                embedding_digest: huge(),
                ..Default::default()
            },
            field_limit("embedding_digest", 64),
        ),
        Case::of(
            "engine: of 8 MB",
            CREATE,
            &v1::CreateCollectionRequest { engine: huge(), ..diptych_tests::api::create("a") },
            field("engine"),
        ),
        Case::of(
            "alias: of 8 MB",
            "CollectionService/SetAlias",
            &v1::SetAliasRequest {
                alias: Some(v1::Alias { name: huge(), collection: "things".to_owned() }),
                ..Default::default()
            },
            field_limit("alias.name", 63),
        ),
        Case::of(
            "snapshot: a path",
            "CollectionService/RestoreSnapshot",
            &v1::RestoreSnapshotRequest {
                name: "../../etc/passwd".to_owned(),
                ..Default::default()
            },
            Told::Refused(Code::NotFound, "SNAPSHOT_NOT_FOUND", "name".to_owned(), None),
        ),
    ]
}

/// More of something than there may be.
fn counts() -> Vec<Case> {
    let inputs = vec![v1::EmbedInput::default(); 5000];
    let embed = v1::BatchEmbedRequest { inputs, ..Default::default() };
    vec![Case::of(
        "count: 5,000 inputs",
        "EmbeddingService/BatchEmbed",
        &embed,
        field_limit("inputs", 64),
    )]
}

/// Messages that are not set, and waits that are no time.
fn unset() -> Vec<Case> {
    vec![
        Case::new("unset: an alias", "CollectionService/SetAlias", Vec::new(), field("alias")),
        Case::new(
            "unset: a collection to change",
            "CollectionService/UpdateCollection",
            Vec::new(),
            field("collection"),
        ),
        Case::of(
            "a wait below 0",
            "OperationService/WaitOperation",
            &v1::WaitOperationRequest {
                name: "x".to_owned(),
                timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            },
            field("timeout"),
        ),
        Case::of(
            "a wait of half a second below 0",
            "OperationService/WaitOperation",
            &v1::WaitOperationRequest {
                name: "x".to_owned(),
                timeout: Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN }),
            },
            field("timeout"),
        ),
    ]
}
