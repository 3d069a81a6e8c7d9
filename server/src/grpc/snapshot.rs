//! Snapshots, between wire and use cases.

use std::sync::Arc;

use diptych_index::SnapshotInfo;
use diptych_proto::v1;

use super::convert::{digest, request_key, timestamp};
use super::operation::operation_out;
use crate::error::Result;
use crate::service::Service;

pub(super) async fn create(
    service: &Service,
    mut wire: v1::CreateSnapshotRequest,
) -> Result<v1::CreateSnapshotResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "CreateSnapshot", &wire).await?;
    let begun = service.create_snapshot(&wire.collection, key).await?;
    Ok(v1::CreateSnapshotResponse { operation: Some(operation_out(begun)) })
}

pub(super) async fn list(
    service: &Service,
    mut wire: v1::ListSnapshotsRequest,
) -> Result<v1::ListSnapshotsResponse> {
    let page_token = std::mem::take(&mut wire.page_token);
    let page_size = std::mem::take(&mut wire.page_size);
    let digest = digest("ListSnapshots", &wire).await?;
    let listed = service.list_snapshots((&wire.collection, digest), page_size, &page_token);
    let (snapshots, next_page_token) = listed.await?;
    let snapshots = snapshots.into_iter().map(snapshot_out).collect();
    Ok(v1::ListSnapshotsResponse { snapshots, next_page_token })
}

pub(super) async fn restore(
    service: &Arc<Service>,
    mut wire: v1::RestoreSnapshotRequest,
) -> Result<v1::RestoreSnapshotResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "RestoreSnapshot", &wire).await?;
    let begun = service.restore_snapshot(&wire.name, &wire.collection, key).await?;
    Ok(v1::RestoreSnapshotResponse { operation: Some(operation_out(begun)) })
}

pub(super) async fn delete(
    service: &Service,
    mut wire: v1::DeleteSnapshotRequest,
) -> Result<v1::DeleteSnapshotResponse> {
    let request_id = std::mem::take(&mut wire.request_id);
    let key = request_key(request_id, "DeleteSnapshot", &wire).await?;
    service.delete_snapshot(&wire.name, key).await?;
    Ok(v1::DeleteSnapshotResponse {})
}

/// A snapshot as replies carry it.
pub(super) fn snapshot_out(info: SnapshotInfo) -> v1::Snapshot {
    v1::Snapshot {
        name: info.name,
        collection: info.collection,
        size_bytes: info.bytes,
        sha256: info.sha256,
        create_time: Some(timestamp(info.created_at_ms)),
        generation: info.generation,
    }
}
