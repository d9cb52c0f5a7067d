use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

fn document() -> Value {
    json!({"data": {"x": "1", "n": null}, "k/s": {"t~u": 2}, "list": ["a", "b", "c"]})
}

#[rstest]
#[case::add_member(json!([{"op": "add", "path": "/data/y", "value": 1}]), "/data/y", json!(1))]
#[case::add_without_value(json!([{"op": "add", "path": "/data/y"}]), "/data", json!({"x": "1", "n": null, "y": null}))]
#[case::add_at_end(json!([{"op": "add", "path": "/list/-", "value": 1}]), "/list", json!(["a", "b", "c", 1]))]
#[case::add_at_length(json!([{"op": "add", "path": "/list/3", "value": 1}]), "/list", json!(["a", "b", "c", 1]))]
#[case::add_last_but_one(json!([{"op": "add", "path": "/list/-2", "value": 1}]), "/list", json!(["a", "b", 1, "c"]))]
#[case::leading_zero(json!([{"op": "add", "path": "/list/01", "value": 1}]), "/list", json!(["a", 1, "b", "c"]))]
#[case::remove_last(json!([{"op": "remove", "path": "/list/-1"}]), "/list", json!(["a", "b"]))]
#[case::replace_creates(json!([{"op": "replace", "path": "/data/new", "value": 1}]), "/data/new", json!(1))]
#[case::copy_of_nothing(json!([{"op": "copy", "from": "/data/absent", "path": "/y"}]), "/y", json!(null))]
#[case::moving(json!([{"op": "move", "from": "/data/x", "path": "/list/0"}]), "/list", json!(["1", "a", "b", "c"]))]
#[case::escapes(json!([{"op": "replace", "path": "/k~1s/t~0u", "value": 3}]), "/k~1s/t~0u", json!(3))]
#[case::no_leading_slash(json!([{"op": "add", "path": "data/y", "value": 1}]), "/y", json!(1))]
#[case::test_absent_is_null(json!([{"op": "test", "path": "/data/absent", "value": null}]), "/data/x", json!("1"))]
#[case::test_holds(json!([{"op": "test", "path": "/list/-1", "value": "c"}]), "/data/x", json!("1"))]
#[case::whole(json!([{"op": "replace", "path": "", "value": {"a": 1}}]), "", json!({"a": 1}))]
#[case::nothing(json!(null), "/data/x", json!("1"))]
fn json_patch_does(#[case] operations: Value, #[case] at: &str, #[case] expected: Value) {
    let patched = json(&document(), &operations).expect("applies");
    assert_eq!(patched.pointer(at), Some(&expected));
}

#[rstest]
#[case::unknown_operation(json!([{"op": "frob", "path": "/x"}]))]
#[case::no_operation(json!([{"path": "/x"}]))]
#[case::null_operation(json!([null]))]
#[case::no_path(json!([{"op": "add", "value": 1}]))]
#[case::add_to_whole(json!([{"op": "add", "path": "", "value": {}}]))]
#[case::beyond_end(json!([{"op": "add", "path": "/list/4", "value": 1}]))]
#[case::before_start(json!([{"op": "add", "path": "/list/-5", "value": 1}]))]
#[case::replace_beyond_end(json!([{"op": "replace", "path": "/list/3", "value": 1}]))]
#[case::remove_absent(json!([{"op": "remove", "path": "/data/absent"}]))]
#[case::remove_dash(json!([{"op": "remove", "path": "/list/-"}]))]
#[case::through_null(json!([{"op": "add", "path": "/data/n/y", "value": 1}]))]
#[case::through_text(json!([{"op": "add", "path": "/data/x/y", "value": 1}]))]
#[case::move_absent(json!([{"op": "move", "from": "/data/absent", "path": "/y"}]))]
#[case::move_into_itself(json!([{"op": "move", "from": "/data", "path": "/data/y"}]))]
#[case::test_fails(json!([{"op": "test", "path": "/data/x", "value": 1}]))]
#[case::test_no_index(json!([{"op": "test", "path": "/list/x", "value": "a"}]))]
#[case::test_no_leading_slash(json!([{"op": "test", "path": "data/x", "value": "1"}]))]
fn json_patch_refuses(#[case] operations: Value) {
    let status = json(&document(), &operations).expect_err("cannot be applied");
    assert_eq!((status.code, status.reason), (422, "Invalid"));
    assert_eq!(status.message, "the server rejected our request due to an error in our request");
}

#[rstest]
#[case(json!({"op": "add"}), "object into Go value of type []handlers.jsonPatchOp")]
#[case(json!(["x"]), "string into Go value of type handlers.jsonPatchOp")]
#[case(json!([{"op": 1}]), "number into Go struct field jsonPatchOp.op of type string")]
#[case(json!([{"op": "add", "path": ["x"]}]), "array into Go struct field jsonPatchOp.path of type string")]
fn wrong_forms_are_named_in_gos_words(#[case] operations: Value, #[case] what: &str) {
    let status = json(&document(), &operations).expect_err("has a wrong form");
    assert_eq!(status.code, 400);
    assert_eq!(status.message, format!("error decoding patch: json: cannot unmarshal {what}"));
}

#[test]
fn a_patch_has_at_most_ten_thousand_operations() {
    let patch = |n: usize| Value::from(vec![json!({"op": "test", "path": "/a", "value": 1}); n]);
    assert!(json(&json!({"a": 1}), &patch(10_000)).is_ok());
    let status = json(&json!({"a": 1}), &patch(10_001)).expect_err("one too many");
    assert_eq!(status.code, 413);
    assert_eq!(
        status.message,
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}

#[test]
fn copies_cannot_grow_a_document_without_bound() {
    let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
    let status = json(&json!({"a": ["0123456789"]}), &Value::from(vec![double; 64])).expect_err("grows to 2^64");
    assert_eq!(status.code, 422);
}

#[test]
fn members_that_mean_nothing_are_named() {
    let operations = json!([{"op": "add", "path": "/a"}, {"op": "add", "path": "/a", "bogus": 1}]);
    assert_eq!(unknown_members(&operations), ["[1].bogus"]);
}

#[rstest]
#[case::set_and_remove(json!({"a": 1, "b": 2}), json!({"a": null, "c": 3}), json!({"b": 2, "c": 3}))]
#[case::deep(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null}}), json!({"a": {"c": 2}}))]
#[case::list_is_replaced(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}))]
#[case::nulls_in_new_maps_go(json!({}), json!({"a": {"b": null, "c": [{"d": null}, null]}}), json!({"a": {"c": [{}, null]}}))]
#[case::map_over_text(json!({"a": "x"}), json!({"a": {"b": null}}), json!({"a": {}}))]
#[case::list_over_map(json!({"a": {}}), json!({"a": [{"b": null}]}), json!({"a": [{"b": null}]}))]
fn merge_patch_does(#[case] mut target: Value, #[case] patch: Value, #[case] expected: Value) {
    merge(&mut target, &patch).expect("applies");
    assert_eq!(target, expected);
}

#[rstest]
#[case(json!(null), "Invalid JSON Patch")]
#[case(json!([]), "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}")]
#[case(json!("x"), "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}")]
fn merge_patch_refuses(#[case] patch: Value, #[case] message: &str) {
    let status = merge(&mut json!({}), &patch).expect_err("is no map");
    assert_eq!((status.code, status.message.as_str()), (400, message));
}

/// Small JSON maps over few names, so that patches meet what they patch.
fn maps() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), (0..3).prop_map(|n| json!(n)), "[ab]".prop_map(Value::from)];
    let value = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    });
    prop::collection::btree_map("[abc]", value, 0..3).prop_map(|map| map.into_iter().collect::<Value>())
}

#[test]
fn what_a_patch_does_not_open_keeps_the_order_of_its_go_struct() {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"annotations": {"z": "<"}, "name": "n"}});
    let text = |opened| go_text(&object, &opened);
    let plain = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"n","annotations":{"z":"\u003c"}}}"#;
    assert_eq!(text(opened_by_merge(&json!({"data": "x"}))), plain);
    let sorted = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{"z":"\u003c"},"name":"n"}}"#;
    assert_eq!(text(opened_by_merge(&json!({"metadata": {"labels": {}}}))), sorted);
    assert_eq!(text(opened_by_json(&json!([{"op": "add", "path": "/metadata/labels", "value": 1}]))), sorted);
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(target in maps(), patch in maps()) {
        let mut once = target;
        merge(&mut once, &patch).unwrap();
        let mut twice = once.clone();
        merge(&mut twice, &patch).unwrap();
        // But for nulls in a list that takes a map's place.
        prop_assert_eq!(pruned(&once), pruned(&twice));
    }

    #[test]
    fn merging_nothing_changes_nothing(target in maps()) {
        let mut merged = target.clone();
        merge(&mut merged, &json!({})).unwrap();
        prop_assert_eq!(merged, target);
    }

    #[test]
    fn what_a_patch_says_holds_after_it(target in maps(), patch in maps()) {
        let mut merged = target;
        merge(&mut merged, &patch).unwrap();
        for (key, value) in patch.as_object().unwrap() {
            match value {
                Value::Null => prop_assert!(merged.get(key).is_none()),
                Value::Object(_) => prop_assert!(merged[key].is_object()),
                value => prop_assert_eq!(merged[key].is_array(), value.is_array()),
            }
        }
    }

    #[test]
    fn adding_then_removing_restores(target in maps(), key in "[de]") {
        let added = json(&target, &json!([{"op": "add", "path": format!("/{key}"), "value": 1}])).unwrap();
        let removed = json(&added, &json!([{"op": "remove", "path": format!("/{key}")}])).unwrap();
        prop_assert_eq!(removed, target);
    }
}
