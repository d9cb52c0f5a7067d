use rstest::rstest;
use serde_json::{Value, json};

use crate::schema::Schema;

fn errors(schema: &Value) -> Vec<String> {
    match Schema::structural(schema, "s") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[rstest]
#[case(json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
    &["s.properties[spec].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"])]
#[case(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": false}),
    &["s.properties[spec].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"])]
#[case(json!({"type": "string", "x-kubernetes-embedded-resource": true}), &[
    "s.properties[spec].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
    r#"s.properties[spec].type: Invalid value: "string": must be object if x-kubernetes-embedded-resource is true"#])]
#[case(json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}), &[])]
#[case(json!({"type": "string", "minLength": -1}), &[])]
#[case(json!({"type": "string", "pattern": "("}),
    &[r#"s.properties[spec].pattern: Invalid value: "(": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`"#])]
#[case(json!({"type": "string", "format": "odd"}), &[])]
#[case(json!({"$ref": "#/x"}), &["s.properties[spec].$ref: Forbidden: $ref is not supported"])]
#[case(json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}), &[
    "s.properties[spec].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
    r#"s.properties[spec].items.type: Invalid value: "string": must be object if parent array's x-kubernetes-list-type is map"#])]
#[case(json!({"type": "string", "x-kubernetes-validations": [{"rule": ""}]}),
    &["s.properties[spec].x-kubernetes-validations[0].rule: Required value: rule is not specified"])]
#[case(json!({"oneOf": [{"type": "string"}, {"type": "integer"}]}), &[
    "s.properties[spec].oneOf[0].type: Forbidden: must be empty to be structural",
    "s.properties[spec].oneOf[1].type: Forbidden: must be empty to be structural",
    "s.properties[spec].type: Required value: must not be empty for specified object fields"])]
#[case(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}), &[])]
#[case(json!({"type": "array"}), &["s.properties[spec].items: Required value: must be specified"])]
#[case(json!({"type": "object", "x-kubernetes-map-type": "odd"}),
    &[r#"s.properties[spec].x-kubernetes-map-type: Unsupported value: "odd": supported values: "atomic", "granular""#])]
#[case(json!({"x-kubernetes-preserve-unknown-fields": true}), &[])]
#[case(json!({"type": "integer", "minimum": 5, "default": 1}),
    &["s.properties[spec].default: Invalid value: 1:  in body should be greater than or equal to 5"])]
#[case(json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
    &[r#"s.properties[spec].properties[a].default: Invalid value: "integer":  in body must be of type string: "integer""#])]
#[case(json!({"type": "string", "pattern": "a{2,1}"}),
    &[r#"s.properties[spec].pattern: Invalid value: "a{2,1}": must be a valid regular expression, but isn't: error parsing regexp: invalid repeat count: `{2,1}`"#])]
#[case(json!({"type": "string", "pattern": "x**"}),
    &[r#"s.properties[spec].pattern: Invalid value: "x**": must be a valid regular expression, but isn't: error parsing regexp: invalid nested repetition operator: `**`"#])]
#[case(json!({"type": "string", "pattern": r"^\[[^]a-z\-]+\]{1,3}?(?P<n>x|y)*$"}), &[])]
#[case(json!({"type": "object", "not": {"properties": {"z": {}}}}), &[])]
#[case(json!({"type": "odd"}),
    &[r#"s.properties[spec].type: Unsupported value: "odd": supported values: "array", "boolean", "integer", "number", "object", "string""#])]
#[case(json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
    &["s.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"])]
#[case(json!({"type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == 'a'", "fieldPath": ".x"}]}),
    &[r#"s.properties[spec].x-kubernetes-validations[0].fieldPath: Invalid value: ".x": must be a valid path"#])]
fn what_is_not_structural_is_refused(#[case] spec: Value, #[case] texts: &[&str]) {
    assert_eq!(errors(&json!({"type": "object", "properties": {"spec": spec}})), texts);
}

#[rstest]
#[case(json!({"properties": {"spec": {"type": "object"}}}), &["s.type: Required value: must not be empty at the root"])]
#[case(json!({"type": "object", "properties": {"metadata": {"type": "string"}}}),
    &[r#"s.properties[metadata].type: Invalid value: "string": must be object"#])]
#[case(json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
    &["s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"])]
#[case(json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}}}}), &[])]
fn the_root_is_an_object_with_plain_metadata(#[case] schema: Value, #[case] texts: &[&str]) {
    assert_eq!(errors(&schema), texts);
}
