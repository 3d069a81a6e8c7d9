//! The end: NOT_SERVING, time for others to hear of it, GOAWAY, what was accepted, then the store.
//!
//! Nothing of it waits without bound, for a connection that hangs must not keep the process, and what was acknowledged is durable
//! without a close. Another signal ends the waiting: what still runs is told to go elsewhere, and the store is closed; one more ends
//! that, too.

use std::time::Duration;

use diptych_index::Engine as _;
use tokio::time::timeout;

use super::open::Parts;
use super::{Serving, Signals};
use crate::grpc::{self, Conditions};
use crate::limits::DrainTimes;

/// Time for calls that were cut to be told so, and for connections to close.
const CUT_TIME: Duration = Duration::from_secs(2);
/// Time for the store to end its last commit.
const CLOSE_TIME: Duration = Duration::from_secs(5);

pub(super) async fn drain(
    times: DrainTimes,
    parts: &Parts,
    serving: Serving,
    signals: &mut Signals,
) {
    let DrainTimes { delay, grace } = times;
    tracing::info!(?delay, ?grace, "going down");
    let Serving { stage, health, ends, mut grpc } = serving;
    stage.set("going down");
    grpc::set_health_of(&health, Conditions::all(false)).await;
    let patient = tokio::select! {
        () = tokio::time::sleep(delay) => true,
        () = signals.next() => false,
    };
    parts.service.wind_down();
    ends.goaway.cancel();
    if !grpc.is_finished() {
        let finished = tokio::select! {
            biased;
            // However it ended, it is over.
            _ = &mut grpc => true,
            () = tokio::time::sleep(grace), if patient => false,
            () = signals.next(), if patient => false,
            () = std::future::ready(()), if !patient => false,
        };
        if !finished {
            tracing::warn!("calls are still running; they are told to go elsewhere");
            parts.service.set_ready(false);
            ends.cut.cancel();
            if timeout(CUT_TIME, grpc).await.is_err() {
                tracing::warn!("connections are still open; they are dropped");
            }
        }
    }
    parts.service.set_ready(false);
    tokio::select! {
        closed = timeout(CLOSE_TIME, parts.engine.close()) => match closed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the store was not closed well"),
            Err(_) => tracing::warn!("the store was not closed in time"),
        },
        () = signals.next() => tracing::warn!("told to stop again: not waiting for the store"),
    }
    tracing::info!("gone");
}
