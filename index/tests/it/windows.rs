//! Searches while everything moves: each answers for one generation, with what was there then, and nothing else.
//!
//! Writers note when each state of an item began and ended, in generations. A reply names the generation that it read, which lies
//! between that of the collection before the question and after the answer; when all is over, every reply is held against the notes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use diptych_index::{
    EmbeddedConfig, EmbeddedEngine, Engine, Modality, Nearest, Neighbours, NewItem, PutBatch,
};

use crate::{
    property::cosine,
    support::{NAME, delete_ids, item, nearest, run, small, spec, vector},
};

const WRITERS: u64 = 3;
const STEPS: u64 = 120;
/// Few enough that all three writers see their items replaced, merged and deleted many times.
const IDS: u64 = 40;
const K: usize = 10;

/// One state of one item: there from a generation on, until before another.
#[derive(Debug)]
struct State {
    id: String,
    shared: Vec<f32>,
    from: u64,
    until: u64,
}

/// A search as it was seen.
#[derive(Debug)]
struct Seen {
    query: Vec<f32>,
    exact: bool,
    /// Generations of the collection before the question and after the answer.
    window: (u64, u64),
    reply: Neighbours,
}

/// Puts, replaces and deletes the writer's own ids; gives all states that they had.
async fn write(engine: Arc<EmbeddedEngine>, writer: u64) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    let end = |states: &mut Vec<State>, id: &str, at: u64| {
        let open = states.iter_mut().rev().find(|state| state.id == id);
        if let Some(state) = open.filter(|state| state.until == u64::MAX) {
            state.until = at;
        }
    };
    for step in 0..STEPS {
        let number = |salt: u64| (step * 7 + salt * 13 + writer * 5) % IDS;
        if step % 4 == 3 {
            let id = format!("w{writer}-{}", number(1));
            let outcome = engine.delete(NAME, delete_ids(&[&id])).await.unwrap();
            end(&mut states, &id, outcome.generation);
            continue;
        }
        let mut ids = HashSet::new();
        let items: Vec<NewItem> = (0..6)
            .map(|salt| (salt, format!("w{writer}-{}", number(salt))))
            .filter(|(_, id)| ids.insert(id.clone()))
            .map(|(salt, id)| item(&id, Modality::Image, writer * 1_000_000 + step * 10 + salt))
            .collect();
        let batch = PutBatch { items: items.clone(), ..PutBatch::default() };
        let outcome = engine.put(NAME, batch).await.unwrap();
        for (item, written) in items.into_iter().zip(outcome.results) {
            let from = written.unwrap().version;
            let id = item.id.to_string();
            end(&mut states, &id, from);
            states.push(State { id, shared: item.vectors.shared.unwrap(), from, until: u64::MAX });
        }
    }
    states
}

/// Searches until the writers are done, every other time exactly.
async fn search(engine: Arc<EmbeddedEngine>, done: Arc<AtomicBool>, salt: u64) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let query = vector(salt * 100_000 + seen.len() as u64, 19);
        let exact = seen.len() % 2 == 0;
        let asked = Nearest { exact, ..nearest(Modality::Image, query.clone(), K) };
        let before = engine.collection(NAME).await.unwrap().generation;
        let reply = engine.nearest(NAME, asked).await.unwrap();
        let after = engine.collection(NAME).await.unwrap().generation;
        seen.push(Seen { query, exact, window: (before, after), reply });
    }
    seen
}

/// Merges as often as there is something to merge.
async fn merge(engine: Arc<EmbeddedEngine>, done: Arc<AtomicBool>) -> u64 {
    let mut settled = 0;
    while !done.load(Ordering::Relaxed) {
        engine.settle().await.unwrap();
        settled += 1;
        tokio::task::yield_now().await;
    }
    settled
}

fn check(seen: &Seen, states: &[State]) {
    let generation = seen.reply.generation;
    assert!(
        (seen.window.0..=seen.window.1).contains(&generation),
        "{:?}, {generation}",
        seen.window
    );
    let there = states.iter().filter(|state| (state.from..state.until).contains(&generation));
    let mut best: Vec<(f64, &str)> =
        there.map(|state| (cosine(&seen.query, &state.shared), state.id.as_str())).collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert_eq!(seen.reply.neighbours.len(), K.min(best.len()), "at generation {generation}");
    let ids: HashSet<_> = seen.reply.neighbours.iter().map(|near| near.id.as_str()).collect();
    assert_eq!(ids.len(), seen.reply.neighbours.len(), "found twice at generation {generation}");
    for (near, (score, _)) in seen.reply.neighbours.iter().zip(&best) {
        let own = best.iter().find(|(_, id)| *id == near.id.as_str());
        let (own, _) = own.unwrap_or_else(|| panic!("{} was not there at {generation}", near.id));
        assert!((f64::from(near.score) - own).abs() < 1e-5, "{near:?} of another state, not {own}");
        let missed = (f64::from(near.score) - score).abs() > 1e-5;
        let absent = best.iter().find(|(_, id)| !ids.contains(id));
        assert!(
            !(seen.exact && missed),
            "{near:?} where {score} is the best at {generation}; {absent:?} is not found"
        );
    }
}

#[test]
fn a_search_amid_inserts_deletes_merges_and_swaps_answers_for_one_moment() {
    // A graph at once, so that each merge swaps one in; one now and then; none.
    for exact_below in [0, 60, EmbeddedConfig::EXACT_BELOW] {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let config = EmbeddedConfig { exact_below, ..small(folder.path()) };
            let engine = Arc::new(EmbeddedEngine::open(&config).unwrap());
            engine.create_collection(spec(NAME)).await.unwrap();
            let done = Arc::new(AtomicBool::new(false));
            let searches: Vec<_> = (1..3)
                .map(|salt| tokio::spawn(search(Arc::clone(&engine), Arc::clone(&done), salt)))
                .collect();
            let merges = tokio::spawn(merge(Arc::clone(&engine), Arc::clone(&done)));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| tokio::spawn(write(Arc::clone(&engine), writer)))
                .collect();
            let mut states = Vec::new();
            for writer in writers {
                states.extend(writer.await.unwrap());
            }
            done.store(true, Ordering::Relaxed);
            let mut seen = Vec::new();
            for searching in searches {
                seen.extend(searching.await.unwrap());
            }
            let generations: HashSet<u64> = seen.iter().map(|seen| seen.reply.generation).collect();
            assert!(merges.await.unwrap() > 0 && generations.len() > 5, "nothing moved meanwhile");
            println!("graphs from {exact_below} rows: {} searches", seen.len());
            seen.iter().for_each(|seen| check(seen, &states));
        });
    }
}
