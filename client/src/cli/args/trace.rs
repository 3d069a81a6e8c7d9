//! The trace that calls belong to.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::Args;
use diptych::{TraceContext, TraceContextError};

/// A trace, given or inherited.
#[derive(Debug, Clone, Args)]
pub(crate) struct TraceArgs {
    /// The trace that calls belong to, as W3C Trace Context writes it [default: TRACEPARENT and TRACESTATE of the environment].
    #[arg(long, global = true, value_name = "00-TRACE-SPAN-FLAGS")]
    traceparent: Option<TraceContext>,
    /// What OpenTelemetry has programs hand to those they start. Not said by whoever runs the command, and so no usage error.
    #[arg(long, global = true, hide = true, env = "TRACEPARENT")]
    inherited_traceparent: Option<OsString>,
    /// The same; belongs to the one above.
    #[arg(long, global = true, hide = true, env = "TRACESTATE")]
    inherited_tracestate: Option<OsString>,
}

impl TraceArgs {
    /// The trace, and what is wrong with the environment's, which is left out then.
    pub(crate) fn context(&self) -> (Option<TraceContext>, Option<String>) {
        let left_out = |name: &str, error: TraceContextError| {
            Some(format!("{name} of the environment is left out: {error}"))
        };
        if self.traceparent.is_some() {
            return (self.traceparent.clone(), None);
        }
        let Some(parent) = text(self.inherited_traceparent.as_ref()) else { return (None, None) };
        let trace = match parent.parse::<TraceContext>() {
            Ok(trace) => trace,
            Err(error) => return (None, left_out("TRACEPARENT", error)),
        };
        let Some(state) = text(self.inherited_tracestate.as_ref()) else {
            return (Some(trace), None);
        };
        match trace.clone().with_state(&state) {
            Ok(whole) => (Some(whole), None),
            Err(error) => (Some(trace), left_out("TRACESTATE", error)),
        }
    }
}

/// An empty variable is none.
fn text(variable: Option<&OsString>) -> Option<Cow<'_, str>> {
    variable.map(|text| text.to_string_lossy()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_given_goes_before_what_is_inherited_and_that_is_left_out_when_it_is_wrong() {
        let trace: TraceContext = TRACE.parse().unwrap();
        let with = trace.clone().with_state("a=1").unwrap();
        let other: TraceContext = TRACE.replace("-01", "-00").parse().unwrap();
        for (given, parent, state, found, wrong) in [
            (None, None, Some("a=1"), None, None),
            (None, Some(""), Some("a=1"), None, None),
            (None, Some("00-1"), Some("a=1"), None, Some("TRACEPARENT")),
            (None, Some(TRACE), None, Some(&trace), None),
            (None, Some(TRACE), Some("a=1"), Some(&with), None),
            (None, Some(TRACE), Some("a"), Some(&trace), Some("TRACESTATE")),
            (Some(&other), Some(TRACE), Some("a=1"), Some(&other), None),
            (Some(&other), Some("00-1"), Some("a"), Some(&other), None),
        ] {
            let arguments = TraceArgs {
                traceparent: given.cloned(),
                inherited_traceparent: parent.map(OsString::from),
                inherited_tracestate: state.map(OsString::from),
            };
            let (trace, told) = arguments.context();
            assert_eq!(trace.as_ref(), found, "{parent:?} {state:?}");
            let told = told.as_deref().and_then(|told| told.split(' ').next());
            assert_eq!(told, wrong, "{parent:?} {state:?}");
        }
    }
}
