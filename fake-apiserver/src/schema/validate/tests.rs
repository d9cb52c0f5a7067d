use std::sync::Arc;

use rstest::rstest;
use serde_json::{Value, json};

use crate::schema::Schema;

fn widget() -> Arc<Schema> {
    let schema = json!({"type": "object", "properties": {"spec": {
        "type": "object", "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 8},
            "when": {"type": "string", "format": "date-time"},
            "ratio": {"type": "number", "exclusiveMinimum": true, "minimum": 0, "multipleOf": 0.5},
            "maybe": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 3},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                "items": {"type": "object", "required": ["id"],
                    "properties": {"id": {"type": "string"}, "n": {"type": "integer", "default": 1}}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 4}},
            "nested": {"type": "object", "default": {}, "properties": {"deep": {"type": "string", "default": "filled"}}},
            "any": {"anyOf": [{"required": ["x"]}, {"required": ["y"]}], "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
        },
    }}});
    Schema::structural(&schema, "schema").expect("it is structural")
}

fn errors(spec: Value, old: Option<Value>) -> Vec<String> {
    let object = |spec: Value| json!({"apiVersion": "g/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let errors = widget().validate(&object(spec), old.map(object).as_ref());
    errors.iter().map(ToString::to_string).collect()
}

#[rstest]
#[case(json!({"size": 3}), &[])]
#[case(json!({}), &["spec.size: Required value"])]
#[case(json!({"size": 11}), &["spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"])]
#[case(json!({"size": 0}), &["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"])]
#[case(json!({"size": "3"}), &[r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#])]
#[case(json!({"size": 1.5}), &[
    r#"spec.size: Invalid value: "number": spec.size in body must be of type integer: "number""#,
    r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in spec.size"#])]
#[case(json!({"size": 1, "color": "blue"}), &[r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#])]
#[case(json!({"size": 1, "name": "UPPER"}), &[r#"spec.name: Invalid value: "UPPER": spec.name in body should match '^[a-z]+$'"#])]
#[case(json!({"size": 1, "name": "a"}), &[r#"spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long"#])]
#[case(json!({"size": 1, "name": "abcdefghi"}), &["spec.name: Too long: may not be more than 8 bytes"])]
#[case(json!({"size": 1, "when": "yesterday"}),
    &[r#"spec.when: Invalid value: "yesterday": spec.when in body must be of type date-time: "yesterday""#])]
#[case(json!({"size": 1, "ratio": 0.3}), &["spec.ratio: Invalid value: 0.3: spec.ratio in body should be a multiple of 0.5"])]
#[case(json!({"size": 1, "ratio": 0}), &[
    "spec.ratio: Invalid value: 0: factor MultipleOf declared for spec.ratio must be positive: 0",
    "spec.ratio: Invalid value: 0: spec.ratio in body should be greater than 0"])]
#[case(json!({"size": 1, "tags": ["a", "a"]}), &[r#"spec.tags[1]: Duplicate value: "a""#])]
#[case(json!({"size": 1, "tags": ["a", "b", "c", "d"]}), &["spec.tags: Too many: 4: must have at most 3 items"])]
#[case(json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}), &[r#"spec.parts[1]: Duplicate value: {"id":"a"}"#])]
#[case(json!({"size": 1, "parts": [{"id": "a"}, {"id": "a"}, 3, 4]}), &[
    r#"spec.parts[2]: Invalid value: "integer": spec.parts[2] in body must be of type object: "integer""#,
    r#"spec.parts[3]: Invalid value: "integer": spec.parts[3] in body must be of type object: "integer""#,
    r#"spec.parts[2]: Invalid value: 3: must be an object for an array of list-type map"#,
])]
#[case(json!({"size": 1, "parts": [{"n": 2}]}), &["spec.parts[0].id: Required value"])]
#[case(json!({"size": 1, "labels": {"k": "toolong"}}), &["spec.labels.k: Too long: may not be more than 4 bytes"])]
#[case(json!({"size": 1, "any": {}}), &[
    r#"<nil>: Invalid value: "": "spec.any" must validate at least one schema (anyOf)"#,
    "spec.any.x: Required value"])]
#[case(json!("text"), &[r#"spec: Invalid value: "string": spec in body must be of type object: "string""#])]
#[case(json!({"size": 1, "port": true}),
    &[r#"spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean""#])]
fn what_is_wrong_is_told_in_upstreams_words(#[case] spec: Value, #[case] texts: &[&str]) {
    assert_eq!(errors(spec, None), texts);
}

#[test]
fn what_did_not_change_is_not_checked_again() {
    let old = json!({"size": 11, "name": "UPPER", "tags": ["a", "a"]});
    assert_eq!(
        errors(json!({"size": 11, "name": "UPPER", "tags": ["a", "a"], "color": "red"}), Some(old.clone())),
        [""; 0]
    );
    let changed = errors(json!({"size": 12, "name": "UPPER", "tags": ["a"]}), Some(old));
    assert_eq!(changed, ["spec.size: Invalid value: 12: spec.size in body should be less than or equal to 10"]);
}

#[test]
fn defaults_fill_in_for_null_and_unknown_members_go() {
    let schema = widget();
    let mut object = json!({"metadata": {"name": "d", "bogus": 1}, "stray": true, "spec": {
        "size": 1, "maybe": null, "color": null, "nested": null, "when": null, "unknown": {"gone": 1},
        "free": {"kept": {"deep": [1, 2]}}, "parts": [{"id": "a", "extra": 1}, {"id": "b", "n": 5}]}});
    assert_eq!(schema.prune(&mut object), ["metadata.bogus", "spec.parts[0].extra", "spec.unknown", "stray"]);
    schema.default(&mut object);
    let spec = json!({"size": 1, "maybe": null, "color": "red", "nested": {"deep": "filled"},
        "free": {"kept": {"deep": [1, 2]}}, "parts": [{"id": "a", "n": 1}, {"id": "b", "n": 5}]});
    assert_eq!(object, json!({"metadata": {"name": "d"}, "spec": spec}));
}

#[test]
fn a_whole_object_inside_says_what_it_is() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"template": {
        "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}});
    let schema = Schema::structural(&schema, "schema").expect("it is structural");
    let mut object =
        json!({"spec": {"template": {"kind": "Pod", "metadata": {"name": "p", "bogus": 1}, "spec": {"a": 1}}}});
    assert_eq!(schema.prune(&mut object), ["spec.template.metadata.bogus"]);
    let errors: Vec<String> = schema.validate(&object, None).iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["spec.template.apiVersion: Required value"]);
}
