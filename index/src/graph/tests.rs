use std::{collections::HashSet, sync::atomic::AtomicBool};

use super::*;
use crate::kernel;

const DIMS: usize = 24;

struct Matrix(Vec<Vec<f32>>);

impl Rows for Matrix {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.0[row]
    }
}

fn noise(sequence: &mut Sequence) -> Vec<f32> {
    (0..DIMS).map(|_| sequence.below(2_000_001) as f32 / 1e6 - 1.0).collect()
}

/// Tight clusters, one after the other: the order in which a careless insertion goes wrong.
fn clusters(count: usize, each: usize) -> Matrix {
    let mut sequence = Sequence::new(7);
    let mut rows = Vec::new();
    for _ in 0..count {
        let centre = noise(&mut sequence);
        for _ in 0..each {
            let near: Vec<f32> =
                centre.iter().zip(noise(&mut sequence)).map(|(c, n)| c + 0.2 * n).collect();
            rows.push(kernel::unit(&near).unwrap());
        }
    }
    Matrix(rows)
}

#[test]
fn a_graph_over_rows_in_cluster_order_reaches_the_recall_asked_for() {
    let rows = clusters(16, 250);
    let graph = build(&rows, &AtomicBool::new(false)).unwrap();
    let ef = reaches_recall(graph.as_ref(), &rows).expect("good enough");
    let found = graph.search(rows.row(17), ef).unwrap();
    assert!(found.contains(&17));
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len(), "each row once");
}

#[test]
fn equal_rows_are_all_found() {
    let mut rows = clusters(4, 100);
    let copy = rows.0[5].clone();
    rows.0.extend(std::iter::repeat_n(copy, 99));
    let graph = build(&rows, &AtomicBool::new(false)).unwrap();
    let found = graph.search(rows.row(5), 16).unwrap();
    assert!(found.contains(&5));
    assert_eq!(found.iter().filter(|&&row| row >= 400).count(), 99);
}

#[test]
fn few_rows_and_none_are_fine() {
    for n in [0, 1, 2, 3] {
        let rows = Matrix(clusters(1, 3).0.into_iter().take(n).collect());
        let graph = build(&rows, &AtomicBool::new(false)).unwrap();
        assert!(reaches_recall(graph.as_ref(), &rows).is_some());
        assert_eq!(graph.search(&[0.1; DIMS], 10).unwrap().len(), n);
    }
}

#[test]
fn a_cancelled_build_gives_nothing() {
    assert!(build(&clusters(4, 250), &AtomicBool::new(true)).is_none());
}

#[test]
fn a_graph_that_finds_too_little_is_refused() {
    #[derive(Debug)]
    struct Blind;
    impl Graph for Blind {
        fn search(&self, _query: &[f32], ef: usize) -> Option<Vec<u32>> {
            Some((0..ef as u32).collect())
        }
    }
    assert_eq!(reaches_recall(&Blind, &clusters(16, 250)), None);
}
