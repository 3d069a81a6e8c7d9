//! InfoService: open while the server starts, too.

mod limits;

use std::time::UNIX_EPOCH;

use diptych_index::Pages;
use diptych_model::preprocess::TokenizerConfig;
use diptych_model::{Modality, Space};
use diptych_proto::v1;
use diptych_proto::v1::info_service_server::InfoService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::convert::timestamp;
use crate::error::Error;
use crate::models::{Activated, Loaded, Model};
use crate::service::Service;

#[tonic::async_trait]
impl InfoService for Handler {
    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let service = &self.0;
        let started = service.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let engine = service.engine.capabilities();
        let pages = match engine.pages {
            Pages::BestEffort => "page_best_effort",
            Pages::Pinned => "page_pinned",
        };
        let mut capabilities =
            vec!["filter".to_owned(), "expected_version".to_owned(), pages.to_owned()];
        if engine.exact {
            capabilities.push("exact".to_owned());
        }
        if service.engine.has_snapshots() {
            capabilities.push("snapshot".to_owned());
        }
        let loaded = service.models.loaded();
        Ok(Response::new(v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Some(limits::out(&service.limits, &self.1)),
            engines: vec![v1::EngineInfo { name: engine.name.to_owned(), capabilities }],
            start_time: Some(timestamp(u64::try_from(started.as_millis()).unwrap_or(u64::MAX))),
            default_embedding_digest: loaded.default_model().digest().to_owned(),
            default_activate_time: loaded.activated().map(activate_time),
        }))
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let request = request.into_inner();
        Service::bounded("page_size", request.page_size, (0, self.0.limits.page_size))?;
        // Bundles are few: one page holds them all, so that no token is ever given.
        if !request.page_token.is_empty() {
            let (reason, text) =
                (v1::ErrorReason::PageTokenInvalid, "was not given by this method");
            return Err(Error::field_for(reason, "page_token", text).into());
        }
        let loaded = self.0.models.loaded();
        let models = loaded.all().map(|model| model_out(model, &loaded)).collect();
        Ok(Response::new(v1::ListModelsResponse { models, next_page_token: String::new() }))
    }
}

fn activate_time(activated: &Activated) -> prost_types::Timestamp {
    timestamp(activated.at_ms)
}

/// A bundle as replies carry it, among what is loaded at one moment.
pub(super) fn model_out(model: &Model, loaded: &Loaded) -> v1::Model {
    let encoder = model.encoder();
    let is_default = model.digest() == loaded.default_model().digest();
    let spaces = [
        (Modality::Image, Space::Shared),
        (Modality::Text, Space::Shared),
        (Modality::Image, Space::Exclusive),
        (Modality::Text, Space::Exclusive),
    ];
    let size = |dims: usize| u32::try_from(dims).unwrap_or(u32::MAX);
    let spaces = spaces.into_iter().filter(|(modality, _)| encoder.has(*modality));
    let spaces = spaces.filter_map(|(modality, space)| {
        let info = encoder.space(modality, space)?;
        Some(v1::SpaceInfo {
            space: match space {
                Space::Shared => v1::Space::Shared.into(),
                Space::Exclusive => v1::Space::Exclusive.into(),
            },
            modality: match modality {
                Modality::Image => v1::Modality::Image.into(),
                Modality::Text => v1::Modality::Text.into(),
            },
            dimension: size(info.dims),
            prefixes: info.prefixes.iter().map(|prefix| size(*prefix)).collect(),
        })
    });
    v1::Model {
        embedding_digest: encoder.embedding_digest().to_owned(),
        bundle_digest: encoder.bundle_digest().to_owned(),
        domain: encoder.domain().to_owned(),
        spaces: spaces.collect(),
        is_default,
        golden: if encoder.proved() {
            v1::GoldenState::Passed.into()
        } else {
            v1::GoldenState::Absent.into()
        },
        calibrated: model.calibrated(),
        calibration_prior: model.calibration().map_or(0.0, |calibration| calibration.prior),
        load_time: Some(timestamp(model.loaded_ms())),
        weight_bytes: encoder.weight_bytes(),
        activate_time: loaded.activated().filter(|_| is_default).map(activate_time),
        text_bytes: size(encoder.tokenizer().map_or(0, TokenizerConfig::max_bytes)),
    }
}
