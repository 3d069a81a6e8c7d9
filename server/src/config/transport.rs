//! Settings of the transport: connections, calls, and how the server goes down.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Reader;
use super::unit::{show_bytes, show_duration};
use super::{Config, defaults, size};
use crate::encoder::EncoderSettings;
use crate::limits::{CallLimits, ConnectionLimits, DrainTimes};
use crate::overload::OverloadSettings;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Calls at once, over all connections, beyond those that encoders have places for.
const CALLS_BESIDE: usize = 256;
/// Streams at once are that part of as many: each may go on for an hour.
const STREAM_SHARE: usize = 4;

pub(super) fn connections(reader: &mut Reader<'_>, linger: Duration) -> ConnectionLimits {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    ConnectionLimits {
        connections: size(reader.count("max_connections", defaults::CONNECTIONS, 1..=1_000_000)),
        streams: narrow(reader.count("streams_per_connection", defaults::STREAMS, 1..=100_000)),
        handshake: reader.time("handshake_timeout", defaults::HANDSHAKE, MILLISECOND * 10..=HOUR),
        header_bytes: narrow(reader.bytes(
            "header_bytes",
            defaults::HEADER_BYTES,
            1 << 10..=1 << 20,
        )),
        local_resets: size(reader.count("local_resets", defaults::LOCAL_RESETS, 1..=1_000_000)),
        pending_resets: size(reader.count(
            "pending_resets",
            defaults::PENDING_RESETS,
            1..=1_000_000,
        )),
        keepalive_interval: reader.time(
            "keepalive_interval",
            defaults::KEEPALIVE_INTERVAL,
            MILLISECOND * 10..=HOUR,
        ),
        keepalive_timeout: reader.time(
            "keepalive_timeout",
            defaults::KEEPALIVE_TIMEOUT,
            MILLISECOND * 10..=HOUR,
        ),
        age: reader.time("connection_age", defaults::CONNECTION_AGE, MILLISECOND * 10..=DAY * 30),
        linger,
    }
}

/// More calls are let in than both towers of a bundle have places for searches, so that one that is full says so itself. With one thread, what
/// is brief is computed on the thread that lets calls in.
pub(super) fn calls(reader: &mut Reader<'_>, encoder: &EncoderSettings) -> CallLimits {
    let built_in = OverloadSettings::default();
    let calls = 2 * encoder.queue_items + CALLS_BESIDE;
    CallLimits {
        timeout: reader.time("timeout", defaults::TIMEOUT, MILLISECOND..=HOUR),
        stream_timeout: reader.time("stream_timeout", defaults::STREAM_TIMEOUT, MILLISECOND..=DAY),
        methods: reader.method_times("method_timeouts", MILLISECOND..=DAY),
        per_caller: size(reader.count(
            "calls_per_caller",
            defaults::CALLS_PER_CALLER,
            1..=1_000_000,
        )),
        calls,
        streams: calls / STREAM_SHARE,
        stream_idle: reader.time(
            "stream_idle_timeout",
            defaults::STREAM_IDLE,
            MILLISECOND * 10..=DAY,
        ),
        wait: encoder.queue_wait,
        overload: OverloadSettings {
            burst_calls: size(reader.count(
                "burst_calls",
                built_in.burst_calls as u64,
                1..=1_000_000,
            )),
            burst_wait: reader.time("burst_wait", built_in.burst_wait, MILLISECOND..=HOUR),
            least: built_in.least.min(encoder.threads),
            ..built_in
        },
    }
}

pub(super) fn self_test(reader: &mut Reader<'_>) -> Duration {
    reader.time("self_test_interval", defaults::SELF_TEST, MILLISECOND * 10..=HOUR)
}

pub(super) fn drain(reader: &mut Reader<'_>) -> DrainTimes {
    DrainTimes {
        delay: reader.time("drain_delay", defaults::DRAIN_DELAY, Duration::ZERO..=HOUR / 6),
        grace: reader.time("drain", defaults::DRAIN, Duration::ZERO..=HOUR / 6),
    }
}

/// Keys with their values as TOML, in the order of the help.
pub(super) fn entries(config: &Config) -> [(&'static str, Option<String>); 19] {
    let text = |text: String| Some(toml::Value::String(text).to_string());
    let time = |time: Duration| text(show_duration(time));
    let number = |number: usize| Some(number.to_string());
    let Config { connections, calls, drain, .. } = config;
    let methods = (!calls.methods.is_empty()).then(|| show(&calls.methods));
    [
        ("timeout", time(calls.timeout)),
        ("stream_timeout", time(calls.stream_timeout)),
        ("stream_idle_timeout", time(calls.stream_idle)),
        ("method_timeouts", methods.and_then(text)),
        ("calls_per_caller", number(calls.per_caller)),
        ("burst_calls", number(calls.overload.burst_calls)),
        ("burst_wait", time(calls.overload.burst_wait)),
        ("max_connections", number(connections.connections)),
        ("streams_per_connection", Some(connections.streams.to_string())),
        ("handshake_timeout", time(connections.handshake)),
        ("header_bytes", text(show_bytes(connections.header_bytes.into()))),
        ("local_resets", number(connections.local_resets)),
        ("pending_resets", number(connections.pending_resets)),
        ("keepalive_interval", time(connections.keepalive_interval)),
        ("keepalive_timeout", time(connections.keepalive_timeout)),
        ("connection_age", time(connections.age)),
        ("self_test_interval", time(config.self_test)),
        ("drain_delay", time(drain.delay)),
        ("drain", time(drain.grace)),
    ]
}

fn show(methods: &BTreeMap<String, Duration>) -> String {
    let each = methods.iter().map(|(name, time)| format!("{name}={}", show_duration(*time)));
    each.collect::<Vec<_>>().join(",")
}
