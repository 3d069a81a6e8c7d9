//! What ties a call to what its caller did: the trace, as W3C Trace Context writes it, and the request id.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::batch::SpanId;

/// The caller's name for a call, and ours in the reply.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The caller's span, and in the reply that of the call.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Most bytes of a request id; a longer one is replaced.
pub(crate) const REQUEST_ID_BYTES: usize = 128;
/// The bit of the flags that says that spans are wanted.
const SAMPLED: u8 = 1;

/// A call's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace: u128,
    /// The call's own span.
    pub(crate) span: u64,
    /// The caller's span.
    pub(crate) parent: Option<u64>,
    /// Whether its spans are wanted.
    pub(crate) sampled: bool,
}

impl Trace {
    /// The trace that the caller tells, or a new one, of which `share` are sampled.
    pub(crate) fn of(headers: &HeaderMap, share: f64) -> Self {
        let span = fresh(rand::random);
        let told = headers.get(TRACEPARENT).and_then(|value| parse(value.to_str().ok()?));
        match told {
            Some((trace, parent, flags)) => {
                Self { trace, span, parent: Some(parent), sampled: flags & SAMPLED != 0 }
            }
            None => {
                let sampled = share > 0.0 && rand::random::<f64>() < share;
                Self { trace: fresh(rand::random), span, parent: None, sampled }
            }
        }
    }

    /// The call's own span.
    pub(crate) fn id(&self) -> SpanId {
        SpanId { trace: self.trace, span: self.span }
    }

    /// The trace's id, 32 hexadecimal digits.
    pub(crate) fn hex(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The call's own span for the reply.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.sampled { SAMPLED } else { 0 };
        write!(formatter, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// A random number that is not zero, which stands for no id.
pub(crate) fn fresh<T: Default + PartialEq>(random: impl Fn() -> T) -> T {
    loop {
        let id = random();
        if id != T::default() {
            return id;
        }
    }
}

/// Trace, span and flags of `00-TRACE-SPAN-FLAGS`; later versions may have more after that.
fn parse(text: &str) -> Option<(u128, u64, u8)> {
    let mut parts = text.split('-');
    let mut digits = |length: usize| {
        let part = parts.next()?;
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (part.len() == length && part.bytes().all(lower)).then_some(part)
    };
    let (version, trace, span, flags) = (digits(2)?, digits(32)?, digits(16)?, digits(2)?);
    let (trace, span) =
        (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    let known = version != "ff" && (version != "00" || parts.next().is_none());
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (known && trace != 0 && span != 0).then_some((trace, span, flags))
}

/// The caller's request id, or a new one for a caller that gives none, or one that is longer than [`REQUEST_ID_BYTES`] or has
/// other signs than letters, digits and `-_.:/+=`.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = given_id(headers).and_then(|value| value.to_str().ok());
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// The same for a reply's metadata, where nothing else needs it. It is different each time, so it is not to be kept for the next head
/// that is compressed.
pub(crate) fn request_id_value(headers: &HeaderMap) -> HeaderValue {
    let new = || HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).ok();
    let mut value = given_id(headers).cloned().or_else(new).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn given_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let sign = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    let given = headers.get(REQUEST_ID)?;
    let id = given.as_bytes();
    ((1..=REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(sign)).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn a_callers_trace_goes_on_and_the_reply_names_the_calls_own_span() {
        let trace = Trace::of(&headers(TRACEPARENT, GIVEN), 0.0);
        assert_eq!(trace.hex(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace.parent, Some(0xb7ad_6b71_6920_3331));
        assert!(trace.sampled && trace.span != 0 && Some(trace.span) != trace.parent);
        let told = trace.header().unwrap();
        let again = Trace::of(&headers(TRACEPARENT, told.to_str().unwrap()), 0.0);
        assert_eq!((again.trace, again.parent), (trace.trace, Some(trace.span)));
        let unsampled = GIVEN.replace("-01", "-00");
        assert!(!Trace::of(&headers(TRACEPARENT, &unsampled), 1.0).sampled);
    }

    #[test]
    fn a_trace_that_is_not_one_is_replaced() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let wrong = [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            zero,
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-01",
            "é",
        ];
        for text in wrong {
            let trace = Trace::of(&headers(TRACEPARENT, text), 1.0);
            assert!(trace.parent.is_none() && trace.trace != 0 && trace.sampled, "{text}");
        }
        // What a later version adds is not ours to judge.
        let later = GIVEN.replacen("00-", "01-", 1) + "-more";
        assert!(Trace::of(&headers(TRACEPARENT, &later), 0.0).parent.is_some());
    }

    #[test]
    fn a_request_id_is_kept_when_it_is_short_and_plain_and_made_otherwise() {
        let long = "a".repeat(REQUEST_ID_BYTES + 1);
        for id in ["a", "7f-1_x.y:z/+=", &long[1..]] {
            assert_eq!(request_id(&headers(REQUEST_ID, id)), id);
            assert_eq!(request_id_value(&headers(REQUEST_ID, id)), id);
        }
        for id in ["", &long, "two words", "line\tfeed", "\"quoted\"", "é"] {
            let made = request_id(&headers(REQUEST_ID, id));
            assert!(made != id && uuid::Uuid::parse_str(&made).is_ok(), "{id}");
            let made = request_id_value(&headers(REQUEST_ID, id));
            assert!(uuid::Uuid::parse_str(made.to_str().unwrap()).is_ok(), "{id}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
