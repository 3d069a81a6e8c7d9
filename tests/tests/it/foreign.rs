//! The contract as a stranger meets it: stock Python packages, stubs made of the published protos, nothing of ours.

use diptych_tests::emoji::RED_HEART;
use diptych_tests::{Server, foreign};
use serde_json::{Value, json};
use tempfile::TempDir;

#[tokio::test]
async fn a_python_client_made_of_the_protos_gets_what_is_promised() {
    let Some(python) = foreign::python() else { return };
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), &[]).await.unwrap();
    let told = foreign::run(&python, server.listen(), &json!({"do": "contract"})).await.unwrap();
    println!("{told:#}");
    for (name, status) in told["health"].as_object().unwrap() {
        assert_eq!(status, "SERVING", "{name:?}");
    }
    for version in ["v1", "v1alpha"] {
        reflects(&told["reflection"][version], version);
    }
    picture_to_text(&told["picture_to_text"]);
    composed(&told["composed"]);
    roundtrip(&told["roundtrip"]);
    refusals(&told["refusals"]);
    for (text, groups) in told["hearts"].as_object().unwrap() {
        let groups: Vec<_> = groups.as_array().unwrap().iter().map(Value::as_str).collect();
        assert!(groups.contains(&Some(RED_HEART)), "{text}: no red heart in {groups:?}");
    }
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

fn reflects(told: &Value, version: &str) {
    let services = told["services"].as_array().unwrap();
    let own = ["Admin", "Collection", "Embedding", "Info", "Item", "Operation", "Search"];
    for name in own.map(|name| format!("diptych.v1.{name}Service")) {
        assert!(services.contains(&json!(name)), "{version}: no {name} in {services:?}");
    }
    for name in ["grpc.health.v1.Health", &format!("grpc.reflection.{version}.ServerReflection")] {
        assert!(services.contains(&json!(name)), "{version}: no {name} in {services:?}");
    }
    assert_eq!(told["as_published"], true, "{version} tells other methods than the proto files");
}

fn picture_to_text(told: &Value) {
    assert_eq!(told["png"], true, "the sample's pictures are PNG files: {told}");
    assert_eq!(told["groups"].as_array().unwrap().len(), 20);
    assert_eq!(told["falling"], true, "{told}");
}

fn composed(told: &Value) {
    assert_eq!(told["hits"], 20);
    assert_eq!(told["falling"], true, "{told}");
    assert!(told["worst_sum"].as_f64().unwrap() < 1e-5, "{told}");
}

fn roundtrip(told: &Value) {
    assert_eq!(told["created"], true);
    assert_eq!(told["versions"][0], told["versions"][1], "a repeated request was done twice");
    assert!(told["versions"][0].as_u64() > Some(0), "{told}");
    for key in ["text_kept", "dimension_fits"] {
        assert_eq!(told[key], true, "{key}");
    }
    assert_eq!(told["year"], 2026);
    assert_eq!(told["found"], json!(["a"]));
    assert!((told["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{told}");
    assert_eq!(told["deleted"], json!([1, 1]), "deleted, and not found");
    refused(&told["gone"], ("NOT_FOUND", "ITEM_NOT_FOUND", "id"));
}

fn refusals(told: &Value) {
    refused(&told["limit"], ("INVALID_ARGUMENT", "FIELD_INVALID", "limit"));
    assert_eq!(told["limit"]["metadata"]["limit"], "1000");
    let sentence = told["limit"]["descriptions"][0].as_str().unwrap();
    assert!(sentence.contains("1000"), "{sentence}");
    refused(&told["empty"], ("INVALID_ARGUMENT", "TEXT_EMPTY", "text"));
    refused(&told["nowhere"], ("NOT_FOUND", "COLLECTION_NOT_FOUND", "collection"));
    refused(&told["no picture"], ("INVALID_ARGUMENT", "IMAGE_FORMAT_UNSUPPORTED", "image"));
}

fn refused(told: &Value, (code, reason, field): (&str, &str, &str)) {
    assert_eq!(told["code"], code, "{told}");
    // The trailer's own code and the one in the details.
    assert_eq!(told["same_code"], true, "{told}");
    assert_eq!(told["domain"], "diptych", "{told}");
    assert_eq!(told["reason"], reason, "{told}");
    assert_eq!(told["fields"], json!([field]), "{told}");
}
