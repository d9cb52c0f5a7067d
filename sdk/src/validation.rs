//! What the API server would refuse, before it is asked: each violation by field path, in the server's own words.
//!
//! The rules are those of the CustomResourceDefinitions, which [`crds`] makes from the types, and of object names. What
//! needs the cluster is not checked: that a pool, a template or a namespace exists, and what admission adds.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{conversion::Version, crds, objects::Kind, schema::facts::QUANTITY_PATTERN};

/// One thing that the server would refuse. Prints as the server says it: `spec.replicas: Invalid value: -1: …`.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{validation::validate, v1beta1::{SandboxWarmPool, SandboxWarmPoolSpec}};
///
/// let pool = SandboxWarmPool::new("Pool", SandboxWarmPoolSpec { replicas: Some(-1), ..Default::default() });
/// let fields: Vec<_> = validate(&pool).into_iter().map(|violation| violation.field).collect();
/// assert_eq!(fields, ["metadata.name", "spec.replicas", ".spec.replicas"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The path of the field: `spec.podTemplate.spec.containers[0].name`.
    pub field: String,
    /// The reason, as in a Status' causes: `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`,
    /// `FieldValueDuplicate`, `FieldValueTypeInvalid`, `FieldValueForbidden`.
    pub reason: &'static str,
    /// What is wrong, without the field.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What the server would refuse about an object that is to be created; nothing if it is well.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{validation::validate, v1beta1::{OperatingMode, Sandbox, SandboxSpec}};
///
/// let mut sandbox = Sandbox::new("a", SandboxSpec::default());
/// assert!(validate(&sandbox).is_empty());
/// sandbox.spec.operating_mode = Some(OperatingMode::Other("Asleep".into()));
/// let said = "spec.operatingMode: Unsupported value: \"Asleep\": supported values: \"Running\", \"Suspended\"";
/// assert_eq!(validate(&sandbox)[0].to_string(), said);
/// ```
pub fn validate<K: Kind>(object: &K) -> Vec<Violation> {
    match serde_json::to_value(object) {
        Ok(json) => validate_json(&json),
        Err(error) => vec![invalid("", "FieldValueInvalid", error.to_string())],
    }
}

/// As [`validate`], and what the server would refuse about changing `old` into `new`.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{validation::validate_update, v1beta1::{Sandbox, SandboxSpec}};
///
/// let old = Sandbox::new("a", SandboxSpec::default());
/// let spec = SandboxSpec { volume_claim_templates: Some(Vec::new()), ..Default::default() };
/// let said = validate_update(&old, &Sandbox::new("a", spec));
/// assert!(said[0].message.ends_with("volumeClaimTemplates is immutable"));
/// ```
pub fn validate_update<K: Kind>(old: &K, new: &K) -> Vec<Violation> {
    let mut found = validate(new);
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else { return found };
    let claims = |object: &Value| object["spec"].get("volumeClaimTemplates").cloned();
    if old["kind"] == "Sandbox" && claims(&old) != claims(&new) {
        let said = "Invalid value: volumeClaimTemplates is immutable".to_owned();
        found.push(invalid("spec", "FieldValueInvalid", said));
    }
    found
}

/// As [`validate`], for an object of any of the kinds and either version as JSON. An object of another kind has one
/// violation: that.
///
/// # Examples
/// ```
/// let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod"});
/// assert_eq!(agent_sandbox_sdk::validation::validate_json(&pod)[0].field, "kind");
/// ```
pub fn validate_json(object: &Value) -> Vec<Violation> {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let Some((schema, scales)) = SCHEMAS.get(&(text("kind").to_owned(), text("apiVersion").to_owned())) else {
        return vec![invalid(
            "kind",
            "FieldValueInvalid",
            format!("Invalid value: {:?}: no Agent Sandbox kind", text("kind")),
        )];
    };
    let mut found = Vec::new();
    name(&object["metadata"], &mut found);
    check(object, schema, "", &mut found);
    // apiextensions-apiserver/pkg/registry/customresource/validator.go: `ValidateScaleSpec`
    let replicas = &object["spec"]["replicas"];
    if *scales && replicas.as_i64().is_some_and(|replicas| replicas < 0) {
        let said = format!("Invalid value: {replicas}: should be a non-negative integer");
        found.push(invalid(".spec.replicas", "FieldValueInvalid", said));
    }
    found
}

/// By kind and apiVersion: the schema, and whether there is a scale subresource.
static SCHEMAS: LazyLock<BTreeMap<(String, String), (Value, bool)>> = LazyLock::new(|| {
    let mut schemas = BTreeMap::new();
    for crd in crds::all() {
        for version in &crd.spec.versions {
            let known = [Version::V1alpha1, Version::V1beta1].iter().any(|known| known.as_str() == version.name);
            debug_assert!(known, "a definition has our versions");
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            let schema = serde_json::to_value(schema).expect("a schema is JSON");
            let scales = version.subresources.as_ref().is_some_and(|subresources| subresources.scale.is_some());
            let of = (crd.spec.names.kind.clone(), format!("{}/{}", crd.spec.group, version.name));
            schemas.insert(of, (schema, scales));
        }
    }
    schemas
});

fn invalid(field: &str, reason: &'static str, message: String) -> Violation {
    Violation { field: field.into(), reason, message }
}

/// apimachinery/pkg/util/validation/validation.go: `IsDNS1123Subdomain`.
fn name(metadata: &Value, found: &mut Vec<Violation>) {
    const RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
        and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
        '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const MOST: usize = 253;
    let name = metadata["name"].as_str().unwrap_or_default();
    let generates = metadata["generateName"].as_str().is_some_and(|start| !start.is_empty());
    if name.is_empty() {
        if !generates {
            let said = "Required value: name or generateName is required".to_owned();
            found.push(invalid("metadata.name", "FieldValueRequired", said));
        }
        return;
    }
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().copied().is_some_and(letter) && bytes.last().copied().is_some_and(letter);
        ends && bytes.iter().all(|byte| letter(*byte) || *byte == b'-')
    };
    if name.len() > MOST {
        let said = format!("Invalid value: {name:?}: must be no more than {MOST} characters");
        found.push(invalid("metadata.name", "FieldValueInvalid", said));
    }
    if !name.split('.').all(label) {
        found.push(invalid("metadata.name", "FieldValueInvalid", format!("Invalid value: {name:?}: {RULE}")));
    }
}

/// What kube-openapi's validator and apiextensions' list checks say.
fn check(value: &Value, schema: &Value, path: &str, found: &mut Vec<Violation>) {
    let Some(type_ok) = fits(value, schema) else { return };
    if !type_ok {
        let wanted = schema["type"].as_str().unwrap_or_default();
        let said = format!(
            "Invalid value: {:?}: {path} in body must be of type {wanted}: {:?}",
            kind_of(value),
            kind_of(value)
        );
        found.push(invalid(path, "FieldValueTypeInvalid", said));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        let said = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        found.push(invalid(path, "FieldValueNotSupported", said));
    }
    if let Some(number) = value.as_f64() {
        let bounds = [("minimum", "greater"), ("maximum", "less")];
        for (bound, word) in bounds {
            let Some(limit) = schema[bound].as_f64() else { continue };
            if (bound == "minimum" && number < limit) || (bound == "maximum" && number > limit) {
                let said = format!("Invalid value: {value}: {path} in body should be {word} than or equal to {limit}");
                found.push(invalid(path, "FieldValueInvalid", said));
            }
        }
    }
    if let (Some(text), Some(pattern)) = (value.as_str(), schema["pattern"].as_str())
        && pattern == QUANTITY_PATTERN
        && !is_quantity(text)
    {
        let said = format!("Invalid value: {text:?}: {path} in body should match '{pattern}'");
        found.push(invalid(path, "FieldValueInvalid", said));
    }
    match value {
        Value::Object(members) => object(members, schema, path, found),
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{at}]"), found);
            }
            duplicates(items, schema, path, found);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a text matches the pattern of quantities, the only one that specs have.
fn is_quantity(text: &str) -> bool {
    let without_sign = |text: &'_ str| text.strip_prefix(['+', '-']).unwrap_or(text).len();
    let number = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (whole, part) = text[..digits].split_once('.').unwrap_or((&text[..digits], ""));
        let is_number = !part.contains('.') && whole.len() + part.len() > 0;
        is_number.then_some(digits)
    };
    let text = &text[text.len() - without_sign(text)..];
    let Some(digits) = number(text) else { return false };
    let suffix = &text[digits..];
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty() && *rest != "i");
    match exponent {
        Some(rest) => {
            let rest = &rest[rest.len() - without_sign(rest)..];
            number(rest) == Some(rest.len())
        }
        None => {
            let plain = suffix.strip_suffix('i').filter(|start| "KMGTPE".contains(*start) && start.len() == 1);
            suffix.is_empty() || plain.is_some() || (suffix.len() == 1 && "numkMGTPE".contains(suffix))
        }
    }
}

fn object(members: &Map<String, Value>, schema: &Value, path: &str, found: &mut Vec<Violation>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if members.get(required).is_none_or(Value::is_null) {
            found.push(invalid(&at(required), "FieldValueRequired", "Required value".into()));
        }
    }
    for (key, member) in members {
        // Null is no value: the server prunes it or takes the default.
        if member.is_null() || (path.is_empty() && key == "metadata") {
            continue;
        }
        if let Some(property) = schema["properties"].get(key) {
            check(member, property, &at(key), found);
        } else if schema["additionalProperties"].is_object() {
            check(member, &schema["additionalProperties"], &at(key), found);
        }
    }
}

/// apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go
fn duplicates(items: &[Value], schema: &Value, path: &str, found: &mut Vec<Violation>) {
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        }
        Some("set") => Vec::new(),
        _ => return,
    };
    let mut seen = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let identity = if keys.is_empty() {
            item.clone()
        } else {
            let default = |key: &str| schema["items"]["properties"][key].get("default").cloned();
            let key = |key: &&str| Some(((*key).to_owned(), item.get(key).cloned().or_else(|| default(key))?));
            Value::Object(keys.iter().filter_map(key).collect())
        };
        if seen.contains(&identity) {
            found.push(invalid(
                &format!("{path}[{at}]"),
                "FieldValueDuplicate",
                format!("Duplicate value: {identity}"),
            ));
        }
        seen.push(identity);
    }
}

/// Whether a value is of the schema's type; `None` if the schema says nothing.
fn fits(value: &Value, schema: &Value) -> Option<bool> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(value.is_i64() || value.is_string());
    }
    Some(match schema["type"].as_str()? {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => return None,
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
