//! Settings of what is told of calls.

use std::time::Duration;

use http::Uri;

use super::defaults;
use super::reader::Reader;
use super::unit::show_duration;
use crate::observe::Settings;

const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn read(reader: &mut Reader<'_>) -> Settings {
    Settings {
        slow_call: reader.time("slow_call", defaults::SLOW_CALL, Duration::ZERO..=HOUR),
        otlp_endpoint: reader.text(
            "otlp_endpoint",
            "a URL such as http://localhost:4317",
            is_endpoint,
        ),
        trace_share: reader.share("trace_share", defaults::TRACE_SHARE),
    }
}

/// A host over plain HTTP: the program has no TLS of its own.
fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()) && bare
}

/// Keys with their values as TOML, in the order of the help.
pub(super) fn entries(settings: &Settings) -> [(&'static str, Option<String>); 3] {
    let text = |text: String| Some(toml::Value::String(text).to_string());
    [
        ("slow_call", text(show_duration(settings.slow_call))),
        ("otlp_endpoint", settings.otlp_endpoint.clone().and_then(text)),
        ("trace_share", Some(settings.trace_share.to_string())),
    ]
}
