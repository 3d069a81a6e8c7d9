//! AdminService.

use std::sync::Arc;

use diptych_model::Modality;
use diptych_proto::v1;
use diptych_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::collection::writes;
use super::convert::bundle_digest;
use super::info::model_out;
use super::operation::operation_out;
use super::status::to_message;
use super::write::write;
use crate::error::Result;
use crate::models::Model;
use crate::self_test::{SelfTest, Tested};
use crate::service::Service;

#[tonic::async_trait]
impl AdminService for Handler {
    async fn run_self_test(
        &self,
        request: Request<v1::RunSelfTestRequest>,
    ) -> Result<Response<v1::RunSelfTestResponse>, Status> {
        let digest = bundle_digest(request.into_inner().embedding_digest)?;
        let SelfTest { tested, untested } = self.0.run_self_test(&digest).await?;
        Ok(Response::new(v1::RunSelfTestResponse {
            results: tested.into_iter().map(tested_out).collect(),
            untested_embedding_digests: untested,
        }))
    }

    writes! {
        load_model(LoadModelRequest) -> LoadModelResponse = load;
        activate_model(ActivateModelRequest) -> ActivateModelResponse = activate;
        unload_model(UnloadModelRequest) -> UnloadModelResponse = unload;
        compact(CompactRequest) -> CompactResponse = compact;
    }
}

async fn load(service: &Arc<Service>, wire: v1::LoadModelRequest) -> Result<v1::LoadModelResponse> {
    let (model, previous) = service.load_model(&wire.path, wire.activate).await?;
    Ok(v1::LoadModelResponse {
        model: Some(shown(service, &model)),
        previous_embedding_digest: previous.unwrap_or_default(),
    })
}

async fn activate(
    service: &Arc<Service>,
    wire: v1::ActivateModelRequest,
) -> Result<v1::ActivateModelResponse> {
    let digest = bundle_digest(wire.embedding_digest)?;
    let (model, previous_embedding_digest) = service.activate_model(&digest).await?;
    let model = Some(shown(service, &model));
    Ok(v1::ActivateModelResponse { model, previous_embedding_digest })
}

async fn unload(
    service: &Arc<Service>,
    wire: v1::UnloadModelRequest,
) -> Result<v1::UnloadModelResponse> {
    let digest = bundle_digest(wire.embedding_digest)?;
    let collections = service.unload_model(&digest, wire.force).await?;
    Ok(v1::UnloadModelResponse { collections })
}

async fn compact(service: &Arc<Service>, wire: v1::CompactRequest) -> Result<v1::CompactResponse> {
    let begun = service.compact(&wire.collection).await?;
    Ok(v1::CompactResponse { operation: Some(operation_out(begun)) })
}

/// A bundle as it is now.
fn shown(service: &Service, model: &Model) -> v1::Model {
    model_out(model, &service.models.loaded())
}

fn tested_out(tested: Tested) -> v1::run_self_test_response::Result {
    let passed = tested.passed();
    let Tested { digest, input, modality, cosine } = tested;
    let modality = match modality {
        Modality::Image => v1::Modality::Image,
        Modality::Text => v1::Modality::Text,
    };
    v1::run_self_test_response::Result {
        embedding_digest: digest,
        input,
        modality: modality.into(),
        cosine: cosine.as_ref().map_or(0.0, |cosine| finite(*cosine)),
        passed,
        status: cosine.as_ref().err().map(to_message),
    }
}

/// Vectors that cannot be compared agree in nothing.
fn finite(cosine: f32) -> f64 {
    if cosine.is_finite() { f64::from(cosine) } else { 0.0 }
}
