//! Room on the disk that is held for the time when all else is used up.
//!
//! LMDB copies a page before it changes it, so on a full disk not even a delete can be committed. A
//! file of a few MiB stands in for the pages that deletes will need: it goes when they need them,
//! and comes back when there is room.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

/// Name of the file in the data folder.
const NAME: &str = "reserve";
const STEP: usize = 64 << 10;

/// The file.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// How large it shall be; 0 for none.
    bytes: u64,
    held: u64,
}

impl Reserve {
    /// Takes the room, as far as there is any.
    pub(crate) fn open(folder: &Path, bytes: u64) -> Self {
        let path = folder.join(NAME);
        let held = fs::metadata(&path).map_or(0, |found| found.len()).min(bytes);
        let mut reserve = Self { path, bytes, held };
        if !reserve.refill() {
            tracing::warn!("the disk has no room to hold in reserve: only deletes are taken");
        }
        reserve
    }

    /// Whether there is too little left for deletes, if others used the disk too. A quarter is
    /// enough: pages that deletes give back serve the next ones.
    pub(crate) fn is_spent(&self) -> bool {
        self.held < self.bytes / 4
    }

    /// Whether the disk has no room for a few more pages. LMDB tells a write that ended short, which is how a full disk shows
    /// first, as any other fault of the disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        let path = self.path.with_extension("probe");
        let written = fs::write(&path, vec![1; 2 * STEP]);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "a probe of the disk could not be removed");
        }
        written.is_err_and(|error| error.kind() == ErrorKind::StorageFull)
    }

    /// Gives the room back to the disk; false when there was none.
    pub(crate) fn spend(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        self.held = 0;
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the reserve cannot be given back");
                false
            }
        }
    }

    /// Takes what is missing, as far as there is room. True when enough is held.
    pub(crate) fn refill(&mut self) -> bool {
        if self.held < self.bytes
            && let Err(error) = self.extend()
            && error.kind() != ErrorKind::StorageFull
        {
            tracing::warn!(%error, "the reserve cannot be filled");
        }
        !self.is_spent()
    }

    fn extend(&mut self) -> std::io::Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        // No zeros: a file system may keep those for nothing. Nor the same again and again.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ self.held;
        let mut block = vec![0; STEP];
        while self.held < self.bytes {
            for word in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let step = usize::try_from(self.bytes - self.held).unwrap_or(STEP).min(STEP);
            file.write_all(&block[..step])?;
            self.held += step as u64;
        }
        Ok(())
    }
}
