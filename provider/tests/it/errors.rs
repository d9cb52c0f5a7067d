//! The errors' codes: clients match on them.

use std::collections::BTreeSet;

use agent_sandbox_provider::{Code, Error};

#[test]
fn each_code_is_one_of_a_kind_and_has_a_status_of_http() {
    let codes: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(codes.len(), Code::ALL.len(), "two codes look the same to a client");
    let ids: Vec<_> = Code::ALL.iter().filter_map(|code| code.id()).collect();
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "two codes look the same to monitoring");
    for code in Code::ALL {
        assert!((400..600).contains(&code.status()), "{code}");
        assert!(code.id().is_none() || code.as_str().starts_with("K8S_"), "{code}");
    }
}

/// P2-23: the predecessor's errors were plain objects, which print as nothing.
#[test]
fn an_error_is_an_error_with_a_message_a_code_and_a_cause() {
    let cause = std::io::Error::other("connection refused by 10.0.0.1");
    let error =
        Error::new(Code::ClusterUnreachable, "the cluster does not answer").with("context", "kind").because(cause);
    let error: Box<dyn std::error::Error> = Box::new(error);
    assert_eq!(error.to_string(), "the cluster does not answer");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("connection refused by 10.0.0.1"));
    let error = error.downcast::<Error>().expect("its own type");
    assert_eq!((error.code().as_str(), error.status()), ("K8S_CLUSTER_UNREACHABLE", 503));
    assert_eq!(error.details()["context"], "kind");
}
