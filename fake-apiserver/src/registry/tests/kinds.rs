//! Stories of built-in kinds that have few rules of their own.

use rstest::rstest;
use serde_json::{Value, json};

use super::{ListOptions, WatchEvent, World};
use crate::base::Object;

const ENDPOINTS: (&str, &str, &str) = ("", "v1", "endpoints");

#[rstest]
#[case("10.0.0.1", &[])]
#[case("127.0.0.1", &["may not be in the loopback range (127.0.0.0/8, ::1/128)"])]
#[case("::1", &["may not be in the loopback range (127.0.0.0/8, ::1/128)"])]
#[case("169.254.1.1", &["may not be in the link-local range (169.254.0.0/16, fe80::/10)"])]
#[case("224.0.0.1", &["may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"])]
#[case("0.0.0.0", &["may not be unspecified (0.0.0.0)"])]
#[case("01.2.3.4", &["must not have leading 0s"])]
#[case("1.2.3", &["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)", "must be a valid IP address"])]
#[tokio::test]
async fn endpoints_are_at_addresses_that_others_reach(#[case] ip: &str, #[case] complaints: &[&str]) {
    let world = World::new().await;
    let subset = json!({"addresses": [{"ip": ip}], "ports": [{"port": 1}]});
    let made = world.create(ENDPOINTS, "demo", json!({"metadata": {"name": "e"}, "subsets": [subset]})).await;
    let causes = made.err().map(|error| error.details.unwrap().causes).unwrap_or_default();
    let said: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    let field = "subsets[0].addresses[0].ip";
    let expected: Vec<_> = complaints.iter().map(|why| format!("{field}: Invalid value: \"{ip}\": {why}")).collect();
    assert_eq!(said, expected);
}

#[rstest]
#[case::flow_schema(("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
    json!({"priorityLevelConfiguration": {"name": "exempt"}}), json!({"matchingPrecedence": 77}), [Some(1), Some(2)])]
#[case::priority_level(("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations"),
    json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}), json!({"limited": {"lendablePercent": 3}}),
    [Some(1), Some(2)])]
#[case::csi_driver(("storage.k8s.io", "v1", "csidrivers"), json!({}), json!({"requiresRepublish": true}), [None, Some(1)])]
#[tokio::test]
async fn the_generation_counts_changes_of_the_spec(
    #[case] resource: (&str, &str, &str),
    #[case] spec: Value,
    #[case] change: Value,
    #[case] expected: [Option<i64>; 2],
) {
    let world = World::new().await;
    let generation = |object: &crate::base::Stored| object.at(&["metadata", "generation"]).and_then(Value::as_i64);
    let made = world.create(resource, "", json!({"metadata": {"name": "a"}, "spec": spec})).await.unwrap();
    let labelled = world.merge(resource, "", "a", json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap();
    assert_eq!(generation(&labelled), generation(&made));
    let changed = world.merge(resource, "", "a", json!({"spec": change})).await.unwrap();
    assert_eq!([generation(&made), generation(&changed)], expected);
}

#[tokio::test]
async fn flow_control_has_defaults() {
    let world = World::new().await;
    let schema = json!({"metadata": {"name": "a"}, "spec": {"priorityLevelConfiguration": {"name": "exempt"}}});
    let group = "flowcontrol.apiserver.k8s.io";
    let made = world.create((group, "v1", "flowschemas"), "", schema).await.unwrap();
    assert_eq!(made.at(&["spec", "matchingPrecedence"]), Some(&json!(1000)));
    let level = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}});
    let level = json!({"metadata": {"name": "a"}, "spec": level});
    let made = world.create((group, "v1", "prioritylevelconfigurations"), "", level).await.unwrap();
    let queuing = json!({"handSize": 8, "queues": 64, "queueLengthLimit": 50});
    let limited = json!({"nominalConcurrencyShares": 30, "lendablePercent": 0,
        "limitResponse": {"type": "Queue", "queuing": queuing}});
    assert_eq!(made.at(&["spec", "limited"]), Some(&limited));
}

#[tokio::test]
async fn the_pods_of_an_indexed_job_have_names_that_hosts_may_have() {
    let world = World::new().await;
    let name = "a".repeat(62);
    let container = json!({"name": "c", "image": "i"});
    let spec = json!({"completionMode": "Indexed", "completions": 100, "parallelism": 1,
        "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}});
    let job = json!({"metadata": {"name": name}, "spec": spec});
    let error = world.create(("batch", "v1", "jobs"), "demo", job).await.unwrap_err();
    let causes = error.details.unwrap().causes;
    let why = format!("Invalid value: \"{name}\": will not able to create pod with invalid DNS label: {name}-99");
    assert_eq!(
        (causes.len(), causes[0].field.as_str(), causes[0].message.as_str()),
        (1, "metadata.name", why.as_str())
    );
}

#[tokio::test]
async fn who_makes_a_daemon_set_owns_the_count_of_its_templates() {
    let world = World::new().await;
    let container = json!({"name": "c", "image": "i"});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let made =
        world.create(("apps", "v1", "daemonsets"), "demo", json!({"metadata": {"name": "d"}, "spec": spec})).await;
    let made = made.unwrap().unpacked();
    let key = "deprecated.daemonset.template.generation";
    assert_eq!(made.annotation(key), Some("1"));
    let owned = made.at(&["metadata", "managedFields"]).unwrap()[0]["fieldsV1"]["f:metadata"]["f:annotations"].clone();
    assert_eq!(owned, json!({".": {}, format!("f:{key}"): {}}));
}

#[tokio::test]
async fn an_event_without_a_time_is_of_the_old_kind_and_one_of_the_new_group_needs_one() {
    let world = World::new().await;
    let event = |name: &str| json!({"metadata": {"name": name}});
    let error = world.create(("events.k8s.io", "v1", "events"), "demo", event("x")).await.unwrap_err();
    let head =
        "Event \"x\" is invalid: [involvedObject.namespace: Invalid value: \"\": does not match event.namespace, ";
    let rest = "eventTime: Required value, type: Invalid value: \"\": has invalid value: ]";
    assert_eq!(error.message, format!("{head}{rest}"));
    world.create(("", "v1", "events"), "default", event("x")).await.expect_err("there is no such namespace here");
    let mut about = event("y");
    about["involvedObject"] = json!({"namespace": "demo", "kind": "Pod", "name": "p"});
    world.create(("", "v1", "events"), "demo", about).await.unwrap();
}

/// Version v2 calls `color` of v1 `paint`.
fn repaint(objects: Vec<Object>, version: &str) -> Result<Vec<Object>, String> {
    let (from, to) = if version.ends_with("/v2") { ("color", "paint") } else { ("paint", "color") };
    let renamed = objects.into_iter().map(|mut object| {
        if let Some(value) = object.at(&["spec", from]).cloned() {
            object.remove_at(&["spec", from]);
            object.set_at(&["spec", to], value);
        }
        object.set("apiVersion", version);
        object
    });
    Ok(renamed.collect())
}

#[tokio::test]
async fn fields_are_selected_as_the_asked_version_has_them() {
    let world = World::new().await;
    world.registry.answer_conversions("demo", "painter", repaint);
    let version = |name: &str, field: &str| {
        let spec = json!({"type": "object", "properties": {field: {"type": "string"}}});
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
        json!({"name": name, "served": true, "storage": name == "v1", "schema": schema,
            "selectableFields": [{"jsonPath": format!(".spec.{field}")}]})
    };
    let client = json!({"service": {"namespace": "demo", "name": "painter"}});
    let conversion =
        json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}});
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [version("v1", "color"), version("v2", "paint")], "conversion": conversion}});
    world.create(super::CRDS, "", definition).await.unwrap();
    for (name, color) in [("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")] {
        world.create(super::WIDGETS, "demo", super::widget(name, json!({"color": color}))).await.unwrap();
    }
    let all = world.target(("example.com", "v2", "widgets"), "demo", "", "");
    let red = |limit| ListOptions { field_selector: "spec.paint=red".into(), limit, ..ListOptions::default() };
    let found = world.registry.list(&all, &red(0)).await.unwrap();
    assert_eq!(super::names(&found.items), ["a", "c", "d"]);
    let page = world.registry.list(&all, &red(2)).await.unwrap();
    assert_eq!(super::names(&page.items), ["a", "c"]);
    let next = ListOptions { continue_token: page.continue_token, ..red(2) };
    let rest = world.registry.list(&all, &next).await.unwrap();
    assert_eq!((super::names(&rest.items), rest.continue_token.as_str()), (vec!["d"], ""));

    let since = world.get(super::WIDGETS, "demo", "d").await.unwrap().resource_version().to_owned();
    let options = ListOptions { resource_version: since, ..red(0) };
    let mut watcher = world.registry.watch(&all, &options).await.unwrap();
    world.merge(super::WIDGETS, "demo", "b", json!({"spec": {"color": "red"}})).await.unwrap();
    world.merge(super::WIDGETS, "demo", "a", json!({"spec": {"color": "blue"}})).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(watcher.next().await.unwrap());
    }
    let [WatchEvent::Added(added), WatchEvent::Deleted(gone)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((added.name(), added.at(&["spec", "paint"])), ("b", Some(&json!("red"))));
    assert_eq!(gone.name(), "a");
}
