//! Stories of requests for certificates.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rstest::rstest;
use serde_json::{Value, json};

use super::{Body, Status, User, World};

const REQUESTS: (&str, &str, &str) = ("certificates.k8s.io", "v1", "certificatesigningrequests");

/// `openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /O=devs/CN=ann`
const ANN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
    MIHWMH8CAQAwHTENMAsGA1UECgwEZGV2czEMMAoGA1UEAwwDYW5uMFkwEwYHKoZI\n\
    zj0CAQYIKoZIzj0DAQcDQgAE4rTlSbkix669nbkrl/G4CKGcmmDgVWst3mVv604m\n\
    7LR9rr0UuF9BmGkhFQFz0bNalG639eWBteSiHhYat5A07qAAMAoGCCqGSM49BAMC\n\
    A0cAMEQCIC+3dQ5EOz8LsWj5x6GFxUxCkVydIniELAZfMzcNA5P/AiBnSt80M3io\n\
    ZUyonJhb4/1eF9OLU4J9u8NNVGX6ftz+kA==\n\
    -----END CERTIFICATE REQUEST-----\n";

/// The same with `/O=system:masters/CN=ann`.
const MASTERS: &str = "-----BEGIN CERTIFICATE REQUEST-----\n\
    MIHhMIGJAgEAMCcxFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMQwwCgYDVQQDDANh\n\
    bm4wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATitOVJuSLHrr2duSuX8bgIoZya\n\
    YOBVay3eZW/rTibstH2uvRS4X0GYaSEVAXPRs1qUbrf15YG15KIeFhq3kDTuoAAw\n\
    CgYIKoZIzj0EAwIDRwAwRAIgW78y/u6X+agvT+ri3sgPL3YBxTesYGzlvVVDxT33\n\
    JZMCIC5deBNYrN6HxHmQjYNe86Nkgj6XWTgoP+xq3QHf6XZ/\n\
    -----END CERTIFICATE REQUEST-----\n";

/// `openssl req -x509 -subj /CN=x`, of the same key.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBbTCCAROgAwIBAgIUZwvCwQ6gByWTqSp//ci6VXjhwL8wCgYIKoZIzj0EAwIw\n\
    DDEKMAgGA1UEAwwBeDAeFw0yNjExMjYxMTQwNTdaFw0yNjExMjcxMTQwNTdaMAwx\n\
    CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATitOVJuSLHrr2d\n\
    uSuX8bgIoZyaYOBVay3eZW/rTibstH2uvRS4X0GYaSEVAXPRs1qUbrf15YG15KIe\n\
    Fhq3kDTuo1MwUTAdBgNVHQ4EFgQU+joc+dOH3Rgw5XF4jNn7dSx//u8wHwYDVR0j\n\
    BBgwFoAU+joc+dOH3Rgw5XF4jNn7dSx//u8wDwYDVR0TAQH/BAUwAwEB/zAKBggq\n\
    hkjOPQQDAgNIADBFAiBcspgFpY7Awjr9Rtg/PcY0isR0aOH4/JRi0vAamLD/1wIh\n\
    APpqIf1mG+WmJJ+AZAQEIYNuBobBI/vR1pB+j15LWrW5\n\
    -----END CERTIFICATE-----\n";

fn request(pem: &str, signer: &str) -> Value {
    let spec =
        json!({"request": BASE64.encode(pem), "signerName": signer, "usages": ["client auth"], "username": "somebody"});
    let status = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    json!({"metadata": {"name": "r"}, "spec": spec, "status": status})
}

async fn put(world: &World, subresource: &str, status: Value) -> Result<Value, Status> {
    let target = world.target(REQUESTS, "", "r", subresource);
    let mut whole = world.get(REQUESTS, "", "r").await.unwrap().object().clone();
    whole.set("status", status);
    whole.set_at(&["spec", "signerName"], "changed.example.com/s");
    let body = Body { value: whole.into_value(), duplicates: vec![] };
    let (stored, _) = world.registry.update(&target, &world.caller, body).await?;
    assert_eq!(stored.str_at(&["spec", "signerName"]), "example.com/s");
    Ok(stored.get("status").cloned().unwrap_or_default())
}

fn approved() -> Value {
    json!({"type": "Approved", "status": "True", "reason": "r"})
}

fn said(error: Status) -> Vec<String> {
    error.details.unwrap().causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

#[tokio::test]
async fn a_request_says_who_made_it_and_is_approved_and_signed_through_doors_of_their_own() {
    let world = World::new().await;
    let made = world.create(REQUESTS, "", request(ANN, "example.com/s")).await.unwrap();
    assert_eq!(made.str_at(&["spec", "username"]), "tester");
    assert_eq!(made.at(&["spec", "groups"]), Some(&json!(["system:masters"])));
    assert_eq!(made.get("status"), Some(&json!({})));

    let certificate = BASE64.encode(CERTIFICATE);
    let both = json!({"conditions": [approved()], "certificate": certificate});
    let error = put(&world, "status", both.clone()).await.unwrap_err();
    assert_eq!(said(error), ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]);
    let status = put(&world, "approval", both).await.unwrap();
    assert_eq!(status.get("certificate"), None);
    let condition = &status["conditions"][0];
    assert_eq!(condition["lastTransitionTime"], condition["lastUpdateTime"]);
    assert!(condition["lastUpdateTime"].is_string());

    let signed = put(&world, "status", json!({"conditions": [approved()], "certificate": certificate})).await.unwrap();
    assert_eq!((&signed["conditions"][0], signed["certificate"].as_str()), (condition, Some(certificate.as_str())));
    let error = put(&world, "status", json!({"conditions": [approved()]})).await.unwrap_err();
    assert_eq!(said(error), ["status.certificate: Forbidden: updates may not modify existing certificate content"]);
    let unchanged = put(&world, "", json!({})).await.unwrap();
    assert_eq!(unchanged, signed);
}

#[rstest]
#[case::denied_too(json!([approved(), {"type": "Denied", "status": "True"}]),
    "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive")]
#[case::twice(json!([approved(), approved()]), "status.conditions[1].type: Duplicate value: \"Approved\"")]
#[case::taken_back(json!([]), "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"")]
#[case::not_true(json!([{"type": "Approved", "status": "False"}]),
    "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"")]
#[tokio::test]
async fn a_decision_stands(#[case] conditions: Value, #[case] why: &str) {
    let world = World::new().await;
    world.create(REQUESTS, "", request(ANN, "example.com/s")).await.unwrap();
    put(&world, "approval", json!({"conditions": [approved()]})).await.unwrap();
    let error = put(&world, "approval", json!({"conditions": conditions})).await.unwrap_err();
    assert_eq!(said(error), [why]);
}

#[rstest]
#[case("junk", "must contain at least one CERTIFICATE PEM block")]
#[case(ANN, "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\"")]
#[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x509: malformed certificate")]
#[tokio::test]
async fn what_is_signed_is_a_certificate(#[case] pem: &str, #[case] why: &str) {
    let world = World::new().await;
    world.create(REQUESTS, "", request(ANN, "example.com/s")).await.unwrap();
    let error = put(&world, "status", json!({"certificate": BASE64.encode(pem)})).await.unwrap_err();
    assert_eq!(said(error), [format!("status.certificate: Invalid value: \"<certificate data>\": {why}")]);
}

#[rstest]
#[case::no_pem("junk".into(), "PEM block type must be CERTIFICATE REQUEST")]
#[case::a_certificate(CERTIFICATE.into(), "PEM block type must be CERTIFICATE REQUEST")]
#[case::another_signature(ANN.replace("+kA==", "+kQ=="), "x509: ECDSA verification failure")]
#[case::no_sequence("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into(),
    "asn1: structure error: tags don't match (16 vs {class:0 tag:0 length:0 isCompound:false}) {optional:false explicit:false \
     application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 set:false omitEmpty:false} \
     certificateRequest @2")]
#[case::cut("-----BEGIN CERTIFICATE REQUEST-----\nMIHWMH8=\n-----END CERTIFICATE REQUEST-----\n".into(),
    "asn1: syntax error: data truncated")]
#[tokio::test]
async fn a_request_is_well_formed_and_signed_by_its_own_key(#[case] pem: String, #[case] why: &str) {
    let world = World::new().await;
    let error = world.create(REQUESTS, "", request(&pem, "example.com/s")).await.unwrap_err();
    assert_eq!(said(error), [format!("spec.request: Invalid value: \"{}\": {why}", BASE64.encode(&pem))]);
}

#[rstest]
#[case("", "Required value")]
#[case(
    "noslash",
    "Invalid value: \"noslash\": must be a fully qualified domain and path of the form 'example.com/signer-name'"
)]
#[case("single/x", "Invalid value: \"single\": should be a domain with at least two segments separated by dots")]
#[case(
    "kubernetes.io/legacy-unknown",
    "Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version"
)]
#[tokio::test]
async fn a_signer_has_a_domain_and_a_path(#[case] signer: &str, #[case] why: &str) {
    let world = World::new().await;
    let error = world.create(REQUESTS, "", request(ANN, signer)).await.unwrap_err();
    assert_eq!(said(error), [format!("spec.signerName: {why}")]);
}

#[tokio::test]
async fn nobody_asks_for_a_certificate_that_may_do_everything() {
    let world = World::new().await;
    let error = world.create(REQUESTS, "", request(MASTERS, "kubernetes.io/kube-apiserver-client")).await.unwrap_err();
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!(error.message, format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {why}"));
    world.create(REQUESTS, "", request(MASTERS, "example.com/s")).await.unwrap();
}

#[tokio::test]
async fn who_may_approve_for_a_signer_or_its_domain_does() {
    let mut world = World::new().await;
    world.create(REQUESTS, "", request(ANN, "example.com/s")).await.unwrap();
    world.caller.user = User::new("bob", ["system:authenticated"]);
    world.caller.guarded = true;
    let refusal = |verb: &str| {
        format!(
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to {verb} requests with \
             signerName \"example.com/s\""
        )
    };
    let approve = || json!({"conditions": [approved()]});
    assert_eq!(put(&world, "approval", approve()).await.unwrap_err().message, refusal("approve"));
    world.caller.guarded = false;
    let rule = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"],
        "verbs": ["approve"]}]);
    let access = |resource| ("rbac.authorization.k8s.io", "v1", resource);
    world.create(access("clusterroles"), "", json!({"metadata": {"name": "c"}, "rules": rule})).await.unwrap();
    let subject = json!({"kind": "User", "name": "bob", "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"kind": "ClusterRole", "name": "c", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "c"}, "subjects": [subject], "roleRef": role});
    world.create(access("clusterrolebindings"), "", binding).await.unwrap();
    world.caller.guarded = true;
    put(&world, "approval", approve()).await.unwrap();
    let sign = json!({"conditions": [approved()], "certificate": BASE64.encode(CERTIFICATE)});
    assert_eq!(put(&world, "status", sign).await.unwrap_err().message, refusal("sign"));
}
