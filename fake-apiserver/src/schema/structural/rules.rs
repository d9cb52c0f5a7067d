//! What a CustomResourceDefinition's schema may not say.
//!
//! See `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` for the first set of rules and
//! `pkg/apiserver/schema/validation.go` there for the second, which is looked at only where the first finds nothing.

use serde_json::{Map, Value, json};

use super::{super::formats, flag, strings, text};
use crate::base::FieldError;

type Source = Map<String, Value>;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

fn part<'a>(source: &'a Source, key: &str) -> Option<&'a Source> {
    source.get(key).and_then(Value::as_object)
}

fn list<'a>(source: &'a Source, key: &str) -> impl Iterator<Item = (usize, &'a Source)> {
    let list = source.get(key).and_then(Value::as_array).into_iter().flatten();
    list.enumerate().filter_map(|(index, value)| Some((index, value.as_object()?)))
}

fn is_set(source: &Source, key: &str) -> bool {
    match source.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Number(_)) => true,
    }
}

/// What OpenAPI has and CustomResourceDefinitions do not, list and map types, the form of CEL rules.
pub(super) fn openapi(root: &Source, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if flag(root, "nullable") {
        errors.push(FieldError::forbidden(&format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    walk_openapi(root, path, &mut errors);
    errors
}

fn walk_openapi(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    for (key, detail) in [
        ("id", "id is not supported"),
        ("additionalItems", "additionalItems is not supported"),
        ("patternProperties", "patternProperties is not supported"),
        ("definitions", "definitions is not supported"),
        ("dependencies", "dependencies is not supported"),
        ("$ref", "$ref is not supported"),
    ] {
        if is_set(source, key) {
            errors.push(FieldError::forbidden(&at(key), detail));
        }
    }
    let kind = text(source, "type");
    if kind == "null" {
        errors.push(FieldError::forbidden(&at("type"), "type cannot be set to null, use nullable as an alternative"));
    }
    if source.get("items").is_some_and(Value::is_array) {
        errors.push(FieldError::forbidden(&at("items"), "items must be a schema object and not an array"));
    }
    if flag(source, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(&at("uniqueItems"), detail));
    }
    let properties = part(source, "properties");
    if let Some(additional) = source.get("additionalProperties") {
        let restricts = additional.is_object() || additional == &Value::Bool(false);
        if restricts && properties.is_some_and(|map| !map.is_empty()) {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&at("additionalProperties"), detail));
        }
        if let Some(additional) = additional.as_object() {
            walk_openapi(additional, &at("additionalProperties"), errors);
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        if let Some(property) = property.as_object() {
            walk_openapi(property, &format!("{path}.properties[{name}]"), errors);
        }
    }
    if let Some(not) = part(source, "not") {
        walk_openapi(not, &at("not"), errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (index, inner) in list(source, key) {
            walk_openapi(inner, &format!("{path}.{key}[{index}]"), errors);
        }
    }
    if let Some(items) = part(source, "items") {
        walk_openapi(items, &at("items"), errors);
    }
    if source.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let field = at("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&field, &Value::Bool(false), "must be true or undefined"));
    }
    list_and_map_types(source, path, errors);
    if !kind.is_empty() && kind != "null" && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&at("type"), &kind.into(), &TYPES));
    }
    if kind == "array" && !is_set(source, "items") && !source.get("items").is_some_and(Value::is_object) {
        errors.push(FieldError::required(&at("items"), "must be specified"));
    }
    let pattern = text(source, "pattern");
    if let Some(error) = pattern_error(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {error}");
        errors.push(FieldError::invalid(&at("pattern"), &pattern.into(), &detail));
    }
    rule_forms(source, path, errors);
}

fn list_and_map_types(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    let kind = text(source, "type");
    let mut wrong_type = |want: &str, key: &str| {
        let detail = format!("must be {want} if {key} is specified");
        errors.push(if kind.is_empty() {
            FieldError::required(&at("type"), &detail)
        } else {
            FieldError::invalid(&at("type"), &kind.into(), &detail)
        });
    };
    let (map_type, list_type) = (text(source, "x-kubernetes-map-type"), text(source, "x-kubernetes-list-type"));
    if !map_type.is_empty() && kind != "object" {
        wrong_type("object", "x-kubernetes-map-type");
    }
    if !list_type.is_empty() && kind != "array" {
        wrong_type("array", "x-kubernetes-list-type");
    }
    if !["", "atomic", "granular"].contains(&map_type) {
        errors.push(FieldError::not_supported(&at("x-kubernetes-map-type"), &map_type.into(), &["atomic", "granular"]));
    }
    if !["", "atomic", "set", "map"].contains(&list_type) {
        let supported = ["atomic", "map", "set"];
        errors.push(FieldError::not_supported(&at("x-kubernetes-list-type"), &list_type.into(), &supported));
    }
    let keys = strings(source, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != "map" {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list_type.is_empty() {
            FieldError::required(&at("x-kubernetes-list-type"), detail)
        } else {
            FieldError::invalid(&at("x-kubernetes-list-type"), &list_type.into(), detail)
        });
    }
    let items = part(source, "items");
    if list_type == "map" {
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            errors.push(FieldError::required(&at("x-kubernetes-list-map-keys"), detail));
        }
        match items {
            None => {
                errors.push(FieldError::required(&at("items"), "must have a schema if x-kubernetes-list-type is map"))
            }
            Some(items) if text(items, "type") != "object" => {
                let detail = "must be object if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(&at("items.type"), &text(items, "type").into(), detail));
            }
            Some(items) => map_keys(items, &keys, path, errors),
        }
    }
    if let Some(items) = items.filter(|_| list_type == "set" || list_type == "map") {
        set_and_map_items(items, list_type, &keys, path, errors);
    }
}

fn map_keys(items: &Source, keys: &[String], path: &str, errors: &mut Vec<FieldError>) {
    for (index, key) in keys.iter().enumerate() {
        let property = part(items, "properties").and_then(|map| map.get(key)).and_then(Value::as_object);
        let field = format!("{path}.x-kubernetes-list-map-keys");
        match property {
            Some(property) if ["array", "object"].contains(&text(property, "type")) => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let field = format!("{path}.items.properties[{key}].type");
                errors.push(FieldError::invalid(&field, &text(property, "type").into(), detail));
            }
            Some(_) => {}
            None => {
                errors.push(FieldError::invalid(&field, &json!(keys), "entries must all be names of item properties"));
            }
        }
        if keys[..index].contains(key) {
            errors.push(FieldError::invalid(&field, &json!(keys), "must not contain duplicate entries"));
        }
    }
}

fn set_and_map_items(items: &Source, list_type: &str, keys: &[String], path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.items.{member}");
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(&at("nullable"), &detail));
    }
    if list_type == "set" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let key = match text(items, "type") {
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => "x-kubernetes-map-type",
            "array" if !["", "atomic"].contains(&text(items, "x-kubernetes-list-type")) => "x-kubernetes-list-type",
            _ => return,
        };
        errors.push(FieldError::invalid(&at(key), items.get(key).unwrap_or(&Value::Null), detail));
        return;
    }
    let required = strings(items, "required");
    for key in keys {
        let Some(property) = part(items, "properties").and_then(|map| map.get(key)).and_then(Value::as_object) else {
            continue;
        };
        let this = "this property is in x-kubernetes-list-map-keys, so it";
        if !property.contains_key("default") && !required.contains(key) {
            let field = at(&format!("properties[{key}].default"));
            errors.push(FieldError::required(&field, &format!("{this} must have a default or be a required property")));
        }
        if flag(property, "nullable") {
            let field = at(&format!("properties[{key}].nullable"));
            errors.push(FieldError::forbidden(&field, &format!("{this} cannot be nullable")));
        }
    }
}

/// What a CEL rule has beside its expression.
fn rule_forms(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    for (index, rule) in list(source, "x-kubernetes-validations") {
        let at = |member: &str| format!("{path}.x-kubernetes-validations[{index}].{member}");
        let (expression, message) = (text(rule, "rule"), text(rule, "message"));
        if expression.trim().is_empty() {
            errors.push(FieldError::required(&at("rule"), "rule is not specified"));
        }
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(&at("message"), &message.into(), "message must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(&at("message"), &message.into(), "message must not contain line breaks"));
        } else if expression.trim().contains(['\n', '\r']) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(&at("message"), detail));
        }
        let message_expression = text(rule, "messageExpression");
        if !message_expression.is_empty() && message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(&at("messageExpression"), detail));
        }
        if let Some(reason) = rule.get("reason").and_then(Value::as_str).filter(|reason| !REASONS.contains(reason)) {
            errors.push(FieldError::not_supported(&at("reason"), &reason.into(), &REASONS));
        }
        let field_path = text(rule, "fieldPath");
        if !field_path.is_empty() {
            let detail = if field_path.trim().is_empty() {
                Some("fieldPath must be non-empty if specified")
            } else if field_path.contains(['\n', '\r']) {
                Some("fieldPath must not contain line breaks")
            } else if !leads_somewhere(source, field_path) {
                Some("must be a valid path")
            } else {
                None
            };
            if let Some(detail) = detail {
                errors.push(FieldError::invalid(&at("fieldPath"), &field_path.into(), detail));
            }
        }
    }
}

/// The member names of a rule's `fieldPath`: `.a.b['c.d']`.
pub(in crate::schema) fn field_path(path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("['") {
            let (name, tail) = tail.split_once("']")?;
            names.push(name.replace("\\'", "'"));
            rest = tail;
        } else {
            let tail = rest.strip_prefix('.')?;
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            if end == 0 {
                return None;
            }
            names.push(tail[..end].to_owned());
            rest = &tail[end..];
        }
    }
    Some(names)
}

fn leads_somewhere(source: &Source, path: &str) -> bool {
    let Some(names) = field_path(path) else { return false };
    let mut at = source;
    for name in names {
        let property = part(at, "properties").and_then(|map| map.get(&name)).and_then(Value::as_object);
        match property.or_else(|| part(at, "additionalProperties")) {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

/// What Go says of a pattern; `None` if it compiles.
fn pattern_error(pattern: &str) -> Option<String> {
    let error = formats::pattern(pattern).err()?;
    let what = if error.contains("unclosed group") {
        format!("missing closing ): `{pattern}`")
    } else if error.contains("unopened group") {
        format!("unexpected ): `{pattern}`")
    } else if error.contains("unclosed character class") {
        let from = pattern.rfind('[').unwrap_or_default();
        format!("missing closing ]: `{}`", &pattern[from..])
    } else if error.contains("repetition operator missing expression") {
        let from = pattern.find(['*', '+', '?', '{']).unwrap_or_default();
        format!("missing argument to repetition operator: `{}`", &pattern[from..=from])
    } else if error.contains("look-around") {
        let from = pattern.find("(?").unwrap_or_default();
        format!("invalid or unsupported Perl syntax: `{}`", pattern.get(from..from + 3).unwrap_or("(?"))
    } else if error.contains("incomplete escape") {
        "trailing backslash at end of expression: ``".to_owned()
    } else if error.contains("unrecognized escape") {
        let from = pattern.find('\\').unwrap_or_default();
        format!("invalid escape sequence: `{}`", pattern.get(from..from + 2).unwrap_or("\\"))
    } else if error.contains("invalid character class range") {
        format!("invalid character class range: `{pattern}`")
    } else {
        format!("invalid pattern: `{pattern}`")
    };
    Some(what)
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Items,
    Member,
}

/// What makes a schema structural; sorted by text, as upstream does.
pub(super) fn structural(root: &Source, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    invariants(root, Level::Root, path, &mut errors);
    complete(root, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn invariants(source: &Source, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    if let Some(items) = part(source, "items") {
        invariants(items, Level::Items, &at("items"), errors);
    }
    let properties = part(source, "properties");
    for (name, property) in properties.into_iter().flatten() {
        if let Some(property) = property.as_object() {
            invariants(property, Level::Member, &format!("{path}.properties[{name}]"), errors);
        }
    }
    if source.contains_key("additionalProperties") {
        if level == Level::Root {
            errors.push(FieldError::forbidden(&at("additionalProperties"), "must not be used at the root"));
        }
        if let Some(additional) = part(source, "additionalProperties") {
            invariants(additional, Level::Member, &at("additionalProperties"), errors);
        }
    }
    let kind = text(source, "type");
    let int_or_string = flag(source, "x-kubernetes-int-or-string");
    let embedded = flag(source, "x-kubernetes-embedded-resource");
    let preserve = flag(source, "x-kubernetes-preserve-unknown-fields");
    if int_or_string {
        for key in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
            if flag(source, key) {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(&at(key), &Value::Bool(true), detail));
            }
        }
    }
    let (any_of, all_of) = int_or_string_exceptions(source);
    nested_lists(source, any_of, all_of, path, errors);
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if kind.is_empty() {
            FieldError::required(&at("type"), detail)
        } else {
            FieldError::invalid(&at("type"), &kind.into(), detail)
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Items => "must not be empty for specified array items",
            Level::Member => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&at("type"), detail));
    }
    if embedded && source.contains_key("additionalProperties") {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(&at("additionalProperties"), detail));
    }
    if embedded && !preserve && properties.is_none_or(Map::is_empty) {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&at("properties"), detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&at("type"), &kind.into(), "must be object at the root"));
    }
    if level == Level::Root || embedded {
        type_and_metadata(properties, level, path, errors);
    }
}

fn type_and_metadata(properties: Option<&Source>, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    for (name, want) in [("kind", "string"), ("apiVersion", "string"), ("metadata", "object")] {
        let Some(property) = properties.and_then(|map| map.get(name)).and_then(Value::as_object) else { continue };
        let kind = text(property, "type");
        if kind != want {
            let field = format!("{path}.properties[{name}].type");
            errors.push(FieldError::invalid(&field, &kind.into(), &format!("must be {want}")));
        }
    }
    let metadata = properties.and_then(|map| map.get("metadata")).and_then(Value::as_object);
    if let (Some(metadata), Level::Root) = (metadata, level) {
        let members = part(metadata, "properties");
        let more_members = members.into_iter().flatten().any(|(name, _)| name != "name" && name != "generateName");
        let plain = ["type", "description", "title", "default", "format", "properties"];
        if more_members || metadata.keys().any(|key| !plain.contains(&key.as_str())) {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&format!("{path}.properties[metadata]"), detail));
        }
    }
}

/// Which of `anyOf` and the first `allOf` only say "integer or string" once more, and may name types for that.
fn int_or_string_exceptions(source: &Source) -> (bool, bool) {
    if !flag(source, "x-kubernetes-int-or-string") {
        return (false, false);
    }
    let says = |source: &Source| {
        let kinds: Vec<_> = list(source, "anyOf").map(|(_, inner)| text(inner, "type")).collect();
        kinds == ["integer", "string"]
    };
    let first = list(source, "allOf").next().is_some_and(|(_, inner)| says(inner));
    (says(source), first)
}

fn nested_lists(source: &Source, skip_any_of: bool, skip_all_of: bool, path: &str, errors: &mut Vec<FieldError>) {
    for (index, inner) in list(source, "allOf") {
        nested(inner, skip_all_of && index == 0, &format!("{path}.allOf[{index}]"), errors);
    }
    if !skip_any_of {
        for (index, inner) in list(source, "anyOf") {
            nested(inner, false, &format!("{path}.anyOf[{index}]"), errors);
        }
    }
    for (index, inner) in list(source, "oneOf") {
        nested(inner, false, &format!("{path}.oneOf[{index}]"), errors);
    }
    if let Some(not) = part(source, "not") {
        nested(not, false, &format!("{path}.not"), errors);
    }
}

/// Inside `allOf` and its like, only bounds on values are allowed.
fn nested(source: &Source, skip_any_of: bool, path: &str, errors: &mut Vec<FieldError>) {
    nested_lists(source, skip_any_of, false, path, errors);
    if let Some(items) = part(source, "items") {
        nested(items, false, &format!("{path}.items"), errors);
    }
    for (name, property) in part(source, "properties").into_iter().flatten() {
        if let Some(property) = property.as_object() {
            nested(property, false, &format!("{path}.properties[{name}]"), errors);
        }
    }
    for (key, detail) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ] {
        if is_set(source, key) {
            errors.push(FieldError::forbidden(&format!("{path}.{key}"), detail));
        }
    }
    if part(source, "properties").is_some_and(|map| map.contains_key("metadata")) {
        let field = format!("{path}.properties[metadata]");
        errors.push(FieldError::forbidden(&field, "must not be specified in a nested context"));
    }
}

/// What is bounded inside `allOf` and its like has to be specified outside, too.
fn complete(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    complete_lists(source, Some(source), path, path, errors);
    if let Some(items) = part(source, "items") {
        complete(items, &format!("{path}.items"), errors);
    }
    for (name, property) in part(source, "properties").into_iter().flatten() {
        if let Some(property) = property.as_object() {
            complete(property, &format!("{path}.properties[{name}]"), errors);
        }
    }
    if let Some(additional) = part(source, "additionalProperties") {
        complete(additional, &format!("{path}.additionalProperties"), errors);
    }
}

fn complete_lists(bounds: &Source, outer: Option<&Source>, path: &str, inner_path: &str, errors: &mut Vec<FieldError>) {
    for key in ["oneOf", "anyOf", "allOf"] {
        for (index, inner) in list(bounds, key) {
            complete_nested(inner, outer, path, &format!("{inner_path}.{key}[{index}]"), errors);
        }
    }
    if let Some(not) = part(bounds, "not") {
        complete_nested(not, outer, path, &format!("{inner_path}.not"), errors);
    }
}

fn complete_nested(
    bounds: &Source,
    outer: Option<&Source>,
    path: &str,
    inner_path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(outer) = outer else {
        errors.push(FieldError::required(path, &format!("because it is defined in {inner_path}")));
        return;
    };
    complete_lists(bounds, Some(outer), path, inner_path, errors);
    if let Some(items) = part(bounds, "items") {
        complete_nested(items, part(outer, "items"), &format!("{path}.items"), &format!("{inner_path}.items"), errors);
    }
    for (name, property) in part(bounds, "properties").into_iter().flatten() {
        let Some(property) = property.as_object() else { continue };
        let outer = part(outer, "properties").and_then(|map| map.get(name)).and_then(Value::as_object);
        let (path, inner_path) = (format!("{path}.properties[{name}]"), format!("{inner_path}.properties[{name}]"));
        complete_nested(property, outer, &path, &inner_path, errors);
    }
}
