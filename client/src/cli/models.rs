//! `diptych models`.

use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use diptych::{Client, Error, v1};
use serde_json::{Value as Json, json};

use super::Outcome;
use super::args::Shared;
use super::items::time;
use super::out::Out;
use super::table::{number, table};

/// Longest time for one command without --deadline: reading gigabytes from a disk takes a while.
const DEADLINE: Duration = Duration::from_secs(120);

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List those that are loaded.
    List,
    /// Load one beside the others.
    Load {
        /// Its folder on the server, below that of --models-dir.
        path: String,
        /// Make it the default for new collections.
        #[arg(long)]
        activate: bool,
    },
    /// Make a loaded one the default for new collections, over restarts too.
    Activate {
        /// Its digest, as `list` shows it.
        digest: String,
    },
    /// Unload one that no collection was made with.
    Unload {
        /// Its digest, as `list` shows it.
        digest: String,
        /// Also when collections were made with it: they lack it then, until it is loaded again.
        #[arg(long)]
        force: bool,
    },
    /// Embed golden inputs and compare; fails when a vector is another one than it should be.
    Test {
        /// Digest of one bundle [default: all].
        digest: Option<String>,
    },
}

/// Lists, loads, activates, unloads or tests.
pub(crate) async fn run(
    client: &Client,
    shared: &Shared,
    command: ModelsCommand,
    out: Out,
) -> Result<Outcome> {
    let longest = shared.deadline.unwrap_or(DEADLINE);
    match command {
        ModelsCommand::List => list(client, out).await?,
        ModelsCommand::Load { path, activate } => {
            let request = timed(v1::LoadModelRequest { path, activate }, longest);
            let reply = client.admin_service().load_model(request).await.map_err(Error::from)?;
            let reply = reply.into_inner();
            told(reply.model, &reply.previous_embedding_digest, out)?;
        }
        ModelsCommand::Activate { digest } => {
            let request = timed(v1::ActivateModelRequest { embedding_digest: digest }, longest);
            let reply =
                client.admin_service().activate_model(request).await.map_err(Error::from)?;
            let reply = reply.into_inner();
            told(reply.model, &reply.previous_embedding_digest, out)?;
        }
        ModelsCommand::Unload { digest, force } => {
            let request = v1::UnloadModelRequest { embedding_digest: digest.clone(), force };
            let request = timed(request, longest);
            let reply = client.admin_service().unload_model(request).await.map_err(Error::from)?;
            unloaded(&digest, &reply.into_inner().collections, out)?;
        }
        ModelsCommand::Test { digest } => {
            let embedding_digest = digest.unwrap_or_default();
            let request = timed(v1::RunSelfTestRequest { embedding_digest }, longest);
            let reply = client.admin_service().run_self_test(request).await.map_err(Error::from)?;
            return tested(&reply.into_inner(), out);
        }
    }
    Ok(Outcome::Done)
}

/// A request that the server and this side give up after `longest`.
fn timed<T>(message: T, longest: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(longest);
    request
}

async fn list(client: &Client, out: Out) -> Result<()> {
    let models = client.models().await?;
    if out.json {
        return out.value(&json!({ "models": models.iter().map(model_json).collect::<Vec<_>>() }));
    }
    let mut table = table(out, &["digest", "knows", "default", "weights MB", "loaded", "golden"]);
    for model in &models {
        table.add_row([
            model.embedding_digest.clone().into(),
            model.domain.clone().into(),
            default(model).into(),
            number(&model.weight_bytes.div_ceil(1_000_000)),
            time(model.load_time.as_ref()).into(),
            golden(model).into(),
        ]);
    }
    Ok(out.line(&table.trim_fmt())?)
}

fn default(model: &v1::Model) -> &'static str {
    match (model.is_default, &model.activate_time) {
        (true, Some(_)) => "activated",
        (true, None) => "by settings",
        (false, _) => "",
    }
}

fn golden(model: &v1::Model) -> &'static str {
    match model.golden() {
        v1::GoldenState::Passed => "passed",
        v1::GoldenState::Absent => "absent",
        v1::GoldenState::Unspecified => "unknown",
    }
}

fn model_json(model: &v1::Model) -> Json {
    json!({
        "embedding_digest": model.embedding_digest,
        "bundle_digest": model.bundle_digest,
        "domain": model.domain,
        "is_default": model.is_default,
        "activate_time": model.activate_time.as_ref().map(|at| time(Some(at))),
        "load_time": time(model.load_time.as_ref()),
        "weight_bytes": model.weight_bytes,
        "golden": golden(model),
    })
}

/// Tells of a bundle that was loaded or activated; `previous` is the default before, if that was asked for.
fn told(model: Option<v1::Model>, previous: &str, out: Out) -> Result<()> {
    let model = model.unwrap_or_default();
    if out.json {
        let previous = (!previous.is_empty()).then_some(previous);
        return out
            .value(&json!({ "model": model_json(&model), "previous_embedding_digest": previous }));
    }
    let digest = &model.embedding_digest;
    let line = match previous {
        "" => format!("loaded {digest}"),
        previous if previous == digest => format!("{digest} is the default, as before"),
        previous => {
            format!("{digest} is the default; to go back: diptych models activate {previous}")
        }
    };
    Ok(out.line(&line)?)
}

fn unloaded(digest: &str, collections: &[String], out: Out) -> Result<()> {
    if out.json {
        return out.value(&json!({ "unloaded": digest, "collections": collections }));
    }
    let lack = match collections {
        [] => String::new(),
        names => format!("; lacking it now: {}", names.join(", ")),
    };
    Ok(out.line(&format!("unloaded {digest}{lack}"))?)
}

/// Shows what a test gave; not all done when an input failed.
fn tested(reply: &v1::RunSelfTestResponse, out: Out) -> Result<Outcome> {
    let passed = reply.results.iter().all(|result| result.passed);
    if out.json {
        let result = |result: &v1::run_self_test_response::Result| {
            json!({
                "embedding_digest": result.embedding_digest,
                "input": result.input,
                "cosine": result.cosine,
                "passed": result.passed,
                "error": result.status.as_ref().map(|status| &status.message),
            })
        };
        out.value(&json!({
            "passed": passed,
            "results": reply.results.iter().map(result).collect::<Vec<_>>(),
            "untested": reply.untested_embedding_digests,
        }))?;
    } else {
        let mut table = table(out, &["digest", "input", "cosine", "passed"]);
        for result in &reply.results {
            let cosine = match &result.status {
                Some(status) => status.message.clone(),
                None => format!("{:.6}", result.cosine),
            };
            let passed = if result.passed { "yes" } else { "no" };
            let (digest, input) = (result.embedding_digest.clone(), result.input.clone());
            table.add_row([digest, input, cosine, passed.to_owned()]);
        }
        for digest in &reply.untested_embedding_digests {
            let row = [digest.as_str(), "no golden inputs", "", ""];
            table.add_row(row);
        }
        out.line(&table.trim_fmt())?;
    }
    Ok(if passed { Outcome::Done } else { Outcome::Partly })
}
