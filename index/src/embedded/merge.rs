//! Which segments are merged. Sizes are rows that live.

/// Share of ended rows above which a segment is made again without them.
const MOST_ENDED: f64 = 0.2;
/// Fewer ended rows than this are not worth it.
const ENDED_LEAST: usize = 64;

/// Rows that are made a segment, with a graph, where there are others already: a collection that is
/// walked is not to wait for the scan of what is newer.
pub(crate) fn beside_others(exact_below: usize) -> usize {
    exact_below / 4
}

/// The segments, by their place, to be merged together with some new rows: the smallest first, for
/// as long as the next one is no larger than what is merged already. So sizes at least double from
/// one segment to the next, `n` times as many rows make `log2(n)` segments, and a row is built into
/// a graph about that often.
pub(crate) fn with_incoming(sizes: &[usize], incoming: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| sizes[i]);
    let mut total = incoming;
    let mut chosen = Vec::new();
    for i in order {
        if sizes[i] > total.saturating_add(total / 2) {
            break;
        }
        total += sizes[i];
        chosen.push(i);
    }
    chosen
}

/// Two segments or more that have become alike in size since they were made.
pub(crate) fn alike(sizes: &[usize]) -> Option<Vec<usize>> {
    let smallest = (0..sizes.len()).min_by_key(|&i| sizes[i])?;
    let mut others = sizes.to_vec();
    // It is what the others are merged with.
    others[smallest] = usize::MAX;
    let mut chosen = with_incoming(&others, sizes[smallest]);
    chosen.retain(|&i| i != smallest);
    chosen.push(smallest);
    (chosen.len() > 1).then_some(chosen)
}

/// Whether one segment is worth making again for its ended rows.
pub(crate) fn is_worn(rows: usize, ended: usize) -> bool {
    ended == rows || (ended >= ENDED_LEAST && ended as f64 > MOST_ENDED * rows as f64)
}

/// Whether all segments are worth merging to one while nobody writes: the small ones have enough
/// rows to be worth building the large one again.
pub(crate) fn worth_one(sizes: &[usize]) -> bool {
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let rest: usize = sizes.iter().sum::<usize>() - largest;
    rest > 0 && rest >= largest / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_growth_leaves_few_segments_and_builds_a_row_a_few_times() {
        let mut sizes: Vec<usize> = Vec::new();
        let (mut built, mut most) = (0, 0);
        for _ in 0..1000 {
            let chosen = with_incoming(&sizes, 1);
            let merged = 1 + chosen.iter().map(|&i| sizes[i]).sum::<usize>();
            built += merged;
            let kept = sizes.iter().enumerate().filter(|(i, _)| !chosen.contains(i));
            sizes = kept.map(|(_, &size)| size).chain([merged]).collect();
            most = most.max(sizes.len());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 1000);
        assert!(most <= 10, "{most} segments");
        assert!(built <= 6 * 1000, "{built} rows built");
    }

    #[test]
    fn what_has_shrunk_is_merged_and_what_differs_in_size_is_left() {
        assert_eq!(alike(&[100, 1000]), None);
        assert_eq!(alike(&[]), None);
        assert_eq!(alike(&[5]), None);
        assert_eq!(alike(&[140, 1000, 100]), Some(vec![0, 2]));
        assert_eq!(alike(&[160, 1000, 100]), None);
        assert!(is_worn(10, 10) && is_worn(1000, 201));
        assert!(!is_worn(1000, 200) && !is_worn(10, 9));
        assert!(worth_one(&[100, 25]) && !worth_one(&[100, 24]) && !worth_one(&[100]));
    }
}
