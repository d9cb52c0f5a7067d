//! Rules of CustomResourceDefinition (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Rules;
use crate::{
    base::{FieldError, Object, names},
    schema::Schema,
};

/// The rules.
pub(super) const RULES: Rules = Rules {
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_update,
    generation: true,
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
    if definition.str_at(&["spec", "conversion", "strategy"]).is_empty() {
        definition.set_at(&["spec", "conversion", "strategy"], "None");
    }
    if definition.str_at(&["spec", "conversion", "strategy"]) == "Webhook"
        && definition.at(&["spec", "conversion", "webhook", "clientConfig", "service"]).is_some_and(Value::is_object)
        && definition.at(&["spec", "conversion", "webhook", "clientConfig", "service", "port"]).is_none()
    {
        definition.set_at(&["spec", "conversion", "webhook", "clientConfig", "service", "port"], 443);
    }
}

fn versions(definition: &Object) -> &[Value] {
    definition.at(&["spec", "versions"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn prepare_create(definition: &mut Object) {
    let stored = versions(definition).iter().filter(|version| version["storage"] == true);
    let stored: Vec<Value> = stored.map(|version| version["name"].clone()).collect();
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
        && let Some(storage) = versions(new).iter().find(|version| version["storage"] == true)
    {
        let storage = storage["name"].clone();
        let stored = new.at(&["status", "storedVersions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        if !stored.contains(&storage) {
            new.set_at(&["status", "storedVersions"], [stored, vec![storage]].concat());
        }
    }
}

fn validate(definition: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let group = definition.str_at(&["spec", "group"]);
    let plural = definition.str_at(&["spec", "names", "plural"]);
    if definition.name() != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &definition.name().into(), why));
    }
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if let Some(why) = names::dns1123_subdomain(group).into_iter().next() {
        errors.push(FieldError::invalid("spec.group", &group.into(), &why));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    }
    let scope = definition.str_at(&["spec", "scope"]);
    match scope {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported("spec.scope", &other.into(), &["Cluster", "Namespaced"])),
    }
    errors.extend(check_versions(definition));
    errors.extend(check_names(definition));
    if definition.at(&["status", "storedVersions"]).and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let why = "must have at least one stored version";
        errors.push(FieldError::invalid("status.storedVersions", &Value::Null, why));
    }
    errors
}

fn check_versions(definition: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let versions = versions(definition);
    let storing = versions.iter().filter(|version| version["storage"] == true).count();
    if storing != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid_shown("spec.versions", &internal_versions(versions), why));
    }
    let single = versions.len() == 1;
    let mut seen = std::collections::BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let name = version["name"].as_str().unwrap_or_default();
        let path = format!("spec.versions[{index}]");
        if !seen.insert(name) {
            let why = "must contain unique version names";
            errors.push(FieldError::invalid_shown("spec.versions", &internal_versions(versions), why));
        }
        if let Some(why) = names::dns1035_label(name).into_iter().next() {
            errors.push(FieldError::invalid(&format!("{path}.name"), &name.into(), &why));
        }
        // With one version only, upstream's internal form keeps the schema at the top: its errors say so.
        let path = if single { "spec.validation".to_owned() } else { format!("{path}.schema") };
        match version["schema"].get("openAPIV3Schema") {
            Some(schema) => {
                if let Err(found) = Schema::structural(schema, &format!("{path}.openAPIV3Schema")) {
                    errors.extend(found);
                }
            }
            None => errors.push(FieldError::required(&format!("{path}.openAPIV3Schema"), "schemas are required")),
        }
    }
    errors
}

/// The versions as Go prints upstream's internal type.
fn internal_versions(versions: &[Value]) -> String {
    // Members stand in the order of the Go struct, which a JSON map here does not keep: the text is put together.
    let parts: Vec<String> = versions
        .iter()
        .map(|version| {
            let flag = |key: &str| version[key].as_bool().unwrap_or(false);
            format!(
                "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":null,\
                 \"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
                version["name"],
                flag("served"),
                flag("storage"),
                flag("deprecated"),
                version["deprecationWarning"]
            )
        })
        .collect();
    format!("[{}]", parts.join(","))
}

fn check_names(definition: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = |key: &str| definition.str_at(&["spec", "names", key]);
    for key in ["plural", "singular", "kind", "listKind"] {
        let path = format!("spec.names.{key}");
        let value = name(key);
        if value.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if let Some(why) = names::dns1035_label(&value.to_lowercase()).into_iter().next() {
            errors.push(FieldError::invalid(&path, &value.into(), &why));
        } else if key != "kind" && key != "listKind" && value != value.to_lowercase() {
            let why = names::dns1035_label(value).into_iter().next().unwrap_or_default();
            errors.push(FieldError::invalid(&path, &value.into(), &why));
        }
    }
    if !name("kind").is_empty() && name("kind") == name("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", &name("listKind").into(), why));
    }
    errors
}

fn validate_update(new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
    if subresource == "status" {
        return Vec::new();
    }
    let mut errors = validate(new);
    let conditions = old.at(&["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    if conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
        for path in
            [["spec", "group"].as_slice(), &["spec", "scope"], &["spec", "names", "kind"], &["spec", "names", "plural"]]
        {
            if new.at(path) != old.at(path) {
                let value = new.at(path).cloned().unwrap_or_default();
                errors.push(FieldError::invalid(&path.join("."), &value, "field is immutable"));
            }
        }
    }
    for stored in old.at(&["status", "storedVersions"]).and_then(Value::as_array).into_iter().flatten() {
        if !versions(new).iter().any(|version| version["name"] == *stored) {
            let index = 0;
            let why = "must appear in spec.versions";
            errors.push(FieldError::invalid(&format!("status.storedVersions[{index}]"), stored, why));
        }
    }
    errors
}

fn cells(definition: &Object, _now: Timestamp) -> Vec<Value> {
    vec![definition.name().into(), definition.str_at(&["metadata", "creationTimestamp"]).into()]
}
