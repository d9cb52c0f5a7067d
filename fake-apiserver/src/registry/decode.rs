//! From a request body to an object of the target's kind: type, unknown and duplicate fields, defaults.

use serde_json::Value;

use super::{Body, Caller, Catalog, FieldValidation, Resource};
use crate::{
    base::{
        Object, Status,
        names::{api_version, split_api_version},
        status::go_quote,
    },
    kinds,
    schema::Decoded,
};

/// Where upstream's built-in scheme is made; it stands in the message for an unknown version.
const SCHEME: &str = "pkg/runtime/scheme.go:111";

/// Decodes a body as an object of the resource's kind, with defaults filled in.
///
/// # Errors
/// 400 where the body is of another kind, has wrong types, or (under `Strict`) unknown or duplicate fields.
pub(super) fn decode(resource: &Resource, catalog: &Catalog, caller: &Caller, body: Body) -> Result<Object, Status> {
    let mut object = undefaulted(resource, catalog, caller, body)?;
    default(resource, &mut object);
    Ok(object)
}

/// As [`decode`], without defaults.
pub(super) fn undefaulted(
    resource: &Resource,
    catalog: &Catalog,
    caller: &Caller,
    body: Body,
) -> Result<Object, Status> {
    let Body { value, duplicates } = body;
    let mut object = Object::from_value(value).ok_or_else(|| {
        let message = format!("the object provided is unrecognized (must be of type {}): no kind found", resource.kind);
        Status::bad_request(message)
    })?;
    check_kind(resource, catalog, &mut object)?;
    let unfit = |text: &str| {
        let (kind, version) = (&resource.kind, go_quote(&resource.gvr.version));
        Status::bad_request(format!("{kind} in version {version} cannot be handled as a {kind}: {text}"))
    };
    // A custom kind has no Go type to decode into: what its schema does not know is dropped, the rest is validated.
    let (value, unknown) = if resource.custom.is_some() {
        let mut value = object.into_value();
        let unknown = resource.schema().prune(&mut value);
        (value, unknown)
    } else {
        let decoded = if resource.custom.is_some() {
            // A custom object has no Go type: what its schema does not know is dropped, its metadata stays.
            let mut value = object.into_value();
            let unknown = resource.schema().prune(&mut value);
            Decoded { value, unknown }
        } else {
            resource.schema().decode(object.into_value()).map_err(|text| unfit(&text))?
        };
        (decoded.value, decoded.unknown)
    };
    report(caller, &duplicates, &unknown).map_err(|text| unfit(&text))?;
    Ok(Object::from_value(value).unwrap_or_default())
}

/// What the caller wants done about fields that are unknown or stand there twice.
///
/// # Errors
/// The text of a strict decoding error.
pub(super) fn report(caller: &Caller, duplicates: &[String], unknown: &[String]) -> Result<(), String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {}", go_quote(path)));
    let unknown = unknown.iter().map(|path| format!("unknown field {}", go_quote(path)));
    tell(caller, duplicates.chain(unknown).collect())
}

/// Drops, warns or refuses, as the caller wants it.
///
/// # Errors
/// The text of a strict decoding error.
pub(super) fn tell(caller: &Caller, texts: Vec<String>) -> Result<(), String> {
    match caller.validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => texts.into_iter().for_each(|text| caller.warnings.add(text)),
        FieldValidation::Strict if texts.is_empty() => {}
        FieldValidation::Strict => return Err(format!("strict decoding error: {}", texts.join(", "))),
    }
    Ok(())
}

/// Fills in the defaults of the kind.
pub(super) fn default(resource: &Resource, object: &mut Object) {
    if resource.custom.is_some() {
        let mut value = std::mem::take(object).into_value();
        resource.schema().default(&mut value);
        *object = Object::from_value(value).unwrap_or_default();
    } else {
        (kinds::rules(&resource.gvr.group, &resource.kind).default)(object);
    }
}

fn check_kind(resource: &Resource, catalog: &Catalog, object: &mut Object) -> Result<(), Status> {
    let expected = resource.api_version();
    if resource.custom.is_some() {
        return check_custom_kind(resource, &expected, object);
    }
    for (key, default) in [("apiVersion", expected.as_str()), ("kind", resource.kind.as_str())] {
        if object.str_at(&[key]).is_empty() && object.get(key).is_none_or(Value::is_string) {
            object.set(key, default);
        }
    }
    let (given_version, given_kind) = (object.api_version().to_owned(), object.kind().to_owned());
    if given_version == expected && given_kind == resource.kind {
        return Ok(());
    }
    let (group, version) = split_api_version(&given_version);
    let kind = &resource.kind;
    let why = match catalog.find_kind(group, version, &given_kind).filter(|found| found.custom.is_none()) {
        Some(_) => {
            format!(
                "converting ({version}.{given_kind}) to ({}.{kind}): unknown conversion",
                internal(&resource.gvr.group)
            )
        }
        None => format!(
            "no kind {} is registered for version {} in scheme {}",
            go_quote(&given_kind),
            go_quote(&given_version),
            go_quote(SCHEME)
        ),
    };
    let message = format!("{given_kind} in version {} cannot be handled as a {kind}: {why}", go_quote(version));
    Err(Status::bad_request(message))
}

/// Custom kinds have no Go type to fall back on: type and version must be said, and be right.
fn check_custom_kind(resource: &Resource, expected: &str, object: &Object) -> Result<(), Status> {
    for (key, label) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
        if object.str_at(&[key]).is_empty() {
            let text = object.to_value().to_string();
            return Err(Status::bad_request(format!("Object '{label}' is missing in '{text}'")));
        }
    }
    let (given_version, given_kind) = (object.api_version(), object.kind());
    if given_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )));
    }
    if given_kind != resource.kind {
        let (group, version) = split_api_version(given_version);
        let (kind, version) = (&resource.kind, api_version(group, version));
        return Err(Status::bad_request(format!(
            "{given_kind} in version {} cannot be handled as a {kind}: the kind in the data does not match the expected \
             kind ({kind}) of {version}",
            go_quote(split_api_version(given_version).1)
        )));
    }
    Ok(())
}

/// Name of the Go package with a group's internal types, as conversion errors show it.
fn internal(group: &str) -> &str {
    match group {
        "" => "core",
        "admissionregistration.k8s.io" => "admissionregistration",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// Decodes the configuration of a server-side apply: kind and fields are the business of the merge.
pub(super) fn applied(caller: &Caller, body: Body) -> Result<Object, Status> {
    let Body { value, duplicates } = body;
    let object = Object::from_value(value)
        .ok_or_else(|| Status::bad_request("error decoding YAML: the configuration is not an object"))?;
    report(caller, &duplicates, &[]).map_err(Status::bad_request)?;
    Ok(object)
}
