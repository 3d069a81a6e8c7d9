//! What an error says about itself: code, reason, field, limit.

use diptych_proto::v1;
use prost::Message as _;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

/// An error as its google.rpc details tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Canonical code.
    pub code: Code,
    /// Reason of the published enum.
    pub reason: String,
    /// Path of the first field at fault; empty when none is named.
    pub field: String,
    /// What is said about the field.
    pub description: String,
    /// The limit that programs are told; `None` when there is none.
    pub limit: Option<u64>,
}

impl Refusal {
    /// Reads a status.
    ///
    /// # Panics
    /// When it lacks an ErrorInfo of the domain `diptych`, or its sentence.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else { panic!("no ErrorInfo in {status:?}") };
        assert_eq!(info.domain, diptych_proto::ERROR_DOMAIN);
        assert!(!status.message().is_empty(), "no sentence in {status:?}");
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            field: violation.map(|violation| violation.field.clone()).unwrap_or_default(),
            description: violation.map(|found| found.description.clone()).unwrap_or_default(),
            limit: info.metadata.get("limit").map(|limit| limit.parse().unwrap()),
        }
    }

    /// Reads a status of a batch reply.
    ///
    /// # Panics
    /// As [`Refusal::of`].
    pub fn of_element(status: &v1::Status) -> Self {
        let wire = tonic_types::pb::Status {
            code: status.code,
            message: status.message.clone(),
            details: status.details.clone(),
        };
        let code = Code::from(status.code);
        Self::of(&Status::with_details(code, &status.message, wire.encode_to_vec().into()))
    }

    /// The refusal of a call.
    ///
    /// # Panics
    /// When the call was not refused.
    pub async fn from_call<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Self {
        match call.await {
            Ok(_) => panic!("was not refused"),
            Err(status) => Self::of(&status),
        }
    }

    /// Compares with what must be told. A limit must be in the sentence for people and in the metadata for programs.
    ///
    /// # Panics
    /// When anything differs.
    #[track_caller]
    pub fn must_be(&self, code: Code, reason: &str, field: &str, limit: Option<u64>) {
        let told = (self.code, self.reason.as_str(), self.field.as_str(), self.limit);
        assert_eq!(told, (code, reason, field, limit), "{}", self.description);
        if let Some(limit) = limit {
            assert!(self.description.contains(&limit.to_string()), "{}", self.description);
        }
    }

    /// As [`Refusal::must_be`] with INVALID_ARGUMENT.
    ///
    /// # Panics
    /// When anything differs.
    #[track_caller]
    pub fn must_be_invalid(&self, reason: &str, field: &str, limit: Option<u64>) {
        self.must_be(Code::InvalidArgument, reason, field, limit);
    }
}
