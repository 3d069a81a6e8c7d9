//! Bytes to vectors: preprocessing, tokenizing, towers, heads, bundle.
//!
//! Pure and synchronous; training and serving share it, so that they cannot drift apart.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | the shape of an encoder pair, as a run file and a bundle state it |
//! | [`preprocess`] | bytes to pixels, texts to token ids, within limits |
//! | [`params`] | named weights: seeded for training, given for serving |
//! | [`ops`] | differentiable operations of our own |
//! | [`tower`] | pixels or token ids to features |
//! | [`decoder`] | codes back to pictures and texts, while training |
//! | [`dual_encoder`] | two towers and their heads: batches to shared and exclusive vectors |
//! | [`calibration`] | from a similarity to the probability of a true pair |
//! | [`bundle`] | a trained encoder pair as one directory, verified |
//! | [`infer`] | bytes to vectors from a bundle: the only door that serving uses |
//! | [`testing`] | bundles with untrained weights |
//! | [`error`] | what can go wrong |

pub mod bundle;
pub mod calibration;
pub mod config;
pub mod decoder;
pub mod dual_encoder;
pub mod error;
mod head;
pub mod infer;
pub mod ops;
pub mod params;
pub mod preprocess;
pub mod testing;
pub mod tower;

pub use bundle::{Bundle, BundleBuilder};
pub use calibration::Calibration;
pub use config::{HeadsConfig, ImageTowerConfig, Modality, ModelConfig, Space, TextTowerConfig};
pub use dual_encoder::{Codes, DualEncoder, Encoding, FeatureWidths};
pub use error::{Error, Kind, Result};
pub use infer::{Encoder, PrepareTimes, PreparedImage, PreparedText, Vectors};
pub use params::{Init, Params};
