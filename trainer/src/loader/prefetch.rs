//! Batches made ahead on a thread of their own.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Loader};
use crate::error::{Error, Result};

/// Batches that wait: enough to hide a slow one, few enough to cost little memory.
const DEPTH: usize = 2;

/// The batches of a range of steps, in order, made ahead of their use.
#[derive(Debug)]
pub struct Prefetch {
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts making the batches of `steps`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut loader: Loader, steps: std::ops::Range<u64>) -> Result<Self> {
        let (sender, batches) = sync_channel(DEPTH);
        let work = move || {
            for step in steps {
                // An error is the last thing sent; a receiver that is gone wants no more.
                let batch = loader.batch(step);
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("loader".into())
            .spawn(work)
            .map_err(|source| Error::io("loader thread", source))?;
        Ok(Self { batches: Some(batches), thread: Some(thread) })
    }

    /// The next batch.
    ///
    /// # Errors
    /// What made the loader stop.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let batches = self.batches.as_ref().ok_or(Error::LoaderStopped)?;
        batches.recv().map_err(|_| Error::LoaderStopped)?
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // The loader notices that nobody listens any more, and ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the loader has been seen as `LoaderStopped` already.
            drop(thread.join());
        }
    }
}
