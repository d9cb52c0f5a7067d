use rstest::rstest;

use super::*;

fn sandbox(metadata: Value, template: Value) -> Object {
    let mut sandbox = Object::new("agents.x-k8s.io/v1beta1", "Sandbox", "ns", "sb");
    for (key, value) in metadata.as_object().unwrap() {
        sandbox.set_at(&["metadata", key], value.clone());
    }
    sandbox.set_at(&["spec", "podTemplate", "metadata"], template);
    sandbox
}

fn owned_by(api_version: &str, kind: &str, labels: Value) -> Value {
    let owner = json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o1", "controller": true});
    json!({"labels": labels, "ownerReferences": [owner]})
}

fn pod(labels: Value, annotations: Value) -> Object {
    let mut pod = Object::new("v1", "Pod", "ns", "sb");
    pod.set_at(&["metadata", "labels"], labels);
    pod.set_at(&["metadata", "annotations"], annotations);
    pod
}

#[test]
fn a_new_pod_gets_the_templates_metadata_but_no_reserved_key() {
    let sandbox = sandbox(
        json!({"labels": {CREATED_BY: "somebody", "own": "x"}}),
        json!({
            "labels": {"tier": "x", "app": "a", "agents.x-k8s.io/mine": "no", "agents.x-k8s.io/claim-uid": "u"},
            "annotations": {"note": "1", "extensions.agents.x-k8s.io/n": "no", TRACE_CONTEXT: "{}"},
        }),
    );
    let (labels, annotations) = for_new_pod(&sandbox);
    assert_eq!(json!(labels), json!({CREATED_BY: "unknown", NAME_HASH: "3551ffa0", "app": "a", "tier": "x"}));
    assert_eq!(json!(annotations), json!({"note": "1", PROPAGATED_LABELS: "app,tier", PROPAGATED_ANNOTATIONS: "note"}));
}

#[test]
fn a_plain_pod_gets_the_hash_and_nothing_else() {
    let (labels, annotations) = for_new_pod(&sandbox(json!({}), json!({})));
    assert_eq!((json!(labels), json!(annotations)), (json!({NAME_HASH: "3551ffa0"}), json!({})));
}

#[rstest]
#[case::known("go-client", Some("go-client"))]
#[case::python("python-client", Some("python-client"))]
#[case::controller("controller", Some("controller"))]
#[case::strange("me", Some("unknown"))]
#[case::empty("", None)]
fn who_made_a_sandbox_is_told_in_known_words(#[case] label: &str, #[case] told: Option<&str>) {
    let (labels, _) = for_new_pod(&sandbox(json!({"labels": {CREATED_BY: label}}), json!({})));
    assert_eq!(labels.get(CREATED_BY).map(String::as_str), told);
}

const EXT: &str = "extensions.agents.x-k8s.io/v1beta1";

#[rstest]
#[case::plain("apps/v1", "Deployment", None, None)]
#[case::of_a_claim(EXT, "SandboxClaim", None, Some("t"))]
#[case::in_a_pool(EXT, "SandboxWarmPool", Some("p"), Some("t"))]
#[case::in_an_old_pool("extensions.agents.x-k8s.io/v1alpha1", "SandboxWarmPool", Some("p"), Some("t"))]
fn extension_labels_follow_the_owner(
    #[case] api_version: &str,
    #[case] kind: &str,
    #[case] pool: Option<&str>,
    #[case] template: Option<&str>,
) {
    let labels = json!({WARM_POOL: "p", TEMPLATE_REF_HASH: "t"});
    let sandbox = sandbox(owned_by(api_version, kind, labels), json!({}));
    let (labels, _) = for_new_pod(&sandbox);
    let label = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!((label(WARM_POOL), label(TEMPLATE_REF_HASH)), (pool, template));
}

#[test]
fn what_leaves_the_template_leaves_the_pod_and_what_others_wrote_stays() {
    let pod = pod(
        json!({CREATED_BY: "unknown", NAME_HASH: "3551ffa0", "app": "a", "tier": "x", "hand": "made"}),
        json!({PROPAGATED_LABELS: "app,tier", PROPAGATED_ANNOTATIONS: "note", "note": "1"}),
    );
    let sandbox = sandbox(json!({"labels": {CREATED_BY: "somebody"}}), json!({"labels": {"app": "b", "new": "y"}}));
    assert_eq!(
        Value::from(sync(&pod, &sandbox)),
        json!({
            "labels": {"app": "b", "new": "y", "tier": null},
            "annotations": {"note": null, PROPAGATED_ANNOTATIONS: "", PROPAGATED_LABELS: "app,new"},
        })
    );
}

#[test]
fn a_pod_in_step_is_not_patched() {
    let sandbox = sandbox(json!({"labels": {CREATED_BY: "go-client"}}), json!({"labels": {"a": "b"}}));
    let (labels, annotations) = for_new_pod(&sandbox);
    assert!(sync(&pod(json!(labels), json!(annotations)), &sandbox).is_empty());
    let bare = self::sandbox(json!({}), json!({}));
    let empty_list = json!({PROPAGATED_ANNOTATIONS: ""});
    assert!(sync(&pod(json!({NAME_HASH: "3551ffa0"}), empty_list), &bare).is_empty());
}

#[test]
fn a_key_without_a_value_reaches_a_new_pod_but_is_never_added_to_one_that_exists() {
    let sandbox = sandbox(json!({}), json!({"labels": {"tier": ""}, "annotations": {"note": ""}}));
    let (labels, annotations) = for_new_pod(&sandbox);
    assert_eq!((labels.get("tier"), annotations.get("note")), (Some(&String::new()), Some(&String::new())));
    let old = pod(json!({NAME_HASH: "3551ffa0", "tier": "x"}), json!({}));
    assert_eq!(
        Value::from(sync(&old, &sandbox)),
        json!({
            "labels": {"tier": ""},
            "annotations": {PROPAGATED_ANNOTATIONS: "note", PROPAGATED_LABELS: "tier"},
        })
    );
}

#[test]
fn reserved_keys_that_an_older_controller_let_through_are_taken_back_but_not_the_hash() {
    let pod = pod(
        json!({NAME_HASH: "3551ffa0", "agents.x-k8s.io/claim-uid": "u"}),
        json!({
            PROPAGATED_LABELS: "agents.x-k8s.io/claim-uid,agents.x-k8s.io/sandbox-name-hash",
            PROPAGATED_ANNOTATIONS: format!("{PROPAGATED_LABELS},{TRACE_CONTEXT}"), TRACE_CONTEXT: "{}",
        }),
    );
    assert_eq!(
        Value::from(sync(&pod, &sandbox(json!({}), json!({})))),
        json!({
            "labels": {"agents.x-k8s.io/claim-uid": null},
            "annotations": {PROPAGATED_LABELS: "", PROPAGATED_ANNOTATIONS: "", TRACE_CONTEXT: null},
        })
    );
}

#[test]
fn a_pod_that_leaves_its_pool_loses_the_pools_marks() {
    let pooled = json!({NAME_HASH: "3551ffa0", WARM_POOL: "p", TEMPLATE_REF_HASH: "t", CREATED_BY: "controller"});
    let pod = pod(pooled, json!({"evict": "true", PROPAGATED_ANNOTATIONS: "evict"}));
    let labels = json!({TEMPLATE_REF_HASH: "t"});
    let adopted = sandbox(owned_by(EXT, "SandboxClaim", labels), json!({}));
    assert_eq!(
        Value::from(sync(&pod, &adopted)),
        json!({
            "labels": {WARM_POOL: null, CREATED_BY: null},
            "annotations": {"evict": null, PROPAGATED_ANNOTATIONS: ""},
        })
    );
}
