//! The API's document, made of the table of routes.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use super::{Route, is_open, routes};
use crate::{settings::KEYS, shape};

/// `GET /api/openapi.json`. It is the document itself, without an envelope.
pub(super) async fn document() -> Response {
    Json(describe(&routes())).into_response()
}

fn describe(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    let settings: Map<String, Value> = KEYS
        .iter()
        .map(|key| {
            let mut schema = shape::schema(key.kind);
            schema["description"] = key.meaning.into();
            if !key.writable {
                schema["readOnly"] = true.into();
            }
            (key.name.to_owned(), schema)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Agent Sandbox provider",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Sandboxes, agents in them, and the settings of both.",
        },
        "security": [{"token": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "agentpane_session"},
            },
            "schemas": {
                "Success": {
                    "type": "object", "required": ["ok"],
                    "properties": {"ok": {"const": true}, "data": {}},
                },
                "Failure": {
                    "type": "object", "required": ["ok", "error"],
                    "properties": {"ok": {"const": false}, "error": {
                        "type": "object", "required": ["code", "message"],
                        "properties": {
                            "code": {"type": "string"}, "message": {"type": "string"},
                            "details": {"type": "object"}, "status": {"type": "integer"},
                        },
                    }},
                },
                "Settings": {"type": "object", "properties": settings, "additionalProperties": false},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| {
        let schema = json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$"});
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    });
    let in_query = route.query.iter().map(|(name, meaning)| {
        json!({"name": name, "in": "query", "required": false, "description": meaning, "schema": {"type": "string"}})
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let answer = |name: &str| json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}});
    let good = match route.path {
        "/api/sessions/{id}/stream" => json!({"text/event-stream": {"schema": {"type": "string"}}}),
        "/metrics" => json!({"application/openmetrics-text": {"schema": {"type": "string"}}}),
        path if path.starts_with("/api") || path.ends_with('z') => answer("Success"),
        _ => json!({"text/html": {"schema": {"type": "string"}}}),
    };
    let mut out = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "2XX": {"description": "As asked", "content": good},
            "default": {"description": "What is wrong", "content": answer("Failure")},
        },
    });
    if let Some(fields) = route.body {
        let mut schema = shape::object_schema(fields);
        if route.path == "/api/settings" {
            schema["properties"]["settings"] = json!({"$ref": "#/components/schemas/Settings"});
        }
        out["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if is_open(route.path) {
        out["security"] = json!([]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_in_the_document_once_and_nothing_else_is() {
        let routes = routes();
        let document = describe(&routes);
        let mut listed: Vec<String> = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            listed.extend(methods.as_object().unwrap().keys().map(|method| format!("{method} {path}")));
        }
        let mut wanted: Vec<String> =
            routes.iter().map(|route| format!("{} {}", route.method.as_str().to_lowercase(), route.path)).collect();
        listed.sort();
        wanted.sort();
        assert_eq!(listed, wanted);
    }
}
