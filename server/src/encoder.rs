//! Encoders behind an async handle: one thread and one bounded queue per tower.
//!
//! An input is admitted, prepared (a picture is decoded, a text becomes ids), queued, and encoded in a batch with those that
//! wait beside it. Nothing of that runs on tokio's own threads. `tower` is the queue with its thread, `pulse` what health
//! knows of it.

mod pulse;
#[cfg(test)]
mod tests;
mod tower;

use std::sync::Arc;

use diptych_model::preprocess::ImageLimits;
use diptych_model::{Encoder, PreparedImage, PreparedText, Vectors};
use diptych_proto::v1::ErrorReason;

use self::tower::{Sizes, Tower};
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

    /// Whether both threads live and neither is stuck.
    pub fn healthy(&self) -> bool {
        self.images.healthy() && self.texts.healthy()
    }

    /// The vectors of a picture file.
    ///
    /// # Errors
    /// What is wrong with the picture, under the field `image`; RESOURCE_EXHAUSTED `QUEUE_FULL`.
    pub async fn image(&self, bytes: bytes::Bytes) -> Result<Embedded> {
        let place = self.images.admit()?;
        let encoder = Arc::clone(&self.encoder);
        let limits = self.settings.image_limits;
        let prepare = move || encoder.prepare_image(&bytes, &limits);
        let prepared = self.images.prepare(prepare).await?;
        let vectors = self.images.encode(place, prepared).await?;
        Ok(Embedded { vectors, used_bytes: None })
    }

    /// The vectors of a text; with `truncate`, one that is too long is cut.
    ///
    /// # Errors
    /// What is wrong with the text, under the field `text`; RESOURCE_EXHAUSTED `QUEUE_FULL`.
    pub async fn text(&self, text: &str, truncate: bool) -> Result<Embedded> {
        let used = self.within_limit(text, truncate)?.to_owned();
        let cut_before = used.len() < text.len();
        let place = self.texts.admit()?;
        let encoder = Arc::clone(&self.encoder);
        let prepare = move || encoder.prepare_text(&used, truncate);
        let prepared = self.texts.prepare(prepare).await?;
        let cut = cut_before || prepared.truncated();
        let used_bytes = cut.then(|| prepared.used_bytes());
        let vectors = self.texts.encode(place, prepared).await?;
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
