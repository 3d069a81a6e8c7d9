//! The last check before health says SERVING: one search each way in every collection that has its bundle, through the same
//! use case, queues and index that callers will meet. It also makes each of them run once before the first caller comes.

use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use diptych_index::{Engine as _, Modality, Space};

use super::open::Parts;
use crate::error::Kind;
use crate::probe::DOT;
use crate::retrieval::{QuerySource, QueryTerm, Question};

/// # Errors
/// Names the collection that does not answer.
pub(super) async fn every_collection(parts: &Parts) -> Result<()> {
    for info in parts.engine.collections().await? {
        let Ok(model) = parts.service.encoders_of(&info) else { continue };
        let name = &info.spec.name;
        let ways = [
            (QuerySource::Text("a".to_owned()), Modality::Image),
            (QuerySource::Image(Bytes::from_static(DOT)), Modality::Text),
        ];
        for (source, target) in ways {
            // A bundle of one modality asks within it.
            let asked = match source {
                QuerySource::Image(_) => diptych_model::Modality::Image,
                _ => diptych_model::Modality::Text,
            };
            if !model.encoder().has(asked) {
                continue;
            }
            let answer = parts.service.answer(question(name, source, target)).await;
            if answer.as_ref().is_err_and(|error| error.kind() == Kind::NotFound) {
                // Deleted since it was listed.
                break;
            }
            answer.with_context(|| format!("the collection {name} does not answer a search"))?;
        }
    }
    Ok(())
}

fn question(collection: &str, source: QuerySource, target: Modality) -> Question {
    Question {
        collection: collection.to_owned(),
        terms: vec![QueryTerm { source, weight: 1.0, space: Space::Shared }],
        target,
        filter: None,
        limit: 1,
        page_token: String::new(),
        digest: [0; 32],
        min_score: None,
        one_per_group: false,
        ef_search: 0,
        exact: false,
        term_scores: false,
        truncate: false,
        prefix_dims: 0,
        source: false,
        plain: true,
        received: Instant::now(),
        with_timings: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::open;
    use crate::config::{Config, Flags};

    #[tokio::test]
    async fn the_server_asks_itself_while_callers_still_wait() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        diptych_model::testing::tiny_bundle(7).unwrap().write(&bundle).unwrap();
        let flags = Flags {
            data_dir: Some(folder.path().join("data")),
            bundle: vec![bundle],
            ..Flags::default()
        };
        let config = Config::resolve(&flags, std::iter::empty()).unwrap();
        let parts = open::parts(&config).await.unwrap();
        let model = parts.models.default_model();
        let dims = crate::collections::dims_of(&model);
        let spec = diptych_index::CollectionSpec {
            embedding_digest: Some(model.digest().to_owned()),
            ..diptych_index::CollectionSpec::new("things", dims)
        };
        diptych_index::Engine::create_collection(&*parts.engine, spec).await.unwrap();
        super::every_collection(&parts).await.unwrap();
        assert!(!parts.service.is_ready());
    }
}
