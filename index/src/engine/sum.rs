//! A question in several spaces at once.

use std::sync::Arc;

use super::Pin;
use crate::{
    filter::Filter,
    types::{Modality, Space},
};

/// The best items of one modality by a sum over spaces of weight x cosine.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// Pictures or texts.
    pub modality: Modality,
    /// Each space once.
    pub parts: Vec<SumPart>,
    /// Only items that pass.
    pub filter: Option<Arc<Filter>>,
    /// Most items returned; fewer when fewer pass.
    pub k: usize,
    /// The answer is wanted whatever it costs.
    pub exact: bool,
    /// Search this generation in place of the present one.
    pub pin: Option<Pin>,
    /// Nobody waits for it: it gives way to other searches.
    pub bulk: bool,
}

/// What one space adds.
#[derive(Debug, Clone, PartialEq)]
pub struct SumPart {
    /// The space.
    pub space: Space,
    /// Query of any length but zero.
    pub vector: Vec<f32>,
    /// Weight of its cosine.
    pub weight: f32,
}
