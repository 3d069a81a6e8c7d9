//! The contract as a stranger meets it: stock packages of Python and Node.js, stubs made of the published
//! protos, nothing of ours.

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

/// So little that some of many calls at once are refused, and so much that one alone never is.
const SOON_BUSY: [&str; 2] = ["--queue-wait", "50ms"];

#[tokio::test]
async fn stacks_of_others_search_stream_and_are_told_what_is_wrong() {
    let Some(python) = foreign::python() else { return };
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), &SOON_BUSY).await.unwrap();
    for stack in ["grpcio", "grpclib"] {
        let told = foreign::run(&python, server.listen(), &json!({"do": stack})).await.unwrap();
        stack_is_right(stack, &told);
    }
    if let Some(node) = foreign::node(&python) {
        stack_is_right("node", &foreign::run_node(&node, server.listen()).await.unwrap());
    }
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

/// The same is asked by every stack, see `tests/foreign/python/cases.py`.
fn stack_is_right(stack: &str, told: &Value) {
    println!("{stack}: {told:#}");
    let groups = told["search"].as_array().unwrap();
    assert!(groups.len() == 5 && groups.contains(&json!(RED_HEART)), "{groups:?}");
    if stack == "grpcio" {
        assert_eq!(told["reflected"], told["search"], "by reflection alone");
    }
    let batch = &told["batch_search"];
    assert_eq!((&batch["0"], &batch["2"]), (&json!(5), &json!(5)), "{batch}");
    refused(&batch["1"], ("INVALID_ARGUMENT", "FIELD_INVALID", "searches[1].target"));
    let stream = &told["embed_stream"];
    for answered in ["0", "2", "3"] {
        assert_eq!(stream[answered], 128, "{stream}");
    }
    refused(&stream["1"], ("INVALID_ARGUMENT", "IMAGE_FORMAT_UNSUPPORTED", "input.image"));
    refused(&told["wrong"], ("INVALID_ARGUMENT", "FIELD_INVALID", "limit"));
    assert_eq!(told["wrong"]["metadata"]["limit"], "1000");
    assert_eq!(told["missing"]["code"], "UNIMPLEMENTED", "{told}");
    assert_eq!(told["missing"]["reason"], "UNIMPLEMENTED", "{told}");
    let large = &told["too_large"];
    let code = large["code"].as_str().unwrap();
    assert!(["RESOURCE_EXHAUSTED", "OUT_OF_RANGE"].contains(&code), "{large}");
    assert_eq!(large["reason"], "MESSAGE_TOO_LARGE", "{large}");
    assert_eq!(large["metadata"]["limit"], (16 << 20).to_string());
    // Too late, or told before that it would be.
    let late = &told["late"];
    let unreachable = late["reason"] == "DEADLINE_UNREACHABLE";
    let code = if unreachable { "RESOURCE_EXHAUSTED" } else { "DEADLINE_EXCEEDED" };
    assert_eq!(late["code"], code, "{late}");
    assert_eq!(told["cancelled"]["code"], "CANCELLED");
    let busy = &told["busy"];
    assert_eq!(
        (&busy["code"], &busy["reason"]),
        (&json!("RESOURCE_EXHAUSTED"), &json!("QUEUE_FULL"))
    );
    assert!(busy["retry_ms"].as_u64() > Some(0), "no time to wait in {busy}");
    assert_eq!(told["after"], told["search"], "what went wrong changed the answers of others");
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
    // The trailer's own code and the one in the details, where a stack shows both.
    assert_ne!(told["same_code"], false, "{told}");
    assert_eq!(told["domain"], "diptych", "{told}");
    assert_eq!(told["reason"], reason, "{told}");
    assert_eq!(told["fields"], json!([field]), "{told}");
}
