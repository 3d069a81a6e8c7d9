//! What the system says of this process. Linux tells; others leave a gap in the report.

/// Clock ticks a second in `/proc`, fixed by the kernel's interface.
const TICKS: f64 = 100.0;
/// Kilobytes to bytes.
const KIB: f64 = 1024.0;

/// CPU seconds spent so far, all threads, in user and kernel.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold anything; the fields after it count from the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, kernel): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + kernel) / TICKS)
}

/// Bytes of memory that are resident.
pub(super) fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * KIB)
}

/// CPU seconds spent so far by this thread, to the nanosecond.
pub(super) fn thread_seconds() -> Option<f64> {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: f64 = schedule.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds / 1e9)
}
