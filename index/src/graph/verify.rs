//! Is a graph good enough to be served? Compared with a scan, before it is published.

use rayon::prelude::*;

use super::{Ask, Graph, Rows, Sequence};
use crate::{background::paced, kernel};

/// Least share of the true ten nearest that a graph must find.
pub(crate) const LEAST_RECALL: f64 = 0.97;
const QUERIES: usize = 64;
const K: usize = 10;
/// The first is wider than most data needs: who asks for no width gets nearly the right answer.
const WIDTHS: [usize; 4] = [100, 160, 280, 512];
const SEED: u64 = 0x5EED_0F0E;

/// The least width at which the graph finds at least [`LEAST_RECALL`] of the ten nearest rows,
/// averaged over sampled queries; `None` when no width up to 512 does.
///
/// Half of the queries are rows, the other half lie between two rows, as queries from the other
/// modality do.
pub(crate) fn reaches_recall(graph: &dyn Graph, rows: &dyn Rows) -> Option<usize> {
    if rows.len() == 0 {
        return Some(WIDTHS[0]);
    }
    let mut sequence = Sequence::new(SEED);
    let queries: Vec<Vec<f32>> =
        (0..QUERIES).map(|i| query(rows, &mut sequence, i % 2 == 1)).collect();
    // The score of the k-th true neighbour: any row at least as near is a right answer, so equal
    // rows do not count as misses.
    let edges: Vec<f32> = queries.par_iter().map(|query| edge(rows, query)).collect();
    WIDTHS.into_iter().find(|&ef| {
        let found: usize = queries
            .par_iter()
            .zip(&edges)
            .map(|(query, &edge)| {
                let ask = Ask::new(K, ef);
                let found = graph.search(query, &ask).unwrap_or_default();
                let right = found
                    .near
                    .iter()
                    .filter(|near| kernel::dot(query, rows.row(near.row as usize)) >= edge);
                right.count().min(K)
            })
            .sum();
        found as f64 >= LEAST_RECALL * (K.min(rows.len()) * queries.len()) as f64
    })
}

fn query(rows: &dyn Rows, sequence: &mut Sequence, between: bool) -> Vec<f32> {
    let first = rows.row(sequence.below(rows.len()));
    if !between {
        return first.to_vec();
    }
    let second = rows.row(sequence.below(rows.len()));
    let sum: Vec<f32> = first.iter().zip(second).map(|(a, b)| a + b).collect();
    kernel::unit(&sum).unwrap_or_else(|| first.to_vec())
}

fn edge(rows: &dyn Rows, query: &[f32]) -> f32 {
    let mut scores: Vec<f32> =
        paced(0..rows.len()).map(|row| kernel::dot(query, rows.row(row))).collect();
    let last = K.min(scores.len()) - 1;
    *scores.select_nth_unstable_by(last, |a, b| b.total_cmp(a)).1
}
