//! From a request body to an object of the target's kind: type, unknown and duplicate fields, defaults.

use serde_json::Value;

use super::{Body, Caller, Catalog, FieldValidation, Resource};
use crate::{
    base::{FieldError, Object, Status, names::split_api_version, status::go_quote},
    kinds,
    schema::{Decoded, Schema},
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
        resource.schema().check_metadata(&value).map_err(|text| unfit(&text))?;
        let unknown = resource.schema().prune(&mut value);
        (value, unknown)
    } else {
        let decoded = resource.schema().decode(object.into_value()).map_err(|text| unfit(&text))?;
        (decoded.value, decoded.unknown)
    };
    report(caller, &duplicates, &unknown).map_err(|text| unfit(&text))?;
    Ok(Object::from_value(value).unwrap_or_default())
}

/// What admission makes, as an object of the resource's kind with defaults.
///
/// # Errors
/// Why it is none, in the words of upstream's strict decoder.
pub(super) fn made(resource: &Resource, value: Value) -> Result<Object, String> {
    let value = if resource.custom.is_some() {
        value
    } else {
        let decoded = resource.schema().decode(value)?;
        if let Some(path) = decoded.unknown.first() {
            return Err(format!("strict decoding error: unknown field {}", go_quote(path)));
        }
        decoded.value
    };
    let mut object = Object::from_value(value).ok_or("it is no object")?;
    default(resource, &mut object);
    Ok(object)
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

/// Reads the metadata of an object that has no Go type as that of every object: so a label that is null becomes empty.
pub(super) fn read_metadata(object: &mut Object) {
    let schema = Schema::builtin("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    if let Ok(Decoded { value: Value::Object(metadata), .. }) =
        schema.decode(object.metadata().cloned().unwrap_or_default().into())
    {
        *object.metadata_mut() = metadata;
    }
}

/// Fills in the defaults of the kind.
pub(super) fn default(resource: &Resource, object: &mut Object) {
    default_by(resource, object, Schema::default);
}

/// As [`default`], of what server-side apply made: a member of which nothing is left is null, which validation judges.
pub(super) fn default_applied(resource: &Resource, object: &mut Object) {
    default_by(resource, object, Schema::fill_defaults);
}

fn default_by(resource: &Resource, object: &mut Object, custom: fn(&Schema, &mut Value)) {
    if resource.custom.is_some() {
        let mut value = std::mem::take(object).into_value();
        custom(resource.schema(), &mut value);
        *object = Object::from_value(value).unwrap_or_default();
    } else {
        (kinds::rules(&resource.gvr.group, &resource.kind).default)(object);
    }
}

fn check_kind(resource: &Resource, catalog: &Catalog, object: &mut Object) -> Result<(), Status> {
    let expected = resource.api_version();
    if resource.custom.is_some() {
        return check_custom_kind(&expected, object);
    }
    for (key, default) in [("apiVersion", expected.as_str()), ("kind", resource.kind.as_str())] {
        if object.str_at(&[key]).is_empty() && object.get(key).is_none_or(|it| it.is_string() || it.is_null()) {
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

/// Custom kinds have no Go type to fall back on: type and version must be said, and the version be right. A wrong kind is
/// for [`check_custom_type`] to tell.
fn check_custom_kind(expected: &str, object: &Object) -> Result<(), Status> {
    if object.str_at(&["kind"]).is_empty() {
        let text = object.to_value().to_string();
        return Err(Status::bad_request(format!("Object 'Kind' is missing in '{text}'")));
    }
    let given = object.str_at(&["apiVersion"]);
    if given != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}

/// What validation says of a custom object of another type, and only that (`ValidateTypeMeta` in
/// `apiextensions-apiserver/pkg/registry/customresource/validator.go`).
pub(super) fn check_custom_type(resource: &Resource, object: &Object) -> Result<(), Status> {
    let mut errors = Vec::new();
    let wanted = resource.api_version();
    if object.kind() != resource.kind {
        errors.push(FieldError::invalid("kind", &object.kind().into(), &format!("must be {}", resource.kind)));
    }
    if object.api_version() != wanted {
        let why = format!("must be {wanted}");
        errors.push(FieldError::invalid("apiVersion", &object.api_version().into(), &why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(split_api_version(object.api_version()).0, object.kind(), object.name(), &errors))
}

/// What upstream's converter says where its decoder says that something cannot be unmarshalled.
///
/// Strategic merge patches go through it: `fromUnstructured` in `apimachinery/pkg/runtime/converter.go`.
pub(super) fn unconvertible(why: &str) -> String {
    let parts = why.strip_prefix("json: cannot unmarshal ").and_then(|rest| rest.split_once(" into Go "));
    let Some((what, place)) = parts else { return why.to_owned() };
    let Some((_, wanted)) = place.rsplit_once(" of type ") else { return why.to_owned() };
    let (kind, name) = match what {
        "object" => ("map", "map[string]interface {}"),
        "array" => ("slice", "[]interface {}"),
        number if number.starts_with("number") => {
            let float = number.contains(['.', 'e', 'E']);
            if float { ("float64", "float64") } else { ("int64", "int64") }
        }
        other => (other, other),
    };
    let plain = ["string", "bool", "int32", "int64", "float64"].contains(&wanted);
    if wanted.starts_with("[]") {
        format!("cannot restore slice from {kind}")
    } else if wanted.starts_with("map[") || wanted.ends_with(".ResourceList") {
        format!("cannot restore map from {kind}")
    } else if !plain && !is_named_text(wanted) {
        format!("cannot restore struct from: {kind}")
    } else {
        let is_number = |text: &str| matches!(text, "int32" | "int64" | "float64");
        let convertible = is_number(kind) && (is_number(wanted) || (kind == "int64" && wanted != "bool"));
        let go_kind = if plain { wanted } else { "string" };
        if convertible { format!("cannot convert {name} to {wanted}") } else { format!("unrecognized type: {go_kind}") }
    }
}

/// Whether a Go type of Kubernetes' own is a text under another name.
fn is_named_text(go_type: &str) -> bool {
    let endings =
        ["Policy", "PolicyType", "Type", "Protocol", "Mode", "Affinity", "Action", "UID", "AccessMode", "IPFamily"];
    endings.iter().any(|ending| go_type.ends_with(ending))
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
