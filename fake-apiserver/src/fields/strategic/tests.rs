use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::fields::tests::schema;

/// A kind like a pod: containers merge by name, ports of containers by port, finalizers by value, strategy retains keys.
fn pod() -> Schema {
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let env = json!({"type": "array", "patchStrategy": "merge", "patchMergeKey": "name", "items": {"type": "object",
        "properties": {"name": {"type": "string"}, "value": {"type": "string"}}}});
    let container = json!({"type": "object", "definition": "io.k8s.api.core.v1.Container", "properties": {
        "name": {"type": "string"}, "image": {"type": "string"}, "env": env,
        "command": {"type": "array", "items": {"type": "string"}},
        "limits": texts,
    }});
    schema(
        "io.k8s.api.core.v1.Pod",
        json!({"spec": {"type": "object", "definition": "io.k8s.api.core.v1.PodSpec", "properties": {
            "containers": {"type": "array", "patchStrategy": "merge", "patchMergeKey": "name", "items": container},
            "strategy": {"type": "object", "patchStrategy": "retainKeys", "properties": {"type": {}, "rollingUpdate": {}}},
            "nodeSelector": texts,
            "tolerations": {"type": "array", "items": {"type": "object"}},
        }}}),
    )
}

fn patched(target: Value, patch: Value) -> Result<Value, Status> {
    strategic(&target, &patch, &pod())
}

/// The names of the containers after a patch of containers with these names.
fn names(value: &Value) -> Vec<&str> {
    value["spec"]["containers"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

fn containers(names: &[&str]) -> Value {
    let list: Vec<_> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    json!({"spec": {"containers": list}})
}

#[test]
fn items_merge_by_their_key() {
    let target = json!({"spec": {"containers": [{"name": "a", "image": "a:1", "command": ["x"]}, {"name": "b"}]}});
    let patch = json!({"spec": {"containers": [{"name": "a", "image": "a:2"}]}});
    let expected = json!([{"name": "a", "image": "a:2", "command": ["x"]}, {"name": "b"}]);
    assert_eq!(patched(target, patch).unwrap()["spec"]["containers"], expected);
}

#[rstest]
#[case::new_items_come_first(&["a", "b"], json!([{"name": "n"}]), &["n", "a", "b"])]
#[case::the_patch_orders(&["a", "b", "c"], json!([{"name": "c"}, {"name": "a"}]), &["b", "c", "a"])]
#[case::deleted(&["a", "b"], json!([{"name": "a", "$patch": "delete"}]), &["b"])]
#[case::deleted_and_added(&["a", "b"], json!([{"name": "a", "$patch": "delete"}, {"name": "n"}]), &["n", "b"])]
#[case::replaced(&["a", "b"], json!([{"$patch": "replace"}, {"name": "n"}]), &["n"])]
fn list_patches_do(#[case] before: &[&str], #[case] change: Value, #[case] after: &[&str]) {
    let patch = json!({"spec": {"containers": change}});
    assert_eq!(names(&patched(containers(before), patch).unwrap()), after);
}

#[rstest]
#[case::with_a_new_item(&["only"], json!([{"name": "new"}]), &["new", "only"], &["new", "only"])]
#[case::order_alone(&["a", "b", "c"], json!(null), &["c", "a"], &["b", "c", "a"])]
#[case::others_stay(&["a", "x", "b"], json!(null), &["a", "b"], &["a", "x", "b"])]
fn the_order_can_be_set(
    #[case] before: &[&str],
    #[case] change: Value,
    #[case] order: &[&str],
    #[case] after: &[&str],
) {
    let order: Vec<_> = order.iter().map(|name| json!({"name": name})).collect();
    let mut patch = json!({"spec": {"$setElementOrder/containers": order}});
    if !change.is_null() {
        patch["spec"]["containers"] = change;
    }
    assert_eq!(names(&patched(containers(before), patch).unwrap()), after);
}

#[rstest]
#[case::null_deletes(json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2}))]
#[case::nulls_in_new_maps_go(json!({}), json!({"a": {"b": null, "c": [{"d": null}]}}), json!({"a": {"c": [{}]}}))]
#[case::delete_a_map(json!({"metadata": {"labels": {"l": "1"}}}), json!({"metadata": {"labels": {"$patch": "delete"}}}), json!({"metadata": {"labels": {}}}))]
#[case::replace_a_map(
    json!({"metadata": {"labels": {"l": "1"}}}),
    json!({"metadata": {"labels": {"$patch": "replace", "m": "2"}}}),
    json!({"metadata": {"labels": {"m": "2"}}})
)]
#[case::directives_for_nothing_vanish(json!({}), json!({"spec": {"strategy": {"$patch": "delete"}}}), json!({"spec": {}}))]
#[case::whole(json!({"a": 1}), json!({"$patch": "delete"}), json!({}))]
#[case::retain_keys(
    json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
    json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    json!({"spec": {"strategy": {"type": "Recreate"}}})
)]
#[case::texts_are_a_set(
    json!({"metadata": {"finalizers": ["a", "b"]}}),
    json!({"metadata": {"finalizers": ["c", "a"]}}),
    json!({"metadata": {"finalizers": ["c", "a", "b"]}})
)]
#[case::texts_can_be_deleted(
    json!({"metadata": {"finalizers": ["a", "b"]}}),
    json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
    json!({"metadata": {"finalizers": ["b"]}})
)]
#[case::deleting_texts_from_nothing(
    json!({"metadata": {}}),
    json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
    json!({"metadata": {}})
)]
#[case::other_lists_are_replaced(
    json!({"spec": {"tolerations": [{"key": "a"}]}}),
    json!({"spec": {"tolerations": [{"key": "b"}]}}),
    json!({"spec": {"tolerations": [{"key": "b"}]}})
)]
#[case::nested(
    json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}}),
    json!({"spec": {"containers": [{"name": "a", "env": [{"name": "X", "$patch": "delete"}, {"name": "Z", "value": "3"}]}]}}),
    json!({"spec": {"containers": [{"name": "a", "env": [{"name": "Z", "value": "3"}, {"name": "Y", "value": "2"}]}]}})
)]
#[case::another_type(json!({"a": "x"}), json!({"a": {"b": null}}), json!({"a": {}}))]
#[case::null_is_no_patch(json!({"a": 1}), json!(null), json!({"a": 1}))]
fn a_patch_does(#[case] target: Value, #[case] patch: Value, #[case] expected: Value) {
    assert_eq!(patched(target, patch).unwrap(), expected);
}

#[rstest]
#[case::no_map(json!([1]), 400, "json: cannot unmarshal array into Go value of type map[string]interface {}")]
#[case::no_key(
    json!({"spec": {"containers": [{"image": "keyless:1"}]}}),
    500,
    "map: map[image:keyless:1] does not contain declared merge key: name"
)]
#[case::no_such_directive(json!({"spec": {"$patch": "bogus"}}), 500, "unknown patch type: bogus in map: map[$patch:bogus]")]
#[case::merge_directive(
    json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
    500,
    "merging lists cannot yet be specified in the patch"
)]
#[case::bad_retain_keys(
    json!({"spec": {"$retainKeys": ["containers"], "nodeSelector": {"a": "b"}}}),
    400,
    "invalid patch format of retainKeys"
)]
#[case::bad_deletion(json!({"spec": {"$deleteFromPrimitiveList": []}}), 400, "invalid patch format of primitive list")]
#[case::bad_order(json!({"spec": {"$setElementOrder": []}}), 400, "invalid patch format of setElementOrder list")]
#[case::order_that_is_no_list(
    json!({"spec": {"$setElementOrder/containers": "x"}}),
    500,
    "expected a []interface {}, but received a string"
)]
#[case::other_order(
    json!({"spec": {"containers": [{"name": "b"}, {"name": "a"}], "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]}}),
    500,
    "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n"
)]
#[case::mixed_items(
    json!({"spec": {"containers": [{"name": "a"}, "b"]}}),
    500,
    "list element types are not identical: [[map[image:i name:a]] [map[name:a] b]]"
)]
#[case::lists_of_lists(
    json!({"metadata": {"finalizers": [["a"]]}}),
    422,
    "the server rejected our request due to an error in our request"
)]
fn a_patch_is_refused(#[case] patch: Value, #[case] code: u16, #[case] message: &str) {
    let target = json!({"metadata": {"finalizers": []}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let status = patched(target, patch).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (code, message));
}

proptest! {
    #[test]
    fn a_plain_patch_twice_is_the_patch_once(
        live in prop::collection::btree_map("[a-d]", 0..3, 0..4),
        change in prop::collection::vec(("[a-d]", 0..3), 1..4),
    ) {
        let list = |items: Vec<(String, i32)>| -> Value {
            let mut seen = std::collections::BTreeSet::new();
            items
                .into_iter()
                .filter(|(name, _)| seen.insert(name.clone()))
                .map(|(name, n)| json!({"name": name, "image": n.to_string()}))
                .collect()
        };
        let target = json!({"spec": {"containers": list(live.into_iter().collect())}});
        let patch = json!({"spec": {"containers": list(change)}});
        let once = patched(target, patch.clone()).unwrap();
        prop_assert_eq!(patched(once.clone(), patch.clone()).unwrap(), once.clone());
        // The patch's items are there, in its order.
        let wanted = names(&patch);
        let has: Vec<_> = names(&once).into_iter().filter(|name| wanted.contains(name)).collect();
        prop_assert_eq!(has, wanted);
    }
}
