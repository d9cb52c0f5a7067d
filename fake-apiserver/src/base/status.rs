//! Errors as the API gives them: a [`Status`], made only by named constructors whose texts are upstream's.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/api/errors/errors.go` and `pkg/util/validation/field/errors.go`.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::Object;

/// A failed (or, for deletions, successful) answer of the API server: `kind: Status`.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, `""` where upstream gives none.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// `details`; `None` where upstream leaves it out.
    pub details: Option<Details>,
    /// `metadata.continue`: how to go on after a page that is no longer kept.
    pub continue_token: String,
}

/// `details` of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object concerned.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its kind, or for most errors its resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its UID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What was wrong, field by field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before asking again, 0 for no advice.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    /// Machine-readable reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a person reads.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What kind of wrong a [`FieldError`] is; upstream's `field.ErrorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// Must be there and is not.
    Required,
    /// Is there twice.
    Duplicate,
    /// Has a wrong value.
    Invalid,
    /// Is none of the allowed values.
    NotSupported,
    /// May not be set.
    Forbidden,
    /// Has too long a text.
    TooLong,
    /// Has too many items.
    TooMany,
    /// Refers to what is not there.
    NotFound,
    /// Has a value of the wrong type.
    TypeInvalid,
    /// The server failed.
    Internal,
}

/// One field that is wrong; upstream's `field.Error`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What kind of wrong.
    pub kind: FieldErrorKind,
    /// Path of the field, `spec.containers[0].name`.
    pub field: String,
    /// The text after the path: `Invalid value: "x": must be …`.
    pub body: String,
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: &str, body: String) -> Self {
        Self { kind, field: field.into(), body }
    }

    /// `Required value`, and the detail if there is one.
    pub fn required(field: &str, detail: &str) -> Self {
        Self::new(FieldErrorKind::Required, field, with_detail("Required value".into(), detail))
    }

    /// `Invalid value: <value>: <detail>`.
    pub fn invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self::new(FieldErrorKind::Invalid, field, with_detail(format!("Invalid value: {}", go_value(value)), detail))
    }

    /// As [`FieldError::invalid`], of a value that upstream shows in a form of its own.
    pub fn invalid_shown(field: &str, shown: &str, detail: &str) -> Self {
        Self::new(FieldErrorKind::Invalid, field, with_detail(format!("Invalid value: {shown}"), detail))
    }

    /// `Invalid value: <value>: <detail>` with a wrong type.
    pub fn type_invalid(field: &str, value: &Value, detail: &str) -> Self {
        Self { kind: FieldErrorKind::TypeInvalid, ..Self::invalid(field, value, detail) }
    }

    /// `Unsupported value: <value>: supported values: …`; the values are shown in the order given.
    pub fn not_supported<S: AsRef<str>>(field: &str, value: &Value, supported: &[S]) -> Self {
        let list: Vec<_> = supported.iter().map(|value| format!("{:?}", value.as_ref())).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::new(
            FieldErrorKind::NotSupported,
            field,
            with_detail(format!("Unsupported value: {}", go_value(value)), &detail),
        )
    }

    /// `Forbidden: <detail>`.
    pub fn forbidden(field: &str, detail: &str) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, with_detail("Forbidden".into(), detail))
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, format!("Duplicate value: {}", go_value(value)))
    }

    /// `Not found: <value>`.
    pub fn not_found(field: &str, value: &Value) -> Self {
        Self::new(FieldErrorKind::NotFound, field, format!("Not found: {}", go_value(value)))
    }

    /// `Too long: may not be more than <max> bytes`.
    pub fn too_long(field: &str, max: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, field, format!("Too long: may not be more than {max} bytes"))
    }

    /// `Too many: <actual>: must have at most <max> items`.
    pub fn too_many(field: &str, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, field, format!("Too many: {actual}: must have at most {max} {items}"))
    }

    /// `Internal error: <detail>`.
    pub fn internal(field: &str, detail: &str) -> Self {
        Self::new(FieldErrorKind::Internal, field, with_detail("Internal error".into(), detail))
    }

    fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::Internal => "InternalError",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

/// A value as upstream's messages show it: text quoted as Go quotes it, `null`, everything else as JSON.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// What Go's `encoding/json` calls a value's type in its errors.
pub fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A text as Go's `%q` prints it.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The reasons that this code knows of.
const REASONS: [&str; 19] = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "NotImplemented",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

/// The resource an error speaks of.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.into() } else { format!("{resource}.{group}") }
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_token: String::new() }
    }

    /// An error that another API server answered with.
    pub fn received(code: u16, reason: &str, message: String) -> Self {
        let reason = REASONS.iter().find(|known| **known == reason).copied().unwrap_or_default();
        Self::new(code, reason, message)
    }

    fn about(self, group: &str, kind: &str, name: &str) -> Self {
        let details = Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        Self { details: Some(details), ..self }
    }

    /// Adds a cause to `details`.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404 for an object.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {} not found", qualified(group, resource), go_quote(name)))
            .about(group, resource, name)
    }

    /// 404 for a path that names no resource.
    pub fn no_such_resource() -> Self {
        let status = Self::new(404, "NotFound", "the server could not find the requested resource");
        Self { details: Some(Details::default()), ..status }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self { details: Some(Details::default()), ..Self::new(405, "MethodNotAllowed", message) }
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {} already exists", qualified(group, resource), go_quote(name)))
            .about(group, resource, name)
    }

    /// 409 for a write on a version that is no longer the newest, or on a precondition that does not hold.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} {}: {why}", go_quote(name)))
            .about(group, resource, name)
    }

    /// 409 with upstream's advice to read again.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 409 of server-side apply, one cause per field that another manager owns.
    pub fn apply_conflict(message: String, causes: Vec<Cause>) -> Self {
        let details = Details { causes, ..Details::default() };
        Self { details: Some(details), ..Self::new(409, "Conflict", message) }
    }

    /// 403.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {} is forbidden: {why}", go_quote(name))
        };
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 422 for an object, a cause a field.
    ///
    /// # Panics
    /// If there is no error to tell of.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        assert!(!errors.is_empty(), "an invalid object has at least one field error");
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string(); // upstream's aggregate shows equal texts once
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let text = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
        let mut status =
            Self::new(422, "Invalid", format!("{} {} is invalid: {text}", qualified(group, kind), go_quote(name)))
                .about(group, kind, name);
        for error in errors {
            status = status.with_cause(error.reason(), &error.body, &error.field);
        }
        status
    }

    /// 422 for a request that cannot be carried out, with no object to blame.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self { details: Some(Details::default()), ..Self::new(422, "Invalid", message) }
    }

    /// 500 with the reason that upstream gives to wrapped errors.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}")).with_cause(
            "",
            &message.to_string(),
            "",
        )
    }

    /// 500 without a reason: how upstream shows an error that it did not expect.
    pub fn unexpected(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 410 for a version that is no longer in the log.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 for a watch or list from a version before the oldest kept one.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504 for a version that does not exist yet.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut status =
            Self::new(504, "Timeout", message).with_cause("ResourceVersionTooLarge", "Too large resource version", "");
        status.details.get_or_insert_default().retry_after_seconds = 1;
        status
    }

    /// 413 for a body over the limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415 for a body in a form that is not read.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 415 without a list of what is read, as for patches.
    pub fn unsupported_patch_type() -> Self {
        let details = Some(Details::default());
        Self { details, ..Self::unsupported_media_type("415: Unsupported Media Type") }
    }

    /// 406 for an answer in a form that is not written.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// 429 with seconds to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.details = Some(Details { retry_after_seconds, ..Details::default() });
        status
    }

    /// 429 for a version of a resource whose objects could not be read yet.
    pub fn initializing(why: &str) -> Self {
        Self::too_many_requests(format!("storage is (re)initializing: {why}"), 1)
    }

    /// 503 for what cannot be reached now.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 501 for what is not faked; `base::gaps` lists every feature that can stand here.
    pub fn not_implemented(feature: &str) -> Self {
        Self::new(501, "NotImplemented", format!("fake-apiserver does not implement {feature}"))
    }

    /// Whether this is a 404 for an object or resource.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    /// Whether this is a 409 for a version that is no longer the newest.
    pub fn is_conflict(&self) -> bool {
        self.code == 409 && self.reason == "Conflict"
    }

    /// Whether this is a 409 for a name that is taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// The status as an API object.
    pub fn to_object(&self) -> Object {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            value["reason"] = self.reason.into();
        }
        if !self.continue_token.is_empty() {
            value["metadata"]["continue"] = self.continue_token.as_str().into();
        }
        if let Some(details) = &self.details {
            value["details"] = serde_json::to_value(details).expect("details are plain JSON");
        }
        Object::from_value(value).expect("made as a map")
    }

    /// The answer to a successful deletion that leaves nothing behind.
    pub fn deleted(group: &str, resource: &str, name: &str, uid: &str) -> Object {
        let details = Details {
            name: name.into(),
            group: group.into(),
            kind: resource.into(),
            uid: uid.into(),
            ..Details::default()
        };
        let value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": serde_json::to_value(details).expect("details are plain JSON"),
        });
        Object::from_value(value).expect("made as a map")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
