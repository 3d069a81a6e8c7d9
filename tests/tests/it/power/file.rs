//! One file of a disk that loses power.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::disk::Luck;

/// What a disk writes whole or not at all. LMDB's head, for one, counts on that.
const SECTOR: usize = 512;
/// Sectors that the system writes together when all goes well.
const PAGE_SECTORS: usize = 8;

/// A sector as it was from a moment on.
type Version = (u64, [u8; SECTOR]);

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    /// As a reader sees it.
    seen: Vec<u8>,
    /// As the last sync left it.
    kept: Vec<u8>,
    /// Sectors written since, in all their versions.
    dirty: BTreeMap<usize, Vec<Version>>,
    /// Lengths since.
    sizes: Vec<(u64, usize)>,
}

impl File {
    pub(super) fn durable(bytes: Vec<u8>) -> Self {
        Self { kept: bytes.clone(), seen: bytes, ..Self::default() }
    }

    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    pub(super) fn write(&mut self, (now, durable): (u64, bool), at: usize, data: &[u8]) {
        let end = at + data.len();
        if end > self.seen.len() {
            self.resize(now, end);
        }
        self.seen[at..end].copy_from_slice(data);
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.touch(now, sector);
        }
        if durable {
            self.keep_range(at, end);
        }
    }

    pub(super) fn resize(&mut self, now: u64, bytes: usize) {
        let before = self.seen.len();
        self.seen.resize(bytes, 0);
        self.sizes.push((now, bytes));
        for sector in bytes / SECTOR..before.div_ceil(SECTOR) {
            self.touch(now, sector);
        }
    }

    /// The sectors of a synced write are durable, and the length as far as they need it.
    fn keep_range(&mut self, at: usize, end: usize) {
        if self.kept.len() < end {
            self.kept.resize(end, 0);
            let length = self.seen.len();
            if length == end {
                self.sizes.clear();
            }
        }
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            if let Some((_, bytes)) =
                self.dirty.remove(&sector).and_then(|mut versions| versions.pop())
            {
                place(&mut self.kept, sector, &bytes);
            }
        }
    }

    /// What was written when the trace was `from` bytes long is durable.
    pub(super) fn sync(&mut self, from: u64) {
        let covered = self.sizes.iter().take_while(|(at, _)| *at <= from).count();
        if let Some((_, bytes)) = self.sizes.drain(..covered).next_back() {
            self.kept.resize(bytes, 0);
        }
        let kept = &mut self.kept;
        self.dirty.retain(|sector, versions| {
            let covered = versions.iter().take_while(|(at, _)| *at <= from).count();
            if let Some((_, bytes)) = versions.drain(..covered).next_back() {
                place(kept, *sector, &bytes);
            }
            !versions.is_empty()
        });
    }

    fn touch(&mut self, now: u64, sector: usize) {
        let mut bytes = [0; SECTOR];
        let from = (sector * SECTOR).min(self.seen.len());
        let until = (from + SECTOR).min(self.seen.len());
        bytes[..until - from].copy_from_slice(&self.seen[from..until]);
        self.dirty.entry(sector).or_default().push((now, bytes));
    }

    /// What a power loss leaves of it.
    pub(super) fn after_power_loss(&self, luck: Luck, rng: &mut ChaCha8Rng) -> Vec<u8> {
        if luck.bytes == 1.0 {
            return self.seen.clone();
        }
        let mut bytes = self.kept.clone();
        if !self.sizes.is_empty() && rng.random_bool(luck.bytes) {
            bytes.resize(self.sizes[rng.random_range(0..self.sizes.len())].1, 0);
        }
        let mut page = None;
        for (sector, versions) in &self.dirty {
            let moment = if luck.whole_pages {
                let same = page.filter(|(number, _)| *number == sector / PAGE_SECTORS);
                let moment = same.map_or_else(|| draw(versions, luck, rng), |(_, moment)| moment);
                page = Some((sector / PAGE_SECTORS, moment));
                moment
            } else {
                draw(versions, luck, rng)
            };
            let version =
                versions.iter().rfind(|(at, _)| moment.is_some_and(|moment| *at <= moment));
            if let Some((_, version)) = version {
                place(&mut bytes, *sector, version);
            }
        }
        bytes
    }
}

/// The moment as of which a sector or page reached the disk; `None` when it did not.
fn draw(versions: &[Version], luck: Luck, rng: &mut ChaCha8Rng) -> Option<u64> {
    rng.random_bool(luck.bytes).then(|| versions[rng.random_range(0..versions.len())].0)
}

/// Puts a sector in its place, as far as the file reaches.
fn place(bytes: &mut [u8], sector: usize, content: &[u8; SECTOR]) {
    let from = (sector * SECTOR).min(bytes.len());
    let until = (from + SECTOR).min(bytes.len());
    bytes[from..until].copy_from_slice(&content[..until - from]);
}
