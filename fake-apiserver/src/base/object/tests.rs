use rstest::rstest;
use serde_json::json;

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn item(stored: &Stored) -> String {
    let mut out = BytesMut::new();
    stored.put_item(&mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

#[rstest]
#[case(json!({}), "{}", "{}")]
#[case(json!({"kind": "A"}), r#"{"kind":"A"}"#, "{}")]
#[case(json!({"data": 1}), r#"{"data":1}"#, r#"{"data":1}"#)]
#[case(
    json!({"apiVersion": "v1", "data": {}, "kind": "A", "metadata": {"labels": {}, "name": "a", "x": 1}}),
    r#"{"kind":"A","apiVersion":"v1","data":{},"metadata":{"name":"a","labels":{},"x":1}}"#,
    r#"{"data":{},"metadata":{"name":"a","labels":{},"x":1}}"#
)]
#[case(
    json!({"apiVersion": "x.io/v1", "kind": "A", "metadata": {"labels": {}, "name": "a", "managedFields": []}}),
    r#"{"kind":"A","apiVersion":"x.io/v1","metadata":{"labels":{},"managedFields":[],"name":"a"}}"#,
    r#"{"metadata":{"labels":{},"managedFields":[],"name":"a"}}"#
)]
fn an_object_is_written_with_its_type_first_and_an_item_without(
    #[case] value: Value,
    #[case] whole: &str,
    #[case] part: &str,
) {
    let stored = Stored::new(object(value));
    assert_eq!((stored.json().as_ref(), item(&stored).as_str()), (whole.as_bytes(), part));
}

#[test]
fn packing_shows_nowhere_but_in_the_tree() {
    let fields = json!({"f:data": {".": {}, "f:a\"b": {}}, "k:{\"name\":\"x\"}": {}});
    let managers = json!([{"manager": "m", "fieldsV1": fields}, {"manager": "n"}, {}]);
    let value = json!({"apiVersion": "x.io/v1", "metadata": {"managedFields": managers}});
    let stored = Stored::new(object(value.clone()));
    assert!(stored.at(&["metadata", "managedFields"]).unwrap().is_string());
    assert_eq!(serde_json::from_slice::<Value>(&stored.json()).unwrap(), value);
    assert_eq!(stored.unpacked().into_value(), value);
}

#[test]
fn the_schemas_of_a_definition_are_kept_as_text_which_shows_nowhere_but_in_the_tree() {
    let versions = json!([
        {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "description": "a \"b\""}}, "served": true},
        {"name": "v2", "schema": {}},
        {"name": "v3"},
    ]);
    let kind = "CustomResourceDefinition";
    let value = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": kind, "spec": {"versions": versions, "x": 1}});
    let stored = Arc::new(Stored::new(object(value.clone())));
    let schema = |stored: &Stored| stored.at(&["spec", "versions"]).unwrap()[0]["schema"]["openAPIV3Schema"].clone();
    assert!(schema(&stored).is_string());
    assert_eq!(serde_json::from_slice::<Value>(&stored.json()).unwrap(), value);
    assert_eq!(stored.unpacked().into_value(), value);
    assert_eq!(stored.unfolded().object().as_value(), &value);
    assert_eq!(stored.unfolded().json(), stored.json());

    let mut other = value;
    other["kind"] = "Other".into();
    assert!(schema(&Stored::new(object(other))).is_object());
}
