//! Any sequence of writes, restarts and merges, with searches in between: every search answers as a map does, gone through one
//! item after the other. A failure is shrunk to the few steps that it needs.

use std::{collections::BTreeMap, sync::Arc};

use diptych_index::{
    Comparison, DeleteBatch, EmbeddedConfig, EmbeddedEngine, Engine, Filter, Metadata, Modality,
    Nearest, Neighbours, NewItem, PutBatch, Rejection, Scan, Selection, Space, Value,
};
use proptest::prelude::*;

use crate::support::{NAME, delete_ids, id, item, run, small, spec, vector};

/// Cosines in f32 by another order of addition.
const CLOSE: f64 = 1e-5;
const COLOURS: [&str; 3] = ["red", "green", "blue"];

#[derive(Debug, Clone)]
struct New {
    id: u8,
    seed: u64,
    image: bool,
    group: Option<u8>,
}

/// The version that a put expects, by what the map knows.
#[derive(Debug, Clone, Copy)]
enum Expected {
    Right,
    Wrong,
    Absent,
}

#[derive(Debug, Clone)]
enum Op {
    Put(Vec<New>),
    Replace(New, Expected),
    Delete(Vec<u8>),
    DeleteGroup(u8),
    Reopen,
    Settle,
    Search { image: bool, exclusive: bool, seed: u64, k: usize, filter: Option<Filter> },
    List { image: Option<bool>, group: Option<u8>, filter: Option<Filter>, page: usize },
}

fn new() -> impl Strategy<Value = New> {
    (0..30_u8, 0..200_u64, any::<bool>(), proptest::option::of(0..4_u8))
        .prop_map(|(id, seed, image, group)| New { id, seed, image, group })
}

fn filter() -> impl Strategy<Value = Filter> {
    let seed =
        |op, value| Filter::Compare { field: "seed".to_owned(), op, value: Value::Int(value) };
    let colour = |op, colour: usize| Filter::Compare {
        field: "colour".to_owned(),
        op,
        value: Value::String(COLOURS[colour].to_owned()),
    };
    let leaf = prop_oneof![
        (0..200_i64).prop_map(move |value| seed(Comparison::Lt, value)),
        (0..200_i64).prop_map(move |value| seed(Comparison::Ge, value)),
        (0..3_usize).prop_map(move |which| colour(Comparison::Eq, which)),
        (0..3_usize).prop_map(move |which| colour(Comparison::Ne, which)),
        proptest::collection::vec(0..200_i64, 1..6).prop_map(|values| Filter::In {
            field: "seed".to_owned(),
            values: values.into_iter().map(Value::Int).collect(),
        }),
        Just(Filter::Exists { field: "colour".to_owned() }),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Filter::Or),
            inner.prop_map(|filter| Filter::Not(Box::new(filter))),
        ]
    })
}

fn op() -> impl Strategy<Value = Op> {
    let expected =
        prop_oneof![Just(Expected::Right), Just(Expected::Wrong), Just(Expected::Absent)];
    let search = (any::<bool>(), any::<bool>(), any::<u64>(), 1..12_usize)
        .prop_flat_map(|it| (Just(it), proptest::option::of(filter())))
        .prop_map(|((image, exclusive, seed, k), filter)| Op::Search {
            image,
            exclusive,
            seed: seed % 100_000,
            k,
            filter,
        });
    let list = (proptest::option::of(any::<bool>()), proptest::option::of(0..5_u8), 1..9_usize)
        .prop_flat_map(|it| (Just(it), proptest::option::of(filter())))
        .prop_map(|((image, group, page), filter)| Op::List { image, group, filter, page });
    prop_oneof![
        6 => proptest::collection::vec(new(), 1..8).prop_map(Op::Put),
        3 => (new(), expected).prop_map(|(new, expected)| Op::Replace(new, expected)),
        3 => proptest::collection::vec(0..34_u8, 1..5).prop_map(Op::Delete),
        1 => (0..5_u8).prop_map(Op::DeleteGroup),
        1 => Just(Op::Reopen),
        1 => Just(Op::Settle),
        6 => search,
        2 => list,
    ]
}

/// The same as the engine's, in the plainest words: an item's filter is judged on its own metadata.
fn passes(filter: &Filter, metadata: &Metadata) -> bool {
    match filter {
        Filter::And(all) => all.iter().all(|filter| passes(filter, metadata)),
        Filter::Or(any) => any.iter().any(|filter| passes(filter, metadata)),
        Filter::Not(filter) => !passes(filter, metadata),
        Filter::Exists { field } => metadata.contains_key(field),
        Filter::In { field, values } => {
            metadata.get(field).is_some_and(|value| values.contains(value))
        }
        Filter::Compare { field, op, value } => match (metadata.get(field), value) {
            (Some(Value::Int(stored)), Value::Int(value)) => match op {
                Comparison::Lt => stored < value,
                Comparison::Ge => stored >= value,
                _ => panic!("no such comparison is drawn"),
            },
            (Some(Value::String(stored)), Value::String(value)) => match op {
                Comparison::Eq => stored == value,
                Comparison::Ne => stored != value,
                _ => panic!("no such comparison is drawn"),
            },
            _ => false,
        },
        Filter::Range { .. } => panic!("no range is drawn"),
    }
}

struct World {
    engine: Arc<EmbeddedEngine>,
    config: EmbeddedConfig,
    map: BTreeMap<String, (NewItem, u64)>,
}

impl World {
    async fn apply(&mut self, op: Op) {
        match op {
            Op::Put(news) => {
                let items: Vec<NewItem> = news.iter().map(made).collect();
                let outcomes = self.put(items.clone()).await;
                for (item, outcome) in items.into_iter().zip(outcomes) {
                    self.take(item, outcome.unwrap());
                }
            }
            Op::Replace(new, expected) => {
                let mut item = made(&new);
                let there = self.map.get(item.id.as_str()).map(|(_, version)| *version);
                item.expected_version = Some(match expected {
                    Expected::Right => there.unwrap_or(0),
                    Expected::Wrong => there.unwrap_or(0) + 7,
                    Expected::Absent => 0,
                });
                let accepted = item.expected_version == Some(there.unwrap_or(0));
                match self.put(vec![item.clone()]).await.remove(0) {
                    Ok(version) if accepted => self.take(item, version),
                    Err(Rejection::VersionConflict { actual, .. }) if !accepted => {
                        assert_eq!(actual, there);
                    }
                    outcome => panic!("{outcome:?} to {expected:?} of {there:?}"),
                }
            }
            Op::Delete(ids) => {
                let names: Vec<String> = ids.iter().map(|id| format!("i{id}")).collect();
                let refs: Vec<&str> = names.iter().map(String::as_str).collect();
                let outcome = self.engine.delete(NAME, delete_ids(&refs)).await.unwrap();
                let there = names.iter().filter(|name| self.map.remove(*name).is_some()).count();
                assert_eq!(outcome.deleted, there as u64);
            }
            Op::DeleteGroup(group) => self.delete_group(format!("g{group}")).await,
            Op::Reopen => {
                self.engine.close().await.unwrap();
                self.engine = Arc::new(EmbeddedEngine::open(&self.config).unwrap());
            }
            Op::Settle => self.engine.settle().await.unwrap(),
            Op::Search { image, exclusive, seed, k, filter } => {
                let space = if exclusive { Space::Exclusive } else { Space::Shared };
                self.search((modality(image), space), seed, k, filter).await;
            }
            Op::List { image, group, filter, page } => {
                let scan = Scan {
                    limit: page,
                    modality: image.map(modality),
                    group: group.map(|group| format!("g{group}")),
                    filter: filter.map(Arc::new),
                    ..Scan::default()
                };
                self.list(scan).await;
            }
        }
    }

    async fn delete_group(&mut self, group: String) {
        let batch = DeleteBatch {
            selection: Selection::Group(group.clone()),
            request: None,
            expected_count: None,
        };
        let outcome = self.engine.delete(NAME, batch).await.unwrap();
        let before = self.map.len();
        self.map.retain(|_, (item, _)| item.group.as_ref() != Some(&group));
        assert_eq!(outcome.deleted, (before - self.map.len()) as u64);
    }

    async fn put(&self, items: Vec<NewItem>) -> Vec<Result<u64, Rejection>> {
        let batch = PutBatch { items, ..PutBatch::default() };
        let outcome = self.engine.put(NAME, batch).await.unwrap();
        outcome.results.into_iter().map(|result| result.map(|written| written.version)).collect()
    }

    fn take(&mut self, item: NewItem, version: u64) {
        let before = self.map.insert(item.id.to_string(), (item, version));
        assert!(before.is_none_or(|(_, before)| before < version), "versions grow");
    }

    /// The nearest of the map, one item after the other.
    async fn search(&self, place: (Modality, Space), seed: u64, k: usize, filter: Option<Filter>) {
        let (modality, space) = place;
        let of = |(item, _): &(NewItem, u64)| item.vectors.get(space).cloned().unwrap();
        let dims = crate::support::DIMS.get(modality, space).unwrap();
        let query = vector(seed, dims);
        let mut best: Vec<(f64, &str)> = self
            .map
            .values()
            .filter(|(item, _)| {
                let allowed = filter.as_ref().is_none_or(|filter| passes(filter, &item.metadata));
                item.modality == modality && allowed
            })
            .map(|known| (cosine(&query, &of(known)), known.0.id.as_str()))
            .collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        for exact in [true, false] {
            let asked = Nearest {
                filter: filter.clone().map(Arc::new),
                ef_search: 100,
                exact,
                ..Nearest::new(modality, space, query.clone(), k)
            };
            let found = self.engine.nearest(NAME, asked).await.unwrap();
            same_nearest(&found, &best, k, exact);
        }
    }

    async fn list(&self, scan: Scan) {
        let expected = self.map.values().filter(|(item, _)| {
            let allowed = scan.filter.as_ref().is_none_or(|filter| passes(filter, &item.metadata));
            let modality = scan.modality.is_none_or(|modality| item.modality == modality);
            modality
                && allowed
                && scan.group.as_ref().is_none_or(|group| item.group.as_ref() == Some(group))
        });
        let expected: Vec<(&str, u64)> =
            expected.map(|(item, version)| (item.id.as_str(), *version)).collect();
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = self.engine.scan(NAME, Scan { after, ..scan.clone() }).await.unwrap();
            assert!(page.items.len() <= scan.limit);
            listed.extend(page.items.into_iter().map(|item| (item.id.to_string(), item.version)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(
            listed.iter().map(|(id, version)| (id.as_str(), *version)).eq(expected),
            "{listed:?}"
        );
    }
}

/// So few rows are all found by a graph, too: what a walk may miss is measured elsewhere.
fn same_nearest(found: &Neighbours, best: &[(f64, &str)], k: usize, exact: bool) {
    assert_eq!(found.neighbours.len(), k.min(best.len()), "exact: {exact}");
    let mut ids: Vec<&str> = found.neighbours.iter().map(|near| near.id.as_str()).collect();
    for (near, (score, _)) in found.neighbours.iter().zip(best) {
        assert!((f64::from(near.score) - score).abs() < CLOSE, "{near:?}, not {score}");
        let own = best.iter().find(|(_, id)| *id == near.id.as_str()).expect("it is in the map");
        assert!((f64::from(near.score) - own.0).abs() < CLOSE, "{near:?}, not {own:?}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), found.neighbours.len(), "found twice");
}

fn made(new: &New) -> NewItem {
    let mut made = item(&format!("i{}", new.id), modality(new.image), new.seed);
    made.group = new.group.map(|group| format!("g{group}"));
    // Some items have no colour, so that conditions meet missing fields.
    if let Some(colour) = COLOURS.get(new.seed as usize % 4) {
        made.metadata.insert("colour".to_owned(), Value::String((*colour).to_owned()));
    }
    assert_eq!(made.id, id(&format!("i{}", new.id)));
    made
}

fn modality(image: bool) -> Modality {
    if image { Modality::Image } else { Modality::Text }
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_writes_and_searches_answers_as_a_map_does(
        ops in proptest::collection::vec(op(), 1..50),
        exact_below in prop_oneof![Just(0), Just(10), Just(20_000)],
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig { exact_below, ..small(folder.path()) };
            let engine = Arc::new(EmbeddedEngine::open(&config).unwrap());
            engine.create_collection(spec(NAME)).await.unwrap();
            let mut world = World { engine, config, map: BTreeMap::new() };
            for op in ops {
                world.apply(op).await;
            }
        });
    }
}
