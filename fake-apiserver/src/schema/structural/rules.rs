//! What a CustomResourceDefinition's schema may not say.
//!
//! See `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go` for the first set of rules and
//! `pkg/apiserver/schema/validation.go` there for the second.

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

/// What a part of a schema may not have for where it stands.
#[derive(Clone, Copy, Default)]
struct Inside<'a> {
    /// Why there may be no default.
    no_defaults: Option<&'a str>,
    /// Whether this is the type or metadata of an object.
    meta: bool,
}

/// What OpenAPI has and CustomResourceDefinitions do not, list and map types, the form of CEL rules.
pub(super) fn openapi(root: &Source, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk_openapi(root, path, Level::Root, Inside::default(), &mut errors);
    errors
}

/// Whether a schema has what structural schemas have no place for at all: then only that is told of.
pub(super) fn unsupported(source: &Source) -> bool {
    let own = ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
    let lists = ["allOf", "oneOf", "anyOf"];
    own.iter().any(|key| is_set(source, key))
        || source.get("items").is_some_and(Value::is_array)
        || ["items", "additionalProperties", "not"].iter().filter_map(|key| part(source, key)).any(unsupported)
        || part(source, "properties").into_iter().flatten().filter_map(|(_, value)| value.as_object()).any(unsupported)
        || lists.iter().any(|key| list(source, key).any(|(_, inner)| unsupported(inner)))
}

fn walk_openapi(source: &Source, path: &str, level: Level, inside: Inside<'_>, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    let kind = text(source, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&at("type"), &kind.into(), &TYPES));
    }
    if let (Some(reason), Some(_)) = (inside.no_defaults, source.get("default").filter(|value| !value.is_null())) {
        errors.push(FieldError::forbidden(&at("default"), &format!("must not be set {reason}")));
    }
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
    if kind == "null" {
        errors.push(FieldError::forbidden(&at("type"), "type cannot be set to null, use nullable as an alternative"));
    }
    if source.get("items").is_some_and(Value::is_array) {
        errors.push(FieldError::forbidden(&at("items"), "items must be a schema object and not an array"));
    }
    if inside.meta && flag(source, "x-kubernetes-embedded-resource") {
        let detail = "must not be used inside of resource meta";
        errors.push(FieldError::forbidden(&at("x-kubernetes-embedded-resource"), detail));
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
            let mut inside = inside;
            if inside.meta {
                inside.no_defaults = Some("inside additionalProperties applying to object metadata");
            }
            walk_openapi(additional, &at("additionalProperties"), Level::Member, inside, errors);
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        let Some(property) = property.as_object() else { continue };
        let mut inside = inside;
        let whole = level == Level::Root || flag(source, "x-kubernetes-embedded-resource");
        let reason = format!("in top-level {name}");
        if whole && ["metadata", "kind", "apiVersion"].contains(&name.as_str()) {
            inside.meta = true;
            if level == Level::Root {
                inside.no_defaults = Some(&reason);
            }
        }
        walk_openapi(property, &format!("{path}.properties[{name}]"), Level::Member, inside, errors);
    }
    if let Some(not) = part(source, "not") {
        walk_openapi(not, &at("not"), Level::Member, inside, errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (index, inner) in list(source, key) {
            walk_openapi(inner, &format!("{path}.{key}[{index}]"), Level::Member, inside, errors);
        }
    }
    if let Some(items) = part(source, "items") {
        walk_openapi(items, &at("items"), Level::Items, inside, errors);
    }
    if source.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let field = at("x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(&field, &Value::Bool(false), "must be true or undefined"));
    }
    list_and_map_types(source, path, errors);
    rule_forms(source, path, errors);
}

fn list_and_map_types(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.{member}");
    let kind = text(source, "type");
    let wrong_type = |want: &str, key: &str| {
        let detail = format!("must be {want} if {key} is specified");
        if kind.is_empty() {
            FieldError::required(&at("type"), &detail)
        } else {
            FieldError::invalid(&at("type"), &kind.into(), &detail)
        }
    };
    let (map_type, list_type) = (text(source, "x-kubernetes-map-type"), text(source, "x-kubernetes-list-type"));
    if !map_type.is_empty() && kind != "object" {
        errors.push(wrong_type("object", "x-kubernetes-map-type"));
    }
    if !["", "atomic", "granular"].contains(&map_type) {
        errors.push(FieldError::not_supported(&at("x-kubernetes-map-type"), &map_type.into(), &["atomic", "granular"]));
    }
    let items = part(source, "items");
    if !list_type.is_empty() && kind != "array" {
        errors.push(wrong_type("array", "x-kubernetes-list-type"));
    } else if let ("set", Some(items)) = (list_type, items) {
        set_items(items, path, errors);
    }
    if !["", "atomic", "set", "map"].contains(&list_type) {
        let supported = ["atomic", "set", "map"];
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
                // upstream shows the item's type, not the key's
                errors.push(FieldError::invalid(&field, &text(items, "type").into(), detail));
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

fn set_items(items: &Source, path: &str, errors: &mut Vec<FieldError>) {
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let key = match text(items, "type") {
        "object" if text(items, "x-kubernetes-map-type") != "atomic" => "x-kubernetes-map-type",
        "array" if !["", "atomic"].contains(&text(items, "x-kubernetes-list-type")) => "x-kubernetes-list-type",
        _ => return,
    };
    // upstream shows the list type either way
    let shown = items.get("x-kubernetes-list-type").unwrap_or(&Value::Null);
    errors.push(FieldError::invalid(&format!("{path}.items.{key}"), shown, detail));
}

fn set_and_map_items(items: &Source, list_type: &str, keys: &[String], path: &str, errors: &mut Vec<FieldError>) {
    let at = |member: &str| format!("{path}.items.{member}");
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(&at("nullable"), &detail));
    }
    if list_type == "set" {
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
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(&at("message"), &message.into(), "must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(&at("message"), &message.into(), "must not contain line breaks"));
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
        let path = text(rule, "fieldPath");
        if !path.is_empty() {
            let mut fail = |detail| errors.push(FieldError::invalid(&at("fieldPath"), &path.into(), detail));
            if path.trim().is_empty() {
                fail("must be non-empty if specified");
            }
            if path.contains(['\n', '\r']) {
                fail("must not contain line breaks");
            }
            if field_path(source, path, true).is_err() {
                fail("must be a valid path");
            }
        }
    }
}

/// Where a path such as `.a.b['c.d']` leads in a schema, and how an error names that place.
///
/// Upstream: `ValidFieldPath` of `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`.
///
/// # Errors
/// Upstream's words for what is wrong with it.
pub(in crate::schema) fn field_path<'a>(
    source: &'a Source,
    path: &str,
    brackets: bool,
) -> Result<(String, Option<&'a Source>), String> {
    let (mut normal, mut at) = (String::new(), Some(source));
    let mut rest = path;
    while !rest.is_empty() {
        let opening = token(&mut rest);
        let name = match opening {
            "." => token(&mut rest).to_owned(),
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = match token(&mut rest) {
                    "" => return Err("unexpected end of JSON path".into()),
                    quoted => quoted,
                };
                let inner = quoted.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
                let Some(inner) = inner else {
                    return Err(format!("expected single quoted string but got {quoted}"));
                };
                unescape(inner)?
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        if name.is_empty() && opening == "." {
            return Err("unexpected end of JSON path".into());
        }
        let here = at.ok_or("does not refer to a valid field")?;
        if let Some(properties) = part(here, "properties").filter(|map| !map.is_empty()) {
            let next = properties.get(&name).and_then(Value::as_object).ok_or("does not refer to a valid field")?;
            if !normal.is_empty() {
                normal.push('.');
            }
            normal.push_str(&name);
            at = Some(next);
        } else if here.contains_key("additionalProperties") {
            normal.push_str(&format!("[{name}]"));
            at = part(here, "additionalProperties");
        } else {
            return Err("does not refer to a valid field".into());
        }
        if opening == "[" {
            match token(&mut rest) {
                "]" => {}
                "" => return Err("unexpected end of JSON path".into()),
                other => return Err(format!("expected ] but got {other}")),
            }
        }
    }
    Ok((normal, at))
}

/// The next part of a path: a delimiter, a quoted text, or what stands before the next delimiter.
fn token<'a>(rest: &mut &'a str) -> &'a str {
    let bytes = rest.as_bytes();
    let end = match bytes.first() {
        None => 0,
        Some(b'.' | b'[' | b']') => 1,
        Some(b'\'') => {
            let close = (1..bytes.len()).find(|at| bytes[*at] == b'\'' && bytes[at - 1] != b'\\');
            close.map_or(bytes.len(), |at| at + 1)
        }
        Some(_) => rest.find(['.', '[', ']']).unwrap_or(bytes.len()),
    };
    let (token, tail) = rest.split_at(end);
    *rest = tail;
    token
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        out.push(match letters.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('\'') => '\'',
            Some('\\') => '\\',
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(format!("invalid string literal: invalid escape char \\{other}"));
            }
        });
    }
    Ok(out)
}

/// What Go refuses and Rust takes, or what both refuse with other words: repetitions, ranges and classes.
///
/// See `regexp/syntax/parse.go`.
fn go_pattern_error(pattern: &str) -> Option<String> {
    let mut at = 0;
    let mut repeated: Option<usize> = None; // where the repetition before this place began
    let mut nothing = true; // whether there is nothing to repeat
    while let Some(letter) = pattern[at..].chars().next() {
        let rest = &pattern[at..];
        let length = match letter {
            '*' | '+' | '?' => 1,
            '{' => repeat_length(rest).unwrap_or_default(),
            _ => 0,
        };
        if length > 0 {
            if letter == '{' {
                let counts = &rest[1..length - 1];
                let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
                let (least, most) = (
                    least.parse::<u32>().unwrap_or(u32::MAX),
                    most.parse().unwrap_or(least.parse().unwrap_or(u32::MAX)),
                );
                if least > 1000 || most > 1000 || least > most {
                    return Some(format!("invalid repeat count: `{}`", &rest[..length]));
                }
            }
            if nothing {
                return Some(format!("missing argument to repetition operator: `{}`", &rest[..length]));
            }
            let lazy = usize::from(rest[length..].starts_with('?'));
            if let Some(from) = repeated {
                return Some(format!("invalid nested repetition operator: `{}`", &pattern[from..at + length + lazy]));
            }
            repeated = Some(at);
            at += length + lazy;
            continue;
        }
        (repeated, nothing) = (None, matches!(letter, '(' | '|'));
        at += match letter {
            '(' if rest.starts_with("(?P<") || rest.starts_with("(?<") => {
                let Some(end) = rest.find('>') else {
                    return Some(format!("invalid named capture: `{rest}`"));
                };
                end + 1
            }
            '(' if rest.starts_with("(?") => match rest.find([':', ')']) {
                Some(end) => end + 1,
                None => rest.len(),
            },
            '\\' => {
                let escaped = rest.chars().nth(1)?;
                let class = rest.get(2..).and_then(|tail| tail.strip_prefix('{')).and_then(|tail| tail.split_once('}'));
                match (escaped, class) {
                    ('p' | 'P', Some((name, _))) => {
                        let whole = &rest[..name.len() + 4];
                        if formats::pattern(whole).is_err() {
                            return Some(format!("invalid character class range: `{whole}`"));
                        }
                        whole.len()
                    }
                    ('1'..='9', _) => return Some(format!("invalid escape sequence: `\\{escaped}`")),
                    _ => 1 + escaped.len_utf8(),
                }
            }
            '[' => match class_length(rest) {
                Ok(length) => length,
                Err(why) => return Some(why),
            },
            letter => letter.len_utf8(),
        };
    }
    None
}

/// The length of a repetition such as `{1,2}`; what is none stands for itself.
fn repeat_length(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let counts = &text[1..end];
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!least.is_empty() && digits(least) && digits(most)).then_some(end + 1)
}

/// The length of a class such as `[a-z]`.
fn class_length(text: &str) -> Result<usize, String> {
    let mut letters = text.char_indices().skip(1).peekable();
    letters.next_if(|(_, letter)| *letter == '^');
    let mut first = true;
    let mut low: Option<(usize, char)> = None;
    while let Some((at, letter)) = letters.next() {
        match letter {
            ']' if !first => return Ok(at + 1),
            '[' if text[at..].starts_with("[:") => {
                let end = text[at..].find(":]").map(|end| at + end + 2);
                while let Some(end) = end
                    && letters.next_if(|(at, _)| *at < end).is_some()
                {}
                low = None;
            }
            '\\' => {
                letters.next();
                low = None;
            }
            '-' if low.is_some() && letters.peek().is_some_and(|(_, next)| *next != ']' && *next != '\\') => {
                if let (Some((from, low)), Some((at, high))) = (low, letters.next())
                    && low > high
                {
                    let range = &text[from..at + high.len_utf8()];
                    return Err(format!("invalid character class range: `{range}`"));
                }
                low = None;
            }
            letter => low = Some((at, letter)),
        }
        first = false;
    }
    Err(format!("missing closing ]: `{text}`"))
}

/// What Go says of a pattern; `None` if it compiles.
fn pattern_error(pattern: &str) -> Option<String> {
    if let Some(error) = go_pattern_error(pattern) {
        return Some(error);
    }
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

fn check_pattern(source: &Source, path: &str, errors: &mut Vec<FieldError>) {
    let pattern = text(source, "pattern");
    if let Some(error) = pattern_error(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {error}");
        errors.push(FieldError::invalid(&format!("{path}.pattern"), &pattern.into(), &detail));
    }
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
    if text(source, "type") == "array" && part(source, "items").is_none() {
        errors.push(FieldError::required(&at("items"), "must be specified"));
    }
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
    check_pattern(source, path, errors);
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
        let plain = ["type", "default", "properties"];
        if more_members || metadata.keys().any(|key| is_set(metadata, key) && !plain.contains(&key.as_str())) {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(FieldError::forbidden(&format!("{path}.properties[metadata]"), detail));
        }
    }
}

/// Which of `anyOf` and the first `allOf` only say "integer or string" once more, and may name types for that.
fn int_or_string_exceptions(source: &Source) -> (bool, bool) {
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
    check_pattern(source, path, errors);
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
        ("x-kubernetes-validations", "must be empty to be structural"),
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
    // upstream looks at the root alone
    complete_lists(source, Some(source), path, path, errors);
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
