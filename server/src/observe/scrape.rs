//! The page of figures, on the ops listener. What is not counted as it happens is read when the page is asked for: queues,
//! collections, bundles, connections, the process.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use diptych_index::{CollectionInfo, Modality};
use prometheus::{GaugeVec, IntCounterVec};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::NONE;
use super::metrics::{COLLECTIONS, METRICS, OTHER};
use crate::encoder::{Lane, LaneLoad};
use crate::listen::Counters;
use crate::ops::Readiness;
use crate::process_status::ProcessStatus;
use crate::service::Service;

/// The text format that the page is in.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long the store may take to tell of its collections; beyond it the page has them as they were.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the page is made of.
pub(crate) struct Scrape {
    counters: Arc<Counters>,
    readiness: Readiness,
    started: SystemTime,
    service: OnceLock<Arc<Service>>,
    /// Figures are set and then written: one page at a time.
    turn: Mutex<()>,
}

impl Scrape {
    pub(crate) fn new(counters: Arc<Counters>, readiness: Readiness) -> Arc<Self> {
        let (service, turn) = (OnceLock::new(), Mutex::new(()));
        Arc::new(Self { counters, readiness, started: SystemTime::now(), service, turn })
    }

    /// The parts are there: from now on they are asked.
    pub(crate) fn watch(&self, service: Arc<Service>) {
        // Parts are made once.
        drop(self.service.set(service));
    }

    /// `/metrics`.
    pub(crate) fn routes(self: Arc<Self>) -> Router {
        let page = move || {
            let scrape = Arc::clone(&self);
            async move { ([(CONTENT_TYPE, TEXT)], scrape.page().await) }
        };
        Router::new().route("/metrics", get(page))
    }

    async fn page(&self) -> String {
        let _turn = self.turn.lock().await;
        let listener = &self.counters;
        set(&METRICS.connections, NONE, listener.connections.load(Ordering::Relaxed) as f64);
        raise(&METRICS.connections_refused, listener.refused.load(Ordering::Relaxed) as u64);
        raise(&METRICS.connections_silent, listener.silent.load(Ordering::Relaxed) as u64);
        set(&METRICS.ready, NONE, f64::from(u8::from((self.readiness)().is_ok())));
        set(&METRICS.server, &[env!("CARGO_PKG_VERSION")], 1.0);
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        set(&METRICS.started_at, NONE, started.as_secs_f64());
        process();
        if let Some(service) = self.service.get() {
            bundles(service);
            match timeout(PATIENCE, service.engine.collections()).await {
                Ok(Ok(known)) => collections(service, known),
                Ok(Err(error)) => tracing::warn!(%error, "the page of figures has old collections"),
                Err(_) => tracing::warn!("the store did not tell of its collections in time"),
            }
        }
        METRICS.page()
    }
}

fn set(gauge: &GaugeVec, labels: &[&str], value: f64) {
    gauge.with_label_values(labels).set(value);
}

fn add(gauge: &GaugeVec, labels: &[&str], value: f64) {
    gauge.with_label_values(labels).add(value);
}

/// Lets a counter follow one that is kept elsewhere.
fn raise(counter: &IntCounterVec, to: u64) {
    let counter = counter.with_label_values(NONE);
    counter.inc_by(to.saturating_sub(counter.get()));
}

/// Queues, summed over bundles, and the bundles themselves.
fn bundles(service: &Service) {
    let gauges =
        [&METRICS.queue_items, &METRICS.queue_cost, &METRICS.queue_predicted_wait, &METRICS.model];
    gauges.iter().for_each(|gauge| gauge.reset());
    let default = service.models.default_model().digest().to_owned();
    for (place, model) in service.models.all().iter().enumerate() {
        let load = model.encoders().load();
        for (modality, lanes) in [("image", load.images), ("text", load.texts)] {
            for (lane, load) in Lane::ALL.into_iter().zip(lanes) {
                queue(&[modality, lane.name()], load);
            }
        }
        let uses = if model.digest() == default { "default" } else { "other" };
        // Every collection may have its bundle, so they are bounded as collections are.
        let digest = if place < COLLECTIONS { model.digest() } else { OTHER };
        set(&METRICS.model, &[digest, uses], 1.0);
    }
}

fn queue(labels: &[&str], LaneLoad { inputs, cost, wait }: LaneLoad) {
    add(&METRICS.queue_items, labels, inputs as f64);
    add(&METRICS.queue_cost, labels, cost.as_secs_f64());
    let predicted = METRICS.queue_predicted_wait.with_label_values(labels);
    predicted.set(predicted.get().max(wait.as_secs_f64()));
}

fn collections(service: &Service, mut known: Vec<CollectionInfo>) {
    let gauges = [
        &METRICS.items,
        &METRICS.generation,
        &METRICS.rows,
        &METRICS.graph_rows,
        &METRICS.ended_rows,
        &METRICS.segments,
        &METRICS.recall,
        &METRICS.compared,
    ];
    gauges.iter().for_each(|gauge| gauge.reset());
    for (info, name) in labelled(&mut known) {
        for modality in [Modality::Image, Modality::Text] {
            let labels = [name, &lower(&modality)];
            add(&METRICS.items, &labels, info.counts.get(modality) as f64);
        }
        for index in &info.index {
            let labels = [name, &lower(&index.modality), &lower(&index.space)];
            add(&METRICS.rows, &labels, index.rows as f64);
            add(&METRICS.graph_rows, &labels, index.graph_rows as f64);
            add(&METRICS.ended_rows, &labels, index.ended as f64);
            add(&METRICS.segments, &labels, index.segments as f64);
        }
        // Neither generations nor shares have a sum that means anything.
        if name == OTHER {
            continue;
        }
        set(&METRICS.generation, &[name], info.generation as f64);
        if let Some(running) = service.gauge.of(info.number) {
            set(&METRICS.recall, &[name], running.recall);
            set(&METRICS.compared, &[name], running.searches as f64);
        }
    }
}

/// Collections in the order in which they were made, each with its label.
fn labelled(known: &mut [CollectionInfo]) -> impl Iterator<Item = (&CollectionInfo, &str)> {
    known.sort_by_key(|info| info.number);
    known.iter().enumerate().map(|(place, info)| {
        (info, if place < COLLECTIONS { info.spec.name.as_str() } else { OTHER })
    })
}

fn lower(name: &impl ToString) -> String {
    name.to_string().to_ascii_lowercase()
}

/// What Linux tells of the process; nothing elsewhere.
fn process() {
    let Some(status) = ProcessStatus::read() else { return };
    if let Some(resident) = status.bytes("VmRSS") {
        set(&METRICS.memory, NONE, resident as f64);
    }
    if let Some(threads) = status.number("Threads") {
        set(&METRICS.threads, NONE, threads as f64);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        set(&METRICS.files, NONE, open.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use diptych_index::{CollectionSpec, Counts, Dims};

    use super::*;

    fn info(number: u32) -> CollectionInfo {
        let dims = Dims { shared: Some(4), exclusive_image: None, exclusive_text: None };
        let spec = CollectionSpec::new(format!("c{number}"), dims);
        let (created_at_ms, generation, index) = (0, 1, Vec::new());
        CollectionInfo { number, spec, created_at_ms, generation, counts: Counts::default(), index }
    }

    #[test]
    fn however_many_collections_there_are_labels_are_few() {
        let mut known: Vec<_> = (0..500).rev().map(info).collect();
        let labels: std::collections::BTreeSet<&str> =
            labelled(&mut known).map(|(_, label)| label).collect();
        assert_eq!(labels.len(), COLLECTIONS + 1);
        assert!(labels.contains(OTHER) && labels.contains("c0") && !labels.contains("c50"));
    }

    #[tokio::test]
    async fn the_page_tells_of_the_process_and_the_listener_before_the_store_is_open() {
        let counters = Arc::new(Counters::default());
        counters.refused.store(7, Ordering::Relaxed);
        let starting: Readiness = Arc::new(|| Err("starting".into()));
        let scrape = Scrape::new(counters, starting);
        let page = scrape.page().await;
        assert!(page.contains("\ndiptych_ready 0\n"), "{page}");
        assert!(page.contains("\ndiptych_connections_refused_total 7\n"));
        assert!(page.contains("\n# TYPE process_resident_memory_bytes gauge\n"));
        // Asked again, a counter does not grow by itself.
        assert!(scrape.page().await.contains("\ndiptych_connections_refused_total 7\n"));
    }
}
