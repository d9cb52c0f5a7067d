//! Dropping what a custom kind's schema does not know.

use serde_json::{Map, Value};

use super::{Node, builtin};

/// The members of a whole object that its schema need not name.
const TYPE_AND_METADATA: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown members of an object; gives their paths, sorted.
pub(super) fn prune(root: &Node, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(root, value, &mut String::new(), &mut unknown, true);
    unknown.sort();
    unknown
}

/// Drops unknown members of a part of an object, as for defaults.
pub(super) fn prune_part(node: &Node, value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    walk(node, value, &mut String::new(), &mut unknown, false);
    unknown
}

fn walk(node: &Node, value: &mut Value, path: &mut String, unknown: &mut Vec<String>, whole: bool) {
    match value {
        Value::Object(map) => members(node, map, path, unknown, whole || node.embedded),
        Value::Array(items) => {
            let nothing = Node::default();
            let child = node.items.as_deref();
            if child.is_none() && node.preserve_unknown {
                return;
            }
            let length = path.len();
            for (index, item) in items.iter_mut().enumerate() {
                if item.is_object() || item.is_array() {
                    path.push_str(&format!("[{index}]"));
                    walk(child.unwrap_or(&nothing), item, path, unknown, false);
                    path.truncate(length);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn members(node: &Node, map: &mut Map<String, Value>, path: &mut String, unknown: &mut Vec<String>, whole: bool) {
    let length = path.len();
    map.retain(|key, value| {
        if whole && TYPE_AND_METADATA.contains(&key.as_str()) {
            if key == "metadata" {
                metadata(value, path, unknown);
            }
            return true;
        }
        let known = node.properties.get(key).map(AsRef::as_ref).or(node.additional.as_deref());
        if known.is_none() && node.preserve_unknown {
            return true;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(key);
        match known {
            Some(child) if value.is_object() || value.is_array() => walk(child, value, path, unknown, false),
            Some(_) => {}
            None => unknown.push(path.clone()),
        }
        path.truncate(length);
        known.is_some()
    });
}

/// The first metadata in an object, its own or that of one embedded in it, that is none: its path, itself, Go's words.
pub(super) fn wrong_metadata(root: &Node, value: &Value) -> Option<(String, Value, String)> {
    fn walk(node: &Node, value: &Value, path: &str, whole: bool) -> Option<(String, Value, String)> {
        match value {
            Value::Object(map) => map.iter().find_map(|(key, value)| {
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if whole && key == "metadata" {
                    let schema = builtin::schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
                    return schema.decode(value.clone()).err().map(|why| (at, value.clone(), why));
                }
                let child = node.properties.get(key).or(node.additional.as_ref())?;
                let inside = child.has.embedded || child.embedded;
                if inside { walk(child, value, &at, child.embedded) } else { None }
            }),
            Value::Array(items) => {
                let child = node.items.as_ref().filter(|child| child.has.embedded)?;
                let mut items = items.iter().enumerate();
                items.find_map(|(index, item)| walk(child, item, &format!("{path}[{index}]"), child.embedded))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    walk(root, value, "", true)
}

/// The metadata of a custom object is that of every object, whatever its schema says.
fn metadata(value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    if !value.is_object() {
        return;
    }
    let schema = builtin::schema("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    // What does not decode is left for validation to refuse.
    if let Ok(decoded) = schema.decode(value.clone()) {
        *value = decoded.value;
        let prefix = if path.is_empty() { "metadata".to_owned() } else { format!("{path}.metadata") };
        unknown.extend(decoded.unknown.iter().map(|member| format!("{prefix}.{member}")));
    }
}
