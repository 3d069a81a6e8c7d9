//! What a call can fail with.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::transport::{Fault, TransportError};
use crate::v1::{self, ErrorReason};

/// The outcome of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// What the names of the enum have and those of the wire have not.
const PREFIX: &str = "ERROR_REASON_";

/// Classes of errors: who can do what about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The request is wrong; [`Error::violations`] names the fields.
    Invalid,
    /// The collection, item or bundle is not there; [`Error::resource`] names it.
    NotFound,
    /// There is one of this name already.
    AlreadyExists,
    /// Another write came first.
    Conflict,
    /// The state of the collection does not allow the call.
    Precondition,
    /// The server has too much to do, or a limit is met.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// The server cannot be reached, is starting, or is going down.
    Unavailable,
    /// Credentials are missing or do not allow the call.
    Denied,
    /// The server does not have the method, or not this use of it.
    Unimplemented,
    /// The call was cancelled.
    Cancelled,
    /// A fault of the server.
    Internal,
}

/// A field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path from the request's root, such as `terms[0].weight`.
    pub field: String,
    /// What is wrong with it, with the limit where there is one.
    pub description: String,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `collection`, `item` or `bundle`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Why a call failed. Branch on [`Error::kind`] and [`Error::reason`]; show the text to people.
#[derive(Debug, Clone)]
pub struct Error(Box<Details>);

#[derive(Debug, Clone)]
struct Details {
    code: Code,
    message: String,
    reason: String,
    metadata: HashMap<String, String>,
    violations: Vec<FieldViolation>,
    resource: Option<Resource>,
    retry_after: Option<Duration>,
    /// The server asked, by a pushback, not to be asked again.
    unwelcome: bool,
    /// What the transport knows.
    fault: Fault,
    request_id: String,
}

/// The trailer by which a server says when, or that never, to come back (gRFC A6).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Error {
    /// An error without details.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::with_details(code, message.into(), &ErrorDetails::default())
    }

    /// An argument that the client itself refuses.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// The deadline passed on this side.
    pub(crate) fn too_late(deadline: Duration) -> Self {
        Self::new(Code::DeadlineExceeded, format!("no answer within {deadline:?}"))
    }

    fn with_details(code: Code, message: String, details: &ErrorDetails) -> Self {
        let info = details.error_info();
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice());
        let violation = |found: &tonic_types::FieldViolation| FieldViolation {
            field: found.field.clone(),
            description: found.description.clone(),
        };
        Self(Box::new(Details {
            code,
            message,
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            violations: violations.unwrap_or_default().iter().map(violation).collect(),
            resource: details.resource_info().map(|found| Resource {
                kind: found.resource_type.clone(),
                name: found.resource_name.clone(),
            }),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            unwelcome: false,
            fault: Fault::Unknown,
            request_id: String::new(),
        }))
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        match self.code() {
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists => Kind::AlreadyExists,
            Code::Aborted => Kind::Conflict,
            Code::FailedPrecondition => Kind::Precondition,
            Code::ResourceExhausted => Kind::Overloaded,
            Code::DeadlineExceeded => Kind::Deadline,
            Code::Unavailable => Kind::Unavailable,
            Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
            Code::Unimplemented => Kind::Unimplemented,
            Code::Cancelled => Kind::Cancelled,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => Kind::Internal,
        }
    }

    /// The canonical gRPC code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The published reason; `Unspecified` when there is none, or one that is newer than this client.
    pub fn reason(&self) -> ErrorReason {
        let name = format!("{PREFIX}{}", self.0.reason);
        ErrorReason::from_str_name(&name).unwrap_or(ErrorReason::Unspecified)
    }

    /// The reason as it came, such as `TEXT_EMPTY`; empty when there is none.
    pub fn reason_name(&self) -> &str {
        &self.0.reason
    }

    /// The server's sentence, without what [`Display`](fmt::Display) adds.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Fields at fault.
    pub fn violations(&self) -> &[FieldViolation] {
        &self.0.violations
    }

    /// What is missing.
    pub fn resource(&self) -> Option<&Resource> {
        self.0.resource.as_ref()
    }

    /// When a retry may help.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The id that the call had in the metadata `x-request-id`, by which the server's log knows it; empty for an element of a
    /// batch.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Whether the server asked not to be asked again.
    pub(crate) fn is_unwelcome(&self) -> bool {
        self.0.unwelcome
    }

    pub(crate) fn fault(&self) -> Fault {
        self.0.fault
    }

    pub(crate) fn of_request(mut self, request_id: &str) -> Self {
        request_id.clone_into(&mut self.0.request_id);
        self
    }

    /// A further fact, such as `limit` and `actual` of a field that is too large.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.0.metadata.get(name).map(String::as_str)
    }
}

/// One sentence that names the field at fault.
impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { message, violations, .. } = &*self.0;
        let message = message.trim_end_matches('.');
        out.write_str(if message.is_empty() { self.code().description() } else { message })?;
        for FieldViolation { field, description } in violations {
            match (message.contains(field.as_str()), message.contains(description.as_str())) {
                (true, _) => {}
                (false, true) => write!(out, " ({field})")?,
                (false, false) => write!(out, " ({field}: {description})")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let (mut code, mut message) = (status.code(), status.message().to_owned());
        let mut cause = std::error::Error::source(&status);
        let mut fault = Fault::Unknown;
        // A status that came over the wire has no cause: this one was made here, when time was up or the connection broke.
        // tonic has several codes for the latter, and says "transport error" where the end of the chain says what happened.
        if cause.is_some() && matches!(code, Code::Unknown | Code::Internal | Code::Cancelled) {
            code = Code::Unavailable;
        }
        while let Some(error) = cause {
            if let Some(transport) = error.downcast_ref::<TransportError>() {
                fault = transport.fault();
                message = transport.to_string();
            }
            cause = error.source();
            let told = error.to_string();
            if cause.is_none() && told != message {
                message = format!("{message}: {told}");
            }
        }
        // Such as RESOURCE_EXHAUSTED, which tonic makes of ENHANCE_YOUR_CALM: what nobody has looked at is nobody's refusal.
        if matches!(fault, Fault::Unsent | Fault::Refused) {
            code = Code::Unavailable;
        }
        let mut error = Self::with_details(code, message, &status.get_error_details());
        error.0.fault = fault;
        if let Some(pushback) = status.metadata().get(PUSHBACK) {
            let wait = pushback.to_str().ok().and_then(|text| text.parse().ok());
            error.0.unwelcome = wait.is_none();
            error.0.retry_after = wait.map(Duration::from_millis).or(error.0.retry_after);
        }
        error
    }
}

/// The status of one element of a batch.
impl From<v1::Status> for Error {
    fn from(status: v1::Status) -> Self {
        let v1::Status { code, message, details } = status;
        let rich = tonic_types::pb::Status { code, message: message.clone(), details };
        let encoded = rich.encode_to_vec().into();
        Status::with_details(Code::from_i32(code), message, encoded).into()
    }
}

#[cfg(test)]
mod tests;
