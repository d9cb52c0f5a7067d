use proptest::{option, prelude::*};
use rstest::rstest;

use super::*;

fn object(kind: &str, version: &str, spec: Value, status: Value) -> Value {
    let group = if kind == "Sandbox" { "agents.x-k8s.io" } else { "extensions.agents.x-k8s.io" };
    let mut object = json!({"apiVersion": format!("{group}/{version}"), "kind": kind,
        "metadata": {"name": "a", "annotations": {"mine": "stays"}}, "spec": spec});
    if !status.is_null() {
        object["status"] = status;
    }
    object
}

fn pods() -> Value {
    json!({"metadata": {}, "spec": {"containers": [{"name": "main", "image": "x", "resources": {}}]}})
}

#[rstest]
#[case::said(json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "p"}), json!({}), "p")]
#[case::any(json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "default"}), json!({}), "shadow-pool-t")]
#[case::never(json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "none"}), json!({}), "shadow-pool-t")]
#[case::unsaid(json!({"sandboxTemplateRef": {"name": "t"}}), json!({}), "shadow-pool-t")]
#[case::adopted(json!({"sandboxTemplateRef": {"name": "t"}}), json!({"sandbox": {"name": "py-thon-x7k2p"}}), "py-thon")]
#[case::made_anew(json!({"sandboxTemplateRef": {"name": "t"}}), json!({"sandbox": {"name": "a"}}), "shadow-pool-t")]
fn an_older_claim_names_the_pool_that_it_means(#[case] spec: Value, #[case] status: Value, #[case] pool: &str) {
    let newer = convert(object("SandboxClaim", "v1alpha1", spec.clone(), status), Version::V1beta1).unwrap();
    assert_eq!(newer["spec"]["warmPoolRef"]["name"], pool);
    let back = convert(newer, Version::V1alpha1).unwrap();
    assert_eq!(
        (&back["spec"]["warmpool"], &back["spec"]["sandboxTemplateRef"]),
        (&spec["warmpool"], &spec["sandboxTemplateRef"])
    );
}

#[test]
fn a_pool_that_was_changed_in_the_newer_version_is_not_undone_by_the_kept_state() {
    let spec = json!({"sandboxTemplateRef": {"name": "t"}, "warmpool": "p"});
    let mut newer = convert(object("SandboxClaim", "v1alpha1", spec, Value::Null), Version::V1beta1).unwrap();
    newer["spec"]["warmPoolRef"]["name"] = "q".into();
    let older = convert(newer, Version::V1alpha1).unwrap();
    assert_eq!((&older["spec"]["warmpool"], &older["spec"]["sandboxTemplateRef"]["name"]), (&json!("q"), &json!("t")));
}

#[test]
fn what_is_no_state_no_policy_or_no_kind_is_refused() {
    let with = |kind: &str, version: &str, key: &str| {
        let mut object = object(kind, version, json!({"podTemplate": pods()}), Value::Null);
        object["metadata"]["annotations"][key] = "{".into();
        object
    };
    let state = convert(with("Sandbox", "v1beta1", &state_key("Sandbox")), Version::V1alpha1).unwrap_err();
    assert!(matches!(state, ConversionError::BadState { .. }), "{state:?}");
    let policy = convert(with("SandboxTemplate", "v1alpha1", POLICY), Version::V1beta1).unwrap_err();
    assert_eq!(policy.to_string(), "invalid VolumeClaimTemplatesPolicy annotation value: \"{\"");
    let kind = convert(json!({"apiVersion": "v1", "kind": "Pod"}), Version::V1beta1).unwrap_err();
    assert!(matches!(kind, ConversionError::UnknownKind { .. }), "{kind:?}");
    assert!(convert(with("SandboxTemplate", "v1beta1", &state_key("SandboxTemplate")), Version::V1alpha1).is_ok());
}

#[test]
fn the_typed_form_says_the_same() {
    let newer = object("Sandbox", "v1beta1", json!({"podTemplate": pods(), "operatingMode": "Suspended"}), Value::Null);
    let typed: v1beta1::Sandbox = serde_json::from_value(newer.clone()).unwrap();
    let older = v1alpha1::Sandbox::try_from(typed).unwrap();
    assert_eq!(older.spec.replicas, Some(0));
    let json: v1alpha1::Sandbox = serde_json::from_value(convert(newer, Version::V1alpha1).unwrap()).unwrap();
    assert_eq!(older, json);
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,4}(-[a-z0-9]{1,5}){0,2}"
}

fn some(entries: Vec<(&str, Option<Value>)>) -> Value {
    entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect::<Map<_, _>>().into()
}

fn older() -> impl Strategy<Value = Value> {
    let sandbox =
        (option::of(0..=1_i32), option::of(any::<bool>()), option::of(1..=1_i32)).prop_map(|(r, service, now)| {
            let spec = some(vec![
                ("podTemplate", Some(pods())),
                ("replicas", r.map(Into::into)),
                ("service", service.map(Into::into)),
            ]);
            object("Sandbox", "v1alpha1", spec, now.map_or(Value::Null, |now| json!({"replicas": now})))
        });
    let policy = option::of(prop_oneof![Just("default".to_owned()), Just("none".to_owned()), name()]);
    let claim = (name(), policy, option::of(name())).prop_map(|(template, policy, sandbox)| {
        let spec = some(vec![
            ("sandboxTemplateRef", Some(json!({"name": template}))),
            ("warmpool", policy.map(Into::into)),
            ("additionalPodMetadata", Some(json!({}))),
        ]);
        object("SandboxClaim", "v1alpha1", spec, sandbox.map_or(Value::Null, |name| json!({"sandbox": {"name": name}})))
    });
    let pool = (name(), 0..5_i32).prop_map(|(template, replicas)| {
        let spec = json!({"sandboxTemplateRef": {"name": template}, "replicas": replicas});
        object("SandboxWarmPool", "v1alpha1", spec, json!({}))
    });
    let template = option::of(prop_oneof![Just("Allowed"), Just("Disallowed"), Just("Overrides")]).prop_map(|policy| {
        let mut template = object("SandboxTemplate", "v1alpha1", json!({"podTemplate": pods()}), Value::Null);
        if let Some(policy) = policy {
            template["metadata"]["annotations"][POLICY] = policy.into();
        }
        template
    });
    prop_oneof![sandbox, claim, pool, template]
}

proptest! {
    #[test]
    fn there_and_back_from_the_older_version_nothing_is_lost(older in older()) {
        let newer = convert(older.clone(), Version::V1beta1).unwrap();
        prop_assert_eq!(convert(newer, Version::V1alpha1).unwrap(), older);
    }

    #[test]
    fn there_and_back_from_the_newer_version_only_the_state_is_added(older in older()) {
        // Any object that the newer version can hold without state: the older one's, stripped.
        let mut newer = convert(older, Version::V1beta1).unwrap();
        let key = state_key(newer["kind"].as_str().unwrap());
        take_annotation(&mut newer, &key);
        let mut back = convert(convert(newer.clone(), Version::V1alpha1).unwrap(), Version::V1beta1).unwrap();
        prop_assert!(take_annotation(&mut back, &key).is_some());
        prop_assert_eq!(back, newer);
    }
}
