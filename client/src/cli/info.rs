//! `diptych info`.

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
            limits.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
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

/// Names as in the contract.
fn limits(limits: &v1::Limits) -> [(&'static str, u64); 13] {
    [
        ("receive_message_bytes", limits.receive_message_bytes),
        ("send_message_bytes", limits.send_message_bytes),
        ("image_bytes", limits.image_bytes),
        ("image_pixels", limits.image_pixels),
        ("image_side", limits.image_side.into()),
        ("text_bytes", limits.text_bytes.into()),
        ("batch_items", limits.batch_items.into()),
        ("search_limit", limits.search_limit.into()),
        ("page_size", limits.page_size.into()),
        ("id_bytes", limits.id_bytes.into()),
        ("filter_depth", limits.filter_depth.into()),
        ("filter_nodes", limits.filter_nodes.into()),
        ("search_terms", limits.search_terms.into()),
    ]
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
