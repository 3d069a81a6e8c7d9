//! Any sequence of writes, with the engine closed and opened in between, leaves the same items as
//! a map does.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use diptych_index::{
    BuilderKind, ChangeKind, CollectionSpec, DeleteBatch, EmbeddedConfig, EmbeddedEngine, Engine,
    EngineAdmin as _, Fields, Filter, Item, Modality, Nearest, NewItem, Scan, Selection, Space,
    Value, VectorStorage,
};
use proptest::prelude::*;

use crate::support::{NAME, delete_ids, item, nearest, put, run, small, spec, vector};

#[derive(Debug, Clone)]
enum Op {
    Put { id: u8, seed: u64, image: bool, group: Option<u8>, large: bool },
    PutAtVersion { id: u8, seed: u64, right: bool },
    Delete(Vec<u8>),
    DeleteGroup(u8),
    Compact,
    Settle,
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let put =
        (0..12_u8, 0..40_u64, any::<bool>(), proptest::option::of(0..3_u8), any::<u8>()).prop_map(
            |(id, seed, image, group, large)| Op::Put { id, seed, image, group, large: large < 40 },
        );
    let at_version = (0..12_u8, 0..40_u64, any::<bool>())
        .prop_map(|(id, seed, right)| Op::PutAtVersion { id, seed, right });
    let op = prop_oneof![
        6 => put,
        2 => at_version,
        2 => proptest::collection::vec(0..14_u8, 1..4).prop_map(Op::Delete),
        1 => (0..4_u8).prop_map(Op::DeleteGroup),
        1 => Just(Op::Compact),
        1 => Just(Op::Settle),
        1 => Just(Op::Reopen),
    ];
    proptest::collection::vec(op, 1..40)
}

/// What the map remembers of an item.
#[derive(Debug, Clone)]
struct Remembered {
    new: NewItem,
    version: u64,
}

struct World {
    engine: Arc<EmbeddedEngine>,
    config: EmbeddedConfig,
    model: BTreeMap<String, Remembered>,
}

impl World {
    async fn apply(&mut self, op: Op) {
        match op {
            Op::Put { id, seed, image, group, large } => {
                let modality = if image { Modality::Image } else { Modality::Text };
                let mut new = item(&format!("i{id}"), modality, seed);
                new.group = group.map(|group| format!("g{group}"));
                // A few sources of equal content, so that files are shared.
                if large {
                    new.source = Some(vec![seed as u8 % 3; 70_000]);
                }
                self.put(new, true).await;
            }
            Op::PutAtVersion { id, seed, right } => {
                let mut new = item(&format!("i{id}"), Modality::Image, seed);
                let version = self.model.get(new.id.as_str()).map_or(0, |found| found.version);
                new.expected_version = Some(if right { version } else { version + 1 });
                self.put(new, right).await;
            }
            Op::Delete(ids) => {
                let mut names: Vec<String> = ids.iter().map(|id| format!("i{id}")).collect();
                names.sort();
                names.dedup();
                let refs: Vec<&str> = names.iter().map(String::as_str).collect();
                let outcome = self.engine.delete(NAME, delete_ids(&refs)).await.unwrap();
                let there = names.iter().filter(|name| self.model.remove(*name).is_some()).count();
                assert_eq!(outcome.deleted, there as u64);
                assert_eq!(outcome.not_found, (names.len() - there) as u64);
            }
            Op::DeleteGroup(group) => {
                let group = format!("g{group}");
                let selection = Selection::Group(group.clone());
                let batch = DeleteBatch { selection, expected_count: None, request: None };
                let outcome = self.engine.delete(NAME, batch).await.unwrap();
                let before = self.model.len();
                self.model.retain(|_, found| found.new.group.as_ref() != Some(&group));
                assert_eq!(outcome.deleted, (before - self.model.len()) as u64);
            }
            Op::Compact => self.engine.compact(NAME, Arc::default()).await.unwrap(),
            Op::Settle => self.engine.settle().await.unwrap(),
            Op::Reopen => {
                self.engine.close().await.unwrap();
                self.engine = Arc::new(EmbeddedEngine::open(&self.config).unwrap());
            }
        }
    }

    async fn put(&mut self, new: NewItem, accepted: bool) {
        let outcome = put(&*self.engine, vec![new.clone()]).await;
        match &outcome.results[0] {
            Ok(written) => {
                assert!(accepted);
                assert_eq!(written.created, !self.model.contains_key(new.id.as_str()));
                let version = written.version;
                self.model.insert(new.id.to_string(), Remembered { new, version });
            }
            Err(_) => assert!(!accepted),
        }
    }

    async fn compare(&self) {
        let fields = Fields { source: true, vectors: true };
        let scan = Scan { limit: 1000, fields, ..Scan::default() };
        let items = self.engine.scan(NAME, scan).await.unwrap().items;
        assert_eq!(items.len(), self.model.len());
        for (item, (name, remembered)) in items.iter().zip(&self.model) {
            assert_eq!(item.id.as_str(), name);
            self.compare_item(item, remembered);
        }
        for modality in Modality::ALL {
            self.compare_neighbours(modality).await;
        }
        self.compare_log().await;
    }

    /// The log has the last put of each item, in the order of numbers, and no delete of one that came back before.
    async fn compare_log(&self) {
        let page = self.engine.changes(NAME, 0, 100_000).await.unwrap();
        assert!(
            page.complete && !page.more && page.changes.is_sorted_by_key(|change| change.sequence)
        );
        let mut replayed = BTreeMap::new();
        for change in &page.changes {
            match change.kind {
                ChangeKind::Put => replayed.insert(change.id.as_str(), change.sequence),
                ChangeKind::Deleted => replayed.remove(change.id.as_str()),
            };
        }
        let expected = self.model.iter().map(|(name, found)| (name.as_str(), found.version));
        assert!(replayed.into_iter().eq(expected));
    }

    fn compare_item(&self, item: &Item, remembered: &Remembered) {
        let new = &remembered.new;
        assert_eq!(item.version, remembered.version);
        assert_eq!(item.modality, new.modality);
        assert_eq!((&item.group, &item.metadata), (&new.group, &new.metadata));
        assert_eq!(item.source, new.source);
    }

    /// The nearest k are the first k of everything sorted, and everything is there once.
    async fn compare_neighbours(&self, modality: Modality) {
        let ids: Vec<&str> = self
            .model
            .values()
            .filter(|found| found.new.modality == modality)
            .map(|found| found.new.id.as_str())
            .collect();
        let counts = self.engine.collection(NAME).await.unwrap().counts;
        assert_eq!(counts.get(modality), ids.len() as u64);
        for exact in [true, false] {
            let query = Nearest { exact, ..nearest(modality, vector(4_711, 19), 1000) };
            let found = self.engine.nearest(NAME, query.clone()).await.unwrap().neighbours;
            let mut names: Vec<&str> = found.iter().map(|near| near.id.as_str()).collect();
            let in_order = |a: &diptych_index::Neighbour, b: &diptych_index::Neighbour| {
                a.score > b.score || (a.score == b.score && a.id < b.id)
            };
            assert!(found.is_sorted_by(in_order));
            let few = self.engine.nearest(NAME, Nearest { k: 3, ..query }).await.unwrap();
            assert_eq!(few.neighbours, found[..found.len().min(3)]);
            names.sort_unstable();
            assert_eq!(names, ids);
        }
        self.compare_scores_and_filters(modality).await;
        let ids: Vec<_> = ids.into_iter().map(crate::support::id).collect();
        let found = self.engine.vectors(NAME, &ids, Space::Exclusive).await.unwrap();
        assert!(found.iter().all(|found| found.as_ref().unwrap().modality == modality));
    }
}

impl World {
    /// Scores are those of the vectors as stored; a filter leaves what passes it.
    async fn compare_scores_and_filters(&self, modality: Modality) {
        let query = nearest(modality, vector(4_711, 19), 1000);
        let length: f32 = query.vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for exact in [true, false] {
            let max = Bound::Included(Value::Int(20));
            let (field, min) = ("seed".to_owned(), Bound::Unbounded);
            let filter = Some(Arc::new(Filter::Range { field, min, max }));
            let query = Nearest { exact, filter, ..query.clone() };
            let found = self.engine.nearest(NAME, query.clone()).await.unwrap().neighbours;
            let mut names: Vec<&str> = found.iter().map(|near| near.id.as_str()).collect();
            names.sort_unstable();
            let passing = self.model.iter().filter(|(_, remembered)| {
                let seed = &remembered.new.metadata["seed"];
                remembered.new.modality == modality
                    && matches!(seed, Value::Int(seed) if *seed <= 20)
            });
            assert_eq!(names, passing.map(|(name, _)| name.as_str()).collect::<Vec<_>>());
            let ids: Vec<_> = found.iter().map(|near| near.id.clone()).collect();
            let stored = self.engine.vectors(NAME, &ids, Space::Shared).await.unwrap();
            for (near, stored) in found.iter().zip(stored) {
                let stored = stored.unwrap().vector.unwrap();
                let dot: f32 = stored.iter().zip(&query.vector).map(|(a, b)| a * b).sum();
                assert!((near.score - dot / length).abs() < 1e-5);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_writes_and_restarts_equals_a_map(
        ops in ops(),
        exact_below in prop_oneof![Just(0), Just(5), Just(20_000)],
        storage in prop_oneof![
            Just(VectorStorage::F32), Just(VectorStorage::I16), Just(VectorStorage::I8)],
        graph in prop_oneof![Just(BuilderKind::Native), Just(BuilderKind::HnswRs)],
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig { exact_below, ..small(folder.path()) };
            let engine = Arc::new(EmbeddedEngine::open(&config).unwrap());
            engine.create_collection(CollectionSpec { storage, graph, ..spec(NAME) }).await.unwrap();
            let mut world = World { engine, config, model: BTreeMap::new() };
            for op in ops {
                world.apply(op).await;
            }
            world.compare().await;
            world.apply(Op::Reopen).await;
            world.compare().await;
        });
    }
}
