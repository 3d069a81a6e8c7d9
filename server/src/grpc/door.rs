//! The door of the main listener: open for health from the first moment, for everything else once the parts are there.
//!
//! The address is taken and health answers NOT_SERVING while bundle and store are opened, which may take long for a large
//! store. Whoever asks for more meanwhile is told to come back.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use http::{Request, Response};
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};
use tower::ServiceExt as _;

use super::Stack;
use super::status::to_status;
use crate::config::Config;
use crate::service::starting;

/// Lets the services in later. Clones share one door.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<OnceLock<Routes>>);

impl Door {
    /// Opens the door to all services. It opens once; later calls change nothing.
    pub fn open(&self, whole: Stack) {
        // An open door stays as it is.
        drop(self.0.set(whole.routes));
    }

    /// What is served from the first moment: health, and through this door, when it is open, all else.
    pub fn stack(&self, health: HealthServer<impl Health>, config: &Config) -> Stack {
        let door = self.clone();
        let fallback = move |request| async move { door.enter(request).await };
        let routes = Routes::from(axum::Router::new().fallback(fallback)).add_service(health);
        Stack::new(routes, config)
    }

    async fn enter(&self, request: Request<Body>) -> Response<tonic::body::Body> {
        match self.0.get() {
            Some(routes) => match routes.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            None => to_status(&starting()).into_http(),
        }
    }
}
