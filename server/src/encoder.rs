//! Encoders behind an async handle: one thread and one bounded queue per tower.
//!
//! An input is admitted, prepared (a picture is decoded, a text becomes ids), queued, and encoded in a batch with those that
//! wait beside it. Nothing of that runs on tokio's own threads. `tower` is the queue with its thread, `lanes` what waits in it,
//! `pulse` what health knows of it.

mod lanes;
mod pulse;
#[cfg(test)]
mod tests;
mod tower;

use std::sync::Arc;

use diptych_model::preprocess::ImageLimits;
use diptych_model::{Encoder, PreparedImage, PreparedText, Vectors};
use diptych_proto::v1::ErrorReason;

use self::lanes::Lane;
use self::tower::{Place, Sizes, Tower};
use crate::error::{Error, Result};

/// Sizes of queues and batches.
#[derive(Debug, Clone, Copy)]
pub struct EncoderSettings {
    /// Inputs that may be under way in a tower, from their admission to their answer.
    pub queue_items: usize,
    /// Most pictures in one batch.
    pub batch_images: usize,
    /// Most texts in one batch.
    pub batch_texts: usize,
    /// Inputs of a tower that are prepared at the same time.
    pub decoders: usize,
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
}

/// A bundle's encoders, shared by all requests.
#[derive(Debug)]
pub struct EncoderHandle {
    encoder: Arc<Encoder>,
    images: Tower<PreparedImage>,
    texts: Tower<PreparedText>,
    settings: EncoderSettings,
}

impl EncoderHandle {
    /// Starts the threads of `encoder`. They end when the handle is dropped.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(encoder: Arc<Encoder>, settings: EncoderSettings) -> std::io::Result<Self> {
        let (images, texts) = (Arc::clone(&encoder), Arc::clone(&encoder));
        let sizes =
            |batch| Sizes { places: settings.queue_items, batch, preparing: settings.decoders };
        Ok(Self {
            images: Tower::start("encode-image", sizes(settings.batch_images), move |batch| {
                images.encode_images(batch)
            })?,
            texts: Tower::start("encode-text", sizes(settings.batch_texts), move |batch| {
                texts.encode_texts(batch)
            })?,
            encoder,
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

    /// Whether both threads live and neither is stuck.
    pub fn healthy(&self) -> bool {
        self.images.healthy() && self.texts.healthy()
    }

    /// The vectors of a picture file.
    ///
    /// # Errors
    /// What is wrong with the picture, under the field `image`; RESOURCE_EXHAUSTED `QUEUE_FULL`.
    pub async fn image(&self, bytes: bytes::Bytes) -> Result<Embedded> {
        self.embed_image(Lane::Interactive, self.images.admit()?, bytes).await
    }

    /// [`EncoderHandle::image`] for work in the background: it waits for its turn behind all callers, and is not refused.
    ///
    /// # Errors
    /// What is wrong with the picture, under the field `image`.
    pub async fn image_in_bulk(&self, bytes: bytes::Bytes) -> Result<Embedded> {
        self.embed_image(Lane::Bulk, self.images.admit_bulk().await?, bytes).await
    }

    async fn embed_image(&self, lane: Lane, place: Place, bytes: bytes::Bytes) -> Result<Embedded> {
        let encoder = Arc::clone(&self.encoder);
        let limits = self.settings.image_limits;
        let prepare = move || encoder.prepare_image(&bytes, &limits);
        let prepared = self.images.prepare(lane, prepare).await?;
        let vectors = self.images.encode(lane, place, prepared).await?;
        Ok(Embedded { vectors, used_bytes: None })
    }

    /// The vectors of a text; with `truncate`, one that is too long is cut.
    ///
    /// # Errors
    /// What is wrong with the text, under the field `text`; RESOURCE_EXHAUSTED `QUEUE_FULL`.
    pub async fn text(&self, text: &str, truncate: bool) -> Result<Embedded> {
        let used = self.within_limit(text, truncate)?.to_owned();
        let cut_before = used.len() < text.len();
        self.embed_text((Lane::Interactive, self.texts.admit()?), used, (truncate, cut_before))
            .await
    }

    /// [`EncoderHandle::text`] for work in the background: it waits for its turn behind all callers, and is not refused. A text
    /// that is too long is cut.
    ///
    /// # Errors
    /// What is wrong with the text, under the field `text`.
    pub async fn text_in_bulk(&self, text: &str) -> Result<Embedded> {
        let used = self.within_limit(text, true)?.to_owned();
        let cut_before = used.len() < text.len();
        self.embed_text((Lane::Bulk, self.texts.admit_bulk().await?), used, (true, cut_before))
            .await
    }

    async fn embed_text(
        &self,
        (lane, place): (Lane, Place),
        used: String,
        (truncate, cut_before): (bool, bool),
    ) -> Result<Embedded> {
        let encoder = Arc::clone(&self.encoder);
        let prepare = move || encoder.prepare_text(&used, truncate);
        let prepared = self.texts.prepare(lane, prepare).await?;
        let cut = cut_before || prepared.truncated();
        let used_bytes = cut.then(|| prepared.used_bytes());
        let vectors = self.texts.encode(lane, place, prepared).await?;
        Ok(Embedded { vectors, used_bytes })
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
