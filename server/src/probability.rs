//! From a hit's score to the probability of a true pair, where the bundle is calibrated for the question.

use std::sync::Arc;

use diptych_index::{CollectionInfo, Modality, Space};

use crate::models::Model;
use crate::retrieval::{QuerySource, QueryTerm, Question};
use crate::service::Service;

/// A bundle's curve for one question.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    model: Arc<Model>,
    target: Modality,
    weight: f32,
}

impl Scale {
    /// Probability of a true pair at a hit's score; never less for a higher one.
    pub(crate) fn probability(&self, score: f32) -> Option<f64> {
        let calibration = self.model.calibration()?;
        let curve = match self.target {
            Modality::Image => &calibration.text_to_image,
            Modality::Text => &calibration.image_to_text,
        };
        Some(curve.probability(f64::from(score) / f64::from(self.weight)))
    }
}

impl Service {
    /// The scale of a question. A curve was fitted on shared vectors that the bundle made of a picture and a text, so it holds
    /// for one picture or text of the request that looks for the other modality, and for nothing else.
    pub(crate) fn scale(&self, collection: &CollectionInfo, question: &Question) -> Option<Scale> {
        let [QueryTerm { source, weight, space: Space::Shared }] = question.terms.as_slice() else {
            return None;
        };
        let crossing = match source {
            QuerySource::Image(_) => question.target == Modality::Text,
            QuerySource::Text(_) => question.target == Modality::Image,
            QuerySource::Vector(_) | QuerySource::Item(_) => false,
        };
        let model = self.encoders_of(collection).ok()?;
        let holds = crossing && *weight > 0.0 && model.calibrated();
        holds.then_some(Scale { model, target: question.target, weight: *weight })
    }
}
