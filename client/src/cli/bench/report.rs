//! What a load came to, for people and for programs.

use std::time::Duration;

use anyhow::Result;
use diptych::Statistics;
use serde_json::{Value as Json, json};

use super::super::args::BenchArgs;
use super::super::out::{Out, say};
use super::super::table::{facts, number, table};
use super::capacity::Capacity;
use super::histogram::Histogram;
use super::load::{Measured, Mode};

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Prints one load.
pub(super) fn print(
    measured: &Measured,
    did: Statistics,
    args: &BenchArgs,
    out: Out,
) -> Result<()> {
    warn(measured);
    if out.json {
        let mut json = json(measured);
        json["call"] = call_name(args).into();
        json["client"] =
            json!({ "retries": did.retries, "resent": did.resent, "hedges": did.hedges });
        return out.value(&json);
    }
    let tally = &measured.tally;
    let mut lines = vec![
        ("load", mode(measured.mode)),
        (
            "calls",
            format!("{} in {:?}, {:.1}/s", tally.due(), measured.duration, measured.offered()),
        ),
        ("answered", format!("{}, {:.1}/s", tally.ok(), measured.goodput())),
        ("latency", quantiles(&tally.answered)),
    ];
    for (failure, count) in &tally.failures {
        let when = if failure.retry_info { " with RetryInfo" } else { "" };
        lines.push(("failed", format!("{count} {} {}{when}", failure.code, failure.reason)));
    }
    if tally.refused.count() > 0 {
        lines.push(("refused in", quantiles(&tally.refused)));
    }
    if tally.unsent > 0 {
        lines.push(("not sent", tally.unsent.to_string()));
    }
    if tally.lateness.count() > 0 {
        lines.push(("sent late by", quantiles(&tally.lateness)));
    }
    if let Some((any, share)) = tally.recall() {
        lines.push(("recall", format!("{any:.4} with a right hit, {share:.4} of right items")));
    }
    if did.retries + did.resent > 0 {
        lines.push(("sent again", format!("{} retries, {} unprocessed", did.retries, did.resent)));
    }
    Ok(out.line(&facts(out, &lines).trim_fmt())?)
}

/// Prints what a server can do.
pub(super) fn print_capacity(capacity: &Capacity, args: &BenchArgs, out: Out) -> Result<()> {
    capacity.steps.iter().for_each(warn);
    if out.json {
        return out.value(&json!({
            "call": call_name(args),
            "peak": capacity.peak,
            "sustained": capacity.sustained,
            "steps": capacity.steps.iter().map(json).collect::<Vec<_>>(),
        }));
    }
    let mut steps = table(out, &["load", "offered/s", "answered/s", "p50 ms", "p99 ms", "failed"]);
    for step in &capacity.steps {
        let milliseconds = |share| format!("{:.2}", ms(step.tally.answered.quantile(share)));
        steps.add_row([
            mode(step.mode).into(),
            number(&format!("{:.1}", step.offered())),
            number(&format!("{:.1}", step.goodput())),
            number(&milliseconds(0.5)),
            number(&milliseconds(0.99)),
            number(&(step.tally.failed() + step.tally.unsent)),
        ]);
    }
    out.line(&steps.trim_fmt())?;
    let sustained = match capacity.sustained {
        Some(rate) => format!("{rate:.1}/s sustained"),
        None => "none of the rates tried is sustained".to_owned(),
    };
    Ok(out.line(&format!("capacity: {:.1}/s at the peak, {sustained}", capacity.peak))?)
}

/// One load on one line.
pub(super) fn line(measured: &Measured) -> String {
    let latency = quantiles(&measured.tally.answered);
    format!("{}: {:.1}/s answered, {latency}", mode(measured.mode), measured.goodput())
}

/// Tells when the figures are about this tool and not about the server, and shows a failure.
fn warn(measured: &Measured) {
    if !measured.kept_up() {
        let why = match measured.mode {
            Mode::Open { .. } => format!(
                "{:.1} % of calls were sent late and {} were not sent",
                100.0 * measured.late,
                measured.tally.unsent
            ),
            Mode::Closed { .. } => {
                format!("it computed for {:.0} % of the time", 100.0 * measured.busy.unwrap_or(1.0))
            }
        };
        let load = mode(measured.mode);
        say(&format!(
            "warning: {load}: this tool could not keep up: {why}; give it --threads or a core of its own"
        ));
    }
    if let Some(example) = &measured.tally.example {
        say(&format!("one failure says: {example}"));
    }
}

fn json(measured: &Measured) -> Json {
    let tally = &measured.tally;
    let mut json = match measured.mode {
        Mode::Open { rate, arrivals } => {
            json!({ "mode": "open", "rate": rate, "arrivals": format!("{arrivals:?}").to_lowercase() })
        }
        Mode::Closed { callers } => json!({ "mode": "closed", "callers": callers }),
    };
    json["seconds"] = json!(measured.duration.as_secs_f64());
    json["calls"] = json!(tally.due());
    json["offered"] = json!(measured.offered());
    json["goodput"] = json!(measured.goodput());
    json["outcomes"] = tally.outcomes();
    json["refused_with_retry_info"] = json!(tally.refused.count());
    json["unsent"] = json!(tally.unsent);
    json["latency_ms"] = histogram_json(&tally.answered);
    json["refusal_latency_ms"] = histogram_json(&tally.refused);
    if let Mode::Open { .. } = measured.mode {
        json["lateness_ms"] = histogram_json(&tally.lateness);
    }
    json["kept_up"] = json!(measured.kept_up());
    json["client_busy"] = json!(measured.busy);
    if let Some((any, share)) = tally.recall() {
        json["recall_at_k"] = json!(any);
        json["ann_recall_at_k"] = json!(share);
    }
    json
}

fn histogram_json(histogram: &Histogram) -> Json {
    let mut json = json!({
        "count": histogram.count(),
        "mean": ms(histogram.mean()),
        "max": ms(histogram.most()),
    });
    for (name, share) in QUANTILES {
        json[name] = json!(ms(histogram.quantile(share)));
    }
    json
}

fn quantiles(histogram: &Histogram) -> String {
    let each =
        QUANTILES.map(|(name, share)| format!("{name} {:.2}", ms(histogram.quantile(share))));
    format!("{}, max {:.2} ms", each.join(", "), ms(histogram.most()))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Open { rate, .. } => format!("{rate:.1} calls/s"),
        Mode::Closed { callers: 1 } => "1 caller".to_owned(),
        Mode::Closed { callers } => format!("{callers} callers"),
    }
}

fn call_name(args: &BenchArgs) -> String {
    use clap::ValueEnum as _;
    args.call.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
