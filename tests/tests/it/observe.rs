//! What the server tells of itself: figures, request ids, slow calls, traces.

use std::io::Write as _;
use std::process::{Command, Stdio};

use diptych_proto::v1;
use diptych_tests::api::*;
use diptych_tests::collector::{Collector, Span};
use diptych_tests::process::{free_address, http_get, until};
use diptych_tests::{Api, Server, inputs};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

const COLLECTION: &str = "seen";
/// A caption that must be found nowhere.
const CAPTION: &str = "a caption that nobody may read";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

async fn server(folder: &TempDir, arguments: &[&str]) -> (Server, Api) {
    let arguments = [&["--sample", "false"], arguments].concat();
    let server = Server::start(&folder.path().join("data"), &arguments).await.unwrap();
    let api = server.api().await.unwrap();
    api.create(create(COLLECTION)).await.unwrap();
    api.put(COLLECTION, text_item("t", CAPTION)).await.unwrap();
    (server, api)
}

fn picture() -> Vec<u8> {
    inputs::png(&mut ChaCha8Rng::seed_from_u64(1))
}

/// A search by picture, with the headers that a caller with a trace sends.
fn question(sampled: bool) -> Request<v1::SearchImageToTextRequest> {
    let mut request = Request::new(v1::SearchImageToTextRequest {
        collection: COLLECTION.to_owned(),
        image: picture().into(),
        ..Default::default()
    });
    let flags = if sampled { "01" } else { "00" };
    let context = format!("00-{TRACE}-{SPAN}-{flags}");
    request.metadata_mut().insert("traceparent", context.parse().unwrap());
    request.metadata_mut().insert("x-request-id", "question-7".parse().unwrap());
    request
}

async fn page(server: &Server) -> String {
    let (status, page) = http_get(server.ops(), "/metrics").await.unwrap();
    assert_eq!(status, 200);
    page
}

/// The value of a series by its line's beginning; 0 where there is none.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Holds the page against Prometheus's own checker where it is there, and against the format itself.
fn check(page: &str) {
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let sign = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_';
        assert!(name.chars().all(sign), "{line}");
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part))
            .unwrap_or(name);
        let declared = |what: &str| page.contains(&format!("# {what} {family} "));
        assert!(declared("HELP") && declared("TYPE"), "{line}");
    }
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        println!("promtool is not here: the page was only held against the format");
        return;
    };
    checker.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success() && told.trim().is_empty(), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_move_as_calls_are_made_and_prometheus_takes_the_page() {
    let folder = TempDir::new().unwrap();
    let (server, api) = server(&folder, &[]).await;
    for _ in 0..2 {
        api.search().search_image_to_text(question(false)).await.unwrap();
    }
    let missing = api.get(COLLECTION, "no such item").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let search = "SearchImageToText";
    let labels = format!(
        "grpc_method=\"{search}\",grpc_service=\"diptych.v1.SearchService\",grpc_type=\"unary\""
    );
    let handled = format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}}");
    // A call is counted when its reply is off, which the caller may know first.
    until("both searches are counted", || async { value(&page(&server).await, &handled) == 2.0 })
        .await
        .unwrap();
    let page = page(&server).await;
    check(&page);
    let call = "rpc_server_call_duration_seconds_count{rpc_method=\"diptych.v1.";
    let rest = "rpc_system_name=\"grpc\"}";
    let expected = [
        (format!("{call}SearchService/{search}\",rpc_response_status_code=\"OK\",{rest}"), 2.0),
        (format!("{call}ItemService/GetItem\",rpc_response_status_code=\"NOT_FOUND\",{rest}"), 1.0),
        (format!("grpc_server_started_total{{{labels}}}"), 2.0),
        (format!("grpc_server_msg_received_total{{{labels}}}"), 2.0),
        (format!("grpc_server_msg_sent_total{{{labels}}}"), 2.0),
        ("diptych_search_stage_seconds_count{stage=\"search\"}".to_owned(), 2.0),
        ("diptych_cache_hits_total".to_owned(), 1.0),
        ("diptych_commit_seconds_count{operation=\"put\"}".to_owned(), 1.0),
        ("diptych_queue_items{lane=\"interactive\",modality=\"image\"}".to_owned(), 0.0),
        (format!("diptych_collection_items{{collection=\"{COLLECTION}\",modality=\"text\"}}"), 1.0),
        ("diptych_ready".to_owned(), 1.0),
        ("diptych_connections_refused_total".to_owned(), 0.0),
    ];
    for (series, expected) in expected {
        assert!(page.contains(&format!("\n{series} ")), "{series} is not in\n{page}");
        assert_eq!(value(&page, &series), expected, "{series}");
    }
    // More than was asked for: the server asks itself, too.
    for series in [
        "diptych_decode_seconds_count",
        "diptych_batch_inputs_count{modality=\"image\"}",
        "diptych_queue_wait_seconds_count{lane=\"interactive\",modality=\"image\"}",
        "diptych_encode_seconds_count{modality=\"text\"}",
        "diptych_connections",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        assert!(value(&page, series) >= 1.0, "{series}");
    }
    assert!(page.contains("diptych_model_info{embedding_digest=\""));
    assert!(!page.contains(CAPTION) && !page.contains("no such item"));
}

/// Every line of the log that has this message, as JSON.
fn lines(server: &Server, message: &str) -> Vec<Value> {
    let log = server.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_in_the_reply_the_error_and_the_log_and_a_slow_call_tells_its_stages() {
    let folder = TempDir::new().unwrap();
    let log = "info,diptych_server::grpc::observe=debug";
    let arguments = ["--log-format", "json", "--log", log, "--slow-call", "1ms"];
    let (server, api) = server(&folder, &arguments).await;
    let reply = api.search().search_image_to_text(question(false)).await.unwrap();
    assert_eq!(reply.metadata().get("x-request-id").unwrap(), "question-7");
    let span = reply.metadata().get("traceparent").unwrap().to_str().unwrap();
    assert!(span.starts_with(&format!("00-{TRACE}-")) && !span.contains(SPAN), "{span}");
    let mut wrong = question(false);
    wrong.get_mut().image = vec![1, 2, 3].into();
    wrong.metadata_mut().insert("x-request-id", "with spaces, so replaced".parse().unwrap());
    let refused = api.search().search_image_to_text(wrong).await.unwrap_err();
    let named = refused.get_error_details().request_info().unwrap().request_id.clone();
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), named.as_str());
    assert!(!named.contains(' '));
    // A picture that takes more than a millisecond on any machine.
    let large = inputs::noise_png(&mut ChaCha8Rng::seed_from_u64(2), 1500);
    let mut slow = question(false);
    slow.get_mut().image = large.into();
    slow.metadata_mut().insert("x-request-id", "slow-1".parse().unwrap());
    api.search().search_image_to_text(slow).await.unwrap();
    let of = |message: &'static str, id: &str| {
        lines(&server, message).into_iter().find(|line| line["request_id"] == id)
    };
    until("all is logged", || async { of("a slow call", "slow-1").is_some() }).await.unwrap();
    let line = of("call", "question-7").unwrap();
    assert_eq!(line["rpc"], "diptych.v1.SearchService/SearchImageToText");
    assert_eq!((&line["code"], &line["trace_id"]), (&"OK".into(), &TRACE.into()));
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(line["bytes_in"].as_u64().unwrap() > 0 && line["bytes_out"].as_u64().unwrap() > 0);
    let line = of("call", &named).unwrap();
    assert_eq!(
        (&line["code"], &line["reason"]),
        (&"INVALID_ARGUMENT".into(), &"IMAGE_FORMAT_UNSUPPORTED".into())
    );
    let line = of("a slow call", "slow-1").unwrap();
    for stage in ["decode_ms", "queue_ms", "encode_ms", "search_ms", "fill_ms"] {
        assert!(line[stage].as_f64().is_some(), "{stage}: {line}");
    }
    assert!(line["dur_ms"].as_f64() >= line["decode_ms"].as_f64());
    assert!(!server.stderr().contains(CAPTION));
}

/// One trace's spans once its call's own is there.
async fn trace(collector: &Collector, request_id: &str) -> (Span, Vec<Span>) {
    let call = || {
        let mut spans = collector.spans().into_iter();
        spans.find(|span| span.attribute("diptych.request_id") == request_id)
    };
    until("the call's span is there", || async { call().is_some() }).await.unwrap();
    let call = call().unwrap();
    let spans = collector.spans().into_iter();
    let below = spans.filter(|span| span.parent_span_id == call.span_id).collect();
    (call, below)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_search_is_one_trace_from_the_callers_span_to_the_index() {
    let (collector, url) = Collector::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let arguments = ["--otlp-endpoint", &url, "--trace-share", "0"];
    let (mut server, api) = server(&folder, &arguments).await;
    // Neither what has no trace nor what its caller does not want is sent.
    api.get(COLLECTION, "t").await.unwrap();
    let mut unwanted = question(false);
    unwanted.metadata_mut().insert("x-request-id", "unwanted".parse().unwrap());
    unwanted.get_mut().image = inputs::png(&mut ChaCha8Rng::seed_from_u64(3)).into();
    api.search().search_image_to_text(unwanted).await.unwrap();
    let reply = api.search().search_image_to_text(question(true)).await.unwrap();
    let (call, below) = trace(&collector, "question-7").await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((hex(&call.trace_id), hex(&call.parent_span_id)), (TRACE.into(), SPAN.into()));
    let told = format!("00-{TRACE}-{}-01", hex(&call.span_id));
    assert_eq!(reply.metadata().get("traceparent").unwrap(), told.as_str());
    assert_eq!((call.name.as_str(), call.kind), ("diptych.v1.SearchService/SearchImageToText", 2));
    assert_eq!(call.attribute("rpc.response.status_code"), "OK");
    let names: Vec<&str> = below.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["decode", "resize", "queue", "encode", "search", "fill"]);
    let mut earlier = call.start;
    for span in &below {
        assert_eq!((&span.trace_id, span.kind), (&call.trace_id, 1));
        assert!(
            span.start >= earlier && span.end >= span.start && span.end <= call.end,
            "{span:?}"
        );
        earlier = span.start;
    }
    let spans = collector.spans();
    let (batches, others): (Vec<&Span>, Vec<&Span>) =
        spans.iter().partition(|span| span.name == "batch");
    assert!(others.iter().all(|span| hex(&span.trace_id) == TRACE), "{others:?}");
    assert!(batches.iter().all(|span| hex(&span.trace_id) != TRACE), "{batches:?}");
    assert!(
        collector.spans().iter().all(|span| span.attribute("diptych.request_id") != "unwanted")
    );
    // The last ones are sent before the server ends.
    let mut last = question(true);
    last.metadata_mut().insert("x-request-id", "last".parse().unwrap());
    api.search().search_image_to_text(last).await.unwrap();
    server.terminate().unwrap();
    assert!(server.ended().await.unwrap().success());
    let ids: Vec<_> = collector
        .spans()
        .iter()
        .map(|span| span.attribute("diptych.request_id").to_owned())
        .collect();
    assert!(ids.contains(&"last".to_owned()), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_names_the_calls_it_was_computed_for_and_their_encoding_names_the_batch() {
    const CALLS: usize = 24;
    let (collector, url) = Collector::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let arguments = ["--otlp-endpoint", &url, "--trace-share", "1"];
    let (_server, api) = server(&folder, &arguments).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let mut embedding = api.embedding();
        let text = format!("text number {number}");
        calls.spawn(async move {
            let request = v1::EmbedTextRequest { text, ..Default::default() };
            embedding.embed_text(request).await.unwrap();
        });
    }
    calls.join_all().await;
    let named = |name: &str| -> Vec<Span> {
        collector.spans().into_iter().filter(|span| span.name == name).collect()
    };
    let embeds = || named("diptych.v1.EmbeddingService/EmbedText");
    let inputs = || -> i64 {
        let batches = named("batch").into_iter();
        let texts = batches.filter(|batch| batch.attribute("diptych.modality") == "text");
        texts.map(|batch| batch.number("diptych.batch.inputs")).sum()
    };
    // One more text was put before.
    until("all is told", || async { embeds().len() == CALLS && inputs() == CALLS as i64 + 1 })
        .await
        .unwrap();
    let batches = named("batch");
    for call in embeds() {
        let encode = named("encode").into_iter().find(|span| span.parent_span_id == call.span_id);
        let encode = encode.unwrap();
        let batch = batches.iter().find(|batch| encode.names(batch)).unwrap();
        assert!(batch.names(&call), "{batch:?} does not name {call:?}");
    }
    let links: usize = batches.iter().map(|batch| batch.links.len()).sum();
    assert_eq!(links, CALLS + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_up_neither_calls_nor_the_end() {
    let folder = TempDir::new().unwrap();
    let nowhere = format!("http://{}", free_address().unwrap());
    let (mut server, api) = server(&folder, &["--otlp-endpoint", &nowhere]).await;
    api.search().search_image_to_text(question(true)).await.unwrap();
    let failed = "diptych_spans_total{outcome=\"failed\"}";
    until("spans failed", || async { value(&page(&server).await, failed) >= 7.0 }).await.unwrap();
    api.search().search_image_to_text(question(true)).await.unwrap();
    server.terminate().unwrap();
    assert!(server.ended().await.unwrap().success());
}
