//! What a JSON value must look like: tables that check what comes in, and that the API's document is made of.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{Code, Error};

/// Problems that one answer names; further ones would help nobody.
const MAX_PROBLEMS: usize = 20;

/// A member of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// In half a sentence, for the API's document.
    pub(crate) meaning: &'static str,
}

/// What a value may be. `null` stands for a member that is not there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Flag,
    /// A whole number, from the first to the second.
    Whole(i64, i64),
    /// A number, from the first to the second.
    Number(f64, f64),
    /// A text of at most so many bytes that keeps a rule. An empty one is as good as none.
    Text(usize, Rule),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// At most so many texts.
    Texts(usize, usize),
    Object(&'static [Field]),
    /// Anything that is JSON.
    Any,
}

/// A rule for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Free,
    /// What Kubernetes takes as a namespace's name.
    Label,
    /// No white space and no control characters.
    Word,
    /// No control characters.
    Line,
}

/// A member that may be left out.
pub(crate) const fn optional(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field { name, kind, required: false, meaning }
}

/// A member that must be there.
pub(crate) const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field { name, kind, required: true, meaning }
}

/// Something that is not as it must be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// [`Code::Validation`] with the problems as details, or nothing if there are none.
pub(crate) fn refuse(problems: &[Problem]) -> Result<(), Error> {
    let Some(first) = problems.first() else { return Ok(()) };
    let more = match problems.len() {
        1 => String::new(),
        number => format!(" (and {} more)", number - 1),
    };
    let fields: Vec<Value> =
        problems.iter().take(MAX_PROBLEMS).map(|p| json!({"path": p.path, "message": p.message})).collect();
    Err(Error::new(Code::Validation, format!("{} {}{more}", first.path, first.message)).with("fields", fields))
}

/// Checks an object and reads it. `null`s and empty texts are left out before.
///
/// # Errors
/// [`Code::MissingParams`] if all that is wrong is that something is missing, else [`Code::Validation`].
pub(crate) fn read<T: DeserializeOwned>(fields: &[Field], value: Value) -> Result<T, Error> {
    let Value::Object(object) = &value else {
        return Err(Error::new(Code::Validation, "the body must be a JSON object"));
    };
    let missing: Vec<_> = fields.iter().filter(|field| field.required && absent(object, field)).collect();
    let mut problems = Vec::new();
    check_object(fields, object, "", &mut problems);
    if problems.len() == missing.len() && !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|field| field.name).collect();
        let message = format!("{} must be given", names.join(", "));
        return Err(Error::new(Code::MissingParams, message).with("missing", names));
    }
    refuse(&problems)?;
    decode(fields, value)
}

/// Reads what was checked.
pub(crate) fn decode<T: DeserializeOwned>(fields: &[Field], value: Value) -> Result<T, Error> {
    serde_json::from_value(without_absent(fields, value))
        .map_err(|error| Error::new(Code::Validation, format!("the value does not fit: {error}")))
}

/// Writes down what is wrong with a value.
pub(crate) fn check(kind: Kind, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    if let Some(message) = wrong(kind, value, path, problems) {
        problems.push(Problem::new(path, message));
    }
}

fn check_object(fields: &[Field], object: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for field in fields {
        match object.get(field.name) {
            None | Some(Value::Null) if field.required => problems.push(Problem::new(join(field.name), "is missing")),
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() && field.required && matches!(field.kind, Kind::Text(..)) => {
                problems.push(Problem::new(join(field.name), "is missing"));
            }
            Some(value) => check(field.kind, value, &join(field.name), problems),
        }
    }
    for name in object.keys().filter(|name| !fields.iter().any(|field| field.name == name.as_str())) {
        let known: Vec<_> = fields.iter().map(|field| field.name).collect();
        let shown: String = name.chars().take(100).collect();
        problems.push(Problem::new(join(&shown), format!("is not known; known are {}", known.join(", "))));
    }
}

/// What is wrong with the value itself. What is wrong inside is written down.
fn wrong(kind: Kind, value: &Value, path: &str, problems: &mut Vec<Problem>) -> Option<String> {
    match (kind, value) {
        (Kind::Any, _) | (Kind::Flag, Value::Bool(_)) => None,
        (Kind::Flag, _) => Some("must be true or false".into()),
        (Kind::Whole(min, max), value) => match value.as_i64() {
            Some(number) if (min..=max).contains(&number) => None,
            _ => Some(format!("must be a whole number from {min} to {max}")),
        },
        (Kind::Number(min, max), value) => match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => None,
            _ => Some(format!("must be a number from {min} to {max}")),
        },
        (Kind::Text(max, rule), Value::String(text)) => bad_text(text, max, rule),
        (Kind::Text(..), _) => Some("must be a text".into()),
        (Kind::OneOf(words), Value::String(word)) if words.contains(&word.as_str()) => None,
        (Kind::OneOf(words), _) => Some(format!("must be one of {}", words.join(", "))),
        (Kind::Texts(count, max), Value::Array(texts)) => {
            if texts.len() > count {
                return Some(format!("must have at most {count} entries"));
            }
            for (at, text) in texts.iter().enumerate() {
                check(Kind::Text(max, Rule::Line), text, &format!("{path}[{at}]"), problems);
            }
            None
        }
        (Kind::Texts(..), _) => Some("must be a list of texts".into()),
        (Kind::Object(fields), Value::Object(object)) => {
            check_object(fields, object, path, problems);
            None
        }
        (Kind::Object(_), _) => Some("must be an object".into()),
    }
}

fn bad_text(text: &str, max: usize, rule: Rule) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if text.len() > max {
        return Some(format!("must have at most {max} bytes"));
    }
    let is_alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    match rule {
        Rule::Free => None,
        Rule::Line => text.chars().any(char::is_control).then(|| "must have no control characters".into()),
        Rule::Word => {
            let bad = text.chars().any(|c| c.is_control() || c.is_whitespace());
            bad.then(|| "must have no white space and no control characters".into())
        }
        Rule::Label => {
            let bytes = text.as_bytes();
            let inside = bytes.iter().all(|c| is_alphanumeric(*c) || *c == b'-');
            let ends = [bytes.first(), bytes.last()].into_iter().flatten().all(|c| is_alphanumeric(*c));
            (!inside || !ends).then(|| "must be lower case letters, digits and '-', with no '-' at its ends".into())
        }
    }
}

fn absent(object: &Map<String, Value>, field: &Field) -> bool {
    match object.get(field.name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty() && matches!(field.kind, Kind::Text(..)),
        Some(_) => false,
    }
}

fn without_absent(fields: &[Field], value: Value) -> Value {
    let Value::Object(mut object) = value else { return value };
    for field in fields {
        if absent(&object, field) {
            object.remove(field.name);
        }
    }
    Value::Object(object)
}

/// The JSON schema of an object with these members.
pub(crate) fn object_schema(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| {
            let mut schema = schema(field.kind);
            schema["description"] = field.meaning.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut out = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        out["required"] = required.into();
    }
    out
}

/// The JSON schema of a value.
pub(crate) fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Whole(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number(min, max) => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Text(max, _) => json!({"type": "string", "maxLength": max}),
        Kind::OneOf(words) => json!({"type": "string", "enum": words}),
        Kind::Texts(count, max) => {
            json!({"type": "array", "maxItems": count, "items": {"type": "string", "maxLength": max}})
        }
        Kind::Object(fields) => object_schema(fields),
        Kind::Any => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const INNER: &[Field] = &[optional("on", Kind::Flag, "")];
    const FIELDS: &[Field] = &[
        required("name", Kind::Text(5, Rule::Label), ""),
        optional("size", Kind::Whole(1, 10), ""),
        optional("share", Kind::Number(0.5, 2.0), ""),
        optional("mode", Kind::OneOf(&["a", "b"]), ""),
        optional("hosts", Kind::Texts(2, 3), ""),
        optional("inner", Kind::Object(INNER), ""),
    ];

    #[rstest]
    #[case(json!({"name": "a-b", "size": 1, "share": 2, "mode": "b", "hosts": ["x"], "inner": {"on": true}}), &[])]
    #[case(json!({"name": "a", "size": null, "mode": null}), &[])]
    #[case(json!({"name": "-a"}), &["name"])]
    #[case(json!({"name": "toolong"}), &["name"])]
    #[case(json!({"name": 3}), &["name"])]
    #[case(json!({"name": "a", "size": 0}), &["size"])]
    #[case(json!({"name": "a", "size": 1.5}), &["size"])]
    #[case(json!({"name": "a", "size": "1"}), &["size"])]
    #[case(json!({"name": "a", "share": 0.4}), &["share"])]
    #[case(json!({"name": "a", "mode": "c"}), &["mode"])]
    #[case(json!({"name": "a", "hosts": ["x", "y", "z"]}), &["hosts"])]
    #[case(json!({"name": "a", "hosts": ["x", "long"]}), &["hosts[1]"])]
    #[case(json!({"name": "a", "inner": {"on": 1, "off": 1}}), &["inner.on", "inner.off"])]
    #[case(json!({"name": "a", "more": 1}), &["more"])]
    fn what_is_wrong_is_named_by_its_path(#[case] value: Value, #[case] paths: &[&str]) {
        let found = match read::<Value>(FIELDS, value) {
            Ok(_) => Vec::new(),
            Err(error) => {
                assert_eq!(error.code(), Code::Validation, "{error}");
                let fields = error.details()["fields"].as_array().unwrap().clone();
                fields.iter().map(|field| field["path"].as_str().unwrap().to_owned()).collect()
            }
        };
        assert_eq!(found, paths);
    }

    #[rstest]
    #[case(json!({}))]
    #[case(json!({"name": ""}))]
    #[case(json!({"name": null, "size": 2}))]
    fn what_is_missing_has_a_code_of_its_own(#[case] value: Value) {
        let error = read::<Value>(FIELDS, value).unwrap_err();
        assert_eq!(error.code(), Code::MissingParams);
        assert!(error.message().contains("name"), "{error}");
    }
}
