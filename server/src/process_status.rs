//! What Linux tells of the process in `/proc/self/status`; nothing elsewhere.

/// The file as it was read.
#[derive(Debug)]
pub(crate) struct ProcessStatus(String);

impl ProcessStatus {
    /// Reads it: some microseconds.
    pub(crate) fn read() -> Option<Self> {
        std::fs::read_to_string("/proc/self/status").ok().map(Self)
    }

    /// The number behind a name.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(found, _)| *found == name)?;
        value.split_whitespace().next()?.parse().ok()
    }

    /// The size behind a name, in bytes; the file has it in KiB.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        self.number(name).map(|kib| kib << 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_found_by_their_whole_name() {
        let status = ProcessStatus("Name:\tserver\nThreads:\t7\nVmRSS:\t    12 kB\n".to_owned());
        assert_eq!((status.number("Threads"), status.bytes("VmRSS")), (Some(7), Some(12 << 10)));
        assert_eq!(
            [status.number("Name"), status.number("RSS"), status.bytes("RssAnon")],
            [None; 3]
        );
    }
}
