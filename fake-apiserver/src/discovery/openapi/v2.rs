//! The OpenAPI v2 document: all schemas and paths in one, made of those of v3.
//!
//! Upstream: `k8s.io/kube-openapi/pkg/builder` and, for custom kinds,
//! `apiextensions-apiserver/pkg/controller/openapi/v2/conversion.go`.

use serde_json::{Map, Value, json};

use crate::registry::Catalog;

/// The document.
pub(super) fn document(catalog: &Catalog) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for group in catalog.groups() {
        for version in &group.versions {
            let Some(mut v3) = super::document(catalog, &group.name, version) else { continue };
            if let Value::Object(found) = v3["paths"].take() {
                paths.extend(found.into_iter().map(|(path, item)| (path, path_item(item))));
            }
            if let Value::Object(found) = v3["components"]["schemas"].take() {
                definitions.extend(found.into_iter().map(|(name, schema)| (name, converted(schema))));
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "1.36"},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {
            "BearerToken": {
                "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
            },
        },
        "security": [{"BearerToken": []}],
    })
}

/// The operations of a path: a parameter's type stands beside its name, a body is a parameter.
fn path_item(mut item: Value) -> Value {
    for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let mut parameters = Vec::new();
        if let Value::Array(found) = operation["parameters"].take() {
            for mut parameter in found {
                if let (Value::Object(schema), Some(parameter)) =
                    (parameter["schema"].take(), parameter.as_object_mut())
                {
                    parameter.remove("schema");
                    parameter.extend(schema);
                }
                parameters.push(parameter);
            }
        }
        let consumes: Value = match operation["requestBody"].take() {
            Value::Object(body) => body["content"].as_object().into_iter().flat_map(Map::keys).cloned().collect(),
            _ => json!(["*/*"]),
        };
        if matches!(operation["x-kubernetes-action"].as_str(), Some("post" | "put" | "patch")) {
            parameters.insert(0, json!({"name": "body", "in": "body", "required": true, "schema": {}}));
        }
        operation["consumes"] = consumes;
        operation["produces"] = json!(["application/json", "application/yaml"]);
        operation["schemes"] = json!(["https"]);
        operation["parameters"] = parameters.into();
        operation["responses"] = json!({"200": {"description": "OK"}, "401": {"description": "Unauthorized"}});
        if let Some(operation) = operation.as_object_mut() {
            operation.remove("requestBody");
        }
    }
    item
}

/// A schema: v2 knows neither alternatives nor `nullable`, and a reference stands by itself.
fn converted(schema: Value) -> Value {
    let Value::Object(mut schema) = schema else { return schema };
    let reference = schema.get("allOf").and_then(|all| all[0]["$ref"].as_str()).map(str::to_owned);
    for key in ["allOf", "oneOf", "anyOf", "not", "default"] {
        schema.remove(key);
    }
    if let Some(reference) = reference {
        schema.insert("$ref".into(), reference.replace("#/components/schemas/", "#/definitions/").into());
        return schema.into();
    }
    if schema.get("format").is_some_and(|format| format == "int-or-string") {
        schema.insert("type".into(), "string".into());
    }
    let unknown = schema.get("x-kubernetes-preserve-unknown-fields").is_some_and(|keep| keep == true);
    // Clients cannot cope with members or items of what has no type, nor with what has members and may have others.
    if schema.remove("nullable").is_some() || unknown && schema.contains_key("type") {
        for key in ["items", "properties", "type"] {
            schema.remove(key);
        }
    }
    for (key, value) in &mut schema {
        match (key.as_str(), value) {
            ("properties", Value::Object(members)) => {
                members.values_mut().for_each(|member| *member = converted(member.take()));
            }
            ("items" | "additionalProperties", value) => *value = converted(value.take()),
            _ => {}
        }
    }
    schema.into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        json!({"allOf": [{"$ref": "#/components/schemas/a.B"}], "default": {}, "description": "d"}),
        json!({"$ref": "#/definitions/a.B", "description": "d"}))]
    #[case(
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        json!({"type": "string", "format": "int-or-string"}))]
    #[case(
        json!({"type": "object", "properties": {"a": {"type": "object", "nullable": true, "properties": {"b": {}}}}}),
        json!({"type": "object", "properties": {"a": {}}}))]
    #[case(
        json!({"type": "array", "items": {"type": "string", "default": "x"}}),
        json!({"type": "array", "items": {"type": "string"}}))]
    fn a_schema_becomes_one_of_v2(#[case] v3: Value, #[case] v2: Value) {
        assert_eq!(converted(v3), v2);
    }
}
