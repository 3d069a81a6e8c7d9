//! The ops listener: plain HTTP for probes, and nothing else.
//!
//! `/livez` says that the process runs its loop; `/readyz` says what health says: that search answers.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// Whether the server can serve now, and why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), Cow<'static, str>> + Send + Sync>;

/// The routes.
pub fn router(readiness: Readiness) -> Router {
    let ready = move || {
        let answer = match readiness() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        };
        std::future::ready(answer)
    };
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(ready))
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
        let router = router(Arc::new(move || asked.lock().clone()));
        let unready = (StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned());
        let fine = (StatusCode::OK, "ok\n".to_owned());
        assert_eq!(ask(&router, "/livez").await, fine);
        assert_eq!(ask(&router, "/readyz").await, unready);
        *state.lock() = Ok(());
        assert_eq!(ask(&router, "/readyz").await, fine);
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        let router = router(Arc::new(|| Ok(())));
        for path in ["/", "/metrics", "/livez/x", "/debug"] {
            assert_eq!(ask(&router, path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
}
