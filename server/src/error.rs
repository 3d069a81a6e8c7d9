//! What a call can fail with, free of transport: `grpc/status.rs` alone turns it into a status.

mod state;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The classes that callers may branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The request is wrong and stays wrong.
    Invalid,
    /// What it names is not there.
    NotFound,
    /// What it would make is there already.
    AlreadyExists,
    /// It lost against another write.
    Conflict,
    /// The state of the collection does not allow it.
    Precondition,
    /// It was asked to end early.
    Cancelled,
    /// Too much at once; later it works.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// Not now: starting, draining, or the disk refuses.
    Unavailable,
    /// This server does not have it.
    Unimplemented,
    /// A fault of the server.
    Internal,
}

/// A field of the request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Path of the field, such as `terms[1].vector`.
    pub field: String,
    /// What is wrong, with the limit where there is one.
    pub description: String,
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Its type: `collection`, `item`, `bundle`.
    pub kind: Cow<'static, str>,
    /// Its name.
    pub name: String,
}

/// Why a call failed. Boxed inside, so that results stay small; stored for those who ask again.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
#[error("{}", .0.message)]
pub struct Error(Box<Details>);

/// The parts of an [`Error`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// Class.
    pub kind: Kind,
    /// Published reason.
    #[serde(with = "by_number")]
    pub reason: ErrorReason,
    /// One sentence for a developer; never captions, pixels or keys.
    pub message: String,
    /// Fields at fault.
    pub violations: Vec<Violation>,
    /// What is missing.
    pub resource: Option<Resource>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
    /// Further facts for programs, such as `limit` and `actual`.
    pub metadata: BTreeMap<String, String>,
}

/// Reasons by their numbers on the wire, which never change.
mod by_number {
    use super::{Deserialize, Deserializer, ErrorReason, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        reason: &ErrorReason,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        i32::from(*reason).serialize(out)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<ErrorReason, D::Error> {
        ErrorReason::try_from(i32::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

impl Error {
    /// An error of `kind` for `reason`.
    pub fn new(kind: Kind, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            reason,
            message: message.into(),
            violations: Vec::new(),
            resource: None,
            retry_after: None,
            metadata: BTreeMap::new(),
        }))
    }

    /// A field that is missing, malformed or out of range.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::field_for(ErrorReason::FieldInvalid, field, description)
    }

    /// As [`Error::field`], with a reason of its own.
    pub fn field_for(
        reason: ErrorReason,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let violation = Violation { field: field.into(), description: description.into() };
        let message = format!("{}: {}", violation.field, violation.description);
        let mut error = Self::new(Kind::Invalid, reason, message);
        error.0.violations.push(violation);
        error
    }

    /// A field beyond its limit: field violation and metadata both name the limit.
    pub fn limit(
        reason: ErrorReason,
        field: impl Into<String>,
        (unit, limit, actual): (&str, u64, u64),
    ) -> Self {
        let description = format!("{actual} {unit}, the limit is {limit}");
        let mut error = Self::field_for(reason, field, description);
        error.0.metadata.insert("limit".to_owned(), limit.to_string());
        error.0.metadata.insert("actual".to_owned(), actual.to_string());
        error
    }

    /// A collection, item or bundle that is not there.
    pub fn missing(reason: ErrorReason, kind: &'static str, name: impl Into<String>) -> Self {
        let name = name.into();
        let mut error = Self::new(Kind::NotFound, reason, format!("there is no {kind} {name:?}"));
        error.0.resource = Some(Resource { kind: kind.into(), name });
        error
    }

    /// The state of a collection does not allow the call.
    pub fn precondition(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self::new(Kind::Precondition, reason, message)
    }

    /// Work that was asked to end early.
    pub fn cancelled() -> Self {
        let message = "the operation was cancelled, and what it had done is taken back";
        Self::new(Kind::Cancelled, ErrorReason::OperationCancelled, message)
    }

    /// A fault of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, ErrorReason::Internal, message)
    }

    /// Says when a retry may help.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a fact for programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// Puts `prefix` before the paths of the fields, for what lies inside another message.
    #[must_use]
    pub fn inside(mut self, prefix: &str) -> Self {
        for violation in &mut self.0.violations {
            violation.field = if violation.field.is_empty() {
                prefix.to_owned()
            } else {
                format!("{prefix}.{}", violation.field)
            };
        }
        if let [violation] = self.0.violations.as_slice() {
            self.0.message = format!("{}: {}", violation.field, violation.description);
        }
        self
    }

    /// Names the field that asked for what is missing or not possible.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        let description = self.0.message.clone();
        self.0.violations.push(Violation { field: field.into(), description });
        self
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// All parts.
    pub fn details(&self) -> &Details {
        &self.0
    }
}

impl From<diptych_model::Error> for Error {
    fn from(error: diptych_model::Error) -> Self {
        use diptych_model::Error as Model;
        let reason_of = |field: &str, image, text| match field {
            "image" => image,
            "text" => text,
            _ => ErrorReason::FieldInvalid,
        };
        match error {
            Model::Empty { field } => {
                let reason = reason_of(field, ErrorReason::ImageEmpty, ErrorReason::TextEmpty);
                Self::field_for(reason, field, "is empty")
            }
            Model::Invalid { field, message } => {
                let reason = reason_of(&field, ErrorReason::ImageCorrupt, ErrorReason::TextEmpty);
                Self::field_for(reason, field, message)
            }
            Model::Absent { part } => Self::new(
                Kind::Precondition,
                ErrorReason::ModalityUnsupported,
                format!("the bundle has no {part}: it embeds the other kind of input alone"),
            ),
            Model::UnsupportedImage => Self::field_for(
                ErrorReason::ImageFormatUnsupported,
                "image",
                "is not a JPEG, PNG, WebP or GIF file",
            ),
            Model::DamagedImage { reason } => Self::field_for(
                ErrorReason::ImageCorrupt,
                "image",
                format!("cannot be decoded: {reason}"),
            ),
            Model::Limit { field, limit, actual } => {
                let short = field.split(['.', ' ']).next().unwrap_or_default().to_owned();
                let reason =
                    reason_of(&short, ErrorReason::ImageTooLarge, ErrorReason::TextTooLong);
                let unit = field[short.len()..].trim_start_matches(['.', ' ']).to_owned();
                let unit = if unit.is_empty() { "bytes".to_owned() } else { unit };
                Self::limit(reason, short, (unit.as_str(), limit, actual))
            }
            other => {
                // The text may hold paths and tensor shapes: for the log, not for the caller.
                tracing::error!(error = %other, "an encoder failed");
                Self::new(
                    Kind::Internal,
                    ErrorReason::InferenceFailed,
                    "the encoder failed on this input",
                )
            }
        }
    }
}

impl From<diptych_index::Rejection> for Error {
    fn from(rejection: diptych_index::Rejection) -> Self {
        use diptych_index::Rejection as Index;
        let field = rejection.field().to_owned();
        match rejection {
            Index::Invalid { reason, .. } => {
                let about_vector = field.ends_with("vector") || field.contains("vectors");
                let code = if about_vector {
                    ErrorReason::VectorInvalid
                } else {
                    ErrorReason::FieldInvalid
                };
                Self::field_for(code, field, reason)
            }
            Index::Limit { unit, limit, actual, .. } => {
                let code = if field == "filter" {
                    ErrorReason::FilterTooLarge
                } else {
                    ErrorReason::FieldInvalid
                };
                Self::limit(code, field, (unit.as_str(), limit, actual))
            }
            Index::Dimension { expected, actual, .. } => {
                Self::limit(ErrorReason::DimensionMismatch, field, ("dimensions", expected, actual))
            }
            Index::NoSpace { modality, space, .. } => Self::field_for(
                ErrorReason::SpaceMismatch,
                field,
                format!("the collection has no {space} vectors for {modality}"),
            ),
            Index::ExclusiveMismatch { target, found, .. } => Self::field_for(
                ErrorReason::ExclusiveModalityMismatch,
                field,
                format!("an EXCLUSIVE term must come from {target}, this one comes from {found}"),
            ),
            Index::VersionConflict { expected, actual } => {
                let actual = actual.unwrap_or(0);
                let message = format!("expected_version is {expected}, the item's is {actual}");
                Self::new(Kind::Conflict, ErrorReason::VersionMismatch, message)
            }
        }
    }
}

/// A disk that refuses a write is told apart from a store that fails: for the first one may wait.
impl From<diptych_index::Error> for Error {
    fn from(error: diptych_index::Error) -> Self {
        use diptych_index::Error as Index;
        let error = match state::told(error) {
            Ok(told) => return told,
            Err(other) => other,
        };
        match error {
            Index::Rejected(rejection) => rejection.into(),
            Index::CollectionMissing { name } => {
                Self::missing(ErrorReason::CollectionNotFound, "collection", name)
            }
            Index::CollectionExists { name } => Self::new(
                Kind::AlreadyExists,
                ErrorReason::CollectionExists,
                format!("there is a collection {name:?} already"),
            ),
            Index::ItemMissing { id, field } => {
                let mut missing = Self::missing(ErrorReason::ItemNotFound, "item", id);
                let description = "there is no such item".to_owned();
                missing.0.violations.push(Violation { field, description });
                missing
            }
            Index::RequestConflict { .. } => Self::new(
                Kind::Conflict,
                ErrorReason::RequestIdReused,
                "request_id was used before for another request",
            ),
            Index::Unsupported { operation } => Self::new(
                Kind::Unimplemented,
                ErrorReason::EngineUnsupported,
                format!("the collection's engine does not support {operation}"),
            ),
            Index::Closed => {
                Self::new(Kind::Unavailable, ErrorReason::Draining, "the server is going down")
                    .retry_after(Duration::from_secs(1))
            }
            full if full.kind() == diptych_index::Kind::Full => {
                tracing::warn!(error = %full, "the disk is full");
                let message = "the disk is full: deletes and reads go on, and writes as soon as there is room";
                Self::new(Kind::Unavailable, ErrorReason::StorageFull, message)
                    .retry_after(Duration::from_secs(1))
            }
            other => {
                tracing::error!(error = %other, "the store failed");
                let refused = matches!(other, Index::NotCommitted { .. })
                    && other.kind() == diptych_index::Kind::Unavailable;
                let (kind, reason) = if refused {
                    (Kind::Unavailable, ErrorReason::StorageReadOnly)
                } else {
                    (Kind::Internal, ErrorReason::StorageFailed)
                };
                Self::new(kind, reason, "the store failed; the server's log says how")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use diptych_index::{Error as Index, Kind as Failed};

    use super::*;

    #[test]
    fn only_a_write_that_the_disk_refuses_is_told_as_read_only() {
        let read = || Index::Io {
            action: "read",
            path: "sources/ab".into(),
            source: std::io::Error::other("gone"),
        };
        let write = Index::NotCommitted { cause: "full".to_owned(), kind: Failed::Unavailable };
        let damaged = Index::NotCommitted { cause: "odd".to_owned(), kind: Failed::Corrupt };
        for (error, kind, reason) in [
            (write, Kind::Unavailable, ErrorReason::StorageReadOnly),
            (damaged, Kind::Internal, ErrorReason::StorageFailed),
            (read(), Kind::Internal, ErrorReason::StorageFailed),
        ] {
            let error = Error::from(error);
            assert_eq!((error.kind(), error.details().reason), (kind, reason));
        }
    }
}
