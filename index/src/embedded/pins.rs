//! Generations held for later pages of a search.
//!
//! Rows are only ever appended, and a row notes when it ended, so a view also shows every older
//! generation for as long as no row was taken out. Kept generations therefore share the newest
//! view that covers them and cost next to nothing; only a compaction makes an old view hold rows of
//! its own, and those are bounded in bytes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Collections, view::View};
use crate::store::key::CollectionId;

/// Most generations kept, over all collections.
const MOST: usize = 10_000;
/// How often kept views are looked through while there are any.
const PERIOD: Duration = Duration::from_secs(1);

/// How long and how much is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Zero keeps nothing.
    pub(crate) time: Duration,
    /// Of rows that the present views do not hold.
    pub(crate) bytes: usize,
}

/// Kept generations of all collections.
#[derive(Debug)]
pub(crate) struct Pins {
    limits: Limits,
    /// Tells this life of the engine from others.
    seed: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_collection: HashMap<CollectionId, Vec<Family>>,
    /// A task looks through them.
    watched: bool,
}

/// Generations that one view shows.
#[derive(Debug)]
struct Family {
    view: Arc<View>,
    /// Until when each is kept.
    until: BTreeMap<u64, Instant>,
}

impl Pins {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, seed: RandomState::new(), kept: Mutex::default() }
    }

    /// Whether anything is ever kept.
    pub(crate) fn keeps(&self) -> bool {
        !self.limits.time.is_zero()
    }

    /// A collection in this life of the engine; never 0.
    pub(crate) fn epoch(&self, collection: CollectionId) -> u64 {
        self.seed.hash_one(collection) | 1
    }

    /// Keeps the generation of a view.
    pub(crate) fn keep(
        self: &Arc<Self>,
        collection: CollectionId,
        view: &Arc<View>,
        now: &Arc<Collections>,
    ) -> bool {
        if !self.keeps() {
            return false;
        }
        let until = Instant::now() + self.limits.time;
        let mut kept = self.kept.lock();
        if kept.len() >= MOST {
            kept.drop_oldest();
        }
        let families = kept.by_collection.entry(collection).or_default();
        match families.iter_mut().find_map(|family| family.joined_by(view)) {
            Some(family) => drop(family.until.insert(view.generation, until)),
            None => {
                let until = BTreeMap::from([(view.generation, until)]);
                families.push(Family { view: Arc::clone(view), until });
            }
        }
        if !kept.watched {
            kept.watched = true;
            tokio::spawn(watch(Arc::downgrade(self), Arc::downgrade(now)));
        }
        true
    }

    /// A generation that is kept, or still the present one.
    pub(crate) fn find(
        &self,
        collection: CollectionId,
        generation: u64,
        now: &Collections,
    ) -> Option<Arc<View>> {
        let views = present(now);
        if let Some(view) = views.get(&collection)
            && view.generation == generation
        {
            return Some(Arc::clone(view));
        }
        let mut kept = self.kept.lock();
        kept.tidy(&views, self.limits.bytes);
        let families = kept.by_collection.get(&collection)?;
        let family = families.iter().find(|family| family.until.contains_key(&generation))?;
        Some(Arc::new(family.view.at(generation)))
    }

    /// Lets go of everything.
    pub(crate) fn clear(&self) {
        self.kept.lock().by_collection.clear();
    }
}

impl Family {
    /// This family, when one view shows its generations and the view's, which it then holds.
    fn joined_by(&mut self, view: &Arc<View>) -> Option<&mut Self> {
        if view.covers(&self.view) {
            self.view = Arc::clone(view);
        } else if !self.view.covers(view) {
            return None;
        }
        Some(self)
    }
}

impl Kept {
    fn len(&self) -> usize {
        self.by_collection.values().flatten().map(|family| family.until.len()).sum()
    }

    fn drop_oldest(&mut self) {
        let families = self.by_collection.values_mut().flatten();
        let first = |family: &&mut Family| family.until.first_key_value().map(|(_, until)| *until);
        let filled = families.filter(|family| !family.until.is_empty());
        if let Some(family) = filled.min_by_key(first) {
            family.until.pop_first();
        }
    }

    /// Lets go of what is too old, of what collections hold that are gone, and, oldest first, of
    /// what is too much; what present views show is theirs to hold.
    fn tidy(&mut self, views: &HashMap<CollectionId, Arc<View>>, bytes: usize) {
        let now = Instant::now();
        self.by_collection.retain(|collection, families| {
            let Some(view) = views.get(collection) else { return false };
            for family in families.iter_mut() {
                family.until.retain(|_, until| *until > now);
                if view.covers(&family.view) {
                    family.view = Arc::clone(view);
                }
            }
            families.retain(|family| !family.until.is_empty());
            !families.is_empty()
        });
        let is_own = |collection: &CollectionId, family: &Family| {
            views.get(collection).is_none_or(|view| !Arc::ptr_eq(view, &family.view))
        };
        let mut own: Vec<(Option<Instant>, CollectionId, Arc<View>)> = Vec::new();
        for (collection, families) in &self.by_collection {
            for family in families.iter().filter(|family| is_own(collection, family)) {
                let newest = family.until.values().max().copied();
                own.push((newest, *collection, Arc::clone(&family.view)));
            }
        }
        if own.is_empty() {
            return;
        }
        let mut seen: HashSet<usize> = HashSet::new();
        for (_, collection, _) in &own {
            let parts = views.get(collection).into_iter().flat_map(|view| view.parts());
            seen.extend(parts.map(|(address, _)| address));
        }
        own.sort_unstable_by_key(|(newest, ..)| std::cmp::Reverse(*newest));
        let mut total = 0_usize;
        for (_, collection, view) in own {
            for (address, size) in view.parts() {
                if seen.insert(address) {
                    total = total.saturating_add(size);
                }
            }
            if total > bytes
                && let Some(families) = self.by_collection.get_mut(&collection)
            {
                families.retain(|family| !Arc::ptr_eq(&family.view, &view));
            }
        }
    }
}

/// The present view of every collection.
fn present(now: &Collections) -> HashMap<CollectionId, Arc<View>> {
    let collections = now.load();
    collections.values().map(|found| (found.id, found.view.load_full())).collect()
}

/// Tidies from time to time until nothing is kept, so that what nobody asks for any more goes.
async fn watch(pins: Weak<Pins>, now: Weak<Collections>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let (Some(pins), Some(now)) = (pins.upgrade(), now.upgrade()) else { return };
        let views = present(&now);
        let mut kept = pins.kept.lock();
        kept.tidy(&views, pins.limits.bytes);
        if kept.by_collection.is_empty() {
            kept.watched = false;
            return;
        }
    }
}
