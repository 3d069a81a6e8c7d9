//! A step as a call, and what comes back.

use diptych_proto::v1;
use diptych_proto::v1::batch_upsert_items_response::result::Outcome;
use diptych_proto::v1::delete_items_request::Selection;
use diptych_tests::{Api, Refusal};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::plan::{Step, Work};

/// What was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The version of each item; `None` for one that was refused for its version.
    Put(Vec<Option<u64>>),
    /// Items deleted, and ids that were not there.
    Deleted(u64, u64),
}

/// Sends a step and waits for its answer.
///
/// # Errors
/// When the server is not there, or refuses writes. Then nothing is known of the step, but see [`disk_refused`].
pub(crate) async fn send(api: &Api, step: &Step) -> Result<Answer, Status> {
    let (collection, request_id) = (step.collection.to_owned(), step.request_id.clone());
    let selection = match &step.work {
        Work::Put(items) => {
            let entry = |(item, expected_version): &(v1::ItemInput, Option<u64>)| {
                let item = Some(item.clone());
                v1::batch_upsert_items_request::Entry { item, expected_version: *expected_version }
            };
            let entries = items.iter().map(entry).collect();
            let request = v1::BatchUpsertItemsRequest { collection, entries, request_id };
            let reply = api.items().batch_upsert_items(request).await?.into_inner();
            return reply
                .results
                .into_iter()
                .map(version)
                .collect::<Result<_, _>>()
                .map(Answer::Put);
        }
        Work::Delete(ids) => Selection::Ids(v1::ItemIds { ids: ids.clone() }),
        Work::DeleteGroup(group) => Selection::Group(group.clone()),
    };
    let selection = Some(selection);
    let request =
        v1::DeleteItemsRequest { collection, selection, request_id, ..Default::default() };
    let reply = api.items().delete_items(request).await?.into_inner();
    Ok(Answer::Deleted(reply.deleted, reply.not_found))
}

/// Whether a step was refused for a disk that takes no writes: then it was surely not done.
pub(crate) fn disk_refused(status: &Status) -> bool {
    let details = status.get_error_details();
    let reasons = ["STORAGE_READ_ONLY", "STORAGE_FULL"];
    details.error_info().is_some_and(|info| reasons.contains(&info.reason.as_str()))
}

fn version(result: v1::batch_upsert_items_response::Result) -> Result<Option<u64>, Status> {
    match result.outcome {
        Some(Outcome::Written(written)) => Ok(Some(written.version)),
        Some(Outcome::Status(status)) => {
            let told = Refusal::of_element(&status);
            if told.reason == "VERSION_MISMATCH" {
                Ok(None)
            } else {
                Err(Status::new(Code::from(status.code), status.message))
            }
        }
        None => Err(Status::internal("an outcome without a kind")),
    }
}
