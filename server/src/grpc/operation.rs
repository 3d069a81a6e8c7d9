//! OperationService.

use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::operation_service_server::OperationService;
use tonic::{Request, Response, Status};

use super::Handler;
use super::collection::collection_out;
use super::convert::timestamp;
use super::snapshot::snapshot_out;
use super::status::to_message;
use crate::deadline::{self, Deadline};
use crate::error::{Error, Result};
use crate::operations::{OperationView, Outcome};

/// How long before its deadline a wait ends, so that the answer is in time.
const MARGIN: Duration = Duration::from_millis(100);

#[tonic::async_trait]
impl OperationService for Handler {
    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::GetOperationResponse>, Status> {
        let operation = operation_out(self.0.operation(&request.into_inner().name)?);
        Ok(Response::new(v1::GetOperationResponse { operation: Some(operation) }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let (views, next_page_token) =
            self.0.list_operations(request.page_size, &request.page_token)?;
        let operations = views.into_iter().map(operation_out).collect();
        Ok(Response::new(v1::ListOperationsResponse { operations, next_page_token }))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::CancelOperationResponse>, Status> {
        self.0.cancel_operation(&request.into_inner().name)?;
        Ok(Response::new(v1::CancelOperationResponse {}))
    }

    async fn wait_operation(
        &self,
        request: Request<v1::WaitOperationRequest>,
    ) -> Result<Response<v1::WaitOperationResponse>, Status> {
        let left = deadline::current().map(Deadline::left);
        let request = request.into_inner();
        let asked = request.timeout.map(duration).transpose()?;
        // A short call gives a tenth of its time for the way back, a long one no more than it takes.
        let left = left.map(|left| left.saturating_sub(MARGIN.min(left / 10)));
        let time = [asked, left].into_iter().flatten().min().unwrap_or(Duration::MAX);
        let operation = operation_out(self.0.wait_operation(&request.name, time).await?);
        Ok(Response::new(v1::WaitOperationResponse { operation: Some(operation) }))
    }
}

fn duration(wire: prost_types::Duration) -> Result<Duration> {
    Duration::try_from(wire).map_err(|_| Error::field("timeout", "must not be negative"))
}

/// An operation as replies carry it.
pub(super) fn operation_out(view: OperationView) -> v1::Operation {
    use v1::operation::Outcome as Wire;
    let done = view.outcome.is_some();
    let outcome = view.outcome.map(|outcome| match outcome {
        Ok(Outcome::Snapshot(info)) => Wire::Result(any("Snapshot", &snapshot_out(info))),
        Ok(Outcome::Collection(view)) => Wire::Result(any("Collection", &collection_out(*view))),
        Err(error) => Wire::Error(to_message(&error)),
    });
    v1::Operation {
        name: view.name,
        kind: view.kind.to_owned(),
        done,
        progress: view.progress,
        create_time: Some(timestamp(view.created_ms)),
        update_time: Some(timestamp(view.updated_ms)),
        outcome,
    }
}

fn any(message: &str, value: &impl prost::Message) -> prost_types::Any {
    let type_url = format!("type.googleapis.com/diptych.v1.{message}");
    prost_types::Any { type_url, value: value.encode_to_vec() }
}
