use std::{error::Error as _, time::Duration};

use kube::core::Status;
use rstest::rstest;

use super::*;

fn answer(code: u16, reason: &str) -> CallError {
    kube::Error::Api(Status::failure("as the server says", reason).with_code(code).boxed()).into()
}

fn object() -> ObjectName {
    ObjectName::new("sandbox", "demo", "a")
}

#[test]
fn a_text_leaves_the_cause_to_its_source() {
    let error = Error::GetFailed { object: object(), source: answer(403, "Forbidden") };
    assert_eq!(error.to_string(), "sandbox demo/a was not read");
    let cause = error.source().expect("a cause");
    assert_eq!(cause.to_string(), "the server said: as the server says (403 Forbidden)");
}

#[rstest]
#[case(429, "TooManyRequests", true)]
#[case(503, "ServiceUnavailable", true)]
#[case(500, "InternalError", true)]
#[case(400, "BadRequest", false)]
#[case(403, "Forbidden", false)]
#[case(409, "AlreadyExists", false)]
#[case(422, "Invalid", false)]
fn busy_servers_are_worth_another_try_and_refusals_are_not(
    #[case] code: u16,
    #[case] reason: &str,
    #[case] retryable: bool,
) {
    let error = Error::CreateFailed { object: object(), source: answer(code, reason) };
    assert_eq!(error.is_retryable(), retryable);
}

#[test]
fn a_watch_that_fell_behind_starts_over() {
    assert!(answer(410, "Expired").is_watch_retryable() && !answer(410, "Expired").is_retryable());
    assert!(!answer(403, "Forbidden").is_watch_retryable());
}

/// API servers say some things in plain text; a page is somebody else's.
#[rstest]
#[case(429, "Too many requests, please try again later.", "TooManyRequests")]
#[case(404, "404 page not found", "NotFound")]
fn plain_text_of_a_server_is_its_word(#[case] code: u16, #[case] text: &str, #[case] reason: &str) {
    let status = Status::failure(text, "Failed to parse error data").with_code(code);
    let error = CallError::from(kube::Error::Api(status.boxed()));
    assert_eq!(error.to_string(), format!("the server said: {text} ({code} {reason})"));
}

#[rstest]
#[case(404, "<html><head><title>Not here</title>", false)]
#[case(502, "<html>\r\n<body>Bad Gateway", true)]
#[case(400, "Client sent an HTTP request to an HTTPS server.", false)]
fn a_page_is_no_word_of_the_server(#[case] code: u16, #[case] text: &str, #[case] retryable: bool) {
    let status = Status::failure(text, "Failed to parse error data").with_code(code);
    let error = CallError::from(kube::Error::Api(status.boxed()));
    assert!(matches!(error, CallError::NotTheServer { code: Some(found), .. } if found == code), "{error:?}");
    assert_eq!((error.is_not_found(), error.is_retryable()), (false, retryable));
}

#[test]
fn a_timeout_tells_what_keeps_the_pod() {
    let last = LastSeen {
        ready: Some(("DependenciesNotReady".into(), "Pod exists with phase: Pending".into())),
        pod: vec!["main: ImagePullBackOff: Back-off pulling image".into()],
        events: Vec::new(),
    };
    let error = WaitError::TimedOut {
        object: object(),
        wanted: "Ready",
        after: Duration::from_secs(30),
        last: Box::new(last),
        source: None,
    };
    assert_eq!(
        error.to_string(),
        "sandbox demo/a was not Ready after 30s: DependenciesNotReady: Pod exists with phase: Pending; \
         main: ImagePullBackOff: Back-off pulling image"
    );
}
