//! Use case: bytes to vectors, without storing anything.

use bytes::Bytes;

use crate::encoder::Embedded;
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

impl Model {
    /// The vectors of one input.
    ///
    /// # Errors
    /// What is wrong with the input, under the field `image` or `text`; an encoder that is overloaded.
    pub async fn embed(&self, input: Input) -> Result<Embedded> {
        match input {
            Input::Image(bytes) => self.encoders().image(bytes).await,
            Input::Text { text, truncate } => self.encoders().text(&text, truncate).await,
        }
    }

    /// [`Model::embed`] for work in the background, behind all callers; texts that are too long are cut.
    ///
    /// # Errors
    /// What is wrong with the input, under the field `image` or `text`.
    pub async fn embed_in_bulk(&self, input: Input) -> Result<Embedded> {
        match input {
            Input::Image(bytes) => self.encoders().image_in_bulk(bytes).await,
            Input::Text { text, .. } => self.encoders().text_in_bulk(&text).await,
        }
    }
}
