//! OperationService and AdminService: in the contract, not built yet.

use diptych_proto::v1;
use diptych_proto::v1::admin_service_server::AdminService;
use diptych_proto::v1::operation_service_server::OperationService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::collection::unbuilt;
use crate::error::Error;

#[tonic::async_trait]
impl OperationService for Handler {
    unbuilt! {
        get_operation(GetOperationRequest) -> GetOperationResponse;
        list_operations(ListOperationsRequest) -> ListOperationsResponse;
        cancel_operation(CancelOperationRequest) -> CancelOperationResponse;
        wait_operation(WaitOperationRequest) -> WaitOperationResponse;
    }
}

#[tonic::async_trait]
impl AdminService for Handler {
    unbuilt! {
        load_model(LoadModelRequest) -> LoadModelResponse;
        activate_model(ActivateModelRequest) -> ActivateModelResponse;
        unload_model(UnloadModelRequest) -> UnloadModelResponse;
        compact(CompactRequest) -> CompactResponse;
        run_self_test(RunSelfTestRequest) -> RunSelfTestResponse;
    }
}
