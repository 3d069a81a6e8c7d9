//! The engine's errors about the state of collections, aliases and snapshots.

use diptych_index::Error as Index;
use diptych_proto::v1::ErrorReason;

use super::{Error, Kind};

/// An error about state as callers are told it; any other is given back.
pub(super) fn told(error: Index) -> Result<Error, Index> {
    Ok(match error {
        Index::CollectionHasAlias { name, alias } => Error::precondition(
            ErrorReason::CollectionHasAlias,
            format!("the alias {alias:?} points at {name:?}: move or delete the alias first"),
        ),
        Index::AliasMissing { name } => Error::missing(ErrorReason::AliasNotFound, "alias", name),
        Index::AliasMismatch { name, actual, .. } => {
            let actual = actual.unwrap_or_else(|| "nothing".to_owned());
            let message = format!("the alias {name:?} points at {actual}");
            Error::new(Kind::Conflict, ErrorReason::AliasMismatch, message)
                .at("expected_collection")
        }
        Index::GenerationMoved { name, .. } => {
            let message = format!("{name:?} was written to meanwhile; try again");
            Error::new(Kind::Conflict, ErrorReason::AliasMismatch, message)
        }
        Index::CountMismatch { expected, actual } => {
            let message = format!(
                "{actual} items match now, expected_count is {expected}: look again with dry_run"
            );
            let mut error = Error::precondition(ErrorReason::CountMismatch, message);
            error.0.metadata.insert("actual".to_owned(), actual.to_string());
            error.at("expected_count")
        }
        Index::SnapshotMissing { name } => {
            Error::missing(ErrorReason::SnapshotNotFound, "snapshot", name)
        }
        Index::SnapshotRefused { name, problem } => Error::precondition(
            ErrorReason::SnapshotDamaged,
            format!("the snapshot {name:?} cannot be restored: {problem}"),
        ),
        Index::Cancelled => Error::cancelled(),
        other => return Err(other),
    })
}
