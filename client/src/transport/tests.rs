//! The client against small servers on loopback, each with a fault of its own.

mod fake;
mod raw;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use h2::Reason;
use parking_lot::Mutex;
use tonic::Code;
use tonic::metadata::MetadataValue;

use self::fake::{Answer, Fake};
use super::resolve::{Found, Names};
use super::{Transport, TransportOptions};
use crate::{Client, Deadlines, Hedge, Kind, Options, RetryBudget, RetryPolicy, TraceContext, v1};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(5);

/// Everything that waits, short; deadlines, long.
fn quick() -> Options {
    Options {
        deadlines: Deadlines::all(PATIENCE),
        retry: RetryPolicy { first_backoff: TICK, ..RetryPolicy::default() },
        transport: TransportOptions {
            ready_wait: PATIENCE,
            resolve_interval: TICK,
            resolve_pause: TICK,
            first_backoff: TICK,
            max_backoff: TICK,
            unhealthy_interval: TICK,
            ..TransportOptions::default()
        },
        ..Options::default()
    }
}

fn once() -> Options {
    Options { retry: RetryPolicy::never(), ..quick() }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "not in time: {what}");
}

/// Waits until the client has `count` endpoints that take calls.
async fn ready(client: &Client, count: usize) {
    until("ready endpoints", || client.transport().table.ready().len() == count).await;
}

/// Which server answers.
async fn ask(client: &Client) -> crate::Result<String> {
    client.server_info().await.map(|info| info.version)
}

#[tokio::test]
async fn a_server_that_refuses_connections_gets_no_calls() {
    let good = Fake::start("good").await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = format!("{},{}", closed.local_addr().unwrap(), good.address);
    drop(closed);
    let client = Client::connect_with(&addresses, once()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(ask(&client).await.unwrap(), "good");
    }
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_named() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let error = Client::connect_with(&address, once()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&address), "{error}");
    let mut options = once();
    options.transport.ready_wait = TICK;
    let client = Client::lazy(&address, options).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains(&address), "{error}");
}

#[tokio::test]
async fn what_a_server_had_when_it_died_is_answered_by_another() {
    let (mut dying, good) = (Fake::start("dying").await, Fake::start("good").await);
    dying.always(Answer::Never);
    let addresses = format!("{},{}", dying.address, good.address);
    let client = Client::connect_with(&addresses, quick()).await.unwrap();
    ready(&client, 2).await;
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { ask(&client).await })
        })
        .collect();
    until("a call that hangs", || dying.calls() > 0).await;
    dying.die();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap(), "good");
    }
    assert!(client.statistics().retries > 0);
}

#[tokio::test]
async fn connections_that_a_server_ends_by_age_cost_no_call() {
    let server = Fake::aging("aging", Duration::from_millis(20)).await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    let mut ports = BTreeSet::new();
    while ports.len() < 8 {
        let both = tokio::join!(ask(&client), ask(&client), ask(&client));
        for outcome in [both.0, both.1, both.2] {
            assert_eq!(outcome.unwrap(), "aging");
        }
        ports.extend(server.ports());
    }
}

/// A client of a server that has nothing but what a test is about.
async fn bare(server: SocketAddr, mut options: Options) -> Client {
    options.transport.health_service = None;
    Client::connect_with(&server.to_string(), options).await.unwrap()
}

#[tokio::test]
async fn a_call_is_sent_over_as_many_connections_as_a_server_ends_before_it() {
    let server = raw::ends_first_connections(30, Reason::NO_ERROR).await;
    let mut options = once();
    options.retry.budget = RetryBudget { ratio: 0.0, reserve: 0 };
    let client = bare(server, options).await;
    assert_eq!(ask(&client).await.unwrap(), "");
    // Not once over a connection that had ended: those attempts would have been more.
    assert_eq!((client.statistics().resent, client.statistics().retries), (30, 0));
}

#[tokio::test]
async fn a_server_that_ends_connections_with_a_complaint_is_asked_once_more_and_then_by_the_policy()
{
    let server = raw::ends_first_connections(usize::MAX, Reason::ENHANCE_YOUR_CALM).await;
    let client = bare(server, once()).await;
    assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
    let client = bare(server, quick()).await;
    assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(client.statistics().retries, 4);
}

#[tokio::test]
async fn a_connection_is_not_given_up_for_the_end_of_one_before() {
    let server = Fake::start("steady").await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    // As the last of several calls does that learned of one end.
    client.transport().table.ready()[0].endpoint.closed();
    for _ in 0..50 {
        assert_eq!(ask(&client).await.unwrap(), "steady");
    }
    assert_eq!(server.ports().len(), 1);
}

#[tokio::test]
async fn a_stream_that_a_server_refused_is_sent_again_at_once_whatever_it_is() {
    let (server, _) = raw::refuses_first_streams(1).await;
    let client = bare(server, once()).await;
    assert_eq!(ask(&client).await.unwrap(), "");
    assert_eq!((client.statistics().resent, client.statistics().retries), (1, 0));
}

#[tokio::test]
async fn a_stream_that_a_server_refuses_again_is_sent_by_the_policy() {
    let (server, seen) = raw::refuses_first_streams(3).await;
    let client = bare(server, quick()).await;
    assert_eq!(ask(&client).await.unwrap(), "");
    assert_eq!((client.statistics().resent, client.statistics().retries), (1, 2));
    assert_eq!(seen.load(Ordering::Relaxed), 4);
    let (server, seen) = raw::refuses_first_streams(3).await;
    let client = bare(server, once()).await;
    assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_server_that_refuses_every_stream_is_not_asked_beyond_the_budget() {
    let (server, seen) = raw::refuses_first_streams(usize::MAX).await;
    let mut options = quick();
    options.retry.first_backoff = Duration::from_micros(100);
    options.retry.budget = RetryBudget { ratio: 0.1, reserve: 5 };
    let client = bare(server, options).await;
    for _ in 0..200 {
        assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
    }
    // Each call, its one repeat at once, and a tenth of the calls and the reserve.
    let (statistics, seen) = (client.statistics(), seen.load(Ordering::Relaxed) as u64);
    assert_eq!(statistics.resent, 200);
    assert!((15..=25).contains(&statistics.retries), "{statistics:?}");
    assert_eq!(seen, 200 + statistics.resent + statistics.retries);
}

#[tokio::test]
async fn a_refusal_with_a_time_is_followed_by_a_repeat_of_the_same_request() {
    let server = Fake::start("busy").await;
    server.next(Answer::retry_info(Code::ResourceExhausted, Duration::from_millis(1)));
    server.next(Answer::Status(Code::Unavailable));
    let client = Client::connect_with(&server.address.to_string(), quick()).await.unwrap();
    assert_eq!(ask(&client).await.unwrap(), "busy");
    assert_eq!((server.calls(), client.statistics().retries), (3, 2));
    let ids: BTreeSet<String> = server.request_ids().into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    server.next(Answer::Status(Code::InvalidArgument));
    let error = ask(&client).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(Some(error.request_id()), server.request_ids().last().map(String::as_str));
    assert!(!ids.contains(error.request_id()));
}

#[tokio::test]
async fn a_call_that_a_server_refuses_because_it_goes_down_is_done_by_another_at_once() {
    let (leaving, good) = (Fake::start("leaving").await, Fake::start("good").await);
    // As a server says it before its health has come through.
    leaving.always(Answer::Draining);
    let addresses = format!("{},{}", leaving.address, good.address);
    let client = Client::connect_with(&addresses, once()).await.unwrap();
    ready(&client, 2).await;
    while leaving.calls() < 5 {
        assert_eq!(ask(&client).await.unwrap(), "good");
    }
    assert_eq!((client.statistics().resent, client.statistics().retries), (5, 0));
    // Alone it is as good as down.
    let client = Client::connect_with(&leaving.address.to_string(), once()).await.unwrap();
    assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_server_that_fails_every_call_is_not_asked_much_more_often() {
    let server = Fake::start("failing").await;
    server.always(Answer::Status(Code::Unavailable));
    let mut options = quick();
    options.retry.first_backoff = Duration::from_micros(100);
    options.retry.budget = RetryBudget { ratio: 0.1, reserve: 5 };
    let client = Client::connect_with(&server.address.to_string(), options).await.unwrap();
    for _ in 0..200 {
        assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Unavailable);
    }
    assert!((215..=225).contains(&server.calls()), "{} calls", server.calls());
}

#[tokio::test]
async fn a_server_that_does_not_serve_gets_no_new_calls_until_it_does() {
    let (one, other) = (Fake::start("one").await, Fake::start("other").await);
    let addresses = format!("{},{}", one.address, other.address);
    let client = Client::connect_with(&addresses, once()).await.unwrap();
    ready(&client, 2).await;
    one.serving(false).await;
    ready(&client, 1).await;
    let before = one.calls();
    for _ in 0..50 {
        assert_eq!(ask(&client).await.unwrap(), "other");
    }
    assert_eq!(one.calls(), before);
    one.serving(true).await;
    while ask(&client).await.unwrap() != "one" {}
}

#[tokio::test]
async fn a_call_waits_for_a_server_that_is_starting() {
    let server = Fake::start("starting").await;
    server.serving(false).await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { ask(&client).await }
    });
    until("the word", || client.transport().table.summary().contains("NOT_SERVING")).await;
    assert!(!waiting.is_finished() && server.calls() == 0);
    server.serving(true).await;
    assert_eq!(waiting.await.unwrap().unwrap(), "starting");
}

#[tokio::test]
async fn a_server_without_health_is_taken_for_well() {
    let server = Fake::without_health("old").await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    assert_eq!(ask(&client).await.unwrap(), "old");
}

#[tokio::test]
async fn watching_its_health_does_not_hold_up_a_server_that_is_going_down() {
    let server = Fake::start("leaving").await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    assert_eq!(ask(&client).await.unwrap(), "leaving");
    server.serving(false).await;
    let ended = tokio::time::timeout(PATIENCE, server.shut_down()).await;
    assert!(ended.is_ok(), "the watch holds the server up");
    drop(client);
}

/// Names whose addresses a test changes.
#[derive(Debug, Default)]
struct Changing(Mutex<Vec<SocketAddr>>);

impl Names for Changing {
    fn find<'a>(&'a self, _: &'a str, _: u16) -> Found<'a> {
        Box::pin(async { Ok(self.0.lock().clone()) })
    }
}

#[tokio::test]
async fn calls_follow_what_a_name_stands_for() {
    let (old, new) = (Fake::start("old").await, Fake::start("new").await);
    let names = Arc::new(Changing::default());
    *names.0.lock() = vec![old.address];
    let known: Arc<dyn Names> = Arc::<Changing>::clone(&names);
    let transport = Transport::open_by("name:1", quick().transport, known).unwrap();
    let client = Client::over(transport, once());
    assert_eq!(ask(&client).await.unwrap(), "old");
    *names.0.lock() = vec![old.address, new.address];
    while ask(&client).await.unwrap() != "new" {}
    *names.0.lock() = vec![new.address];
    ready(&client, 1).await;
    // A name that stands for nothing for a while changes nothing.
    names.0.lock().clear();
    for _ in 0..50 {
        assert_eq!(ask(&client).await.unwrap(), "new");
    }
}

#[tokio::test]
async fn a_slow_read_is_asked_of_another_server_too() {
    let (slow, quick_one) = (Fake::start("slow").await, Fake::start("quick").await);
    slow.always(Answer::Never);
    let addresses = format!("{},{}", slow.address, quick_one.address);
    let options = Options { hedge: Some(Hedge::After(TICK)), ..once() };
    let client = Client::connect_with(&addresses, options).await.unwrap();
    ready(&client, 2).await;
    while client.statistics().hedges == 0 {
        assert_eq!(ask(&client).await.unwrap(), "quick");
    }
    // The loser is cancelled: nothing is in flight any more.
    let idle = || client.transport().table.ready().iter().all(|ready| ready.endpoint.is_idle());
    until("no calls in flight", idle).await;
}

#[tokio::test]
async fn a_deadline_is_told_to_the_server_and_kept() {
    let server = Fake::start("stuck").await;
    server.always(Answer::Never);
    let options = Options { deadlines: Deadlines::all(Duration::from_millis(30)), ..quick() };
    let client = Client::connect_with(&server.address.to_string(), options).await.unwrap();
    ready(&client, 1).await;
    assert_eq!(ask(&client).await.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(client.statistics().retries, 0);
    assert!(server.timeouts().iter().all(|timeout| timeout.ends_with(['u', 'n', 'm'])));
}

#[tokio::test]
async fn every_attempt_of_a_call_carries_its_callers_trace() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let server = Fake::start("traced").await;
    let client = Client::connect_with(&server.address.to_string(), quick()).await.unwrap();
    let trace: TraceContext = TRACE.parse().unwrap();
    let traced = client.in_trace(trace.clone().with_state("a=1").unwrap());
    server.next(Answer::Status(Code::Unavailable));
    ask(&traced).await.unwrap();
    assert_eq!(server.traces(), [[TRACE, "a=1"]; 2]);
    // The one that it was made of is in no trace, and the two share all else.
    ask(&client).await.unwrap();
    assert_eq!(server.traces()[2..], [["", ""]]);
    assert_eq!(client.statistics(), traced.statistics());
    // So do the generated clients, unless a call says something else itself.
    let mut info = traced.in_trace(trace).with_options(once()).info_service();
    info.get_server_info(v1::GetServerInfoRequest {}).await.unwrap();
    let mut own = tonic::Request::new(v1::GetServerInfoRequest {});
    own.metadata_mut().insert("traceparent", MetadataValue::from_static("own"));
    info.get_server_info(own).await.unwrap();
    assert_eq!(server.traces()[3..], [[TRACE, ""], ["own", ""]]);
}

#[tokio::test]
async fn the_last_clone_of_a_client_ends_its_connections() {
    let server = Fake::start("left").await;
    let client = Client::connect_with(&server.address.to_string(), once()).await.unwrap();
    ask(&client).await.unwrap();
    let table = Arc::downgrade(&client.transport().table);
    let clone = client.clone();
    drop(client);
    assert_eq!(ask(&clone).await.unwrap(), "left");
    drop(clone);
    until("the end of all tasks", || table.strong_count() == 0).await;
}
