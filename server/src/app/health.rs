//! Keeps health true while the server serves.

use std::time::Duration;

use super::stage::Stage;
use crate::grpc::{self, Conditions, HealthReporter};
use crate::models::Models;

/// How often health is compared with what the parts say.
const PERIOD: Duration = Duration::from_millis(500);
/// Least time that an encoder has for a self-test; more where self-tests are rarer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells changes for as long as it is polled; nothing else, since every telling wakes those who watch.
pub(super) async fn follow(stage: &Stage, health: &HealthReporter, mut told: Conditions) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        let now = stage.conditions();
        if now != told {
            let why = stage.readiness().err().unwrap_or_default().into_owned();
            tracing::warn!(encoding = now.encoding, writing = now.writing, why, "health changed");
            grpc::set_health_of(health, now).await;
            told = now;
        }
    }
}

/// Tests every bundle now and then for as long as it is polled.
pub(super) async fn test(stage: &Stage, models: &Models, interval: Duration) {
    let mut period = tokio::time::interval(interval);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The server has just been asked by itself.
    period.tick().await;
    loop {
        period.tick().await;
        let mut outcome = Ok(());
        for model in models.all() {
            outcome = outcome.and(model.self_test(interval.max(PATIENCE)).await);
        }
        stage.tested(outcome);
    }
}
