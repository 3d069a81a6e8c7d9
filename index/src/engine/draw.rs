//! Rows at random, to ask an index with.

use crate::types::{ItemId, Modality, Space};

/// Rows to draw from one (modality, space).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Pictures or texts.
    pub modality: Modality,
    /// The space.
    pub space: Space,
    /// Most rows drawn; fewer when there are fewer.
    pub count: usize,
    /// The same seed draws the same rows of the same generation.
    pub seed: u64,
}

/// Rows drawn at random, each at most once.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// Ids and unit vectors.
    pub rows: Vec<(ItemId, Vec<f32>)>,
    /// Rows to draw from.
    pub of: u64,
}
