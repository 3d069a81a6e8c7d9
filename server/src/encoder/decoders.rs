//! The threads that turn picture files into what image towers read, shared by all bundles.
//!
//! They are few and live as long as the server, so that the memory in which one picture was decoded serves the next. What they
//! hold together is bounded: a picture waits, before its first pixel is decoded, until its share is free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use diptych_model::preprocess::{ImageLimits, decode_memory};
use diptych_model::{Encoder, PreparedImage};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::admission::Work;
use super::lanes::{Budget, Lanes, Waiting};
use super::tower::{failed, gone};
use super::turns::Turns;
use crate::deadline::exceeded;
use crate::error::Result;

/// Where there is one core, a picture of so many pixels is prepared where its call runs: it takes about a millisecond at most.
const SMALL_PIXELS: u64 = 300 * 300;
/// One file at a time, whatever it holds.
const ONE: Budget = Budget { inputs: 1, ids: usize::MAX };

/// A file with its caller.
struct File {
    encoder: Arc<Encoder>,
    bytes: Bytes,
    limits: ImageLimits,
    until: Option<Instant>,
    reply: oneshot::Sender<Result<PreparedImage>>,
}

impl Waiting for File {
    fn length(&self) -> usize {
        1
    }

    fn if_wanted(self, now: Instant) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        if self.until.is_some_and(|until| until <= now) {
            // A caller that left does not need its answer.
            drop(self.reply.send(Err(exceeded())));
            return None;
        }
        Some(self)
    }
}

impl File {
    fn decode(self, memory: &Memory) {
        let Self { encoder, bytes, limits, reply, .. } = self;
        let outcome = guarded(|| {
            let _held = memory.hold(needed(&encoder, &bytes, &limits)?);
            encoder.prepare_image(&bytes, &limits)
        });
        // A caller that left does not need its answer.
        drop(reply.send(outcome));
    }
}

/// The memory that decoding takes, in bytes; none where the bundle cannot read pictures, which is told without a look.
fn needed(encoder: &Encoder, bytes: &[u8], limits: &ImageLimits) -> diptych_model::Result<u64> {
    if encoder.image_preprocessing().is_some() { decode_memory(bytes, limits) } else { Ok(0) }
}

/// A panic is an error like another.
fn guarded<T>(prepare: impl FnOnce() -> diptych_model::Result<T>) -> Result<T> {
    Ok(catch_unwind(AssertUnwindSafe(prepare)).map_err(|_| failed())??)
}

/// The threads, with what waits for them.
pub struct Decoders {
    lanes: Arc<Lanes<File>>,
    memory: Arc<Memory>,
    turns: Turns,
}

impl Decoders {
    /// Starts `threads` threads, which hold at most `memory_bytes` together. They end when this is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(threads: usize, memory_bytes: u64) -> std::io::Result<Self> {
        let decoders = Self {
            lanes: Arc::new(Lanes::new(false)),
            memory: Arc::new(Memory::new(memory_bytes)),
            turns: Turns::new(threads),
        };
        for place in 0..threads.max(1) {
            let lanes = Arc::clone(&decoders.lanes);
            let memory = Arc::clone(&decoders.memory);
            std::thread::Builder::new().name(format!("decode-{place}")).spawn(move || {
                while let Some(files) = lanes.take(ONE) {
                    files.into_iter().for_each(|file| file.decode(&memory));
                }
            })?;
        }
        Ok(decoders)
    }

    /// Turns of the one core, if there is no more.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// A picture file as the image tower of `encoder` reads it, prepared here and now; nothing for one that is not small, or while
    /// others wait.
    pub(super) fn prepare_here(
        &self,
        encoder: &Encoder,
        (bytes, limits): (&[u8], &ImageLimits),
    ) -> Option<Result<PreparedImage>> {
        let needed = match guarded(|| needed(encoder, bytes, limits)) {
            Ok(needed) => needed,
            Err(error) => return Some(Err(error)),
        };
        let small = needed <= limits.decode_memory(SMALL_PIXELS) && self.lanes.is_empty();
        let _held = small.then(|| self.memory.free(needed)).flatten()?;
        Some(guarded(|| encoder.prepare_image(bytes, limits)))
    }

    /// A picture file as the image tower of `encoder` reads it. Skipped when the caller leaves before its turn.
    ///
    /// # Errors
    /// What is wrong with the picture; DEADLINE_EXCEEDED when its turn comes too late; INTERNAL when its decoder panics.
    pub(super) async fn prepare(
        &self,
        work: Work,
        encoder: Arc<Encoder>,
        (bytes, limits): (Bytes, ImageLimits),
    ) -> Result<PreparedImage> {
        let (reply, answer) = oneshot::channel();
        let file = File { encoder, bytes, limits, until: work.until, reply };
        self.lanes.push(work.lane, file).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl std::fmt::Debug for Decoders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Decoders").field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Drop for Decoders {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

/// A number of bytes that is given out in the order of asking, so that a large picture is not passed by small ones for ever.
#[derive(Debug)]
struct Memory {
    whole: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: u64,
    /// Who asks next, and who is served next.
    asked: u64,
    served: u64,
}

impl Memory {
    fn new(whole: u64) -> Self {
        let state = Mutex::new(State { free: whole, asked: 0, served: 0 });
        Self { whole, state, changed: Condvar::new() }
    }

    /// Holds `bytes` if they are free and nobody waits.
    fn free(&self, bytes: u64) -> Option<Held<'_>> {
        let mut state = self.state.lock();
        if state.served != state.asked || state.free < bytes {
            return None;
        }
        state.free -= bytes;
        Some(Held { memory: self, bytes })
    }

    /// Waits for `bytes`, of which none asks for more than there are: settings see to that, and more would wait for ever.
    fn hold(&self, bytes: u64) -> Held<'_> {
        let bytes = bytes.min(self.whole);
        let mut state = self.state.lock();
        let turn = state.asked;
        state.asked += 1;
        while state.served != turn || state.free < bytes {
            self.changed.wait(&mut state);
        }
        state.served += 1;
        state.free -= bytes;
        self.changed.notify_all();
        Held { memory: self, bytes }
    }
}

/// Bytes that are given back when this is dropped, by a panic too.
#[derive(Debug)]
struct Held<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.state.lock().free += self.bytes;
        self.memory.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_is_held_together_never_exceeds_the_whole() {
        let (memory, held) = (Memory::new(10), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [1, 3, 7, 10, 25, 4] {
                let (memory, held) = (&memory, &held);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let part = memory.hold(bytes);
                        assert!(held.fetch_add(part.bytes, Ordering::SeqCst) + part.bytes <= 10);
                        std::thread::yield_now();
                        held.fetch_sub(part.bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(memory.state.lock().free, 10);
    }

    #[test]
    fn a_large_picture_is_not_passed_by_small_ones() {
        let memory = Memory::new(10);
        let order = Mutex::new(Vec::new());
        let first = memory.hold(4);
        let asked = |count| {
            while memory.state.lock().asked < count {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            for (count, bytes) in [(2, 10), (3, 1)] {
                let (memory, order) = (&memory, &order);
                scope.spawn(move || {
                    let held = memory.hold(bytes);
                    order.lock().push(held.bytes);
                });
                asked(count);
            }
            // Six bytes are free, and one is asked for: by one who came later.
            assert!(order.lock().is_empty());
            drop(first);
        });
        assert_eq!(*order.lock(), [10, 1]);
    }

    #[test]
    fn what_a_panic_held_is_free_again() {
        let memory = Memory::new(10);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = memory.hold(10);
            panic!("a bad picture");
        }));
        assert!(panicked.is_err());
        drop(memory.hold(10));
    }
}
