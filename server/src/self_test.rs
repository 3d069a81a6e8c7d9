//! Use case: whether bundles still give their golden vectors, asked as callers ask: through the queues and the threads that
//! serve, behind all callers.

use std::sync::Arc;

use bytes::Bytes;
use diptych_model::Modality;
use diptych_model::bundle::{GoldenInput, LEAST_COSINE};
use tokio::task::JoinSet;

use crate::deadline;
use crate::embedding::Input;
use crate::encoder::{Lane, Work};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::service::Service;

/// Inputs that are under way at once.
const IN_FLIGHT: usize = 16;

/// What a test gave.
#[derive(Debug, Default)]
pub struct SelfTest {
    /// One for each golden input.
    pub tested: Vec<Tested>,
    /// Digests of bundles without golden inputs.
    pub untested: Vec<String>,
}

/// What one golden input gave.
#[derive(Debug)]
pub struct Tested {
    /// Digest of the bundle.
    pub digest: String,
    /// Name of the input in the bundle.
    pub input: String,
    /// Picture or text.
    pub modality: Modality,
    /// Cosine of its vectors with the golden ones, the smaller one of two; or why it has none.
    pub cosine: Result<f32>,
}

impl Tested {
    /// Whether the vectors are those that the bundle promises, but for rounding.
    pub fn passed(&self) -> bool {
        // What is not a number does not compare, and so does not pass.
        self.cosine.as_ref().is_ok_and(|cosine| *cosine >= LEAST_COSINE)
    }
}

impl Service {
    /// Embeds the golden inputs of a bundle, or of all when the digest is empty, and compares.
    ///
    /// # Errors
    /// NOT_FOUND `BUNDLE_NOT_FOUND` under the field `embedding_digest`; DEADLINE_EXCEEDED.
    pub async fn run_self_test(&self, digest: &str) -> Result<SelfTest> {
        self.admit()?;
        let models = match digest {
            "" => self.models.all(),
            digest => vec![self.loaded_model(digest)?],
        };
        let mut test = SelfTest::default();
        for model in models {
            if model.golden().is_empty() {
                test.untested.push(model.digest().to_owned());
            }
            test.tested.extend(test_model(&model).await?);
        }
        Ok(test)
    }
}

async fn test_model(model: &Arc<Model>) -> Result<Vec<Tested>> {
    // Not from the cache: it is the encoder that is asked.
    let work = Work::here(Lane::Bulk).patient().fresh();
    let mut running = JoinSet::new();
    let mut cosines: Vec<Option<Result<f32>>> = Vec::new();
    cosines.resize_with(model.golden().len(), || None);
    let mut places = 0..model.golden().len();
    loop {
        while running.len() < IN_FLIGHT
            && let Some(place) = places.next()
        {
            let model = Arc::clone(model);
            running.spawn(deadline::inherited(async move {
                (place, test_one(&model, place, work).await)
            }));
        }
        let Some(done) = running.join_next().await else { break };
        let (place, cosine) = done.map_err(|_| Error::internal("a golden input ended early"))?;
        if let Err(error) = &cosine
            && error.kind() == Kind::Deadline
        {
            return Err(error.clone());
        }
        cosines[place] = Some(cosine);
    }
    let tested = model.golden().iter().zip(cosines).map(|(golden, cosine)| Tested {
        digest: model.digest().to_owned(),
        input: golden.name.clone(),
        modality: golden.modality,
        cosine: cosine.unwrap_or_else(|| Err(Error::internal("a golden input was not embedded"))),
    });
    Ok(tested.collect())
}

async fn test_one(model: &Model, place: usize, work: Work) -> Result<f32> {
    let golden = &model.golden()[place];
    let embedded = model.embed(input(golden)?, work).await?;
    Ok(golden.cosine(&embedded.vectors))
}

fn input(golden: &GoldenInput) -> Result<Input> {
    let bytes = golden.bytes.clone().into_owned();
    Ok(match golden.modality {
        Modality::Image => Input::Image(Bytes::from(bytes)),
        Modality::Text => {
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| Error::internal("a golden text is no UTF-8"))?;
            Input::Text { text, truncate: false }
        }
    })
}
