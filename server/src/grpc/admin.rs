//! AdminService: most of it is in the contract, and not built yet.

use std::sync::Arc;

use diptych_proto::v1;
use diptych_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::collection::{unbuilt, writes};
use super::item::write;
use super::operation::operation_out;
use crate::error::{Error, Result};
use crate::service::Service;

#[tonic::async_trait]
impl AdminService for Handler {
    writes! {
        compact(CompactRequest) -> CompactResponse = compact;
    }

    unbuilt! {
        load_model(LoadModelRequest) -> LoadModelResponse;
        activate_model(ActivateModelRequest) -> ActivateModelResponse;
        unload_model(UnloadModelRequest) -> UnloadModelResponse;
        run_self_test(RunSelfTestRequest) -> RunSelfTestResponse;
    }
}

async fn compact(service: &Arc<Service>, wire: v1::CompactRequest) -> Result<v1::CompactResponse> {
    let begun = service.compact(&wire.collection).await?;
    Ok(v1::CompactResponse { operation: Some(operation_out(begun)) })
}
