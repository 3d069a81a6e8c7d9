//! Pages of one generation while items change, and how long a generation is held.

use std::time::Duration;

use diptych_index::{
    EmbeddedConfig, EmbeddedEngine, Engine, Hit, Modality, NewItem, Pages, PinId, Resume,
    SearchQuery, search,
};
use proptest::prelude::*;

use crate::{
    search::{query, shapes},
    support::{
        CONSTRUCTORS, NAME, delete_ids, id, item, many, over_engines, put, run, small, spec,
    },
};

async fn pin(engine: &dyn Engine) -> PinId {
    let pin = engine.pin(NAME).await.unwrap().unwrap();
    assert!(engine.keep(NAME, &pin).await.unwrap());
    pin.id()
}

async fn is_held(engine: &dyn Engine, id: PinId) -> bool {
    engine.pinned(NAME, id).await.unwrap().is_some()
}

async fn delete(engine: &dyn Engine, names: impl Iterator<Item = String>) {
    let names: Vec<String> = names.collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    engine.delete(NAME, delete_ids(&names)).await.unwrap();
}

/// Something written between two pages.
#[derive(Debug, Clone)]
enum Write {
    /// Items from this number on, new or in place of others, as pictures or as texts.
    Put {
        from: u64,
        count: u64,
        seed: u64,
        image: bool,
    },
    Delete {
        from: u64,
        count: u64,
    },
    /// Wait for graphs, so that rows are compacted.
    Settle,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let put = (0..300_u64, 1..60_u64, 0..10_000_u64, prop::bool::weighted(0.8))
        .prop_map(|(from, count, seed, image)| Write::Put { from, count, seed, image });
    let delete = (0..300_u64, 1..60_u64).prop_map(|(from, count)| Write::Delete { from, count });
    prop::collection::vec(prop_oneof![3 => put, 2 => delete, 1 => Just(Write::Settle)], 1..12)
}

async fn apply(engine: &EmbeddedEngine, write: &Write) {
    match *write {
        Write::Put { from, count, seed, image } => {
            let modality = if image { Modality::Image } else { Modality::Text };
            let item = |n| item(&format!("p{n}"), modality, seed + n);
            let items: Vec<NewItem> = (from..from + count).map(item).collect();
            put(engine, items).await;
        }
        Write::Delete { from, count } => {
            delete(engine, (from..from + count).map(|n| format!("p{n}"))).await;
        }
        Write::Settle => engine.settle().await.unwrap(),
    }
}

/// All pages of a held generation, with a write before each but the first.
async fn walk(
    engine: &EmbeddedEngine,
    held: PinId,
    mut query: SearchQuery,
    writes: &[Write],
) -> Vec<Hit> {
    let mut hits: Vec<Hit> = Vec::new();
    let mut writes = writes.iter();
    loop {
        query.pin = Some(engine.pinned(NAME, held).await.unwrap().unwrap());
        let reply = search(engine, NAME, &query).await.unwrap();
        assert_eq!(reply.generation, held.generation);
        hits.extend(reply.hits);
        if !reply.more {
            return hits;
        }
        let last = hits.last().unwrap();
        query.resume = Some(Resume { score: last.score, id: last.id.clone(), seen: hits.len() });
        if let Some(write) = writes.next() {
            apply(engine, write).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_of_a_held_generation_join_to_one_search_of_it_whatever_is_written_between(
        before in writes(),
        between in writes(),
        k in 5_usize..60,
        shape in 0..shapes().len() + 1,
        one_per_group: bool,
        exact_below in 0..CONSTRUCTORS.len(),
    ) {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let (_, exact_below, graph) = CONSTRUCTORS[exact_below];
            let config = EmbeddedConfig { exact_below, ..small(folder.path()) };
            let engine = EmbeddedEngine::open(&config).unwrap();
            engine.create_collection(diptych_index::CollectionSpec { graph, ..spec(NAME) }).await.unwrap();
            put(&engine, many("p", Modality::Image, 250)).await;
            for write in &before {
                apply(&engine, write).await;
            }
            // One past the shapes: an item's own vectors, which the writes may replace.
            let terms = shapes().into_iter().nth(shape).unwrap_or_else(own);
            put(&engine, vec![item("own", Modality::Image, 1)]).await;
            let held = pin(&engine).await;
            let asked = SearchQuery { k, one_per_group, exact: true, ..query(terms) };
            let pin = engine.pinned(NAME, held).await.unwrap();
            let whole = SearchQuery { k: 10_000, pin, ..asked.clone() };
            let whole = search(&engine, NAME, &whole).await.unwrap().hits;
            let gone = Write::Put { from: 0, count: 1, seed: 77, image: true };
            put(&engine, vec![item("own", Modality::Text, 2)]).await;
            let writes: Vec<Write> = [gone].into_iter().chain(between).collect();
            assert_eq!(walk(&engine, held, asked, &writes).await, whole);
        });
    }
}

/// A query by the vectors of the item `own`.
fn own() -> Vec<diptych_index::Term> {
    use diptych_index::{Space, Term, TermSource};
    let term = |space| Term { source: TermSource::Item(id("own")), weight: 1.0, space };
    vec![term(Space::Shared), term(Space::Exclusive)]
}

#[test]
fn terms_that_cancel_out_have_pages_of_one_generation_too() {
    over_engines(|fixture| async move {
        let engine = &*fixture.engine;
        put(engine, many("p", Modality::Image, 50)).await;
        let mut terms = shapes().remove(0);
        terms.push(diptych_index::Term { weight: -1.0, ..terms[0].clone() });
        let held = pin(engine).await;
        let asked = SearchQuery { k: 20, ..query(terms) };
        let writes = [Write::Delete { from: 0, count: 50 }];
        let hits = walk(engine, held, asked, &writes).await;
        assert_eq!(hits.len(), 50);
        assert!(hits.is_sorted_by(|a, b| a.id < b.id));
    });
}

#[test]
fn a_generation_is_held_across_writes_and_compactions() {
    over_engines(|fixture| async move {
        let engine = &*fixture.engine;
        assert_eq!(engine.capabilities().pages, Pages::Pinned);
        put(engine, many("p", Modality::Image, 3_000)).await;
        let first = pin(engine).await;
        put(engine, many("q", Modality::Image, 10)).await;
        let second = pin(engine).await;
        delete(engine, (0..2_500).map(|n| format!("p{n}"))).await;
        engine.settle().await.unwrap();
        for (held, expected) in [(first, 3_000), (second, 3_010)] {
            let pin = engine.pinned(NAME, held).await.unwrap();
            let all = SearchQuery { k: 10_000, exact: true, pin, ..query(shapes().remove(0)) };
            assert_eq!(search(engine, NAME, &all).await.unwrap().hits.len(), expected);
        }
    });
}

#[test]
fn rows_held_for_pages_alone_are_bounded_and_those_of_the_present_are_free() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { pin_bytes: 0, ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        put(&engine, many("p", Modality::Image, 3_000)).await;
        let held = pin(&engine).await;
        put(&engine, many("q", Modality::Image, 10)).await;
        delete(&engine, (0..100).map(|n| format!("p{n}"))).await;
        assert!(is_held(&engine, held).await);
        delete(&engine, (100..2_500).map(|n| format!("p{n}"))).await;
        // The compaction took rows out.
        engine.settle().await.unwrap();
        assert!(!is_held(&engine, held).await);
    });
}

#[test]
fn a_held_generation_ends_with_the_engine_and_with_the_collection() {
    over_engines(|mut fixture| async move {
        put(&*fixture.engine, many("p", Modality::Image, 20)).await;
        let held = pin(&*fixture.engine).await;
        assert!(is_held(&*fixture.engine, held).await);
        fixture.reopen().await;
        assert!(!is_held(&*fixture.engine, held).await);
        let held = pin(&*fixture.engine).await;
        fixture.engine.drop_collection(NAME).await.unwrap();
        fixture.engine.create_collection(spec(NAME)).await.unwrap();
        put(&*fixture.engine, many("p", Modality::Image, 20)).await;
        assert!(!is_held(&*fixture.engine, held).await);
    });
}

#[test]
fn a_generation_is_held_for_as_long_as_it_is_kept() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { pin_time: Duration::from_nanos(1), ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        let held = pin(&engine).await;
        // The present one costs nothing.
        assert!(is_held(&engine, held).await);
        put(&engine, many("p", Modality::Image, 1)).await;
        assert!(!is_held(&engine, held).await);
    });
}

#[test]
fn an_engine_told_to_keep_nothing_says_so() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { pin_time: Duration::ZERO, ..small(folder.path()) };
        let engine = EmbeddedEngine::open(&config).unwrap();
        engine.create_collection(spec(NAME)).await.unwrap();
        assert_eq!(engine.capabilities().pages, Pages::BestEffort);
        let pin = engine.pin(NAME).await.unwrap().unwrap();
        assert!(!engine.keep(NAME, &pin).await.unwrap());
    });
}
