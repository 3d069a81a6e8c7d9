//! What the writing thread knows of one slot's index: what is due, what is under way, which
//! segments are on disk.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    builder::{Outcome, Parts, Work},
    delta::Delta,
    merge,
    segment::Segment,
    view::SlotView,
};
use crate::store::manifest::{Manifest, SegmentRecord};

/// Ended rows of a delta are left in place until there are this many more than a quarter of all.
const COMPACT_LEAST: usize = 1024;
/// Fewest rows of a segment beside others: a delta of fewer is scanned in no time.
const SEGMENT_LEAST: usize = 64;
/// How long after a disk refused a segment it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// When segments are made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// See [`super::EmbeddedConfig::exact_below`].
    pub(crate) exact_below: usize,
    /// Nobody has written for a while.
    pub(crate) idle: bool,
}

/// One slot's index, beside its view.
#[derive(Debug, Default)]
pub(crate) struct SlotState {
    /// Work was ordered and did not come back yet.
    busy: bool,
    /// Rows of the delta that ended.
    ended: usize,
    /// Version and generation of rows that ended while work is under way.
    ended_since: Vec<(u64, u64)>,
    /// The segments that are on disk, by number.
    on_disk: BTreeMap<u64, SegmentRecord>,
    /// What the last commit named.
    committed: Manifest,
    /// The disk refused; no try before this.
    retry_at: Option<Instant>,
    /// Everything is to become one segment.
    compaction: Compaction,
    /// The delta is to lose its ended rows, however few.
    thin_delta: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Compaction {
    #[default]
    None,
    Wanted,
    Ordered,
}

impl SlotState {
    /// A slot whose segments were read from disk. `ended` rows of them belong to no item.
    pub(crate) fn opened(committed: Manifest, loaded: &[Arc<Segment>]) -> Self {
        let found = committed.segments.iter();
        let found = found.filter(|record| loaded.iter().any(|s| s.number == record.number));
        let on_disk = found.map(|record| (record.number, record.clone())).collect();
        Self { committed, on_disk, ..Self::default() }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn is_compacting(&self) -> bool {
        self.compaction != Compaction::None
    }

    /// Has everything made one segment, as it is from now on.
    pub(crate) fn compact(&mut self) {
        self.compaction = Compaction::Wanted;
    }

    /// Whether something is due at a later time, not now.
    pub(crate) fn waits(&self, slot: &SlotView) -> bool {
        !self.busy && (self.retry_at.is_some() || merge::worth_one(&sizes(slot)))
    }

    /// Tries again at once what the disk refused.
    pub(crate) fn retry(&mut self) {
        self.retry_at = self.retry_at.map(|_| Instant::now());
    }

    /// Notes the end of a row.
    pub(crate) fn end(&mut self, slot: &SlotView, version: u64, generation: u64) {
        let in_segment = slot.segments.iter().any(|segment| segment.end(version, generation));
        self.ended += usize::from(!in_segment);
        if self.busy {
            self.ended_since.push((version, generation));
        }
    }

    /// The delta without its ended rows, when they are many.
    pub(crate) fn compacted(&mut self, slot: &SlotView, generation: u64) -> Option<Delta> {
        let many = self.ended > COMPACT_LEAST + slot.delta.rows / 4;
        let wanted = many || (self.thin_delta && self.ended > 0);
        if self.busy || !wanted {
            return None;
        }
        self.ended = 0;
        self.thin_delta = false;
        Some(slot.delta.visible(0..slot.delta.rows, generation))
    }

    /// The next work for the building thread.
    pub(crate) fn due(&mut self, slot: &SlotView, policy: Policy) -> Option<Work> {
        if self.busy {
            return None;
        }
        let work = self.choose(slot, policy)?;
        self.busy = true;
        self.ended_since.clear();
        Some(work)
    }

    fn choose(&mut self, slot: &SlotView, policy: Policy) -> Option<Work> {
        if let Some(segment) = slot.segments.iter().find(|segment| segment.sets().is_none()) {
            return Some(Work::Sets(Arc::clone(segment)));
        }
        if self.compaction == Compaction::Wanted {
            if self.needs_compaction(slot, policy) {
                self.compaction = Compaction::Ordered;
                return Some(everything(slot));
            }
            self.compaction = Compaction::None;
        }
        if let Some(work) = self.merge(slot, policy) {
            return Some(work);
        }
        if let Some(segment) = slot.segments.iter().find(|segment| segment.wants_walk()) {
            return Some(Work::Walk(Arc::clone(segment)));
        }
        let now = Instant::now();
        if self.retry_at.is_none_or(|at| at <= now)
            && let Some(segment) =
                slot.segments.iter().find(|segment| !self.on_disk.contains_key(&segment.number))
        {
            return Some(Work::Save(Arc::clone(segment)));
        }
        (policy.idle && merge::worth_one(&sizes(slot))).then(|| everything(slot))
    }

    /// Whether a merge of everything is what makes it compact: a small delta alone is thinned.
    fn needs_compaction(&mut self, slot: &SlotView, policy: Policy) -> bool {
        let living = slot.delta.rows - self.ended.min(slot.delta.rows);
        if slot.segments.is_empty() && living < policy.exact_below.max(1) {
            self.thin_delta = true;
            return false;
        }
        let whole = slot.segments.len() == 1 && slot.delta.rows == 0;
        !(whole && slot.segments.iter().all(|segment| segment.ended() == 0))
    }

    fn merge(&self, slot: &SlotView, policy: Policy) -> Option<Work> {
        let living = slot.delta.rows - self.ended.min(slot.delta.rows);
        let least = match slot.segments.as_slice() {
            [] => policy.exact_below.max(1),
            _ => merge::beside_others(policy.exact_below).max(SEGMENT_LEAST),
        };
        let sizes = sizes(slot);
        let pick = |places: &[usize]| -> Vec<Arc<Segment>> {
            places.iter().filter_map(|&i| slot.segments.get(i).map(Arc::clone)).collect()
        };
        if living >= least {
            let segments = pick(&merge::with_incoming(&sizes, living));
            return Some(parts(slot, segments, true));
        }
        let worn = slot.segments.iter().find(|s| merge::is_worn(s.len(), s.ended()));
        if let Some(worn) = worn {
            return Some(parts(slot, vec![Arc::clone(worn)], false));
        }
        let alike = merge::alike(&sizes)?;
        Some(parts(slot, pick(&alike), false))
    }

    /// Puts in place what came back.
    pub(crate) fn publish(&mut self, slot: &mut SlotView, outcome: Outcome, generation: u64) {
        self.busy = false;
        if self.compaction == Compaction::Ordered {
            self.compaction = Compaction::None;
        }
        match outcome {
            Outcome::Ready | Outcome::Cancelled => {}
            Outcome::Saved { number, record } => self.note_saved(number, record),
            Outcome::Merged { parts, segment, record } => {
                let gone = |s: &Arc<Segment>| parts.segments.iter().any(|p| p.number == s.number);
                slot.segments.retain(|segment| !gone(segment));
                if let Some(built) = &parts.delta {
                    slot.delta = slot.delta.visible(built.rows..slot.delta.rows, generation);
                    self.ended = 0;
                }
                if let Some(segment) = segment {
                    for &(version, generation) in &self.ended_since {
                        segment.end(version, generation);
                    }
                    self.note_saved(segment.number, record);
                    slot.segments.push(segment);
                }
            }
        }
        self.ended_since.clear();
    }

    fn note_saved(&mut self, number: u64, record: Option<SegmentRecord>) {
        match record {
            Some(record) => {
                self.on_disk.insert(number, record);
                self.retry_at = None;
            }
            None => self.note_refused(),
        }
    }

    /// The disk refused a segment or its commit.
    pub(crate) fn note_refused(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
    }

    /// What the next commit is to name, when that has changed and all of it is on disk. Until then
    /// the files of the last one stay: their rows are told from ended ones by their versions.
    pub(crate) fn manifest(&self, slot: &SlotView) -> Option<Manifest> {
        if self.retry_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let records = slot.segments.iter().map(|s| self.on_disk.get(&s.number).cloned());
        let manifest = Manifest { segments: records.collect::<Option<_>>()? };
        (manifest != self.committed).then_some(manifest)
    }

    /// Notes a commit. Returns the numbers whose files are named no more.
    pub(crate) fn commit(&mut self, manifest: Manifest) -> Vec<u64> {
        let kept = |number: u64| manifest.segments.iter().any(|record| record.number == number);
        let mut unused: Vec<u64> = self.committed.segments.iter().map(|r| r.number).collect();
        unused.extend(self.on_disk.keys());
        unused.retain(|&number| !kept(number));
        self.on_disk.retain(|&number, _| kept(number));
        self.committed = manifest;
        self.retry_at = None;
        unused
    }

    /// Whether every segment is on disk and named.
    pub(crate) fn is_saved(&self, slot: &SlotView) -> bool {
        let named = |number| self.committed.segments.iter().any(|record| record.number == number);
        slot.segments.iter().all(|segment| named(segment.number))
    }
}

fn everything(slot: &SlotView) -> Work {
    parts(slot, slot.segments.clone(), true)
}

fn parts(slot: &SlotView, segments: Vec<Arc<Segment>>, delta: bool) -> Work {
    let Delta { dims, storage, .. } = slot.delta;
    Work::Merge(Parts { dims, storage, segments, delta: delta.then(|| slot.delta.clone()) })
}

fn sizes(slot: &SlotView) -> Vec<usize> {
    slot.segments.iter().map(|segment| segment.living()).collect()
}
