//! `diptych info`.

use std::time::Duration;

use anyhow::Result;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::items::time;
use super::out::Out;
use super::table::facts;
use super::value::{modality_name, space_name};

/// Prints what the server is, knows and takes.
pub(crate) async fn run(client: &Client, out: Out) -> Result<()> {
    let (info, models) = tokio::try_join!(client.server_info(), client.models())?;
    let limits = limits(&info.limits.unwrap_or_default());
    if out.json {
        let models: Vec<Json> = models.iter().map(model_json).collect();
        let engine = |engine: &v1::EngineInfo| json!({ "name": engine.name, "capabilities": engine.capabilities });
        let limits: serde_json::Map<String, Json> =
            limits.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        return out.value(&json!({
            "version": info.version,
            "start_time": time(info.start_time.as_ref()),
            "default_embedding_digest": info.default_embedding_digest,
            "models": models,
            "engines": info.engines.iter().map(engine).collect::<Vec<_>>(),
            "limits": limits,
        }));
    }
    let mut lines = vec![("version", info.version), ("started", time(info.start_time.as_ref()))];
    lines.extend(models.iter().map(|model| ("model", model_line(model))));
    for engine in &info.engines {
        lines.push(("engine", format!("{} ({})", engine.name, engine.capabilities.join(", "))));
    }
    lines.extend(limits.iter().map(|(name, value)| (*name, value.to_string())));
    Ok(out.line(&facts(out, &lines).trim_fmt())?)
}

/// Names as in the contract; times in seconds.
fn limits(limits: &v1::Limits) -> Vec<(&'static str, Json)> {
    macro_rules! limits {
        (numbers: $($number:ident)*; times: $($time:ident)*) => {
            vec![
                $((stringify!($number), json!(limits.$number)),)*
                $((concat!(stringify!($time), "_seconds"), seconds(limits.$time.as_ref())),)*
            ]
        };
    }
    let mut all = limits! {
        numbers: receive_message_bytes send_message_bytes image_bytes image_pixels image_side text_bytes
            batch_items search_limit page_size id_bytes filter_depth filter_nodes search_terms connections
            streams_per_connection calls_per_caller calls header_bytes local_resets pending_resets message_parts
            receive_bytes decode_bytes queue_items encode_images encode_texts encode_tokens request_id_bytes
            name_bytes group_bytes metadata_keys metadata_key_bytes metadata_text_bytes metadata_list_texts
            metadata_bytes filter_values delete_ids dimension ef_search ingest_window memory_bytes reply_bytes streams;
        times: handshake_timeout keepalive_interval keepalive_timeout connection_age call_timeout stream_timeout
            queue_wait stream_idle_timeout
    };
    let methods = &limits.method_timeouts;
    let methods: serde_json::Map<String, Json> = methods
        .iter()
        .map(|method| (method.method.clone(), seconds(method.timeout.as_ref())))
        .collect();
    all.push(("method_timeouts_seconds", Json::Object(methods)));
    all
}

fn seconds(time: Option<&prost_types::Duration>) -> Json {
    let time = time.copied().and_then(|time| Duration::try_from(time).ok());
    json!(time.map(|time| time.as_secs_f64()))
}

fn model_line(model: &v1::Model) -> String {
    let space = |space: &v1::SpaceInfo| {
        let (name, modality) = (space_name(space.space()), modality_name(space.modality));
        format!("{name} {modality} {}", space.dimension)
    };
    let spaces: Vec<String> = model.spaces.iter().map(space).collect();
    let default = if model.is_default { ", default" } else { "" };
    format!("{} knows {}{default} ({})", model.embedding_digest, model.domain, spaces.join(", "))
}

fn model_json(model: &v1::Model) -> Json {
    let golden = match model.golden() {
        v1::GoldenState::Passed => "passed",
        v1::GoldenState::Absent => "absent",
        v1::GoldenState::Unspecified => "unknown",
    };
    let space = |space: &v1::SpaceInfo| {
        json!({
            "space": space_name(space.space()),
            "modality": modality_name(space.modality),
            "dimension": space.dimension,
            "prefixes": space.prefixes,
        })
    };
    json!({
        "embedding_digest": model.embedding_digest,
        "bundle_digest": model.bundle_digest,
        "domain": model.domain,
        "is_default": model.is_default,
        "golden": golden,
        "calibrated": model.calibrated,
        "calibration_prior": model.calibrated.then_some(model.calibration_prior),
        "text_bytes": model.text_bytes,
        "spaces": model.spaces.iter().map(space).collect::<Vec<_>>(),
    })
}
