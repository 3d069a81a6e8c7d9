//! What the transport takes and for how long, as settings say it: a struct for each component that keeps it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;
use std::time::Duration;

use diptych_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;

use crate::observe::metrics;
use crate::overload::OverloadSettings;

/// What a listener takes.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at once.
    pub connections: usize,
    /// Streams at once on an HTTP/2 connection.
    pub streams: u32,
    /// Time to the first frame.
    pub handshake: Duration,
    /// Bytes of a call's headers.
    pub header_bytes: u32,
    /// Streams that a peer's errors may make us reset in the life of a connection.
    pub local_resets: usize,
    /// Streams that a peer may reset before we came to them.
    pub pending_resets: usize,
    /// Silence after which a peer is asked whether it lives. An HTTP/1 peer has as long for a request's head.
    pub keepalive_interval: Duration,
    /// Time to say so.
    pub keepalive_timeout: Duration,
    /// Time that a connection is used, give or take a tenth.
    pub age: Duration,
    /// Time after that for calls under way: as long as any may take.
    pub linger: Duration,
}

/// How long calls may take, and how many there may be.
#[derive(Debug, Clone)]
pub struct CallLimits {
    /// Time of a call with one reply, and of a stream to its reply's head.
    pub timeout: Duration,
    /// Time of a call that streams.
    pub stream_timeout: Duration,
    /// Times of methods that differ, by the method's name.
    pub methods: BTreeMap<String, Duration>,
    /// Calls at once of one caller.
    pub per_caller: usize,
    /// Calls at once of all callers, those that stream not among them.
    pub calls: usize,
    /// Streams at once of all callers.
    pub streams: usize,
    /// Longest wait for the next message of a stream of requests.
    pub stream_idle: Duration,
    /// Longest wait for a place among all calls.
    pub wait: Duration,
    /// When a method refuses calls because more come than it can answer.
    pub overload: OverloadSettings,
}

impl CallLimits {
    /// As long as any call may take.
    pub fn longest(&self) -> Duration {
        let named = self.methods.values().copied();
        named.chain([self.timeout, self.stream_timeout]).max().unwrap_or_default()
    }
}

#[cfg(test)]
impl CallLimits {
    /// Limits that no test comes near.
    pub(crate) fn wide() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            timeout: hour,
            stream_timeout: hour,
            methods: BTreeMap::new(),
            per_caller: 1000,
            calls: 1000,
            streams: 1000,
            stream_idle: hour,
            wait: hour,
            overload: OverloadSettings::default(),
        }
    }
}

/// How the server goes down.
#[derive(Debug, Clone, Copy)]
pub struct DrainTimes {
    /// From NOT_SERVING to GOAWAY: time for callers and load balancers to hear of it. Calls are taken meanwhile.
    pub delay: Duration,
    /// From GOAWAY to the end of calls that still run.
    pub grace: Duration,
}

/// How long one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// To the reply's head.
    pub head: Duration,
    /// To its end; `None` for a stream without one.
    pub whole: Option<Duration>,
    /// Whether the reply may go on after its head.
    pub streams: bool,
}

/// Every method's time, by path.
#[derive(Debug, Clone)]
pub struct Caps {
    known: HashMap<String, Cap>,
    /// Methods of other protos, reflection's for one, which stream.
    other: Cap,
    /// Health is watched for as long as its watcher lives.
    health: Cap,
}

/// The service that is asked by probes.
pub const HEALTH: &str = "/grpc.health.v1.Health/";

impl Caps {
    /// The times that `limits` say.
    pub fn new(limits: &CallLimits) -> Self {
        let known = methods().iter().map(|method| {
            let named = limits.methods.get(&method.name).copied();
            let whole = named.unwrap_or(match method.streams {
                true => limits.stream_timeout,
                false => limits.timeout,
            });
            let head = if method.streams { whole.min(limits.timeout) } else { whole };
            let cap = Cap { head, whole: Some(whole), streams: method.streams };
            (method.path.clone(), cap)
        });
        let other = Cap { head: limits.timeout, whole: Some(limits.stream_timeout), streams: true };
        Self { known: known.collect(), other, health: Cap { whole: None, ..other } }
    }

    /// The time of the method at `path`.
    pub fn of(&self, path: &str) -> Cap {
        match self.known.get(path) {
            Some(cap) => *cap,
            None if path.starts_with(HEALTH) => self.health,
            None => self.other,
        }
    }
}

/// A method of the contract.
#[derive(Debug, Clone)]
struct Method {
    name: String,
    path: String,
    /// Whether requests or replies stream.
    streams: bool,
    /// How dashboards call its kind.
    kind: &'static str,
}

/// A method as figures and logs name it.
#[derive(Debug)]
pub(crate) struct Observed {
    /// `package.Service/Method`.
    pub(crate) full: String,
    service: String,
    name: String,
    kind: &'static str,
    /// Whether it is worth telling when it takes long: one reply, for which nobody means to wait.
    pub(crate) timed: bool,
}

impl Observed {
    fn new(path: &str, kind: &'static str) -> Self {
        let full = path.trim_start_matches('/');
        let (service, name) = full.split_once('/').unwrap_or((full, full));
        let timed = kind == UNARY && name != "WaitOperation";
        let (service, name) = (service.to_owned(), name.to_owned());
        Self { full: full.to_owned(), service, name, kind, timed }
    }

    /// Kind, service and name.
    pub(crate) fn labels(&self) -> [&str; 3] {
        [self.kind, &self.service, &self.name]
    }
}

const UNARY: &str = "unary";
/// Methods that are served and not of the contract.
const FURTHER: [(&str, &str); 5] = [
    ("/grpc.health.v1.Health/Check", UNARY),
    ("/grpc.health.v1.Health/List", UNARY),
    ("/grpc.health.v1.Health/Watch", "server_stream"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "bidi_stream"),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "bidi_stream"),
];

/// The method at `path`; all that are not served have one name.
pub(crate) fn observed(path: &str) -> &'static Observed {
    static OBSERVED: OnceLock<HashMap<String, Observed>> = OnceLock::new();
    static OTHER: OnceLock<Observed> = OnceLock::new();
    let known = OBSERVED.get_or_init(|| {
        let contract = methods().iter().map(|method| (method.path.as_str(), method.kind));
        let all = contract.chain(FURTHER);
        all.map(|(path, kind)| (path.to_owned(), Observed::new(path, kind))).collect()
    });
    known.get(path).unwrap_or_else(|| OTHER.get_or_init(|| Observed::new(metrics::OTHER, UNARY)))
}

/// Whether the method at `path` has one message and one reply.
pub(crate) fn is_unary(path: &str) -> bool {
    observed(path).kind == UNARY
}

/// Whether the method at `path` reads one message and no more.
pub(crate) fn takes_one_message(path: &str) -> bool {
    [UNARY, "server_stream"].contains(&observed(path).kind)
}

/// The names of all methods; no two services have one in common.
pub(crate) fn method_names() -> BTreeSet<&'static str> {
    methods().iter().map(|method| method.name.as_str()).collect()
}

/// The paths of methods that refuse calls when more come than they can answer: those that compute, read or write, with one reply.
/// What tells of the server, and what waits on purpose, is not among them.
pub(crate) fn limited_methods() -> impl Iterator<Item = String> {
    let services =
        ["Search", "Embedding", "Item"].map(|name| format!("/diptych.v1.{name}Service/"));
    let limited = move |method: &&Method| {
        !method.streams && services.iter().any(|service| method.path.starts_with(service))
    };
    methods().iter().filter(limited).map(|method| method.path.clone())
}

fn methods() -> &'static [Method] {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    METHODS.get_or_init(|| {
        // A descriptor set that does not parse is a broken build, which a test tells.
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut methods = Vec::new();
        for file in set.file {
            for service in &file.service {
                let owner = format!("/{}.{}/", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| Method {
                    name: method.name().to_owned(),
                    path: format!("{owner}{}", method.name()),
                    streams: method.client_streaming() || method.server_streaming(),
                    kind: match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => UNARY,
                        (true, false) => "client_stream",
                        (false, true) => "server_stream",
                        (true, true) => "bidi_stream",
                    },
                }));
            }
        }
        methods
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_name_of_its_own() {
        assert!(methods().len() > 30, "{}", methods().len());
        assert_eq!(method_names().len(), methods().len());
    }

    #[test]
    fn a_named_method_has_its_own_time_and_a_stream_goes_on_after_its_head() {
        let second = Duration::from_secs(1);
        let caps = Caps::new(&CallLimits {
            timeout: 30 * second,
            stream_timeout: 3600 * second,
            methods: [("Search".to_owned(), second), ("EmbedStream".to_owned(), 60 * second)]
                .into(),
            ..CallLimits::wide()
        });
        let cap = |head, whole, streams| Cap { head, whole, streams };
        let rows = [
            ("/diptych.v1.SearchService/Search", cap(second, Some(second), false)),
            ("/diptych.v1.ItemService/GetItem", cap(30 * second, Some(30 * second), false)),
            ("/diptych.v1.EmbeddingService/EmbedStream", cap(30 * second, Some(60 * second), true)),
            ("/diptych.v1.SearchService/BatchSearch", cap(30 * second, Some(3600 * second), true)),
            ("/grpc.health.v1.Health/Watch", cap(30 * second, None, true)),
            ("/no/such", cap(30 * second, Some(3600 * second), true)),
        ];
        for (path, expected) in rows {
            assert_eq!(caps.of(path), expected, "{path}");
        }
    }
}
