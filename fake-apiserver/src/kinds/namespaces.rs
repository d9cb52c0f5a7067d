//! Namespaces.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use serde_json::{Value, json};

use super::{
    core::restore,
    util::{Errors, complain, default_to, get, indexed, make_map, text, texts},
};
use crate::base::{FieldError, Object, names};

fn label_with_name(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty() {
        make_map(object.metadata_mut(), "labels").insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

pub(super) fn default_namespace(object: &mut Object) {
    label_with_name(object);
    if object.get("status").is_some() {
        default_to(make_map(object.as_map_mut(), "status"), "phase", "Active");
    }
}

pub(super) fn create_namespace(object: &mut Object) {
    label_with_name(object);
    object.set("status", json!({"phase": "Active"}));
    let mut finalizers: Vec<Value> =
        object.at(&["spec", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.contains(&"kubernetes".into()) {
        finalizers.push("kubernetes".into());
    }
    object.set_at(&["spec", "finalizers"], finalizers);
}

pub(super) fn update_namespace(new: &mut Object, old: &Object, subresource: &str) {
    match subresource {
        "status" => restore(new, old, "spec"),
        "finalize" => restore(new, old, "status"),
        _ => {
            restore(new, old, "spec");
            restore(new, old, "status");
        }
    }
    label_with_name(new);
}

pub(super) fn validate_namespace(object: &Object) -> Errors {
    let mut errors = Vec::new();
    let value = object.to_value();
    for name in texts(get(&value, "spec"), "finalizers") {
        namespace_finalizer(&mut errors, name);
    }
    errors
}

fn namespace_finalizer(errors: &mut Errors, name: &str) {
    complain(errors, "spec.finalizers", name, names::qualified_name(name));
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid("spec.finalizers", &name.into(), why));
    }
}

pub(super) fn validate_namespace_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let (mut errors, value) = (Vec::new(), new.to_value());
    match subresource {
        "status" => {
            let phase = text(get(&value, "status"), "phase");
            let why = if old.is_deleting() {
                (phase != "Terminating").then_some("may only be 'Terminating' if `deletionTimestamp` is not empty")
            } else {
                (phase != "Active").then_some("may only be 'Active' if `deletionTimestamp` is empty")
            };
            if let Some(why) = why {
                errors.push(FieldError::invalid("status.Phase", &phase.into(), why));
            }
        }
        "finalize" => {
            for (path, name) in indexed(get(&value, "spec"), "spec", "finalizers") {
                let name = name.as_str().unwrap_or_default();
                complain(&mut errors, &path, name, names::qualified_name(name));
            }
        }
        _ => {}
    }
    errors
}
