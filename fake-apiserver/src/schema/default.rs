//! Filling in the defaults of a custom kind's schema.

use serde_json::{Map, Value};

use super::Node;

/// Fills in defaults; with `drops_nulls`, `null` goes first where it is neither a value nor stands for a default.
///
/// See `apiextensions-apiserver/pkg/apiserver/schema/defaulting`: upstream does the same in two passes, and drops nulls where
/// it decodes what a client sent, but not in what server-side apply made.
pub(super) fn default(node: &Node, value: &mut Value, drops_nulls: bool) {
    match value {
        Value::Object(map) => members(node, map, drops_nulls),
        Value::Array(items) => {
            let Some(child) = &node.items else { return };
            for item in items {
                if let Some(default) = child.default.as_ref().filter(|_| item.is_null() && !child.nullable) {
                    *item = default.clone();
                }
                default(child, item, drops_nulls);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn members(node: &Node, map: &mut Map<String, Value>, drops_nulls: bool) {
    if drops_nulls {
        map.retain(|key, value| {
            let child = node.properties.get(key).or(node.additional.as_ref());
            !value.is_null() || child.is_none_or(|child| child.nullable || child.default.is_some())
        });
    }
    if node.has.defaults {
        for (key, child) in &node.properties {
            let Some(default) = &child.default else { continue };
            if map.get(key).is_none_or(|value| value.is_null() && !child.nullable) {
                map.insert(key.clone(), default.clone());
            }
        }
    }
    for (key, value) in map {
        let Some(child) = node.properties.get(key).or(node.additional.as_ref()) else { continue };
        if let Some(default) = child.default.as_ref().filter(|_| value.is_null() && !child.nullable) {
            *value = default.clone();
        }
        if value.is_object() || value.is_array() {
            default(child, value, drops_nulls);
        }
    }
}
