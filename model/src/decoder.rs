//! Decoders: from a shared and an exclusive code back to a picture or a text.
//!
//! They exist while a model is trained and looked at: objectives that reconstruct own them, and no
//! bundle has one.

mod picture;
mod text;

pub use picture::{PictureDecoder, PictureDecoderShape};
pub use text::{TextDecoder, TextDecoderShape, TextState};
