//! Validation of `metadata`, the same for all kinds.
//!
//! Upstream: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go` and `pkg/apis/meta/v1/validation/validation.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::util::{
    Errors, complain, flag, get, has, immutable, indexed, int, int_or_zero, items, members, strings, text,
};
use crate::base::{
    FieldError, Object, limits,
    names::{self, NameCheck},
    status::{FieldErrorKind, go_quote},
};

fn metadata(object: &Object) -> &Value {
    get(object.as_value(), "metadata")
}

/// Judges the metadata of an object, whose name `check` may refuse.
pub fn validate_object_meta(object: &Object, namespaced: bool, check: NameCheck) -> Vec<FieldError> {
    validate_meta(metadata(object), namespaced, check, "metadata")
}

/// Judges the name of an object alone.
pub(super) fn validate_name(object: &Object, check: NameCheck) -> Errors {
    let mut errors = Vec::new();
    given_name(&mut errors, metadata(object), check, "metadata");
    errors
}

fn given_name(errors: &mut Errors, meta: &Value, check: NameCheck, path: &str) {
    let (name, generate) = (text(meta, "name"), text(meta, "generateName"));
    if !generate.is_empty() {
        complain(errors, &format!("{path}.generateName"), generate, check(generate, true));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&format!("{path}.name"), "name or generateName is required"));
    } else {
        complain(errors, &format!("{path}.name"), name, check(name, false));
    }
}

/// Judges an `ObjectMeta` at a path.
pub(super) fn validate_meta(meta: &Value, namespaced: bool, check: NameCheck, path: &str) -> Errors {
    let mut errors = Vec::new();
    let namespace = text(meta, "namespace");
    given_name(&mut errors, meta, check, path);
    let namespace_path = format!("{path}.namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&namespace_path, "")),
        (true, false) => complain(&mut errors, &namespace_path, namespace, names::dns1123_label(namespace)),
        (false, true) => {}
        (false, false) => errors.push(FieldError::forbidden(&namespace_path, "not allowed on this type")),
    }
    generation(&mut errors, meta, path);
    labels(&mut errors, meta, path);
    annotations(&mut errors, meta, path);
    owners(&mut errors, meta, path);
    finalizers(&mut errors, meta, path);
    managed_fields(&mut errors, meta, path);
    errors
}

/// Judges a change of metadata.
pub fn validate_object_meta_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let (meta, before, path) = (metadata(new), metadata(old), "metadata");
    let mut errors = Vec::new();
    if has(before, "deletionTimestamp") {
        let kept: BTreeSet<_> = old.finalizers().into_iter().collect();
        let added: BTreeSet<_> = new.finalizers().into_iter().filter(|name| !kept.contains(name)).collect();
        if !added.is_empty() {
            let list: Vec<_> = added.into_iter().map(go_quote).collect();
            let why = "no new finalizers can be added if the object is being deleted, found new finalizers []string{";
            errors.push(FieldError::forbidden("metadata.finalizers", &format!("{why}{}}}", list.join(", "))));
        }
    }
    if text(meta, "resourceVersion").is_empty() {
        let why = "must be specified for an update";
        errors.push(FieldError::invalid("metadata.resourceVersion", &"".into(), why));
    }
    generation(&mut errors, meta, path);
    let generation = int_or_zero(meta, "generation");
    if generation < int_or_zero(before, "generation") {
        errors.push(FieldError::invalid("metadata.generation", &generation.into(), "must not be decremented"));
    }
    for key in ["name", "namespace", "uid"] {
        // texts that Go shows even where they are empty
        let field = format!("metadata.{key}");
        immutable(&mut errors, &text(meta, key).into(), &text(before, key).into(), &field);
    }
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        immutable(&mut errors, get(meta, key), get(before, key), &format!("metadata.{key}"));
    }
    labels(&mut errors, meta, path);
    annotations(&mut errors, meta, path);
    owners(&mut errors, meta, path);
    managed_fields(&mut errors, meta, path);
    errors
}

fn generation(errors: &mut Errors, meta: &Value, path: &str) {
    super::util::not_negative(errors, meta, path, "generation");
}

/// Judges `labels` of an `ObjectMeta` at a path.
pub(super) fn labels(errors: &mut Errors, meta: &Value, path: &str) {
    let labels = members(meta, "labels").filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    label_pairs(errors, labels, &format!("{path}.labels"));
}

/// Judges labels that stand by themselves.
pub fn label_errors(field: &str, labels: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let labels = labels.as_object().into_iter().flatten();
    label_pairs(&mut errors, labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))), field);
    errors
}

/// Judges a map of labels.
pub(super) fn label_map(errors: &mut Errors, labels: &BTreeMap<String, String>, field: &str) {
    label_pairs(errors, labels.iter().map(|(key, value)| (key.as_str(), value.as_str())), field);
}

fn label_pairs<'a>(errors: &mut Errors, labels: impl Iterator<Item = (&'a str, &'a str)>, field: &str) {
    for (key, value) in labels {
        complain(errors, field, key, names::qualified_name(key));
        complain(errors, field, value, names::label_value(value));
    }
}

/// Judges `annotations` of an `ObjectMeta` at a path.
pub(super) fn annotations(errors: &mut Errors, meta: &Value, path: &str) {
    annotation_pairs(errors, get(meta, "annotations"), &format!("{path}.annotations"));
}

/// Judges annotations that stand by themselves.
pub fn annotation_errors(field: &str, annotations: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    annotation_pairs(&mut errors, annotations, field);
    errors
}

fn annotation_pairs(errors: &mut Errors, annotations: &Value, field: &str) {
    let mut total = 0;
    let annotations = annotations.as_object().into_iter().flatten();
    for (key, value) in annotations.filter_map(|(key, value)| Some((key, value.as_str()?))) {
        complain(errors, field, key, names::qualified_name(&key.to_lowercase()));
        total += key.len() + value.len();
    }
    if total > limits::ANNOTATIONS_BYTES {
        errors.push(FieldError::too_long(field, limits::ANNOTATIONS_BYTES));
    }
}

fn owners(errors: &mut Errors, meta: &Value, path: &str) {
    let field = format!("{path}.ownerReferences");
    let mut controller = None;
    for owner in items(meta, "ownerReferences") {
        let api_version = text(owner, "apiVersion");
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || api_version.matches('/').count() > 1 {
            let field = format!("{field}.apiVersion");
            errors.push(FieldError::invalid(&field, &api_version.into(), "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.push(FieldError::invalid(&format!("{field}.{key}"), &"".into(), "must not be empty"));
            }
        }
        if (api_version, text(owner, "kind")) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&field, owner, why));
        }
        if flag(owner, "controller") {
            let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let why = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} \
                         and {this}"
                    );
                    let body = format!("Invalid value: {}: {why}", owners_as_go_shows_them(meta));
                    errors.push(FieldError { kind: FieldErrorKind::Invalid, field: field.clone(), body });
                }
            }
        }
    }
}

/// The owner references as JSON with the members in the order of Go's struct, in which messages show them.
fn owners_as_go_shows_them(meta: &Value) -> String {
    let keys = ["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let shown = |owner: &Value| {
        let members = keys.iter().filter(|key| has(owner, key));
        let members: Vec<_> = members.map(|key| format!("\"{key}\":{}", get(owner, key))).collect();
        format!("{{{}}}", members.join(","))
    };
    format!("[{}]", items(meta, "ownerReferences").iter().map(shown).collect::<Vec<_>>().join(","))
}

fn finalizers(errors: &mut Errors, meta: &Value, path: &str) {
    let (field, names) = (format!("{path}.finalizers"), super::util::texts(meta, "finalizers"));
    for name in &names {
        complain(errors, &field, name, names::qualified_name(name));
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&field, get(meta, "finalizers"), why));
    }
}

/// Complains of finalizers without a `/` that are not Kubernetes' own, where the kind does.
pub(super) fn standard_finalizers(object: &Object, asked: bool) -> Errors {
    let strange = |name: &str| !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name);
    let finalizers = object.finalizers().into_iter().enumerate().filter(|(_, name)| asked && strange(name));
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    finalizers.map(|(i, name)| FieldError::invalid(&format!("metadata.finalizers[{i}]"), &name.into(), why)).collect()
}

/// What upstream warns of where a custom object has finalizers that could clash (`rest.BeforeCreate`,
/// `rest.BeforeUpdate`).
pub fn finalizer_warnings(object: &Object, old: Option<&Object>) -> Vec<String> {
    let before = old.map(Object::finalizers).unwrap_or_default();
    let added: std::collections::BTreeSet<&str> =
        object.finalizers().into_iter().filter(|name| !before.contains(name)).collect();
    let mut out = Vec::new();
    for name in added {
        let said = |text: &str| format!("metadata.finalizers: {}: {text}", go_quote(name));
        out.extend(names::qualified_name(name).iter().map(|text| said(text)));
        if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            out.push(said(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            )));
        }
    }
    out
}

fn managed_fields(errors: &mut Errors, meta: &Value, path: &str) {
    let packed = meta.get("managedFields").and_then(Value::as_str);
    let unpacked = packed.map(|text| json!({"managedFields": serde_json::from_str::<Value>(text).unwrap_or_default()}));
    for (path, entry) in indexed(unpacked.as_ref().unwrap_or(meta), path, "managedFields") {
        let operation = text(entry, "operation");
        if !["Apply", "Update"].contains(&operation) {
            let field = format!("{path}.operation");
            errors.push(if operation.is_empty() {
                FieldError::required(&field, "must not be empty")
            } else {
                FieldError::not_supported(&field, &operation.into(), &["Apply", "Update"])
            });
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            errors.push(FieldError::invalid(&format!("{path}.fieldsType"), &kind.into(), "must be `FieldsV1`"));
        }
        errors.extend(field_manager(text(entry, "manager"), &format!("{path}.manager")));
        if text(entry, "subresource").len() > 256 {
            errors.push(FieldError::too_long(&format!("{path}.subresource"), 256));
        }
    }
}

/// Judges the name of a field manager.
pub fn field_manager(name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if name.len() > 128 {
        errors.push(FieldError::too_long(path, 128));
    }
    for (i, c) in name.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {i})", c as u32);
        errors.push(FieldError::invalid(path, &name.into(), &why));
    }
    errors
}

/// Judges a `LabelSelector` object.
pub(super) fn label_selector(errors: &mut Errors, selector: &Value, path: &str) {
    label_map(errors, &strings(selector, "matchLabels"), &format!("{path}.matchLabels"));
    for (path, expression) in indexed(selector, path, "matchExpressions") {
        let (operator, values) = (text(expression, "operator"), items(expression, "values"));
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let field = format!("{path}.operator");
                errors.push(FieldError::invalid(&field, &other.into(), "not a valid selector operator"));
            }
        }
        let key = text(expression, "key");
        complain(errors, &format!("{path}.key"), key, names::qualified_name(key));
        for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
            complain(errors, &format!("{path}.values[{i}]"), value, names::label_value(value));
        }
    }
}

/// Whether a `LabelSelector` object asks for nothing.
pub(super) fn is_empty_selector(selector: &Value) -> bool {
    members(selector, "matchLabels").next().is_none() && items(selector, "matchExpressions").is_empty()
}

/// Judges `conditions` of the common form (`metav1.Condition`).
pub(super) fn conditions(errors: &mut Errors, status: &Value, path: &str) {
    let mut seen = BTreeSet::new();
    for (path, condition) in indexed(status, path, "conditions") {
        let kind = text(condition, "type");
        if !seen.insert(kind) {
            errors.push(FieldError::duplicate(&path, &kind.into()));
        }
        if kind.is_empty() {
            errors.push(FieldError::required(&format!("{path}.type"), "is required"));
        } else {
            complain(errors, &format!("{path}.type"), kind, names::qualified_name(kind));
        }
        super::util::one_of(errors, condition, &path, "status", &["False", "True", "Unknown"], true);
        if int(condition, "observedGeneration").is_some_and(|generation| generation < 0) {
            let field = format!("{path}.observedGeneration");
            let why = "must be greater than or equal to zero";
            errors.push(FieldError::invalid(&field, get(condition, "observedGeneration"), why));
        }
        super::util::required(errors, condition, &path, "lastTransitionTime");
        super::util::required(errors, condition, &path, "reason");
    }
}
