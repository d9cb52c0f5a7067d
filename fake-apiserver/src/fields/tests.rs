use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::schema::{ListType, Node, Type};

/// A node from a snippet of OpenAPI; `definition`, `patchMergeKey` and `patchStrategy` stand for the facts of built-in kinds.
pub(super) fn node(source: &Value) -> Node {
    let text = |key: &str| source.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| source.get(key) == Some(&Value::Bool(true));
    let child = |key: &str| source.get(key).filter(|child| child.is_object()).map(|child| Arc::new(node(child)));
    let keys = source.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let properties: BTreeMap<_, _> = source
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, child)| (name.clone(), Arc::new(node(child))))
        .collect();
    Node {
        kind: match text("type") {
            "object" => Some(Type::Object),
            "array" => Some(Type::Array),
            "string" => Some(Type::String),
            "integer" => Some(Type::Integer),
            "number" => Some(Type::Number),
            "boolean" => Some(Type::Boolean),
            _ => None,
        },
        properties,
        additional: child("additionalProperties"),
        items: child("items"),
        default: source.get("default").cloned(),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        map_atomic: text("x-kubernetes-map-type") == "atomic",
        list_type: match text("x-kubernetes-list-type") {
            "set" => ListType::Set,
            "map" => ListType::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ => ListType::Atomic,
        },
        merge_key: Some(text("patchMergeKey").to_owned()).filter(|key| !key.is_empty()),
        patch_merge: text("patchStrategy").contains("merge"),
        retain_keys: text("patchStrategy").contains("retainKeys"),
        definition: text("definition").into(),
        always: source
            .get("always")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, zero)| (name.clone(), zero.clone()))
            .collect(),
        ..Node::default()
    }
}

fn object_meta() -> Value {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    json!({"type": "object", "definition": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "properties": {
        "name": {"type": "string"}, "generateName": {"type": "string"}, "namespace": {"type": "string"},
        "uid": {"type": "string"}, "resourceVersion": {"type": "string"}, "generation": {"type": "integer"},
        "creationTimestamp": {"type": "string"}, "deletionTimestamp": {"type": "string"},
        "labels": texts, "annotations": texts,
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "patchStrategy": "merge", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"],
            "patchStrategy": "merge", "patchMergeKey": "uid",
            "items": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"uid": {"type": "string"}}}},
        "managedFields": {"type": "array", "items": {"type": "object"}},
    }})
}

/// A whole object whose members beside the usual ones are these.
pub(super) fn schema(definition: &str, members: Value) -> Schema {
    let mut properties = json!({
        "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": object_meta(),
    });
    properties.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let root = json!({"type": "object", "definition": definition, "properties": properties});
    Schema { root: Arc::new(node(&root)), builtin: false }
}

fn config_map() -> Arc<Schema> {
    Schema::builtin("io.k8s.api.core.v1.ConfigMap")
}

/// A kind with a list of each sort.
fn widget() -> Schema {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    schema(
        "",
        json!({
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer"}, "text": {"type": "string"}, "open": texts,
                "flat": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "properties": {
                        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                    "items": {"type": "object", "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}}},
            }},
            "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
        }),
    )
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap() // 2026-01-01T00:00:00Z
}

fn writer(manager: &str, second: i64) -> Writer<'_> {
    Writer { manager, api_version: "v1", subresource: "", reset: &[&["status"]], now: at(second), versions: None }
}

/// An object of the given kind: `v1`, name `a`, and these members.
fn object(kind: &str, members: Value) -> Object {
    let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}});
    for (key, member) in members.as_object().unwrap() {
        match (key.as_str(), member) {
            ("metadata", Value::Object(metadata)) => {
                value["metadata"].as_object_mut().unwrap().extend(metadata.clone())
            }
            _ => value[key] = member.clone(),
        }
    }
    Object::from_value(value).unwrap()
}

fn cm(members: Value) -> Object {
    object("ConfigMap", members)
}

fn created(schema: &Schema, mut new: Object, manager: &str) -> Object {
    track(None, &mut new, schema, &writer(manager, 0));
    new
}

fn updated(schema: &Schema, live: &Object, new: Object, manager: &str, second: i64) -> Object {
    let mut new = new;
    track(Some(live), &mut new, schema, &writer(manager, second));
    new
}

/// `manager operation second fields` for each entry, in their order.
fn owners(object: &Object) -> Vec<String> {
    let entries = object.at(&["metadata", "managedFields"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let show = |entry: &Value| {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        assert_eq!(text("fieldsType"), "FieldsV1");
        let second = text("time").strip_prefix("2026-01-01T00:00:").map_or("-", |rest| rest.trim_end_matches('Z'));
        let paths: Vec<_> =
            Set::from_wire(&entry["fieldsV1"]).unwrap().paths().into_iter().map(|(_, path)| path).collect();
        format!("{} {} {second} {}", text("manager"), text("operation"), paths.join(" "))
    };
    entries.iter().map(show).collect()
}

mod tracking {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_creator_owns_what_it_sent_but_not_what_the_server_says() {
        let sent = cm(json!({
            "metadata": {"labels": {"l": "1"}, "uid": "u", "creationTimestamp": "x", "generation": 1}, "data": {"x": "1"},
        }));
        let created = created(&config_map(), sent, "kubectl");
        assert_eq!(
            created.at(&["metadata", "managedFields"]),
            Some(&json!([{
                "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:x": {}}, "f:metadata": {"f:labels": {".": {}, "f:l": {}}}},
            }]))
        );
    }

    #[test]
    fn an_object_without_fields_of_its_own_has_no_owner() {
        assert_eq!(owners(&created(&config_map(), cm(json!({})), "x")), Vec::<String>::new());
    }

    #[test]
    fn who_changes_a_field_takes_it() {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1", "y": "1"}})), "one");
        let live = updated(&schema, &live, cm(json!({"data": {"x": "2", "y": "1", "z": "1"}})), "two", 5);
        assert_eq!(owners(&live), ["one Update 00 .data .data.y", "two Update 05 .data.x .data.z"]);
    }

    #[test]
    fn who_removes_a_field_owns_nothing_new() {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1", "y": "1"}})), "one");
        let live = updated(&schema, &live, cm(json!({"data": {"y": "1"}})), "two", 5);
        assert_eq!(owners(&live), ["one Update 00 .data .data.y"]);
        let live = updated(&schema, &live, cm(json!({})), "two", 6);
        assert_eq!(owners(&live), Vec::<String>::new());
        // Once nobody owns anything, updates are not followed any more.
        let live = updated(&schema, &live, cm(json!({"data": {"z": "1"}})), "two", 7);
        assert_eq!(owners(&live), Vec::<String>::new());
    }

    #[test]
    fn an_update_that_changes_nothing_keeps_owners_and_times() {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        assert_eq!(updated(&schema, &live, live.clone(), "one", 9), live);
        assert_eq!(updated(&schema, &live, cm(json!({"data": {"x": "1"}})), "two", 9), live);
    }

    #[test]
    fn times_alone_are_no_change() {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        let mut new = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        new.metadata_mut()["managedFields"][0]["time"] = "2026-01-01T00:00:09Z".into();
        let later = new.clone();
        keep_times(&live, &mut new);
        assert_eq!(new, live);

        for changed in [json!({"data": {"x": "2"}}), json!({"data": {"x": "1"}, "immutable": true}), json!({})] {
            let mut new = cm(changed);
            new.metadata_mut().insert("managedFields".into(), later.metadata().unwrap()["managedFields"].clone());
            let before = new.clone();
            keep_times(&live, &mut new);
            assert_eq!(new, before);
        }
    }

    #[test]
    fn writing_through_another_door_is_another_owner() {
        let schema = widget();
        let live = created(&schema, object("W", json!({"spec": {"size": 1}})), "one");
        let mut new = live.clone();
        new.set_at(&["spec", "size"], 2);
        new.set_at(&["status", "ready"], true);
        let status = Writer { subresource: "status", reset: &[&["spec"]], ..writer("one", 4) };
        track(Some(&live), &mut new, &schema, &status);
        assert_eq!(owners(&new), ["one Update 00 .spec .spec.size", "one Update 04 .status .status.ready"]);
        assert_eq!(new.at(&["metadata", "managedFields"]).unwrap()[1]["subresource"], "status");
    }

    #[test]
    fn a_field_that_the_door_does_not_write_gets_no_owner() {
        let live = created(&widget(), object("W", json!({"spec": {"size": 1}, "status": {"ready": true}})), "one");
        assert_eq!(owners(&live), ["one Update 00 .spec .spec.size"]);
    }

    #[rstest]
    #[case::emptied(json!([]))]
    #[case::one_empty_entry(json!([{}]))]
    fn ownership_can_be_reset(#[case] sent: Value) {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        let mut new = live.clone();
        new.metadata_mut().insert("managedFields".into(), sent);
        assert_eq!(owners(&updated(&schema, &live, new, "two", 3)), Vec::<String>::new());
    }

    #[rstest]
    #[case::absent(None)]
    #[case::no_type(Some(json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsV1": {}}])))]
    #[case::no_version(Some(json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1"}])))]
    #[case::no_such_operation(Some(json!([{"manager": "x", "operation": "Frob", "apiVersion": "v1"}])))]
    #[case::broken_set(Some(json!([
        {"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}])))]
    fn owners_that_cannot_be_read_are_ignored(#[case] sent: Option<Value>) {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        let mut new = live.clone();
        match sent {
            Some(sent) => new.metadata_mut().insert("managedFields".into(), sent),
            None => new.metadata_mut().remove("managedFields"),
        };
        assert_eq!(owners(&updated(&schema, &live, new, "two", 3)), ["one Update 00 .data .data.x"]);
    }

    #[test]
    fn owners_can_be_set_but_not_through_a_subresource() {
        let schema = config_map();
        let live = created(&schema, cm(json!({"data": {"x": "1"}})), "one");
        let mut new = live.clone();
        let entry = json!({
            "manager": "renamed", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:x": {}}},
        });
        new.metadata_mut().insert("managedFields".into(), json!([entry]));
        assert_eq!(owners(&updated(&schema, &live, new.clone(), "two", 3)), ["renamed Update - .data.x"]);
        let status = Writer { subresource: "status", ..writer("two", 3) };
        track(Some(&live), &mut new, &schema, &status);
        assert_eq!(owners(&new), ["one Update 00 .data .data.x"]);
    }

    #[test]
    fn lists_are_owned_as_the_schema_says() {
        let spec = json!({
            "tags": ["b", "a"], "plain": ["x"], "flat": {"x": "1"}, "open": {"x": "1"}, "parts": [{"id": "p", "n": 1}],
            "ports": [{"port": 80}], "free": {"deep": {"list": [1], "n": 1}},
        });
        let live = created(&widget(), object("W", json!({"spec": spec})), "one");
        assert_eq!(
            live.at(&["metadata", "managedFields"]).unwrap()[0]["fieldsV1"],
            json!({"f:spec": {
                ".": {}, "f:flat": {}, "f:plain": {},
                "f:free": {".": {}, "f:deep": {".": {}, "f:list": {}, "f:n": {}}},
                "f:open": {".": {}, "f:x": {}},
                "f:parts": {".": {}, r#"k:{"id":"p"}"#: {".": {}, "f:id": {}, "f:n": {}}},
                "f:ports": {".": {}, r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}}},
                "f:tags": {".": {}, r#"v:"a""#: {}, r#"v:"b""#: {}},
            }})
        );
    }

    #[test]
    fn items_with_one_name_are_owned_together() {
        let schema = widget();
        let with = |parts: Value| object("W", json!({"spec": {"parts": parts}}));
        let live = created(&schema, with(json!([{"id": "p", "n": 1}, {"id": "p", "n": 2}])), "one");
        assert_eq!(owners(&live), [r#"one Update 00 .spec .spec.parts .spec.parts[id="p"]"#]);
        let live = updated(&schema, &live, with(json!([{"id": "p", "n": 1}])), "two", 1);
        assert_eq!(
            owners(&live),
            [
                "one Update 00 .spec .spec.parts",
                r#"two Update 01 .spec.parts[id="p"] .spec.parts[id="p"].id .spec.parts[id="p"].n"#
            ]
        );
    }

    #[test]
    fn items_without_their_key_leave_ownership_as_it_was() {
        let schema = widget();
        let live = created(&schema, object("W", json!({"spec": {"size": 1}})), "one");
        let new = object("W", json!({"spec": {"size": 2, "parts": [{"n": 1}]}}));
        assert_eq!(owners(&updated(&schema, &live, new, "two", 3)), ["one Update 00 .spec .spec.size"]);
    }

    #[test]
    fn the_oldest_of_more_than_ten_updaters_are_merged() {
        let schema = config_map();
        let mut live = created(&schema, cm(json!({"data": {"k0": "1"}})), "m0");
        for n in 1..14 {
            let mut new = live.clone();
            new.set_at(&["data", &format!("k{n}")], "1");
            live = updated(&schema, &live, new, &format!("m{n}"), n);
        }
        let owners = owners(&live);
        assert_eq!(owners.len(), 10);
        assert_eq!(owners[0], "ancient-changes Update 04 .data .data.k0 .data.k1 .data.k2 .data.k3 .data.k4");
        assert_eq!(owners[1], "m5 Update 05 .data.k5");
    }

    #[test]
    fn structs_by_value_are_there_before_anyone_fills_them() {
        let schema = Schema::builtin("io.k8s.api.apps.v1.Deployment");
        let spec = json!({
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": "h", "containers": [{"name": "c", "resources": {}}]}},
        });
        let live = created(&schema, object("Deployment", json!({"spec": spec, "status": {}})), "one");
        assert_eq!(
            live.at(&["metadata", "managedFields"]).unwrap()[0]["fieldsV1"],
            json!({"f:spec": {
                "f:strategy": {"f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {
                        "f:containers": {r#"k:{"name":"c"}"#: {".": {}, "f:name": {}, "f:resources": {}}},
                        "f:hostname": {},
                    },
                },
            }})
        );
    }
}

mod applying {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::base::Status;

    fn applied(
        schema: &Schema,
        live: Option<&Object>,
        config: Object,
        manager: &str,
        second: i64,
    ) -> Result<Object, Status> {
        apply(live, &config, schema, &writer(manager, second), false)
    }

    fn forced(schema: &Schema, live: &Object, config: Object, manager: &str, second: i64) -> Object {
        apply(Some(live), &config, schema, &writer(manager, second), true).unwrap()
    }

    #[test]
    fn an_applier_owns_its_leaves() {
        let object = applied(&config_map(), None, cm(json!({"data": {"x": "1"}})), "one", 0).unwrap();
        assert_eq!(owners(&object), ["one Apply 00 .data.x"]);
        assert_eq!(object.get("data"), Some(&json!({"x": "1"})));
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let schema = config_map();
        let live = applied(&schema, None, cm(json!({"data": {"x": "1"}})), "one", 0).unwrap();
        assert_eq!(applied(&schema, Some(&live), cm(json!({"data": {"x": "1"}})), "one", 9).unwrap(), live);
    }

    #[test]
    fn what_is_no_longer_applied_goes_unless_another_owns_it() {
        let schema = config_map();
        let live = applied(&schema, None, cm(json!({"data": {"x": "1", "y": "1"}})), "one", 0).unwrap();
        let live = applied(&schema, Some(&live), cm(json!({"data": {"y": "1"}})), "two", 1).unwrap();
        assert_eq!(owners(&live), ["two Apply - .data.y", "one Apply 00 .data.x .data.y"], "sharing has no time");
        let live = applied(&schema, Some(&live), cm(json!({})), "one", 2).unwrap();
        assert_eq!(live.get("data"), Some(&json!({"y": "1"})));
        assert_eq!(owners(&live), ["two Apply - .data.y"]);
    }

    #[test]
    fn a_field_of_another_is_a_conflict_that_force_ends() {
        let schema = config_map();
        let live = applied(&schema, None, cm(json!({"data": {"x": "1", "y": "1"}})), "one", 0).unwrap();
        let conflict = applied(&schema, Some(&live), cm(json!({"data": {"x": "2"}})), "two", 1).unwrap_err();
        assert_eq!(conflict.code, 409);
        assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "one": .data.x"#);
        let cause = &conflict.details.unwrap().causes[0];
        assert_eq!(
            (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
            ("FieldManagerConflict", r#"conflict with "one""#, ".data.x")
        );
        let live = forced(&schema, &live, cm(json!({"data": {"x": "2"}})), "two", 1);
        assert_eq!(owners(&live), ["one Apply 00 .data.y", "two Apply 01 .data.x"]);
    }

    #[test]
    fn conflicts_are_told_by_owner() {
        let schema = config_map();
        let live = applied(&schema, None, cm(json!({"data": {"x": "1", "y": "1"}})), "one", 0).unwrap();
        let mut new = live.clone();
        new.set_at(&["data", "z"], "1");
        let mut live = updated(&schema, &live, new, "zed", 1);
        let mut new = live.clone();
        new.set_at(&["immutable"], true);
        track(Some(&live), &mut new, &schema, &Writer { subresource: "status", ..writer("sub", 2) });
        live = new;
        let config = cm(json!({"data": {"x": "2", "y": "2", "z": "2"}, "immutable": false}));
        let conflict = applied(&schema, Some(&live), config, "two", 3).unwrap_err();
        assert_eq!(
            conflict.message,
            "Apply failed with 4 conflicts: conflicts with \"one\":\n- .data.x\n- .data.y\n\
             conflicts with \"sub\" with subresource \"status\" using v1:\n- .immutable\n\
             conflicts with \"zed\" using v1:\n- .data.z"
        );
    }

    #[test]
    fn what_nobody_owned_belongs_to_before_first_apply() {
        let schema = config_map();
        let live = cm(json!({"data": {"x": "1"}, "metadata": {"uid": "u"}}));
        let conflict = applied(&schema, Some(&live), cm(json!({"data": {"x": "2"}})), "one", 1).unwrap_err();
        assert_eq!(
            conflict.message,
            r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.x"#
        );
        let live = applied(&schema, Some(&live), cm(json!({"data": {"y": "1"}})), "one", 1).unwrap();
        assert_eq!(owners(&live), ["one Apply 01 .data.y", "before-first-apply Update 01 .data .data.x"]);
    }

    #[test]
    fn kubectl_takes_over_what_it_applied_from_its_side() {
        let schema = config_map();
        let last =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}});
        let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
        let sent = cm(json!({"data": {"x": "1", "y": "1"}, "metadata": {"annotations": annotations}}));
        let live = created(&schema, sent, "kubectl-client-side-apply");
        let config = || cm(json!({"data": {"x": "2", "y": "1"}}));

        let other = applied(&schema, Some(&live), config(), "other", 1).unwrap_err();
        assert!(other.message.contains(r#"conflict with "kubectl-client-side-apply" using v1: .data.x"#));
        let object = applied(&schema, Some(&live), config(), "kubectl", 1).unwrap();
        assert_eq!(object.get("data"), Some(&json!({"x": "2", "y": "1"})));
        let synced = object.annotation("kubectl.kubernetes.io/last-applied-configuration").unwrap();
        assert_eq!(serde_json::from_str::<Value>(synced).unwrap(), config().into_value());

        // What somebody changed since is not kubectl's to take.
        let mut new = live.clone();
        new.set_at(&["data", "x"], "9");
        let live = updated(&schema, &live, new, "hand", 1);
        let conflict = applied(&schema, Some(&live), config(), "kubectl", 2).unwrap_err();
        assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "hand" using v1: .data.x"#);
    }

    #[rstest]
    #[case::unknown_member(json!({"spec": {"bogus": 1}}), ".spec.bogus: field not declared in schema")]
    #[case::text(json!({"spec": {"text": 1}}), ".spec.text: expected string, got &value.valueUnstructured{Value:1}")]
    #[case::number(json!({"spec": {"size": "1"}}), ".spec.size: expected numeric (int or float), got string")]
    #[case::map(json!({"spec": 1}), ".spec: expected map, got &{1}")]
    #[case::list(json!({"spec": {"tags": {"a": 1}}}), ".spec.tags: expected list, got &{map[a:1]}")]
    #[case::twice_in_a_set(json!({"spec": {"tags": ["a", "a"]}}), r#".spec.tags: duplicate entries for key [="a"]"#)]
    #[case::twice_in_a_map_list(
        json!({"spec": {"parts": [{"id": "p"}, {"id": "p"}]}}),
        r#".spec.parts: duplicate entries for key [id="p"]"#
    )]
    #[case::no_key(
        json!({"spec": {"parts": [{"n": 1}]}}),
        ".spec.parts: element 0: associative list with keys has an element that omits all key fields [\"id\"] (and doesn't \
         have default values for any key fields)"
    )]
    #[case::two_problems(
        json!({"spec": {"bogus": 1}, "status": {"ready": "x"}}),
        "errors:\n  .spec.bogus: field not declared in schema\n  .status.ready: expected boolean, got &{x}"
    )]
    fn what_does_not_fit_the_schema_is_refused(#[case] members: Value, #[case] problem: &str) {
        let status = applied(&widget(), None, object("W", members), "one", 0).unwrap_err();
        assert_eq!((status.code, status.reason), (500, ""));
        assert_eq!(status.message, format!("failed to create typed patch object (/a; /v1, Kind=W): {problem}"));
    }

    #[test]
    fn another_type_is_refused() {
        let schema = config_map();
        let status = applied(&schema, None, object("Secret", json!({})), "one", 0).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, "invalid object type: /v1, Kind=Secret"));
        let mut config = cm(json!({}));
        config.remove("apiVersion");
        let status = applied(&schema, None, config, "one", 0).unwrap_err();
        assert_eq!(status.message, "invalid object type: /, Kind=ConfigMap");
    }

    #[test]
    fn managed_fields_cannot_be_applied() {
        let config = cm(json!({"metadata": {"managedFields": []}}));
        let status = applied(&config_map(), None, config, "one", 0).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, "metadata.managedFields must be nil"));
    }

    #[rstest]
    #[case::appended(json!(["a", "b"]), json!(["c"]), json!(["a", "b", "c"]))]
    #[case::first(json!(["a", "b"]), json!(["c", "a"]), json!(["c", "a", "b"]))]
    #[case::between(json!(["a", "b"]), json!(["a", "c", "b"]), json!(["a", "c", "b"]))]
    #[case::reordered(json!(["a", "b", "c"]), json!(["c", "a"]), json!(["b", "c", "a"]))]
    #[case::keeps_neighbours(json!(["a", "x", "b"]), json!(["b", "a"]), json!(["x", "b", "a"]))]
    fn merged_lists_are_in_the_order_of_the_configuration(
        #[case] live: Value,
        #[case] config: Value,
        #[case] merged: Value,
    ) {
        let schema = widget();
        let live = object("W", json!({"spec": {"tags": live}}));
        let config = object("W", json!({"spec": {"tags": config}}));
        let object = applied(&schema, Some(&live), config, "one", 0).unwrap();
        assert_eq!(object.at(&["spec", "tags"]), Some(&merged));
    }

    #[test]
    fn an_applied_built_in_object_is_decoded() {
        let schema = Schema::builtin("io.k8s.api.apps.v1.Deployment");
        let containers = json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1000m"}}, "ports": [{"containerPort": 80}]}]);
        let config = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "creationTimestamp": null},
            "spec": {"template": {"spec": {"containers": containers}}},
        });
        let writer = Writer { api_version: "apps/v1", ..writer("one", 0) };
        let object = apply(None, &Object::from_value(config).unwrap(), &schema, &writer, false).unwrap();
        assert_eq!(object.at(&["spec", "strategy"]), Some(&json!({})));
        assert_eq!(object.at(&["metadata", "creationTimestamp"]), None);
        let limits = object.to_value().pointer("/spec/template/spec/containers/0/resources/limits/cpu").cloned();
        assert_eq!(limits, Some(json!("1")));
        assert_eq!(
            object.at(&["metadata", "managedFields"]).unwrap()[0]["fieldsV1"],
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {r#"k:{"name":"c"}"#: {
                ".": {}, "f:name": {}, "f:image": {},
                "f:ports": {r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}}},
                "f:resources": {"f:limits": {"f:cpu": {}}},
            }}}}}})
        );
    }

    #[test]
    fn an_item_goes_with_its_last_owner() {
        let schema = widget();
        let with = |parts: Value| object("W", json!({"spec": {"parts": parts}}));
        let live = applied(&schema, None, with(json!([{"id": "p", "n": 1}, {"id": "q"}])), "one", 0).unwrap();
        let live = applied(&schema, Some(&live), with(json!([{"id": "p"}])), "two", 1).unwrap();
        let live = applied(&schema, Some(&live), with(json!([])), "one", 2).unwrap();
        assert_eq!(live.at(&["spec", "parts"]), Some(&json!([{"id": "p"}])));
    }

    #[test]
    fn a_map_that_became_atomic_is_owned_as_a_whole() {
        let schema = widget();
        let mut live = object("W", json!({"spec": {"flat": {"x": "1", "y": "1"}}}));
        let entry = json!({
            "manager": "old", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:flat": {"f:x": {}}}},
        });
        live.metadata_mut().insert("managedFields".into(), json!([entry]));
        let config = object("W", json!({"spec": {"flat": {"x": "1", "y": "2"}}}));
        let conflict = applied(&schema, Some(&live), config, "new", 1).unwrap_err();
        assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "old": .spec.flat"#);
    }

    fn specs() -> impl Strategy<Value = Value> {
        let texts = || prop::collection::btree_map("[xyz]", "[12]", 1..3).prop_map(|map| json!(map));
        let set = || prop::collection::btree_set("[pqr]", 1..4).prop_map(|set| json!(set)).boxed();
        let parts = prop::collection::btree_map("[klm]", 0..3, 1..4)
            .prop_map(|map| map.into_iter().map(|(id, n)| json!({"id": id, "n": n})).collect::<Value>());
        let size = (0..3).prop_map(|n| json!(n)).boxed();
        let members =
            [("size", size), ("open", texts().boxed()), ("flat", texts().boxed()), ("tags", set()), ("plain", set())];
        let mut spec = Just(json!({"text": "t"})).boxed(); // an empty spec would become null
        for (name, strategy) in members.into_iter().chain([("parts", parts.boxed())]) {
            let member = prop::option::of(strategy);
            spec = (spec, member)
                .prop_map(move |(mut spec, member)| {
                    if let Some(member) = member {
                        spec[name] = member;
                    }
                    spec
                })
                .boxed();
        }
        spec
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_forced_apply_holds_and_repeats_without_effect(steps in prop::collection::vec((0usize..3, specs()), 1..8)) {
            let schema = widget();
            let mut live: Option<Object> = None;
            for (second, (manager, spec)) in steps.into_iter().enumerate() {
                let (manager, second) = (["one", "two", "three"][manager], i64::try_from(second).unwrap());
                let config = object("W", json!({"spec": spec}));
                let once = apply(live.as_ref(), &config, &schema, &writer(manager, second), true).unwrap();
                let again = apply(Some(&once), &config, &schema, &writer(manager, second + 1), true).unwrap();
                prop_assert_eq!(&again, &once);
                let unforced = apply(Some(&once), &config, &schema, &writer(manager, second + 1), false).unwrap();
                prop_assert_eq!(&unforced, &once);
                for (name, wanted) in spec.as_object().unwrap() {
                    let has = once.at(&["spec", name]).unwrap();
                    match wanted {
                        Value::Array(items) if name != "plain" => {
                            prop_assert!(items.iter().all(|item| has.as_array().unwrap().contains(item)));
                        }
                        Value::Object(members) if name == "open" => {
                            prop_assert!(members.iter().all(|(key, value)| has.get(key) == Some(value)));
                        }
                        wanted => prop_assert_eq!(has, wanted),
                    }
                }
                live = Some(once);
            }
        }

        #[test]
        fn one_applier_alone_gets_exactly_what_it_says(specs in prop::collection::vec(specs(), 1..6)) {
            let schema = widget();
            let mut live: Option<Object> = None;
            for spec in specs {
                let config = object("W", json!({"spec": spec}));
                let object = apply(live.as_ref(), &config, &schema, &writer("one", 0), false).unwrap();
                let mut bare = object.clone();
                bare.metadata_mut().remove("managedFields");
                prop_assert_eq!(bare.get("metadata"), config.get("metadata"));
                for (name, wanted) in spec.as_object().unwrap() {
                    prop_assert_eq!(bare.at(&["spec", name]), Some(wanted));
                }
                let names = |object: &Object| object.at(&["spec"]).and_then(Value::as_object).map_or(0, Map::len);
                prop_assert_eq!(names(&bare), names(&config));
                live = Some(object);
            }
        }

        #[test]
        fn ownership_never_exceeds_what_is_there(steps in prop::collection::vec((0usize..3, any::<bool>(), specs()), 1..8)) {
            let schema = widget();
            let mut live: Option<Object> = None;
            for (manager, applies, spec) in steps {
                let manager = ["one", "two", "three"][manager];
                let config = object("W", json!({"spec": spec}));
                let new = if applies {
                    apply(live.as_ref(), &config, &schema, &writer(manager, 0), true).unwrap()
                } else {
                    let mut new = config;
                    track(live.as_ref(), &mut new, &schema, &writer(manager, 0));
                    new
                };
                let there = typed::fields_of(Ty::Root(&schema), &new.to_value()).unwrap();
                let there = merge::with_named_parents(Ty::Root(&schema), &there);
                for owned in Managers::of(Some(&new)).0.into_values() {
                    prop_assert_eq!(owned.fields.difference(&there), Set::default());
                }
                live = Some(new);
            }
        }
    }
}

/// A kind whose `size` is called `width` in `v2`.
mod other_versions {
    use super::*;

    fn versions() -> Versions {
        fn convert(object: &Object, to: &str) -> Result<Object, String> {
            let (from, into) = if to == "v2" { ("size", "width") } else { ("width", "size") };
            let mut object = object.clone();
            if let Some(value) = object.remove_at(&["spec", from]) {
                object.set_at(&["spec", into], value);
            }
            object.set("apiVersion", to);
            Ok(object)
        }
        let of = |name: &str| {
            let members = json!({name: {"type": "integer"}, "text": {"type": "string"}});
            Arc::new(schema("", json!({"spec": {"type": "object", "properties": members}})))
        };
        let schemas = [("v1".to_owned(), of("size")), ("v2".to_owned(), of("width"))].into();
        Versions { convert: Arc::new(convert), schemas }
    }

    fn v2(spec: Value) -> Object {
        let mut object = object("Widget", json!({"spec": spec}));
        object.set("apiVersion", "v2");
        object
    }

    /// Made in `v1` by `one`, and shown in `v2`.
    fn live(versions: &Versions) -> Object {
        let mut made = object("Widget", json!({"spec": {"size": 1, "text": "a"}}));
        let writer = Writer { versions: Some(versions), ..writer("one", 0) };
        track(None, &mut made, &versions.schemas["v1"], &writer);
        versions.convert(&made, "v2").unwrap().unwrap().0
    }

    fn owned_by_one(object: &Object) -> Option<Value> {
        let entries = object.at(&["metadata", "managedFields"])?.as_array()?;
        Some(entries.iter().find(|entry| entry["manager"] == "one")?["fieldsV1"]["f:spec"].clone())
    }

    #[test]
    fn an_update_takes_from_others_what_it_changes_in_their_terms() {
        let versions = versions();
        let live = live(&versions);
        assert_eq!(owned_by_one(&live), Some(json!({".": {}, "f:size": {}, "f:text": {}})));
        let mut new = live.clone();
        new.set_at(&["spec", "width"], 2);
        let writer = Writer { versions: Some(&versions), api_version: "v2", ..writer("two", 1) };
        track(Some(&live), &mut new, &versions.schemas["v2"], &writer);
        assert_eq!(owned_by_one(&new), Some(json!({".": {}, "f:text": {}})));
    }

    #[test]
    fn an_apply_conflicts_with_others_in_their_terms() {
        let versions = versions();
        let live = live(&versions);
        let config = v2(json!({"width": 2}));
        let writer = Writer { versions: Some(&versions), api_version: "v2", ..writer("two", 1) };
        let schema = &versions.schemas["v2"];
        let conflict = apply(Some(&live), &config, schema, &writer, false).unwrap_err();
        assert_eq!(conflict.message, r#"Apply failed with 1 conflict: conflict with "one" using v1: .spec.size"#);
        let forced = apply(Some(&live), &config, schema, &writer, true).unwrap();
        assert_eq!(owned_by_one(&forced), Some(json!({".": {}, "f:text": {}})));
        let unchanged = apply(Some(&live), &v2(json!({"width": 1})), schema, &writer, false).unwrap();
        assert_eq!(owned_by_one(&unchanged), owned_by_one(&live));
    }

    #[test]
    fn what_was_applied_in_another_version_is_pruned_in_that() {
        let versions = versions();
        let apply_as = |live: Option<&Object>, manager, config: &Object| {
            let version = config.api_version();
            let writer = Writer { versions: Some(&versions), api_version: version, ..writer(manager, 1) };
            apply(live, config, &versions.schemas[version], &writer, false).unwrap()
        };
        let v1 = |spec: Value| object("Widget", json!({"spec": spec}));
        let made = apply_as(None, "one", &v1(json!({"size": 1, "text": "a"})));
        let shared = apply_as(Some(&made), "two", &v1(json!({"text": "a"})));
        let newer = versions.convert(&shared, "v2").unwrap().unwrap().0;
        let left = apply_as(Some(&newer), "one", &v2(json!({})));
        assert_eq!(left.get("spec"), Some(&json!({"text": "a"})), "the size was one's alone, the text is two's");
        let kept = apply_as(Some(&newer), "one", &v2(json!({"width": 1})));
        assert_eq!(kept.get("spec"), Some(&json!({"width": 1, "text": "a"})));
    }

    #[test]
    fn where_a_conversion_fails_an_update_moves_nothing_and_an_apply_is_refused() {
        let mut versions = versions();
        let live = live(&versions);
        versions.convert = Arc::new(|_, _| Err("nobody answers".into()));
        let mut new = live.clone();
        new.set_at(&["spec", "width"], 2);
        let writer = Writer { versions: Some(&versions), api_version: "v2", ..writer("two", 1) };
        let schema = &versions.schemas["v2"];
        track(Some(&live), &mut new, schema, &writer);
        assert_eq!(new.at(&["metadata", "managedFields"]), live.at(&["metadata", "managedFields"]));
        let refused = apply(Some(&live), &v2(json!({"width": 2})), schema, &writer, false).unwrap_err();
        assert_eq!((refused.code, refused.message.as_str()), (500, "failed to convert new object: nobody answers"));
    }

    #[test]
    fn who_wrote_in_a_version_that_is_gone_owns_nothing_after_the_next_change() {
        let mut versions = versions();
        let live = live(&versions);
        versions.schemas.remove("v1");
        let mut new = live.clone();
        new.set_at(&["spec", "text"], "b");
        let writer = Writer { versions: Some(&versions), api_version: "v2", ..writer("two", 1) };
        track(Some(&live), &mut new, &versions.schemas["v2"], &writer);
        assert_eq!(owned_by_one(&new), None);
    }
}
