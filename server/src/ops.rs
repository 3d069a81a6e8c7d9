//! The ops listener: plain HTTP for probes and for figures, and nothing else.
//!
//! `/livez` says that the process runs its loop; `/readyz` says what health says: that search answers. `/metrics` is
//! `observe`'s.
//!
//! It has a thread and an event loop of its own, so that probes are answered, and told the truth, when the loop that serves
//! callers is stuck or has much to do.

use std::borrow::Cow;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use crate::limits::ConnectionLimits;
use crate::listen::{self, Ends};

/// Connections of probes at once.
const CONNECTIONS: usize = 64;
/// Between two beats of the main loop.
const BEAT: Duration = Duration::from_millis(500);
/// Without a beat for so long, the main loop is stuck: its turns take milliseconds.
const DEAD_AFTER: Duration = Duration::from_secs(15);

/// Whether the server can serve now, and why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), Cow<'static, str>> + Send + Sync>;

/// That the main loop runs.
#[derive(Debug)]
pub struct Heartbeat {
    epoch: Instant,
    /// Milliseconds since `epoch`.
    last: AtomicU64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { epoch: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Heartbeat {
    /// Beats for as long as it is polled.
    pub async fn run(&self) {
        loop {
            self.last.store(self.now(), Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    }

    /// Time since the last beat.
    fn age(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.last.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Answers probes on a thread of its own for as long as the process lives. Connections have the times of `limits`, and there are
/// few of them.
///
/// # Errors
/// When the system refuses the thread or its event loop.
pub fn start(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _inside = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let limits = ConnectionLimits { connections: CONNECTIONS, ..limits };
    let served =
        listen::serve(listener, (listen::Open, router), limits, (Ends::default(), Arc::default()));
    std::thread::Builder::new().name("ops".to_owned()).spawn(move || runtime.block_on(served))?;
    Ok(())
}

/// The routes.
pub fn router(readiness: Readiness, heartbeat: Arc<Heartbeat>) -> Router {
    let ready = move || {
        let answer = match readiness() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        };
        std::future::ready(answer)
    };
    let live = move || std::future::ready(liveness(heartbeat.age()));
    Router::new().route("/livez", get(live)).route("/readyz", get(ready))
}

fn liveness(age: Duration) -> (StatusCode, String) {
    if age < DEAD_AFTER {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let stuck = format!("the event loop did not turn for {} s\n", age.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, stuck)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use parking_lot::Mutex;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_server_and_liveness_does_not() {
        let state = Arc::new(Mutex::new(Err("starting".into())));
        let asked = Arc::clone(&state);
        let router = router(Arc::new(move || asked.lock().clone()), Arc::default());
        let unready = (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned());
        let fine = (StatusCode::OK, "ok\n".to_owned());
        assert_eq!(ask(&router, "/livez").await, fine);
        assert_eq!(ask(&router, "/readyz").await, unready);
        *state.lock() = Ok(());
        assert_eq!(ask(&router, "/readyz").await, fine);
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let router = router(Arc::new(|| Ok(())), Arc::default());
        for path in ["/", "/metrics", "/livez/x", "/debug"] {
            assert_eq!(ask(&router, path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn a_loop_that_does_not_turn_is_dead() {
        let (status, why) = liveness(DEAD_AFTER);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(why, "the event loop did not turn for 15 s\n");
        assert_eq!(liveness(DEAD_AFTER - Duration::from_millis(1)).0, StatusCode::OK);
        // Without a turn it ages.
        let heartbeat = Heartbeat::default();
        while heartbeat.age().is_zero() {
            std::hint::spin_loop();
        }
    }
}
