//! Which groups are for training, which for choosing, which for reporting.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::shards::Split;

/// How large a share of the groups each split gets; the rest is for training.
#[derive(Debug, Clone, Copy)]
pub(in crate::prepare) struct Shares {
    /// The share to choose settings by.
    pub(in crate::prepare) dev: f64,
    /// The share to report on.
    pub(in crate::prepare) test: f64,
    /// What the draw depends on beside the groups' names.
    pub(in crate::prepare) seed: u64,
}

/// Groups that stay together: they share a picture.
#[derive(Debug)]
pub(in crate::prepare) struct Unit<'a> {
    /// The first of their names.
    pub(in crate::prepare) name: &'a str,
    /// How many groups they are.
    pub(in crate::prepare) groups: usize,
}

/// Draws a split for each unit. Units are taken in the order of SHA-256(seed, name): the result
/// depends on the seed and on which groups there are, not on their order.
///
/// Dev and test get their share of the groups, rounded, and at least one unit each when the share is
/// not 0 and there are three units; training always keeps one.
pub(in crate::prepare) fn draw(units: &[Unit<'_>], shares: &Shares) -> Vec<Split> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_cached_key(|&at| key(shares.seed, units[at].name));
    let groups: usize = units.iter().map(|unit| unit.groups).sum();
    let mut splits = vec![Split::Train; units.len()];
    let asked = [(Split::Test, shares.test), (Split::Dev, shares.dev)];
    let asked: Vec<(Split, f64)> = asked.into_iter().filter(|(_, share)| *share > 0.0).collect();
    for (number, (split, share)) in asked.iter().enumerate() {
        let mut wanted = ((groups as f64 * share).round() as usize).max(1);
        // What comes after, training among it, must find a unit too.
        let after = asked.len() - number;
        let mut may_take = order.len().saturating_sub(after);
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for &at in &order {
            if may_take > 0 && wanted >= units[at].groups {
                wanted -= units[at].groups;
                may_take -= 1;
                taken.push(at);
            } else {
                left.push(at);
            }
        }
        if taken.is_empty() && may_take > 0 {
            // Every unit is larger than the share: the smallest is the least that can be given.
            let smallest = (0..left.len()).min_by_key(|&place| units[left[place]].groups);
            taken.extend(smallest.map(|place| left.remove(place)));
        }
        for at in taken {
            splits[at] = *split;
        }
        order = left;
    }
    splits
}

/// How many units a draw needs so that no split stays empty.
pub(super) fn least_units(shares: &Shares) -> usize {
    1 + usize::from(shares.dev > 0.0) + usize::from(shares.test > 0.0)
}

fn key(seed: u64, name: &str) -> [u8; 32] {
    Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name.as_bytes()).finalize().into()
}

/// Joins groups that hold the same picture: for each group, the first group it is joined to.
pub(super) fn join(groups: usize, pictures: impl Iterator<Item = ([u8; 32], usize)>) -> Vec<usize> {
    let mut parents: Vec<usize> = (0..groups).collect();
    let mut seen: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    for (digest, group) in pictures {
        let other = *seen.entry(digest).or_insert(group);
        let (one, two) = (root(&mut parents, other), root(&mut parents, group));
        parents[one.max(two)] = one.min(two);
    }
    (0..groups).map(|group| root(&mut parents, group)).collect()
}

fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}
