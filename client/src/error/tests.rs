use super::*;

fn refused() -> Status {
    let facts = [("limit", "256"), ("actual", "300")];
    let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut details = ErrorDetails::with_error_info("FIELD_INVALID", "diptych", facts);
    details.add_bad_request_violation("item.id", "300 bytes, the limit is 256");
    details.set_resource_info("item", "x", "", "");
    details.set_retry_info(Some(Duration::from_millis(5)));
    Status::with_error_details(Code::InvalidArgument, "the id is too long.", details)
}

fn check(error: &Error) {
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(error.reason(), ErrorReason::FieldInvalid);
    assert_eq!(error.violations()[0].field, "item.id");
    assert_eq!(error.fact("limit"), Some("256"));
    assert_eq!(error.resource().unwrap().kind, "item");
    assert_eq!(error.retry_after(), Some(Duration::from_millis(5)));
    let told = "the id is too long (item.id: 300 bytes, the limit is 256)";
    assert_eq!(error.to_string(), told);
}

#[test]
fn every_detail_is_read_from_a_status_and_from_a_batch_element() {
    check(&refused().into());
    let status = refused();
    let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
    let message = status.message().to_owned();
    check(&v1::Status { code: status.code().into(), message, details }.into());
}

#[test]
fn nothing_is_told_twice() {
    let told = |message: &str, field: &str, description: &str| {
        let mut details = ErrorDetails::with_error_info("X", "diptych", HashMap::new());
        details.add_bad_request_violation(field, description);
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        Error::from(status).to_string()
    };
    assert_eq!(told("text: is empty", "text", "is empty"), "text: is empty");
    assert_eq!(told("there is no x", "id", "there is no x"), "there is no x (id)");
}

#[test]
fn a_connection_that_broke_can_be_tried_again() {
    let broken = std::io::Error::new(std::io::ErrorKind::BrokenPipe, "broken pipe");
    let error = Error::from(Status::from_error(Box::new(broken)));
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("broken pipe"));
    assert_eq!(Error::from(Status::unknown("x")).kind(), Kind::Internal);
}

#[test]
fn an_error_without_details_says_its_code() {
    let error = Error::from(Status::new(Code::Unimplemented, ""));
    assert_eq!((error.kind(), error.reason()), (Kind::Unimplemented, ErrorReason::Unspecified));
    assert_eq!(error.to_string(), Code::Unimplemented.description());
}

#[test]
fn a_pushback_tells_when_to_come_back_or_not_to() {
    let pushed = |value: &str| {
        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert(PUSHBACK, value.parse().unwrap());
        Error::from(status)
    };
    let later = pushed("250");
    assert_eq!(
        (later.retry_after(), later.is_unwelcome()),
        (Some(Duration::from_millis(250)), false)
    );
    // What is no number of milliseconds is a refusal too, as gRPC says.
    for never in ["-1", "soon"] {
        assert!(pushed(never).is_unwelcome(), "{never}");
    }
}
