//! Engines, items and vectors for the tests.

use std::{future::Future, path::Path, sync::Arc};

use diptych_index::{
    BuilderKind, CollectionSpec, DeleteBatch, Dims, EmbeddedConfig, EmbeddedEngine, Engine, ItemId,
    Metadata, Modality, Nearest, Neighbours, NewItem, PutBatch, PutOutcome, Selection, Space,
    Value, Vectors,
};

/// Collection of most tests.
pub(crate) const NAME: &str = "things";
/// Its dimensions; odd, so that vector instructions leave a rest.
pub(crate) const DIMS: Dims =
    Dims { shared: Some(19), exclusive_image: Some(5), exclusive_text: Some(3) };

/// Every way to make an engine that the suite runs over.
pub(crate) const CONSTRUCTORS: [(&str, usize, BuilderKind); 3] = [
    ("scan only", EmbeddedConfig::EXACT_BELOW, BuilderKind::Native),
    ("graphs at once", 0, BuilderKind::Native),
    ("graphs of hnsw_rs at once", 0, BuilderKind::HnswRs),
];

/// An engine with an empty collection [`NAME`].
pub(crate) struct Fixture {
    pub(crate) engine: Arc<EmbeddedEngine>,
    pub(crate) config: EmbeddedConfig,
}

/// Runs a case over every engine.
pub(crate) fn over_engines<F: Future<Output = ()>>(case: impl Fn(Fixture) -> F) {
    for (name, exact_below, graph) in CONSTRUCTORS {
        println!("engine: {name}");
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig { exact_below, ..small(folder.path()) };
            let engine = Arc::new(EmbeddedEngine::open(&config).unwrap());
            engine.create_collection(CollectionSpec { graph, ..spec(NAME) }).await.unwrap();
            case(Fixture { engine, config }).await;
            // Held here: a case that takes one part of its fixture lets go of the others.
            drop(folder);
        });
    }
}

impl Fixture {
    /// Closes the engine and opens its folder again.
    pub(crate) async fn reopen(&mut self) {
        self.engine.close().await.unwrap();
        self.engine = Arc::new(EmbeddedEngine::open(&self.config).unwrap());
    }
}

pub(crate) fn run<T>(case: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(case)
}

/// A map so small that the tests see it grow, and graphs used also where a scan is cheaper.
pub(crate) fn small(folder: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        walk_cost_rows: 8,
        map_bytes: 256 * 1024,
        scan_threads: 2,
        build_threads: 1,
        reserve_bytes: 0,
        ..EmbeddedConfig::new(folder)
    }
}

pub(crate) fn spec(name: &str) -> CollectionSpec {
    CollectionSpec { description: "for a test".to_owned(), ..CollectionSpec::new(name, DIMS) }
}

pub(crate) fn id(id: &str) -> ItemId {
    ItemId::try_new(id).unwrap()
}

/// A repeatable vector: the same seed and length, the same vector.
pub(crate) fn vector(seed: u64, dims: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    // The first numbers of near seeds are alike.
    for _ in 0..8 {
        next();
    }
    (0..dims).map(|_| next()).collect()
}

/// An item whose content follows from the seed.
pub(crate) fn item(name: &str, modality: Modality, seed: u64) -> NewItem {
    let exclusive = DIMS.get(modality, Space::Exclusive).unwrap();
    NewItem {
        id: id(name),
        modality,
        group: None,
        metadata: Metadata::from([("seed".to_owned(), Value::Int(seed as i64))]),
        source: Some(format!("source {seed}").into_bytes()),
        vectors: Vectors {
            shared: Some(vector(seed, DIMS.shared.unwrap())),
            exclusive: Some(vector(seed + 1_000_000, exclusive)),
        },
        expected_version: None,
    }
}

pub(crate) async fn put(engine: &dyn Engine, items: Vec<NewItem>) -> PutOutcome {
    engine.put(NAME, PutBatch { items, ..PutBatch::default() }).await.unwrap()
}

/// `n` items `NAME0`, `NAME1`, ... with seeds from 0 on.
pub(crate) fn many(prefix: &str, modality: Modality, n: u64) -> Vec<NewItem> {
    (0..n).map(|seed| item(&format!("{prefix}{seed}"), modality, seed)).collect()
}

pub(crate) fn delete_ids(ids: &[&str]) -> DeleteBatch {
    let ids = ids.iter().map(|name| id(name)).collect();
    DeleteBatch { selection: Selection::Ids(ids), expected_count: None, request: None }
}

/// A question in the shared space with defaults.
pub(crate) fn nearest(modality: Modality, vector: Vec<f32>, k: usize) -> Nearest {
    Nearest::new(modality, Space::Shared, vector, k)
}

pub(crate) fn names(found: &Neighbours) -> Vec<&str> {
    found.neighbours.iter().map(|near| near.id.as_str()).collect()
}
