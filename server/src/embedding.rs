//! Use case: bytes to vectors, without storing anything.

use bytes::Bytes;

use crate::encoder::{Embedded, Work};
use crate::error::Result;
use crate::models::Model;

/// A picture or a text to embed.
#[derive(Debug, Clone)]
pub enum Input {
    /// A picture file.
    Image(Bytes),
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Cut one that is too long.
        truncate: bool,
    },
}

/// What an input of a batch is, before it is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A picture file.
    Image,
    /// A text.
    Text {
        /// Its length.
        bytes: usize,
    },
}

impl Model {
    /// The vectors of one input.
    ///
    /// # Errors
    /// What is wrong with the input, under the field `image` or `text`; an encoder that is overloaded; a deadline that passed.
    pub async fn embed(&self, input: Input, work: Work) -> Result<Embedded> {
        match input {
            Input::Image(bytes) => self.encoders().image(bytes, work).await,
            Input::Text { text, truncate } => self.encoders().text(&text, truncate, work).await,
        }
    }

    /// Lets a batch of inputs in as a whole, or refuses it: who is let in waits for its turn from then on.
    ///
    /// # Errors
    /// An encoder that is overloaded.
    pub fn admit_batch(&self, batch: &[InputKind], work: Work) -> Result<Work> {
        let mut texts = Vec::new();
        for kind in batch {
            if let InputKind::Text { bytes } = kind {
                texts.push(*bytes);
            }
        }
        self.encoders().admit_batch(batch.len() - texts.len(), &texts, work)?;
        Ok(work.patient())
    }
}
