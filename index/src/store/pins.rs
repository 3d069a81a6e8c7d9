//! Source files that a long read still needs, and faults that tests make.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::{Store, env::fault};
use crate::error::Result;

/// Long reads under way, and the files whose removal waits for their end.
#[derive(Debug, Default)]
pub(super) struct Pins {
    reads: usize,
    waiting: HashSet<[u8; 32]>,
}

/// Keeps source files where they are for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pinned<'a>(&'a Mutex<Pins>);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.lock().reads -= 1;
    }
}

impl Store {
    /// No source file goes from now on, until what this gives is dropped.
    pub(crate) fn pin_sources(&self) -> Pinned<'_> {
        self.pins.lock().reads += 1;
        Pinned(&self.pins)
    }

    /// Removes files that no item names since the last commit, and those that waited for it. Only
    /// the writing thread calls this, after a commit: a file that came back since is named then.
    pub(super) fn remove_unused(&self, unused: HashSet<[u8; 32]>) -> Result<()> {
        let waited = {
            let mut pins = self.pins.lock();
            if pins.reads > 0 {
                pins.waiting.extend(unused);
                return Ok(());
            }
            std::mem::take(&mut pins.waiting)
        };
        for digest in &unused {
            self.sources.remove(digest);
        }
        if !waited.is_empty() {
            let txn = self.read()?;
            for digest in waited.difference(&unused) {
                if self.tables.files.get(&txn, digest).map_err(fault)?.is_none() {
                    self.sources.remove(digest);
                }
            }
        }
        Ok(())
    }
}

/// A failure that a test asks for; nothing outside tests can.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    #[cfg(test)]
    pub(crate) next: Mutex<Option<std::io::ErrorKind>>,
}

impl Fault {
    /// Fails a commit, when a test wants it to.
    #[cfg(test)]
    pub(super) fn check(&self) -> Result<()> {
        match *self.next.lock() {
            None => Ok(()),
            Some(kind) => {
                Err(crate::error::Error::io("write", "db/data.mdb", std::io::Error::from(kind)))
            }
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests fail here")]
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}
