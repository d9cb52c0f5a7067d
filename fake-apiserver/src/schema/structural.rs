//! Compiling a CustomResourceDefinition's `openAPIV3Schema`, and refusing what is not structural.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::{Checks, Has, ListType, Node, Schema, Type, cel, default, formats, prune, validate};
use crate::base::FieldError;

mod rules;

pub(super) use rules::field_path;

/// Compiles a schema.
pub(super) fn compile(openapi: &Value, path: &str) -> Result<Schema, Vec<FieldError>> {
    let nothing = Map::new();
    let source = openapi.as_object().unwrap_or(&nothing);
    let unsupported = rules::unsupported(source);
    let mut errors = Vec::new();
    if flag(source, "nullable") {
        errors.push(FieldError::forbidden(&format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut found = if unsupported { Vec::new() } else { rules::structural(source, path) };
    let is_structural = found.is_empty() && !unsupported;
    let mut root = node(source);
    root.embedded = false;
    if is_structural {
        found = check_defaults(&root, source, path, true);
        complete_defaults(&mut root);
    }
    let with_rules = is_structural && found.is_empty();
    errors.extend(found);
    errors.extend(rules::openapi(source, path));
    let mut root = Arc::new(root);
    if with_rules {
        let found = cel::compile(&mut root, source, path, &errors);
        errors.extend(found);
    }
    if errors.is_empty() { Ok(Schema { root, builtin: false }) } else { Err(errors) }
}

fn text<'a>(source: &'a Map<String, Value>, key: &str) -> &'a str {
    source.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(source: &Map<String, Value>, key: &str) -> bool {
    source.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn strings(source: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = source.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// From how many members on an object's schema is looked for among those compiled before.
const SHARED_MEMBERS: usize = 8;

/// How many of those are kept; beyond, all are forgotten and compiled anew.
const SHARED_LIMIT: usize = 512;

/// Compiled schemas of objects with many members, by the SHA-256 of their text: the versions of a definition, and the
/// definitions of a project, have whole pod specs in common.
static SHARED: LazyLock<Mutex<BTreeMap<Vec<u8>, Arc<Node>>>> = LazyLock::new(Mutex::default);

fn shared(source: &Map<String, Value>) -> Arc<Node> {
    if source.get("properties").and_then(Value::as_object).map_or(0, Map::len) < SHARED_MEMBERS {
        return Arc::new(node(source));
    }
    let text = serde_json::to_vec(source).expect("a JSON value encodes");
    let key = digest(&SHA256, &text).as_ref().to_owned();
    let known = || SHARED.lock().expect("no panic under this lock");
    if let Some(found) = known().get(&key) {
        return found.clone();
    }
    let made = Arc::new(node(source));
    let mut known = known();
    if known.len() >= SHARED_LIMIT {
        known.clear();
    }
    known.insert(key, made.clone());
    made
}

fn node(source: &Map<String, Value>) -> Node {
    let map_of = |value: &Value| value.as_object().map(shared);
    let mut out = Node {
        kind: Type::parse(text(source, "type")),
        format: text(source, "format").to_owned(),
        description: text(source, "description").to_owned(),
        required: strings(source, "required"),
        default: source.get("default").filter(|value| !value.is_null()).cloned(),
        nullable: flag(source, "nullable"),
        int_or_string: flag(source, "x-kubernetes-int-or-string"),
        preserve_unknown: flag(source, "x-kubernetes-preserve-unknown-fields"),
        embedded: flag(source, "x-kubernetes-embedded-resource"),
        map_atomic: text(source, "x-kubernetes-map-type") == "atomic",
        items: source.get("items").and_then(map_of),
        ..Node::default()
    };
    for (name, property) in source.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let property = map_of(property).unwrap_or_default();
        out.properties.insert(name.clone(), property);
    }
    out.additional = match source.get("additionalProperties") {
        Some(Value::Object(source)) => Some(shared(source)),
        Some(Value::Bool(true)) if out.properties.is_empty() => {
            Some(Arc::new(Node { preserve_unknown: true, ..Node::default() }))
        }
        Some(_) | None => None,
    };
    out.list_type = match text(source, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => ListType::Map(strings(source, "x-kubernetes-list-map-keys")),
        _ => ListType::Atomic,
    };
    out.checks = checks(source);
    out.has = Has {
        defaults: false,
        rules: source.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty()),
        lists: out.list_type != ListType::Atomic,
        embedded: out.embedded,
    };
    for child in out.properties.values().chain(&out.additional).chain(&out.items) {
        out.has.defaults |= child.has.defaults || child.default.is_some();
        out.has.rules |= child.has.rules;
        out.has.lists |= child.has.lists;
        out.has.embedded |= child.has.embedded;
    }
    out
}

fn checks(source: &Map<String, Value>) -> Option<Box<Checks>> {
    let float = |key: &str| source.get(key).and_then(Value::as_f64);
    let whole = |key: &str| source.get(key).and_then(Value::as_i64);
    let nodes = |key: &str| {
        let list = source.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_object).map(|source| Arc::new(node(source))).collect::<Vec<_>>()
    };
    let pattern = text(source, "pattern");
    let checks = Checks {
        allowed: source.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        minimum: float("minimum"),
        exclusive_minimum: flag(source, "exclusiveMinimum"),
        maximum: float("maximum"),
        exclusive_maximum: flag(source, "exclusiveMaximum"),
        multiple_of: float("multipleOf"),
        min_length: whole("minLength"),
        max_length: whole("maxLength"),
        pattern: formats::pattern(pattern)
            .ok()
            .filter(|_| !pattern.is_empty())
            .map(|regex| (pattern.to_owned(), regex)),
        min_items: whole("minItems"),
        max_items: whole("maxItems"),
        unique_items: flag(source, "uniqueItems"),
        min_properties: whole("minProperties"),
        max_properties: whole("maxProperties"),
        all_of: nodes("allOf"),
        any_of: nodes("anyOf"),
        one_of: nodes("oneOf"),
        not: source.get("not").and_then(Value::as_object).map(|source| Arc::new(node(source))),
    };
    const KEYS: [&str; 18] = [
        "enum",
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
    ];
    KEYS.iter().any(|key| source.contains_key(*key)).then(|| Box::new(checks))
}

/// Defaults have to be what a request might have said: pruned and valid.
fn check_defaults(node: &Node, source: &Map<String, Value>, path: &str, root: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let (Some(value), false) = (&node.default, root) {
        let at = format!("{path}.default");
        let mut pruned = value.clone();
        if prune::prune_part(node, &mut pruned).is_empty() {
            for mut error in validate::validate_part(node, value) {
                error.field = match error.field.as_str() {
                    "" | "<nil>" => at.clone(),
                    field => format!("{at}.{field}"),
                };
                errors.push(error);
            }
        } else {
            errors.push(FieldError::invalid(&at, value, "must not have unknown fields"));
        }
    }
    let part = |key: &str| source.get(key).and_then(Value::as_object);
    for (name, child) in &node.properties {
        if let Some(source) = part("properties").and_then(|map| map.get(name)).and_then(Value::as_object) {
            errors.extend(check_defaults(child, source, &format!("{path}.properties[{name}]"), false));
        }
    }
    for (key, child) in [("items", &node.items), ("additionalProperties", &node.additional)] {
        if let (Some(child), Some(source)) = (child, part(key)) {
            errors.extend(check_defaults(child, source, &format!("{path}.{key}"), false));
        }
    }
    errors
}

/// Fills defaults into defaults, once, so that filling in is copying.
fn complete_defaults(node: &mut Node) {
    if !node.has.defaults && node.default.is_none() {
        return;
    }
    for child in node.properties.values_mut().chain(&mut node.additional).chain(&mut node.items) {
        if child.has.defaults || child.default.is_some() {
            complete_defaults(Arc::make_mut(child));
        }
    }
    if let Some(mut value) = node.default.take() {
        prune::prune_part(node, &mut value);
        default::default(node, &mut value, true);
        node.default = Some(value);
    }
}

/// See `SchemaHas` of `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` and `GetUnrecognizedFormats`
/// of `pkg/apiserver/validation/formats.go` there.
pub(super) fn unknown_formats(openapi: &Value, out: &mut Vec<String>) {
    let Some(source) = openapi.as_object() else { return };
    let format = text(source, "format");
    let known = match text(source, "type") {
        "" | "string" => formats::check(format, "").is_some(),
        "integer" => ["int32", "int64"].contains(&format),
        "number" => ["float", "double"].contains(&format),
        _ => false,
    };
    if !format.is_empty() && !known {
        out.push(format.to_owned());
    }
    let one = |key: &str| source.get(key).filter(|value| value.is_object());
    let list = |key: &str| source.get(key).and_then(Value::as_array).into_iter().flatten();
    let below = one("items").into_iter().chain(["allOf", "anyOf", "oneOf"].into_iter().flat_map(list));
    let members = source.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, value)| value);
    for schema in below.chain(one("not")).chain(members).chain(one("additionalProperties")) {
        unknown_formats(schema, out);
    }
}

#[cfg(test)]
mod tests;
