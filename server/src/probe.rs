//! A bundle's self-test: one golden input of every modality, asked again now and then through the queues that callers use.
//!
//! When a bundle is opened its golden inputs give their golden vectors, or it is refused. What the first one gives then is kept,
//! and a vector that is another later means that the numbers rot: memory that fails, a library that was swapped. A checkpoint of
//! others has no golden inputs; a letter and a dot stand for them.

use std::time::Duration;

use bytes::Bytes;
use diptych_model::bundle::GoldenInput;
use diptych_model::{Encoder, Modality, Vectors};

use crate::encoder::{Embedded, EncoderHandle, EncoderSettings, Lane, Work};
use crate::error::{Kind, Result};

/// Least cosine between what a golden input gave at first and what it gives now.
const ALIKE: f32 = 1.0 - 1e-3;
/// A grey PNG of 1 x 1 pixel.
pub(crate) const DOT: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b,
    0x55, 0x00, 0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x68, 0x00, 0x00, 0x00,
    0x82, 0x00, 0x81, 0xda, 0x45, 0x08, 0x3b, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae,
    0x42, 0x60, 0x82,
];

/// Golden inputs, and the shared vectors that they gave when the bundle was opened.
#[derive(Debug)]
pub(crate) struct Probe {
    image: Option<(Bytes, Vec<f32>)>,
    text: Option<(String, Vec<f32>)>,
}

impl Probe {
    /// Embeds the first of a bundle's golden inputs of every modality. Computes.
    ///
    /// # Errors
    /// An input that the encoder refuses.
    pub(crate) fn new(
        golden: &[GoldenInput],
        encoder: &Encoder,
        settings: &EncoderSettings,
    ) -> diptych_model::Result<Self> {
        let golden = |modality| {
            golden.iter().find(|input| input.modality == modality).map(|input| input.bytes.as_ref())
        };
        let shared = |vectors: Vec<Vectors>| vectors.into_iter().next().map(|first| first.shared);
        let mut probe = Self { image: None, text: None };
        if encoder.has(Modality::Image) {
            let bytes = golden(Modality::Image).unwrap_or(DOT);
            let prepared = encoder.prepare_image(bytes, &settings.image_limits)?;
            let vector = shared(encoder.encode_images(&[prepared])?);
            probe.image = vector.map(|vector| (Bytes::copy_from_slice(bytes), vector));
        }
        if encoder.has(Modality::Text) {
            let text = golden(Modality::Text);
            let text = text.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or("a");
            let prepared = encoder.prepare_text(text, true)?;
            let vector = shared(encoder.encode_texts(&[prepared])?);
            probe.text = vector.map(|vector| (text.to_owned(), vector));
        }
        Ok(probe)
    }

    /// Has every encoder compute, alone and in a batch, so that it is known what inputs cost.
    ///
    /// # Errors
    /// An input that the encoder refuses.
    pub(crate) fn warm_up(&self, encoders: &EncoderHandle) -> diptych_model::Result<()> {
        let image = self.image.as_ref().map(|(image, _)| image.as_ref());
        encoders.warm_up(image, self.text.as_ref().map(|(text, _)| text.as_str()))
    }

    /// Asks again. An encoder with too much to do to answer in time is fine if others were answered lately.
    ///
    /// # Errors
    /// A sentence that says which encoder is not as it was.
    pub(crate) async fn try_on(
        &self,
        encoders: &EncoderHandle,
        patience: Duration,
    ) -> Result<(), String> {
        // Not from the cache: it is the encoder that is asked.
        let work = Work::here(Lane::Standard).fresh();
        if let Some((image, expected)) = &self.image {
            let asked = tokio::time::timeout(patience, encoders.image(image.clone(), work)).await;
            let lately = encoders.succeeded_within(Modality::Image, patience);
            judge("image", asked.ok(), (expected, lately))?;
        }
        if let Some((text, expected)) = &self.text {
            let asked = tokio::time::timeout(patience, encoders.text(text, true, work)).await;
            let lately = encoders.succeeded_within(Modality::Text, patience);
            judge("text", asked.ok(), (expected, lately))?;
        }
        Ok(())
    }
}

fn judge(
    which: &str,
    answer: Option<Result<Embedded>>,
    (expected, lately): (&[f32], bool),
) -> Result<(), String> {
    let busy = match answer {
        Some(Ok(embedded)) if alike(&embedded.vectors.shared, expected) => return Ok(()),
        Some(Ok(_)) => {
            return Err(format!("the {which} encoder gives another vector than it did at start"));
        }
        Some(Err(error)) if error.kind() != Kind::Overloaded => {
            return Err(format!("the {which} encoder fails: {error}"));
        }
        Some(Err(_)) => "takes no input",
        None => "does not answer",
    };
    match lately {
        true => Ok(()),
        false => Err(format!("the {which} encoder {busy}, and answered nobody lately")),
    }
}

/// Whether two unit vectors point the same way.
fn alike(found: &[f32], expected: &[f32]) -> bool {
    let cosine: f32 = found.iter().zip(expected).map(|(a, b)| a * b).sum();
    found.len() == expected.len() && cosine >= ALIKE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use diptych_model::testing::tiny_bundle;

    use super::*;
    use crate::config::{Config, Flags};
    use crate::encoder::Decoders;
    use crate::error::Error;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn parts() -> (Probe, EncoderHandle) {
        let settings = Config::resolve(&Flags::default(), std::iter::empty()).unwrap().encoder;
        let bundle = tiny_bundle(7).unwrap();
        let encoder = Arc::new(Encoder::open(&bundle).unwrap());
        let probe = Probe::new(&bundle.golden_inputs().unwrap(), &encoder, &settings).unwrap();
        let decoders = Arc::new(Decoders::start(1, 1 << 30).unwrap());
        (probe, EncoderHandle::start(encoder, settings, &decoders).unwrap())
    }

    #[tokio::test]
    async fn an_encoder_passes_while_it_gives_what_it_gave_at_first() {
        let (mut probe, encoders) = parts();
        probe.try_on(&encoders, PATIENCE).await.unwrap();
        let (_, expected) = probe.text.as_mut().unwrap();
        expected.iter_mut().for_each(|value| *value = -*value);
        let told = probe.try_on(&encoders, PATIENCE).await.unwrap_err();
        assert_eq!(told, "the text encoder gives another vector than it did at start");
    }

    #[test]
    fn a_busy_encoder_passes_only_if_it_answered_somebody_lately() {
        let full = || {
            let reason = diptych_proto::v1::ErrorReason::QueueFull;
            Some(Err(Error::new(Kind::Overloaded, reason, "full")))
        };
        for answer in [full(), None] {
            assert!(judge("text", answer.clone(), (&[], true)).is_ok());
            assert!(judge("text", answer, (&[], false)).unwrap_err().contains("nobody lately"));
        }
        let failed = Some(Err(Error::internal("broken")));
        assert!(judge("text", failed, (&[], true)).unwrap_err().contains("broken"));
    }
}
