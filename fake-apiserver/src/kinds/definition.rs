//! Rules of CustomResourceDefinition (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Rules;
use crate::base::{FieldError, Object, status::go_quote};

mod internal;
mod spec;

/// The rules.
pub(super) const RULES: Rules = Rules {
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_update,
    warnings,
    generation: true,
    unconditional: false,
    cells,
    ..super::BUILTIN
};

fn default(definition: &mut Object) {
    let kind = definition.str_at(&["spec", "names", "kind"]).to_owned();
    if definition.str_at(&["spec", "names", "singular"]).is_empty() && !kind.is_empty() {
        definition.set_at(&["spec", "names", "singular"], kind.to_lowercase());
    }
    if definition.str_at(&["spec", "names", "listKind"]).is_empty() && !kind.is_empty() {
        definition.set_at(&["spec", "names", "listKind"], format!("{kind}List"));
    }
    if definition.at(&["spec", "conversion"]).is_none_or(Value::is_null) {
        definition.set_at(&["spec", "conversion", "strategy"], "None");
    }
    if definition.at(&["status", "storedVersions"]).and_then(Value::as_array).is_none_or(Vec::is_empty)
        && let Some(storage) = spec::versions(definition).iter().find(|version| version["storage"] == true)
    {
        let storage = storage["name"].clone();
        definition.set_at(&["status", "storedVersions"], json!([storage]));
    }
    if definition.str_at(&["spec", "conversion", "strategy"]) == "Webhook"
        && definition.at(&["spec", "conversion", "webhook", "clientConfig", "service"]).is_some_and(Value::is_object)
        && definition.at(&["spec", "conversion", "webhook", "clientConfig", "service", "port"]).is_none()
    {
        definition.set_at(&["spec", "conversion", "webhook", "clientConfig", "service", "port"], 443);
    }
}

fn prepare_create(definition: &mut Object) {
    let stored = spec::versions(definition).iter().filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.take(1).map(|version| version["name"].clone()).collect();
    let accepted = json!({"plural": "", "kind": ""});
    definition.set("status", json!({"conditions": null, "acceptedNames": accepted, "storedVersions": stored}));
}

fn prepare_update(new: &mut Object, old: &Object, subresource: &str) {
    let (kept, from) = if subresource == "status" { ("spec", old) } else { ("status", old) };
    match from.get(kept) {
        Some(value) => new.set(kept, value.clone()),
        None => {
            new.remove(kept);
        }
    }
    if subresource.is_empty()
        && let Some(storage) = spec::versions(new).iter().find(|version| version["storage"] == true)
    {
        let storage = storage["name"].clone();
        let stored = new.at(&["status", "storedVersions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        if !stored.contains(&storage) {
            new.set_at(&["status", "storedVersions"], [stored, vec![storage]].concat());
        }
    }
}

fn validate(definition: &Object) -> Vec<FieldError> {
    spec::validate(definition, None)
}

fn validate_update(new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
    if subresource == "status" {
        let mut errors = Vec::new();
        spec::status(new, &mut errors);
        return errors;
    }
    spec::validate(new, Some(old))
}

/// Formats that nothing checks; on an update only those that the old one did not have.
fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(unknown_formats).unwrap_or_default();
    let formats = unknown_formats(new).into_iter().filter(|format| !known.contains(format));
    formats.map(|format| format!("unrecognized format {}", go_quote(&format))).collect()
}

fn unknown_formats(definition: &Object) -> Vec<String> {
    let versions = spec::versions(definition);
    // What all versions share stands once in upstream's internal form.
    let shared = internal::is_shared(versions, "schema");
    let schemas = versions.iter().take(if shared { 1 } else { versions.len() });
    let mut out = Vec::new();
    for schema in schemas.filter_map(|version| version.get("schema")?.get("openAPIV3Schema")) {
        crate::schema::unknown_formats(schema, &mut out);
    }
    out
}

/// What the condition of definitions in Kubernetes' own groups says of one: status, reason and message.
pub fn approval(definition: &Object) -> Option<(&'static str, &'static str, String)> {
    spec::approval_state(definition)
}

fn cells(definition: &Object, _now: Timestamp) -> Vec<Value> {
    vec![definition.name().into(), definition.str_at(&["metadata", "creationTimestamp"]).into()]
}
