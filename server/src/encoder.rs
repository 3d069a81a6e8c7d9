//! Encoders behind an async handle: one thread and one bounded queue per tower.
//!
//! An input is looked up among those embedded of late (`cache`), admitted (`admission`), prepared (a picture is decoded by
//! `decoders`, a text becomes ids), queued (`lanes`), and encoded in a batch with those that wait beside it (`tower`). Nothing of
//! that runs on tokio's own threads, but for what is brief where there is one core (`turns`). `cost` is what batches took, `pulse` what health knows of a thread, `job` an input with its
//! caller.

mod admission;
mod cache;
mod cost;
mod decoders;
mod job;
mod lanes;
mod loads;
mod pulse;
#[cfg(test)]
mod tests;
mod tower;
mod turns;

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_model::preprocess::ImageLimits;
use diptych_model::{Encoder, Modality, PrepareTimes, PreparedImage, PreparedText, Vectors};
use diptych_proto::v1::ErrorReason;

pub use self::admission::Work;
use self::admission::{Before, Place, places_of};
use self::cache::{Cache, Key};
use self::cost::length_class;
pub use self::decoders::Decoders;
use self::decoders::Picture;
use self::job::{Encoded, Input};
use self::lanes::Budget;
pub use self::lanes::Lane;
pub use self::loads::LaneLoad;
use self::tower::{Sizes, Tower};
use self::turns::Turn;
use crate::deadline::exceeded;
use crate::error::{Error, Result};
use crate::observe;
use crate::timings::EmbedTimings;

/// Ids that a text of so many bytes may become, for its admission, before anybody has counted: most words of one id are longer.
const BYTES_PER_ID: usize = 4;
/// A text of so many bytes is tokenized where its call runs: to hand it over takes as long.
const BRIEF_BYTES: usize = 256;

/// Sizes of queues and batches.
#[derive(Debug, Clone, Copy)]
pub struct EncoderSettings {
    /// Inputs that may be under way in a tower, from their admission to their answer.
    pub queue_items: usize,
    /// How long an input may have to wait for its batch, as far as can be told, before its caller is refused.
    pub queue_wait: Duration,
    /// Most pictures in one batch.
    pub batch_images: usize,
    /// Most texts in one batch.
    pub batch_texts: usize,
    /// Most ids of texts in one batch, each text padded.
    pub batch_ids: usize,
    /// Threads that compute: texts that are prepared at the same time; with one, what is brief is computed where its call runs.
    pub threads: usize,
    /// Bytes of vectors that are kept for inputs that come again; 0 for none.
    pub cache_bytes: u64,
    /// How large a picture may be.
    pub image_limits: ImageLimits,
    /// How long a text may be, in bytes; the bundle's own limit holds besides.
    pub text_bytes: usize,
}

/// An embedded input.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The vectors.
    pub vectors: Vectors,
    /// Set when a text was cut: bytes used.
    pub used_bytes: Option<usize>,
    /// Where the time went.
    pub timings: EmbedTimings,
}

/// What a bundle's encoders are doing.
#[derive(Debug, Clone, Copy)]
pub struct EncoderLoad {
    /// In the image tower, by lane.
    pub images: [LaneLoad; 3],
    /// In the text tower, by lane.
    pub texts: [LaneLoad; 3],
    /// Inputs whose vectors were found in the cache.
    pub cache_hits: u64,
    /// Inputs whose vectors were looked for and not found.
    pub cache_misses: u64,
}

/// A bundle's encoders, shared by all requests.
#[derive(Debug)]
pub struct EncoderHandle {
    encoder: Arc<Encoder>,
    images: Tower<PreparedImage>,
    texts: Tower<PreparedText>,
    cache: Cache,
    decoders: Arc<Decoders>,
    settings: EncoderSettings,
}

impl EncoderHandle {
    /// Starts the threads of `encoder`, for pictures that `decoders` prepare. They end when the handle is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        encoder: Arc<Encoder>,
        settings: EncoderSettings,
        decoders: &Arc<Decoders>,
    ) -> std::io::Result<Self> {
        let (images, texts) = (Arc::clone(&encoder), Arc::clone(&encoder));
        let sizes = |batch, by_length| Sizes {
            places: settings.queue_items,
            wait: settings.queue_wait,
            batch,
            by_length,
            preparing: settings.threads,
        };
        let image_batch = Budget { inputs: settings.batch_images, ids: usize::MAX };
        let text_batch = Budget { inputs: settings.batch_texts, ids: settings.batch_ids };
        Ok(Self {
            images: Tower::start(Modality::Image, sizes(image_batch, false), move |batch| {
                let sizes = (batch.len(), settings.batch_images);
                observe::batch(Modality::Image, sizes, || images.encode_images(batch))
            })?,
            texts: Tower::start(
                Modality::Text,
                sizes(text_batch, encoder.pads_texts()),
                move |batch| {
                    let sizes = (batch.len(), settings.batch_texts);
                    observe::batch(Modality::Text, sizes, || texts.encode_texts(batch))
                },
            )?,
            encoder,
            cache: Cache::new(settings.cache_bytes),
            decoders: Arc::clone(decoders),
            settings,
        })
    }

    /// The encoder itself, for what is known without computing, and for bulk work outside the queues.
    pub fn encoder(&self) -> &Arc<Encoder> {
        &self.encoder
    }

    /// Sizes of its queues and batches.
    pub fn settings(&self) -> EncoderSettings {
        self.settings
    }

    /// The threads that prepare its pictures.
    pub fn decoders(&self) -> &Arc<Decoders> {
        &self.decoders
    }

    /// The most bytes that prepared pictures take while they wait for the image tower: one byte a channel and pixel of its
    /// square, in every place of the queue.
    pub fn queue_bytes(&self) -> u64 {
        let side = self.encoder.image_preprocessing().map_or(0, |image| u64::from(image.size));
        3 * side * side * places_of(self.settings.queue_items) as u64
    }

    /// Whether both threads live and neither is stuck.
    pub fn healthy(&self) -> bool {
        self.images.healthy() && self.texts.healthy()
    }

    /// What is under way, and what was found in the cache.
    pub fn load(&self) -> EncoderLoad {
        let (cache_hits, cache_misses) = self.cache.hits_and_misses();
        EncoderLoad {
            images: self.images.admission().load(),
            texts: self.texts.admission().load(),
            cache_hits,
            cache_misses,
        }
    }

    /// Refuses a batch of inputs as a whole when the first of them would wait too long, or the last one be late; once this let them
    /// in, they are [patient](Work::patient). `texts` are the lengths of the batch's texts, in bytes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL` or `DEADLINE_UNREACHABLE`, with a time to wait.
    pub fn admit_batch(&self, images: usize, texts: &[usize], work: Work) -> Result<()> {
        if images > 0 {
            let classes = vec![0; images].into_iter();
            self.images.admission().check(work, classes, self.decoders.ahead(work))?;
        }
        if !texts.is_empty() {
            let classes = texts.iter().map(|bytes| length_class(bytes / BYTES_PER_ID));
            self.texts.admission().check(work, classes, Before::default())?;
        }
        Ok(())
    }

    /// Has every tower compute alone and in a batch, so that what inputs cost is known before the first caller comes.
    ///
    /// # Errors
    /// An input that cannot be prepared.
    pub fn warm_up(&self, image: Option<&[u8]>, text: Option<&str>) -> diptych_model::Result<()> {
        let (encoder, settings) = (&self.encoder, &self.settings);
        if let Some(image) = image {
            let prepare = || encoder.prepare_image(image, &settings.image_limits);
            self.images.warm_up(settings.batch_images, prepare)?;
        }
        if let Some(text) = text {
            self.texts.warm_up(settings.batch_texts, || encoder.prepare_text(text, true))?;
        }
        Ok(())
    }

    /// Whether an input of this modality became a vector within the last `time`.
    pub fn succeeded_within(&self, modality: Modality, time: Duration) -> bool {
        match modality {
            Modality::Image => self.images.succeeded_within(time),
            Modality::Text => self.texts.succeeded_within(time),
        }
    }

    /// The vectors of a picture file.
    ///
    /// # Errors
    /// What is wrong with the picture, under the field `image`; RESOURCE_EXHAUSTED `QUEUE_FULL` or `DEADLINE_UNREACHABLE`;
    /// DEADLINE_EXCEEDED.
    pub async fn image(&self, bytes: bytes::Bytes, work: Work) -> Result<Embedded> {
        let key = Key::image(bytes.clone());
        self.cache.get_or_compute(work, key, self.compute_image(bytes.clone(), work)).await
    }

    async fn compute_image(&self, bytes: bytes::Bytes, work: Work) -> Result<Embedded> {
        let picture = Picture::look(&self.encoder, bytes, self.settings.image_limits)?;
        let before = self.decoders.before(work, &picture);
        let place = self.images.admission().enter(work, 0, before).await?;
        let encoder = Arc::clone(&self.encoder);
        let began = Instant::now();
        let mut turn = self.turn(work).await;
        let here = turn.as_ref().and_then(|_| self.decoders.prepare_here(&encoder, &picture));
        let (prepared, place) = match here {
            Some(prepared) => (prepared?, place),
            None => {
                turn = None;
                self.decoders.prepare(work, (encoder, place), picture).await?
            }
        };
        let (queued, PrepareTimes { decode, resize }) = (Instant::now(), prepared.times());
        let Encoded { vectors, took, batch } =
            encode(&self.images, (work, turn), place, prepared).await?;
        let wait = began.elapsed().saturating_sub(decode + resize + took);
        let timings = EmbedTimings { wait, decode, resize, encode: took, ..Default::default() };
        observe::embedded((Modality::Image, work.lane), (began, queued), &timings, batch);
        Ok(Embedded { vectors, used_bytes: None, timings })
    }

    /// The vectors of a text; with `truncate`, one that is too long is cut.
    ///
    /// # Errors
    /// What is wrong with the text, under the field `text`; RESOURCE_EXHAUSTED `QUEUE_FULL` or `DEADLINE_UNREACHABLE`;
    /// DEADLINE_EXCEEDED.
    pub async fn text(&self, text: &str, truncate: bool, work: Work) -> Result<Embedded> {
        let used = self.within_limit(text, truncate)?;
        let cut_before = used.len() < text.len();
        let key = async { Ok(Key::text(used, truncate)) };
        let mut embedded = self
            .cache
            .get_or_compute(work, key, self.compute_text(used.to_owned(), truncate, work))
            .await?;
        if cut_before && embedded.used_bytes.is_none() {
            embedded.used_bytes = Some(used.len());
        }
        Ok(embedded)
    }

    async fn compute_text(&self, text: String, truncate: bool, work: Work) -> Result<Embedded> {
        let class = length_class(text.len() / BYTES_PER_ID);
        let brief = text.len() <= BRIEF_BYTES;
        let place = self.texts.admission().enter(work, class, Before::default()).await?;
        let encoder = Arc::clone(&self.encoder);
        let began = Instant::now();
        let turn = match brief {
            true => self.turn(work).await,
            false => None,
        };
        let prepare = move || {
            let began = Instant::now();
            let prepared = encoder.prepare_text(&text, truncate)?;
            Ok((prepared, began.elapsed()))
        };
        let (prepared, tokenize) = match brief {
            true => Tower::<PreparedText>::prepare_here(prepare)?,
            false => self.texts.prepare(work, prepare).await?,
        };
        let queued = Instant::now();
        let used_bytes = prepared.truncated().then(|| prepared.used_bytes());
        let Encoded { vectors, took, batch } =
            encode(&self.texts, (work, turn), place, prepared).await?;
        let wait = began.elapsed().saturating_sub(tokenize + took);
        let timings = EmbedTimings { wait, tokenize, encode: took, ..Default::default() };
        observe::embedded((Modality::Text, work.lane), (began, queued), &timings, batch);
        Ok(Embedded { vectors, used_bytes, timings })
    }

    /// Leave to compute here, for one input that its caller waits for: many are better computed together.
    async fn turn(&self, work: Work) -> Option<Turn<'_>> {
        match work.patient || work.lane == Lane::Bulk {
            true => None,
            false => self.decoders.turns().next().await,
        }
    }

    /// The text as far as the server takes it.
    fn within_limit<'a>(&self, text: &'a str, truncate: bool) -> Result<&'a str> {
        let limit = self.settings.text_bytes;
        if text.len() <= limit {
            return Ok(text);
        }
        if !truncate {
            let sizes = ("bytes", limit as u64, text.len() as u64);
            return Err(Error::limit(ErrorReason::TextTooLong, "text", sizes));
        }
        Ok(&text[..text.floor_char_boundary(limit)])
    }
}

/// The vectors of a prepared input, computed here where it has a turn and is brief, else in its tower.
async fn encode<T: Input>(
    tower: &Tower<T>,
    (work, turn): (Work, Option<Turn<'_>>),
    place: Place,
    input: T,
) -> Result<Encoded> {
    let Some(turn) = turn else { return tower.encode(work, place, input).await };
    if work.until.is_some_and(|until| until <= Instant::now()) {
        return Err(exceeded());
    }
    let encoded = tower.encode_here(work.lane, place, input);
    drop(turn);
    match encoded {
        Ok(encoded) => encoded,
        Err((place, input)) => tower.encode(work, place, input).await,
    }
}
