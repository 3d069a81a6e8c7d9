//! Where points lie in memory: near points beside each other, so that what a walk reads next is
//! often on a page, or in a line, that it has just read.
//!
//! Each point was led to by a point of the layer above that is near it. Points of one layer are put
//! in the order of those, from the top down. The points of each layer stay the first ones.

use super::links::Links;

/// New numbers of points: `old[new]`, given for each point the one that led to it.
pub(super) fn by_leader(layers: &[Links], leaders: &[u32]) -> Vec<u32> {
    let mut old: Vec<u32> = (0..leaders.len() as u32).collect();
    let mut new = old.clone();
    for layer in (0..layers.len()).rev() {
        let from = layers.get(layer + 1).map_or(0, Links::points);
        let own = &mut old[from..layers[layer].points()];
        own.sort_by_key(|&point| (new[leaders[point as usize] as usize], point));
        for (at, &point) in own.iter().enumerate() {
            new[point as usize] = (from + at) as u32;
        }
    }
    old
}

/// The same links between points of new numbers.
pub(super) fn renumbered(layers: &[Links], old: &[u32]) -> Vec<Links> {
    let mut new = vec![0; old.len()];
    for (at, &point) in old.iter().enumerate() {
        new[point as usize] = at as u32;
    }
    let renumber = |links: &Links| {
        let moved = Links::new(links.points(), links.max());
        for (at, &point) in old.iter().enumerate().take(links.points()) {
            moved.set(at as u32, links.of(point).map(|neighbour| new[neighbour as usize]));
        }
        moved
    };
    layers.iter().map(renumber).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_in_the_order_of_their_leaders_and_keep_their_links() {
        let layers = [Links::new(6, 4), Links::new(2, 2)];
        // Points 0 and 1 are on the upper layer; 2 and 4 were led to by 1, the others by 0.
        let old = by_leader(&layers, &[0, 0, 1, 0, 1, 0]);
        assert_eq!(old, [0, 1, 3, 5, 2, 4]);
        layers[0].set(2, [4, 0].into_iter());
        layers[1].set(1, [0].into_iter());
        let moved = renumbered(&layers, &old);
        assert_eq!(moved[0].of(4).collect::<Vec<_>>(), [5, 0]);
        assert_eq!(moved[1].of(1).collect::<Vec<_>>(), [0]);
        assert_eq!(moved[0].of(0).count(), 0);
    }
}
