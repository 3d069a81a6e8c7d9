//! From bytes to what the towers read: pixels in `(3, size, size)` and bags of token ids.
//!
//! Training and serving go through the same functions, so that they cannot drift apart. Everything
//! here is pure and bounded: limits are checked before work is done, and no input makes it panic.

pub mod image;
pub mod text;

pub use self::image::{Fit, ImageLimits, ImagePreprocessing, ResizeFilter, decode, decode_memory};
pub use self::text::{TextPreprocessor, TokenBatch, TokenizerConfig, Tokens};
