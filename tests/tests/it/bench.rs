//! `diptych bench` from end to end: loads and what is told of them, recall.

use std::process::{Command, Stdio};

use diptych_tests::api::*;
use diptych_tests::program::command;
use diptych_tests::{Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

const COLLECTION: &str = "pictures";

fn diptych(arguments: &str, servers: &[&Server]) -> Command {
    let mut command = command("diptych");
    command.args(arguments.split(' ')).arg("--json").stdin(Stdio::null());
    for server in servers {
        command.args(["--endpoint", &server.url()]);
    }
    command
}

/// What a command prints that must end well.
fn told(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_kept_whatever_the_answers_are() {
    let data = TempDir::new().unwrap();
    let server = Server::plain(data.path()).await.unwrap();
    let load = "--rate 200 --arrivals fixed --warm-up 100ms --duration 1s";
    let found = told(diptych(&format!("bench embed-text {load}"), &[&server]));
    assert_eq!((&found["calls"], &found["unsent"]), (&json!(200), &json!(0)), "{found}");
    assert_eq!(
        found["outcomes"][0],
        json!({ "code": "OK", "reason": "", "retry_info": false, "count": 200 })
    );
    assert_eq!(found["latency_ms"]["count"], 200);
    // A collection that is not there: every call fails, and the tool says so.
    let missing = diptych(&format!("bench text-to-image {load} --collection none"), &[&server]);
    let output = { missing }.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!output.status.success());
    let failed = &found["outcomes"][1];
    assert_eq!((&failed["code"], &failed["count"]), (&json!("NOT_FOUND"), &json!(200)), "{found}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_can_be_made_up_and_capacity_is_found() {
    let data = TempDir::new().unwrap();
    let server = Server::plain(data.path()).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create(COLLECTION)).await.unwrap();
    let picture = inputs::png(&mut ChaCha8Rng::seed_from_u64(1));
    let items = vec![image_item("p", picture), text_item("t", "a heart")];
    api.items().batch_upsert_items(upserts(COLLECTION, items)).await.unwrap();
    for call in ["embed-text", "embed-image", "text-to-image", "image-to-text", "vector"] {
        let load = "--collection pictures --rate 50 --arrivals fixed --side 32 --warm-up 1ms --duration 200ms";
        let found = told(diptych(&format!("bench {call} {load}"), &[&server]));
        assert_eq!(found["outcomes"].as_array().unwrap().len(), 1, "{found}");
        assert_eq!(found["outcomes"][0]["count"], 10, "{found}");
    }
    let steps = "--find-capacity --warm-up 1ms --duration 500ms";
    let found = told(diptych(&format!("bench embed-text {steps}"), &[&server]));
    let answered = |step: &Value| step["goodput"].as_f64().unwrap();
    let closed = found["steps"].as_array().unwrap().iter().filter(|step| step["mode"] == "closed");
    let peak = closed.map(answered).fold(0.0, f64::max);
    assert!(peak > 0.0 && found["peak"] == json!(peak), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recall_is_told_for_queries_that_say_what_is_right() {
    let folder = TempDir::new().unwrap();
    let server = Server::plain(&folder.path().join("data")).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create(COLLECTION)).await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let items = (0..20).map(|n| image_item(&format!("p{n}"), inputs::png(&mut rng))).collect();
    api.items().batch_upsert_items(upserts(COLLECTION, items)).await.unwrap();
    let search = told(diptych("search heart --collection pictures --limit 4", &[&server]));
    let hits = search["hits"].as_array().unwrap();
    let ids: Vec<&Value> = hits.iter().map(|hit| &hit["id"]).collect();
    let all = json!({ "text": "heart", "relevant": ids });
    let half = json!({ "text": "heart", "relevant": [ids[0], "not there"] });
    let none = json!({ "text": "heart", "relevant": ["not there"] });
    let path = folder.path().join("queries.jsonl");
    let load = "--collection pictures --limit 4 --rate 100 --arrivals fixed --warm-up 1ms --duration 300ms";
    for (queries, recall, share) in
        [(vec![all], 1.0, 1.0), (vec![half.clone()], 1.0, 0.5), (vec![half, none], 0.5, 0.25)]
    {
        let lines: Vec<String> = queries.iter().map(Value::to_string).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let asked = format!("bench text-to-image --queries {} {load}", path.display());
        let found = told(diptych(&asked, &[&server]));
        let told =
            (found["recall_at_k"].as_f64().unwrap(), found["ann_recall_at_k"].as_f64().unwrap());
        assert_eq!(told, (recall, share), "{found}");
    }
}
