//! Vectors of inputs that were embedded of late, by what was embedded: queries repeat themselves.
//!
//! One cache belongs to one bundle, so a key needs no digest of it. Of equal inputs under way at once, one is computed and the
//! others wait for it, each within its lane and among those as patient as itself: nobody waits behind one whose turn comes later than
//! its own would. Bulk work passes by: what is written comes once, and would push out what is asked. So do tests of the encoder.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Kept;
use sha2::{Digest as _, Sha256};

use super::{Embedded, Lane, Work};
use crate::error::{Error, Result};
use crate::observe;
use crate::timings::EmbedTimings;

/// Up to here a picture is read through where its call runs: it takes less time than another thread does.
const HASH_HERE_BYTES: usize = 64 << 10;
/// What an entry takes besides its vectors, in bytes: its key, its place, the vectors' own headers.
const OVERHEAD: u64 = 160;
/// What an entry is taken to weigh while the cache is laid out, in bytes.
const TYPICAL: u64 = 2048;

/// What was embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// A picture file; a large one is read through on a thread that may compute.
    ///
    /// # Errors
    /// INTERNAL when that ended early.
    pub(super) async fn image(bytes: Bytes) -> Result<Self> {
        if bytes.len() <= HASH_HERE_BYTES {
            return Ok(Self::of(b"image", &bytes));
        }
        let hashed = tokio::task::spawn_blocking(move || Self::of(b"image", &bytes)).await;
        hashed.map_err(|_| Error::internal("a digest ended early"))
    }

    /// A text; with and without `truncate` they fail differently.
    pub(super) fn text(text: &str, truncate: bool) -> Self {
        Self::of(if truncate { b"cut__" } else { b"text_" }, text.as_bytes())
    }

    /// Under which one of equal inputs is computed at a time.
    fn turn(mut self, work: Work) -> Self {
        self.0[0] ^= 1 << (2 * work.lane as u8 + u8::from(work.patient));
        self
    }

    fn of(kind: &[u8; 5], bytes: &[u8]) -> Self {
        Self(Sha256::new_with_prefix(kind).chain_update(bytes).finalize().into())
    }
}

#[derive(Debug, Clone)]
struct InBytes;

impl Weighter<Key, Embedded> for InBytes {
    fn weight(&self, _: &Key, embedded: &Embedded) -> u64 {
        let vectors = &embedded.vectors;
        let floats = vectors.shared.len() + vectors.exclusive.as_ref().map_or(0, Vec::len);
        floats as u64 * 4 + OVERHEAD
    }
}

/// Vectors by what was embedded, bounded in bytes.
#[derive(Debug)]
pub(super) struct Cache {
    kept: Option<Kept<Key, Embedded, InBytes>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Cache {
    /// Keeps about `bytes`; nothing, and computes equal inputs each on their own, for 0.
    pub(super) fn new(bytes: u64) -> Self {
        let typical = usize::try_from(bytes / TYPICAL).unwrap_or(usize::MAX).max(1);
        let kept = (bytes > 0).then(|| Kept::with_weighter(typical, bytes, InBytes));
        Self { kept, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The vectors that are kept under `key`, or what `compute` gives, which is then kept. What fails is not kept, and who waited
    /// for it computes on its own.
    ///
    /// # Errors
    /// Those of `key` and `compute`.
    pub(super) async fn get_or_compute(
        &self,
        work: Work,
        key: impl Future<Output = Result<Key>>,
        compute: impl Future<Output = Result<Embedded>>,
    ) -> Result<Embedded> {
        let Some(kept) = self.kept.as_ref().filter(|_| work.lane != Lane::Bulk && !work.fresh)
        else {
            return compute.await;
        };
        let key = key.await?;
        if let Some(embedded) = kept.get(&key) {
            return Ok(self.found(embedded));
        }
        // Nothing stays under such a key: whoever has its guard computes, and those who come meanwhile get what that gives.
        let turn = key.turn(work);
        let guard = match kept.get_value_or_guard_async(&turn).await {
            Ok(embedded) => return Ok(self.found(embedded)),
            Err(guard) => guard,
        };
        if let Some(embedded) = kept.get(&key) {
            return Ok(self.found(embedded));
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        observe::cache(false);
        let embedded = compute.await?;
        kept.insert(key, embedded.clone());
        // Refused when the key was removed meanwhile, as by one who was as fast.
        drop(guard.insert(embedded.clone()));
        kept.remove(&turn);
        Ok(embedded)
    }

    /// What was kept took no time now.
    fn found(&self, embedded: Embedded) -> Embedded {
        self.hits.fetch_add(1, Ordering::Relaxed);
        observe::cache(true);
        Embedded { timings: EmbedTimings::default(), ..embedded }
    }

    /// How often inputs were found, and how often not.
    pub(super) fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use diptych_model::Vectors;

    use super::*;
    use crate::error::Error;

    fn embedded(value: f32) -> Embedded {
        let vectors = Vectors { shared: vec![value; 64], exclusive: None };
        Embedded { vectors, used_bytes: None, timings: EmbedTimings::default() }
    }

    fn image(bytes: &'static [u8]) -> impl Future<Output = Result<Key>> {
        Key::image(Bytes::from_static(bytes))
    }

    #[tokio::test]
    async fn a_large_picture_has_a_key_like_a_small_one() {
        let large = vec![7; HASH_HERE_BYTES + 1];
        let (one, same) = (Key::image(large.clone().into()), Key::image(large.clone().into()));
        assert_eq!(one.await.unwrap(), same.await.unwrap());
        let other = Key::image(large[1..].to_vec().into()).await.unwrap();
        assert_ne!(Key::image(large.into()).await.unwrap(), other);
    }

    /// Looks up `text`; tells the first component and whether it was computed.
    async fn ask(cache: &Cache, lane: Lane, text: &str) -> (f32, bool) {
        let computed = Cell::new(false);
        let compute = async {
            computed.set(true);
            Ok(embedded(text.len() as f32))
        };
        let found = cache
            .get_or_compute(Work::here(lane), async { Ok(Key::text(text, false)) }, compute)
            .await
            .unwrap();
        (found.vectors.shared[0], computed.get())
    }

    #[tokio::test]
    async fn what_comes_again_is_not_computed_again() {
        let cache = Cache::new(1 << 20);
        assert_eq!(ask(&cache, Lane::Interactive, "cat").await, (3.0, true));
        assert_eq!(ask(&cache, Lane::Standard, "cat").await, (3.0, false));
        assert_eq!(ask(&cache, Lane::Interactive, "cats").await, (4.0, true));
        assert_eq!(cache.hits_and_misses(), (1, 2));
    }

    #[tokio::test]
    async fn bulk_work_passes_by_and_so_does_all_without_a_cache() {
        let cache = Cache::new(1 << 20);
        for _ in 0..2 {
            assert!(ask(&cache, Lane::Bulk, "cat").await.1);
            assert!(ask(&Cache::new(0), Lane::Interactive, "cat").await.1);
        }
    }

    #[tokio::test]
    async fn a_picture_a_text_and_a_text_that_may_be_cut_are_three_things() {
        let keys = [image(b"a").await.unwrap(), Key::text("a", false), Key::text("a", true)];
        assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
    }

    #[tokio::test]
    async fn equal_inputs_under_way_are_computed_once() {
        let cache = Cache::new(1 << 20);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let first = cache.get_or_compute(Work::here(Lane::Interactive), image(b"a"), async {
            wait.await.ok();
            Ok(embedded(1.0))
        });
        let second = cache.get_or_compute(Work::here(Lane::Interactive), image(b"a"), async {
            Err(Error::internal("was computed twice"))
        });
        let (first, second, ()) = tokio::join!(first, second, async { go.send(()).unwrap() });
        assert_eq!(first.unwrap().vectors, second.unwrap().vectors);
    }

    #[tokio::test]
    async fn what_failed_or_was_given_up_is_computed_by_who_waited() {
        let cache = Cache::new(1 << 20);
        let key = || image(b"a");
        let failing = cache.get_or_compute(Work::here(Lane::Interactive), key(), async {
            Err(Error::internal("no"))
        });
        let waiting =
            cache.get_or_compute(Work::here(Lane::Interactive), key(), async { Ok(embedded(2.0)) });
        let (failed, found) = tokio::join!(failing, waiting);
        assert!(failed.is_err());
        assert_eq!(found.unwrap().vectors, embedded(2.0).vectors);

        let key = || image(b"b");
        let mut left = Box::pin(cache.get_or_compute(
            Work::here(Lane::Interactive),
            key(),
            std::future::pending(),
        ));
        assert!(futures_poll(&mut left).await);
        drop(left);
        let found = cache
            .get_or_compute(Work::here(Lane::Interactive), key(), async { Ok(embedded(3.0)) })
            .await;
        assert_eq!(found.unwrap().vectors, embedded(3.0).vectors);
    }

    /// Polls once; whether it is still pending.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn it_grows_no_larger_than_it_may() {
        let cache = Cache::new(64 * 1024);
        for number in 0..2000 {
            ask(&cache, Lane::Interactive, &format!("text {number}")).await;
        }
        assert!(cache.kept.as_ref().unwrap().weight() <= 64 * 1024);
    }

    #[tokio::test]
    async fn nobody_waits_behind_an_equal_input_of_another_lane_or_of_one_more_patient() {
        let cache = Cache::new(1 << 20);
        let search = Work::here(Lane::Interactive);
        for (ahead, bytes) in [(Work::here(Lane::Standard), b"a"), (search.patient(), b"b")] {
            let key = || image(bytes);
            let mut stuck = Box::pin(cache.get_or_compute(ahead, key(), std::future::pending()));
            assert!(futures_poll(&mut stuck).await);
            let kept = Cache::get_or_compute(&cache, search, key(), async { Ok(embedded(1.0)) });
            assert_eq!(kept.await.unwrap().vectors, embedded(1.0).vectors);
        }
    }
}
