//! A caller's place in a trace, as W3C Trace Context writes it, for servers to go on from.

use std::fmt;
use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
/// Most members of a `tracestate`.
const MEMBERS: usize = 32;
/// Most bytes of a member's key, and of its value.
const MEMBER_BYTES: usize = 256;

/// A caller's span, which servers make the parent of theirs: a `traceparent`, and perhaps a `tracestate`, of
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/). Both go out as they came in; the client makes no spans of its own.
///
/// ```
/// use diptych::TraceContext;
///
/// let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// # Ok::<_, diptych::TraceContextError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: HeaderValue,
    state: Option<HeaderValue>,
    trace_id: String,
}

/// Why a text is no trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceContextError {
    /// A `traceparent` is not 2, 32, 16 and 2 lower-case hexadecimal digits with `-` between them.
    Form,
    /// The version is ff, which stands for none.
    Version,
    /// The trace's id is zero, which stands for none.
    TraceId,
    /// The parent span's id is zero, which stands for none.
    ParentId,
    /// A `tracestate` is not up to 32 members `KEY=VALUE`, each key once, separated by commas.
    State,
}

impl fmt::Display for TraceContextError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Form => {
                "a traceparent is 2, 32, 16 and 2 lower-case hexadecimal digits with - between"
            }
            Self::Version => "a traceparent has no version ff",
            Self::TraceId => "the trace's id in a traceparent is not zero",
            Self::ParentId => "the parent's id in a traceparent is not zero",
            Self::State => "a tracestate is up to 32 KEY=VALUE, each key once, with commas between",
        })
    }
}

impl std::error::Error for TraceContextError {}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    /// Reads a `traceparent`. Versions after 00 may have more behind the flags, which is kept.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(5, '-');
        let mut digits = |length: usize| {
            let part = parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex));
            part.ok_or(TraceContextError::Form)
        };
        let (version, trace, parent) = (digits(2)?, digits(32)?, digits(16)?);
        digits(2)?;
        if version == "00" && parts.next().is_some() {
            return Err(TraceContextError::Form);
        }
        let is_zero = |id: &str| id.bytes().all(|digit| digit == b'0');
        match () {
            () if version == "ff" => Err(TraceContextError::Version),
            () if is_zero(trace) => Err(TraceContextError::TraceId),
            () if is_zero(parent) => Err(TraceContextError::ParentId),
            () => {
                let parent = HeaderValue::from_str(text).map_err(|_| TraceContextError::Form)?;
                Ok(Self { parent, state: None, trace_id: trace.to_owned() })
            }
        }
    }
}

/// The `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.parent.to_str().unwrap_or_default())
    }
}

impl TraceContext {
    /// The same with this `tracestate` in place of the one before; without one when it has no members.
    ///
    /// # Errors
    /// [`TraceContextError::State`].
    pub fn with_state(mut self, state: &str) -> Result<Self, TraceContextError> {
        let members = state.split(',').map(|member| member.trim_matches([' ', '\t']));
        let mut keys = Vec::new();
        for member in members.filter(|member| !member.is_empty()) {
            let (key, value) = member.split_once('=').ok_or(TraceContextError::State)?;
            if !is_key(key) || !is_value(value) || keys.contains(&key) || keys.len() == MEMBERS {
                return Err(TraceContextError::State);
            }
            keys.push(key);
        }
        self.state = match keys.is_empty() {
            true => None,
            false => Some(HeaderValue::from_str(state).map_err(|_| TraceContextError::State)?),
        };
        Ok(self)
    }

    /// The trace's id, 32 hexadecimal digits, by which the server's log and spans name it.
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// Puts the context into the head of a call that has none of its own.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        if headers.contains_key(PARENT) {
            return;
        }
        headers.insert(PARENT, self.parent.clone());
        match &self.state {
            Some(state) => drop(headers.insert(STATE, state.clone())),
            // One without a parent belongs to nothing.
            None => drop(headers.remove(STATE)),
        }
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_key(key: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= MEMBER_BYTES
        && key.bytes().next().is_some_and(first)
        && key.bytes().all(|byte| first(byte) || b"_-*/@".contains(&byte))
}

fn is_value(value: &str) -> bool {
    let sign = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    (1..=MEMBER_BYTES).contains(&value.len()) && value.bytes().all(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(text: &str) -> Result<TraceContext, TraceContextError> {
        text.parse()
    }

    #[test]
    fn a_traceparent_is_kept_as_it_came() {
        let later = GIVEN.replacen("00-", "01-", 1) + "-what comes-later";
        for text in [GIVEN, &later] {
            let trace = parse(text).unwrap();
            assert_eq!(trace.to_string(), text);
            assert_eq!(trace.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_refused_with_the_reason() {
        use TraceContextError::{Form, ParentId, TraceId, Version};
        for (text, why) in [
            ("", Form),
            ("00", Form),
            ("é", Form),
            ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", Form),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-01", Form),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", Form),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more", Form),
            ("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a\nb", Form),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Version),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", TraceId),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ParentId),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_tracestate_has_members_with_keys_of_their_own() {
        let trace = parse(GIVEN).unwrap();
        let many = |count: usize| (0..count).map(|at| format!("k{at}=v,")).collect::<String>();
        let long = "v".repeat(MEMBER_BYTES);
        for state in
            ["a=1", "rojo=00f067aa0ba902b7 , 1t@s-y_s/*=a b", &many(32), &format!("a={long}")]
        {
            let with = trace.clone().with_state(state).unwrap();
            assert_eq!(with.state.unwrap(), state);
        }
        let some = trace.clone().with_state("a=1").unwrap();
        assert_eq!(some.with_state(" ,").unwrap(), trace);
        for state in [
            "a",
            "a=",
            "=1",
            "A=1",
            "-a=1",
            "a=b=c",
            "a=1,a=2",
            "a=é",
            "a=\n",
            &many(33),
            &format!("a={long}v"),
        ] {
            let with = trace.clone().with_state(state);
            assert_eq!(with, Err(TraceContextError::State), "{state}");
        }
    }

    #[test]
    fn a_call_with_a_context_of_its_own_keeps_it() {
        let trace = parse(GIVEN).unwrap();
        let mut headers = HeaderMap::from_iter([(PARENT, HeaderValue::from_static("its own"))]);
        trace.clone().with_state("a=1").unwrap().put(&mut headers);
        assert_eq!((headers[PARENT].to_str().unwrap(), headers.get(STATE)), ("its own", None));
        let mut headers = HeaderMap::from_iter([(STATE, HeaderValue::from_static("b=2"))]);
        trace.put(&mut headers);
        assert_eq!((headers[PARENT].to_str().unwrap(), headers.get(STATE)), (GIVEN, None));
    }
}
