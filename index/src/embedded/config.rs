//! Settings of the embedded engine.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Settings of the embedded engine.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder; made when missing. One engine at a time may have it open.
    pub path: PathBuf,
    /// Rows per (modality, space) up from which a graph is built. 0 builds one at once.
    pub exact_below: usize,
    /// How many rows are scanned in the time that a graph walk takes for each unit of its width
    /// (`ef`). A walk is taken only where it is the cheaper way.
    pub walk_cost_rows: usize,
    /// First size of the store's map in bytes: address space, not memory. It doubles when full.
    pub map_bytes: usize,
    /// Threads that scan; 0 for one per core.
    pub scan_threads: usize,
    /// Threads that build graphs; 0 for half of the cores, at least one.
    pub build_threads: usize,
    /// Milliseconds since 1970-01-01 UTC. Replaced in tests.
    pub now_ms: fn() -> u64,
}

impl EmbeddedConfig {
    /// Rows below which no graph is worth its building.
    pub const EXACT_BELOW: usize = 20_000;
    /// Measured with the example `bench_scan` at 24,000 x 128: a scan takes 37 ns a row on one
    /// thread, a walk 7 us for each unit of its width on random vectors and less on clustered ones.
    pub const WALK_COST_ROWS: usize = 128;
    /// 4 GiB of address space.
    pub const MAP_BYTES: usize = 4 << 30;

    /// The defaults, for a data folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            exact_below: Self::EXACT_BELOW,
            walk_cost_rows: Self::WALK_COST_ROWS,
            map_bytes: Self::MAP_BYTES,
            scan_threads: 0,
            build_threads: 0,
            now_ms: wall_clock_ms,
        }
    }
}

/// Milliseconds since 1970-01-01 UTC; 0 for a clock set before that.
fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
