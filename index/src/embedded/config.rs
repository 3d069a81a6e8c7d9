//! Settings of the embedded engine.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Settings of the embedded engine.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder; made when missing. One engine at a time may have it open.
    pub path: PathBuf,
    /// Rows per (modality, space) up from which they become a segment with a graph. 0 makes one at
    /// once. Once there is one, a quarter as many new rows become another.
    pub exact_below: usize,
    /// How many rows are scanned in the time that a graph walk takes for each unit of its width
    /// (`ef`). A walk is taken only where it is the cheaper way.
    pub walk_cost_rows: usize,
    /// First size of the store's map in bytes: address space, not memory. It doubles when full.
    pub map_bytes: usize,
    /// Folder of snapshots; made when the first is. Leave it to this engine alone.
    pub snapshots: PathBuf,
    /// Bytes on the disk that are held for deletes when it is full; 0 for none.
    pub reserve_bytes: u64,
    /// Threads that scan; 0 for one per core. With one, a search of few rows, and a read of few items, runs on the thread that
    /// polls it, for a millisecond or two.
    pub scan_threads: usize,
    /// Threads that build graphs; 0 for half of the cores, at least one.
    pub build_threads: usize,
    /// How long a generation is kept for later pages of a search; zero for not at all.
    pub pin_time: Duration,
    /// Most bytes of rows that are held for kept generations alone, since they were compacted.
    pub pin_bytes: usize,
    /// Without a write for this long, segments of one (modality, space) are merged to one, where
    /// that is worth its building.
    pub idle_after: Duration,
    /// Milliseconds since 1970-01-01 UTC. Replaced in tests.
    pub now_ms: fn() -> u64,
}

impl EmbeddedConfig {
    /// Rows below which no graph is worth its building.
    pub const EXACT_BELOW: usize = 20_000;
    /// Measured with the example `bench_scan` at 24,000 x 128: a scan takes 37 ns a row on one
    /// thread, a walk 7 us for each unit of its width on random vectors and less on clustered ones.
    pub const WALK_COST_ROWS: usize = 128;
    /// Long enough that a bulk load has ended, short enough to be there when searches begin.
    pub const IDLE_AFTER: Duration = Duration::from_secs(10);
    /// 4 GiB of address space.
    pub const MAP_BYTES: usize = 4 << 30;

    /// As long as a page token lives.
    pub const PIN_TIME: Duration = Duration::from_secs(300);
    /// 256 MiB.
    pub const PIN_BYTES: usize = 256 << 20;
    /// 4 MiB: some hundred pages for each of several commits, and what they free serves the next.
    pub const RESERVE_BYTES: u64 = 4 << 20;

    /// The defaults, for a data folder; snapshots go into a folder of it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            snapshots: path.join("snapshots"),
            reserve_bytes: Self::RESERVE_BYTES,
            path,
            exact_below: Self::EXACT_BELOW,
            walk_cost_rows: Self::WALK_COST_ROWS,
            map_bytes: Self::MAP_BYTES,
            scan_threads: 0,
            build_threads: 0,
            pin_time: Self::PIN_TIME,
            pin_bytes: Self::PIN_BYTES,
            idle_after: Self::IDLE_AFTER,
            now_ms: wall_clock_ms,
        }
    }
}

/// Milliseconds since 1970-01-01 UTC; 0 for a clock set before that.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
