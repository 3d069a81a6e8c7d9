//! Searches while rows come and go and segments are made, merged and swapped: each returns only
//! items that existed in its window, and all that did throughout it.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use diptych_index::{Engine, EngineAdmin as _, Modality, Nearest};

use crate::support::{NAME, delete_ids, item, nearest, over_engines, put, vector};

const WRITERS: usize = 2;
const ITEMS: usize = 600;
const BATCH: usize = 15;

/// How far one item, which is put once and perhaps deleted once, has come.
#[derive(Default)]
struct Life {
    put_asked: AtomicBool,
    put_done: AtomicBool,
    delete_asked: AtomicBool,
    delete_done: AtomicBool,
}

fn name(n: usize) -> String {
    format!("i{n}")
}

fn place(name: &str) -> usize {
    name[1..].parse().unwrap()
}

fn which(lives: &[Life], state: impl Fn(&Life) -> &AtomicBool) -> HashSet<usize> {
    let states = lives.iter().map(|life| state(life).load(Ordering::SeqCst));
    states.enumerate().filter(|(_, is)| *is).map(|(n, _)| n).collect()
}

async fn write(engine: &dyn Engine, lives: &[Life], writer: usize) {
    let mine: Vec<usize> = (0..ITEMS).filter(|n| n % WRITERS == writer).collect();
    for batch in mine.chunks(BATCH) {
        batch.iter().for_each(|&n| lives[n].put_asked.store(true, Ordering::SeqCst));
        let items = batch.iter().map(|&n| item(&name(n), Modality::Image, n as u64));
        put(engine, items.collect()).await;
        batch.iter().for_each(|&n| lives[n].put_done.store(true, Ordering::SeqCst));
        let gone: Vec<usize> = batch.iter().copied().filter(|n| n % 5 < 2).collect();
        gone.iter().for_each(|&n| lives[n].delete_asked.store(true, Ordering::SeqCst));
        let names: Vec<String> = gone.iter().map(|&n| name(n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        engine.delete(NAME, delete_ids(&names)).await.unwrap();
        gone.iter().for_each(|&n| lives[n].delete_done.store(true, Ordering::SeqCst));
    }
}

/// One search, and what it may and must return.
async fn check(engine: &dyn Engine, lives: &[Life], query: Nearest) {
    let there_before = which(lives, |life| &life.put_done);
    let gone_before = which(lives, |life| &life.delete_done);
    let complete = query.k > ITEMS;
    let found = engine.nearest(NAME, query).await.unwrap().neighbours;
    let asked_after = which(lives, |life| &life.put_asked);
    let going_after = which(lives, |life| &life.delete_asked);
    let places: Vec<usize> = found.iter().map(|near| place(near.id.as_str())).collect();
    let once: HashSet<usize> = places.iter().copied().collect();
    assert_eq!(once.len(), places.len(), "an item twice");
    assert!(once.is_subset(&asked_after), "an item that was not put yet");
    assert!(once.is_disjoint(&gone_before), "an item that was gone");
    if complete {
        let throughout: HashSet<usize> = there_before.difference(&going_after).copied().collect();
        assert!(throughout.is_subset(&once), "an item is missing that was there throughout");
    }
}

#[test]
fn searches_see_only_what_existed_in_their_window() {
    over_engines(|fixture| async move {
        let lives: Arc<Vec<Life>> = Arc::new((0..ITEMS).map(|_| Life::default()).collect());
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (engine, lives) = (Arc::clone(&fixture.engine), Arc::clone(&lives));
                tokio::spawn(async move { write(&*engine, &lives, writer).await })
            })
            .collect();
        let compacting = {
            let engine = Arc::clone(&fixture.engine);
            tokio::spawn(async move {
                for _ in 0..5 {
                    engine.compact(NAME, Arc::default()).await.unwrap();
                    engine.settle().await.unwrap();
                }
            })
        };
        let mut seed = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) || !compacting.is_finished()
        {
            seed += 1;
            let query = nearest(Modality::Image, vector(seed, 19), 2 * ITEMS);
            check(&*fixture.engine, &lives, Nearest { exact: seed % 2 == 0, ..query.clone() })
                .await;
            check(&*fixture.engine, &lives, Nearest { k: 10, ..query }).await;
        }
        for task in writers.into_iter().chain([compacting]) {
            task.await.unwrap();
        }
        fixture.engine.compact(NAME, Arc::default()).await.unwrap();
        let query = nearest(Modality::Image, vector(1, 19), 2 * ITEMS);
        let found = fixture.engine.nearest(NAME, query).await.unwrap().neighbours;
        let left: HashSet<usize> = found.iter().map(|near| place(near.id.as_str())).collect();
        assert_eq!(left, (0..ITEMS).filter(|n| n % 5 >= 2).collect());
    });
}
