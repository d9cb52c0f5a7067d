use rstest::rstest;

use super::*;

const OLDER: &str = "extensions.agents.x-k8s.io/v1alpha1";
const NEWER: &str = "extensions.agents.x-k8s.io/v1beta1";

fn object(api_version: &str, kind: &str, members: Value) -> Object {
    let mut object = Object::new(api_version, kind, "ns", "a");
    for (key, value) in members.as_object().unwrap() {
        object.set(key, value.clone());
    }
    object
}

fn sandbox(version: &str, more: Value, status: Value) -> Object {
    let mut spec = json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object(&format!("agents.x-k8s.io/{version}"), "Sandbox", json!({"spec": spec, "status": status}))
}

fn to(object: Object, version: &str) -> Object {
    let group = split_api_version(object.api_version()).0.to_owned();
    convert(vec![object], &format!("{group}/{version}")).unwrap().remove(0)
}

#[test]
fn what_was_converted_looks_like_what_go_encodes() {
    let newer = to(sandbox("v1alpha1", json!({"replicas": 1}), json!({})), "v1beta1");
    let containers = json!([{"name": "main", "image": "x", "resources": {}}]);
    assert_eq!(
        newer.get("spec").unwrap(),
        &json!({
            "operatingMode": "Running", "podTemplate": {"metadata": {}, "spec": {"containers": containers}},
        })
    );
    assert_eq!(newer.get("status"), None);
    let state: Value = serde_json::from_str(newer.annotation(&older_state("Sandbox")).unwrap()).unwrap();
    assert_eq!(state["spec"]["replicas"], 1);
    assert_eq!(state["apiVersion"], "agents.x-k8s.io/v1alpha1");
    let back = to(newer, "v1alpha1");
    assert_eq!(back.annotations().len(), 0);
    assert_eq!(back.at(&["metadata", "annotations"]), None);
    assert_eq!(back.at(&["spec", "replicas"]), Some(&json!(1)));
}

#[test]
fn empty_names_are_said_where_the_go_type_of_the_version_says_them() {
    let pool = object(OLDER, "SandboxWarmPool", json!({"spec": {"replicas": 1, "sandboxTemplateRef": {"name": ""}}}));
    let newer = to(pool, "v1beta1");
    assert_eq!(newer.at(&["spec", "sandboxTemplateRef"]), Some(&json!({"name": ""})));
    assert_eq!(to(newer, "v1alpha1").at(&["spec", "sandboxTemplateRef"]), Some(&json!({})));
    let claim = object(OLDER, "SandboxClaim", json!({"spec": {"sandboxTemplateRef": {"name": "t"}, "warmpool": ""}}));
    assert_eq!(to(to(claim, "v1beta1"), "v1alpha1").at(&["spec", "warmpool"]), Some(&json!("")));
}

#[rstest]
#[case::written_in_the_newer_version("Running", None, 1, Some(1))]
#[case::written_in_the_newer_version_and_suspended("Suspended", None, 0, None)]
#[case::suspended_since(
    "Suspended", Some(json!({"spec": {"replicas": 1}, "status": {"replicas": 1}})), 0, Some(1)
)]
#[case::resumed_since("Running", Some(json!({"spec": {"replicas": 0}})), 1, None)]
fn replicas_follow_the_mode_and_their_count_is_as_stale_as_upstreams(
    #[case] mode: &str,
    #[case] state: Option<Value>,
    #[case] wanted: i64,
    #[case] counted: Option<i64>,
) {
    let mut newer = sandbox("v1beta1", json!({"operatingMode": mode}), json!({"nodeName": "n", "service": "s"}));
    if let Some(state) = state {
        newer.set_at(&["metadata", "annotations", &older_state("Sandbox")], state.to_string());
    }
    let older = to(newer, "v1alpha1");
    assert_eq!(older.at(&["spec", "replicas"]), Some(&wanted.into()));
    assert_eq!(older.at(&["status", "replicas"]).and_then(Value::as_i64), counted);
    assert_eq!(older.at(&["status", "nodeName"]), None);
    assert_eq!(older.at(&["status", "service"]), Some(&json!("s")));
}

#[rstest]
#[case::a_pool_by_name("mine", "", "mine")]
#[case::any_pool("default", "", "shadow-pool-tpl")]
#[case::no_pool("none", "", "shadow-pool-tpl")]
#[case::served_cold("default", "a", "shadow-pool-tpl")]
#[case::served_warm("default", "pool-one-x7k2p", "pool-one")]
fn a_claim_of_a_template_becomes_one_of_a_pool(#[case] policy: &str, #[case] sandbox: &str, #[case] pool: &str) {
    let spec = json!({"sandboxTemplateRef": {"name": "tpl"}, "warmpool": policy});
    let status = if sandbox.is_empty() { json!({}) } else { json!({"sandbox": {"name": sandbox}}) };
    let older = object(OLDER, "SandboxClaim", json!({"spec": spec, "status": status}));
    let newer = to(older, "v1beta1");
    assert_eq!(newer.str_at(&["spec", "warmPoolRef", "name"]), pool);
    assert_eq!(newer.at(&["spec", "additionalPodMetadata"]), Some(&json!({})));
    let back = to(newer, "v1alpha1");
    assert_eq!(back.str_at(&["spec", "warmpool"]), policy);
    assert_eq!(back.str_at(&["spec", "sandboxTemplateRef", "name"]), "tpl");
}

#[rstest]
#[case("shadow-pool-tpl", "default", "tpl")]
#[case("pool", "pool", "pool")]
fn a_claim_of_a_pool_shows_a_template(#[case] pool: &str, #[case] policy: &str, #[case] template: &str) {
    let newer = object(NEWER, "SandboxClaim", json!({"spec": {"warmPoolRef": {"name": pool}}}));
    let older = to(newer, "v1alpha1");
    assert_eq!(older.str_at(&["spec", "warmpool"]), policy);
    assert_eq!(older.str_at(&["spec", "sandboxTemplateRef", "name"]), template);
}

#[test]
fn another_pool_shows_in_a_claim_that_was_written_in_the_older_version() {
    let older = object(OLDER, "SandboxClaim", json!({"spec": {"sandboxTemplateRef": {"name": "tpl"}}}));
    let mut newer = to(older, "v1beta1");
    newer.set_at(&["spec", "warmPoolRef", "name"], "other");
    let back = to(newer, "v1alpha1");
    assert_eq!(back.str_at(&["spec", "warmpool"]), "other");
    assert_eq!(back.str_at(&["spec", "sandboxTemplateRef", "name"]), "tpl");
}

#[test]
fn a_claims_own_volumes_are_lost_in_the_older_version() {
    let claims = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let spec = json!({"warmPoolRef": {"name": "p"}, "volumeClaimTemplates": claims});
    let older = to(object(NEWER, "SandboxClaim", json!({"spec": spec})), "v1alpha1");
    assert_eq!(older.at(&["spec", "volumeClaimTemplates"]), None);
}

fn template(version: &str) -> Object {
    let spec = json!({"podTemplate": {"spec": {"containers": []}}, "networkPolicy": {"ingress": []}});
    object(version, "SandboxTemplate", json!({"spec": spec}))
}

#[test]
fn a_templates_policy_on_volumes_travels_in_an_annotation() {
    let mut newer = template(NEWER);
    newer.set_at(&["spec", "volumeClaimTemplatesPolicy"], "Allowed");
    let older = to(newer, "v1alpha1");
    assert_eq!(older.annotation(NEWER_POLICY), Some("Allowed"));
    assert_eq!(older.at(&["spec", "networkPolicy"]), Some(&json!({})));
    let back = to(older, "v1beta1");
    assert_eq!(back.str_at(&["spec", "volumeClaimTemplatesPolicy"]), "Allowed");
    assert_eq!(back.annotation(NEWER_POLICY), None);
    let mut wrong = template(OLDER);
    wrong.set_at(&["metadata", "annotations", NEWER_POLICY], "Maybe");
    let refused = convert(vec![wrong], NEWER).unwrap_err();
    assert_eq!(refused, "invalid VolumeClaimTemplatesPolicy annotation value: \"Maybe\"");
}

#[test]
fn a_pool_without_a_size_has_one_sandbox_in_the_older_version() {
    let spec = json!({"sandboxTemplateRef": {"name": "tpl"}});
    let status = json!({"replicas": 0, "observedGeneration": 3});
    let older = to(object(NEWER, "SandboxWarmPool", json!({"spec": spec, "status": status})), "v1alpha1");
    assert_eq!(older.at(&["spec", "replicas"]), Some(&json!(1)));
    assert_eq!(older.get("status"), Some(&json!({})));
    let mut empty = older;
    empty.set_at(&["spec", "replicas"], 0);
    assert_eq!(to(empty, "v1beta1").at(&["spec", "replicas"]), Some(&json!(0)));
}

#[rstest]
#[case("", "failed to unmarshal v1alpha1 Sandbox state: unexpected end of JSON input")]
#[case("<", "failed to unmarshal v1alpha1 Sandbox state: invalid character '<' looking for beginning of value")]
#[case(
    "[]",
    "failed to unmarshal v1alpha1 Sandbox state: json: cannot unmarshal array into Go value of type v1alpha1.Sandbox"
)]
fn a_state_that_cannot_be_read_makes_the_conversion_fail(#[case] state: &str, #[case] message: &str) {
    let mut newer = sandbox("v1beta1", json!({}), json!({}));
    newer.set_at(&["metadata", "annotations", &older_state("Sandbox")], state);
    assert_eq!(convert(vec![newer], "agents.x-k8s.io/v1alpha1").unwrap_err(), message);
}
