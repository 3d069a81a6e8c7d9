//! The thread that builds graphs. Searches never wait for it; what it makes is put in place by the
//! writing thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use rayon::ThreadPool;

use super::{
    state::{BuildOrder, Built},
    view::{Base, SlotView},
};
use crate::graph::{self, Rows};

impl Rows for SlotView {
    fn len(&self) -> usize {
        self.rows
    }

    fn row(&self, row: usize) -> &[f32] {
        SlotView::row(self, row).1
    }
}

/// Builds what is ordered until the orders end or `cancel` is set.
pub(crate) fn run(
    orders: &mpsc::Receiver<BuildOrder>,
    pool: &ThreadPool,
    cancel: &Arc<AtomicBool>,
    done: impl Fn(Built),
) {
    while let Ok(order) = orders.recv() {
        if cancel.load(Ordering::Relaxed) {
            return;
        }
        done(pool.install(|| build(&order, cancel)));
    }
}

fn build(order: &BuildOrder, cancel: &AtomicBool) -> Built {
    let rows = order.rows.compacted(order.generation);
    let started = std::time::Instant::now();
    let verified = graph::build(&rows, cancel)
        .and_then(|graph| graph::reaches_recall(graph.as_ref(), &rows).map(|ef| (graph, ef)));
    let count = rows.rows;
    let seconds = started.elapsed().as_secs_f64();
    let modality = order.slot.modality();
    let space = order.slot.space();
    let result = match verified {
        Some((graph, ef_search)) => {
            tracing::info!(%modality, %space, rows = count, ef_search, seconds, "built a graph");
            Some((rows, Arc::new(Base { rows: count, graph, ef_search })))
        }
        None => {
            tracing::warn!(
                %modality, %space, rows = count, seconds,
                "a graph was not good enough or was cancelled; searches go on scanning"
            );
            None
        }
    };
    Built { collection: order.collection, slot: order.slot, rows: order.rows.rows, result }
}
