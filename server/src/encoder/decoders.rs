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

use super::admission::{Before, Place, Work};
use super::cost::{CostTable, pixel_class};
use super::lanes::{Budget, Lanes, Waiting};
use super::loads::{Loaded, Loads};
use super::tower::{failed, gone};
use super::turns::Turns;
use crate::deadline::exceeded;
use crate::error::Result;

/// Where there is one core, a picture of so many pixels is prepared where its call runs: it takes about a millisecond at most.
const SMALL_PIXELS: u64 = 300 * 300;
/// One file at a time, whatever it holds.
const ONE: Budget = Budget { inputs: 1, ids: usize::MAX };

/// A picture file of which the head was read.
#[derive(Debug)]
pub(super) struct Picture {
    bytes: Bytes,
    limits: ImageLimits,
    /// The memory that decoding takes, in bytes.
    needed: u64,
    /// Its class of cost.
    class: usize,
}

/// A file with its caller.
struct File {
    encoder: Arc<Encoder>,
    content: Content,
    until: Option<Instant>,
    reply: oneshot::Sender<Result<(PreparedImage, Place)>>,
    /// So that files whose callers left and which nobody has come to yet are no more than there are places.
    place: Place,
}

/// A picture that waits, counted among those under way, until somebody takes it: who decodes it, or its caller who leaves.
type Content = Arc<Mutex<Option<(Picture, Loaded)>>>;

/// Takes the picture of a caller who leaves.
struct Revoked(Content);

impl Drop for Revoked {
    fn drop(&mut self) {
        let left = self.0.lock().take();
        drop(left);
    }
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
    fn decode(self, memory: &Memory, costs: &CostTable) {
        let Self { encoder, content, reply, place, .. } = self;
        let taken = content.lock().take();
        let Some((picture, load)) = taken else { return };
        let outcome = guarded(|| {
            let _held = memory.hold(picture.needed);
            picture.prepare(&encoder, costs)
        });
        drop(load);
        // A caller that left does not need its answer.
        drop(reply.send(outcome.map(|prepared| (prepared, place))));
    }
}

impl Picture {
    /// Reads the head of a file; nothing of it where the bundle cannot read pictures, which is told later.
    ///
    /// # Errors
    /// What is wrong with the picture, as far as its head tells; INTERNAL when that panics.
    pub(super) fn look(encoder: &Encoder, bytes: Bytes, limits: ImageLimits) -> Result<Self> {
        let needed = match encoder.image_preprocessing() {
            Some(_) => guarded(|| decode_memory(&bytes, &limits))?,
            None => 0,
        };
        let [none, one] = [0, 1].map(|pixels| limits.decode_memory(pixels));
        let pixels = needed.saturating_sub(none) / (one - none).max(1);
        Ok(Self { bytes, limits, needed, class: pixel_class(pixels) })
    }

    fn prepare(
        &self,
        encoder: &Encoder,
        costs: &CostTable,
    ) -> diptych_model::Result<PreparedImage> {
        let began = Instant::now();
        let prepared = encoder.prepare_image(&self.bytes, &self.limits)?;
        costs.learn(self.class, 1, began.elapsed());
        Ok(prepared)
    }
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
    costs: Arc<CostTable>,
    under_way: Loads,
    threads: u32,
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
            costs: Arc::default(),
            under_way: Loads::default(),
            threads: u32::try_from(threads).unwrap_or(u32::MAX).max(1),
        };
        for place in 0..threads.max(1) {
            let lanes = Arc::clone(&decoders.lanes);
            let (memory, costs) = (Arc::clone(&decoders.memory), Arc::clone(&decoders.costs));
            std::thread::Builder::new().name(format!("decode-{place}")).spawn(move || {
                while let Some(files) = lanes.take(ONE) {
                    files.into_iter().for_each(|file| file.decode(&memory, &costs));
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
        picture: &Picture,
    ) -> Option<Result<PreparedImage>> {
        let most = picture.limits.decode_memory(SMALL_PIXELS);
        let small = picture.needed <= most && self.lanes.is_empty();
        let _held = small.then(|| self.memory.free(picture.needed)).flatten()?;
        Some(guarded(|| picture.prepare(encoder, &self.costs)))
    }

    /// What a picture that comes now goes through here.
    pub(super) fn before(&self, work: Work, picture: &Picture) -> Before {
        Before { cost: self.costs.input(picture.class, 1), ..self.ahead(work) }
    }

    /// What it waits for, whatever it is.
    pub(super) fn ahead(&self, work: Work) -> Before {
        Before { wait: self.under_way.wait(work.lane) / self.threads, ..Before::default() }
    }

    /// A picture file as the image tower of `encoder` reads it. Skipped when the caller leaves before its turn.
    ///
    /// # Errors
    /// What is wrong with the picture; DEADLINE_EXCEEDED when its turn comes too late; INTERNAL when its decoder panics.
    pub(super) async fn prepare(
        &self,
        work: Work,
        (encoder, place): (Arc<Encoder>, Place),
        picture: Picture,
    ) -> Result<(PreparedImage, Place)> {
        let (reply, answer) = oneshot::channel();
        let load = self.under_way.enter(work.lane, self.costs.input(picture.class, 1));
        let content = Arc::new(Mutex::new(Some((picture, load))));
        let _revoked = Revoked(Arc::clone(&content));
        let file = File { encoder, content, until: work.until, reply, place };
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
