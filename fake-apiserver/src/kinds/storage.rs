//! Volume claims, also those in templates, and volumes.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use serde_json::{Map, Value, json};

use super::{
    core::diff,
    meta,
    pod::resources::validate_amount,
    util::{
        Errors, as_quantity, at, child, complain, default_to, get, has, immutable, make_map, map_mut, members, one_of,
        quantity, required, round_amounts, same, text, texts,
    },
};
use crate::base::{FieldError, Object, names};

pub(super) fn default_claim(object: &mut Object) {
    if let Some(spec) = map_mut(object.as_map_mut(), "spec") {
        default_claim_spec(spec);
    }
    default_to(make_map(object.as_map_mut(), "status"), "phase", "Pending");
    if let Some(status) = map_mut(object.as_map_mut(), "status") {
        round_amounts(status, "capacity");
    }
}

/// Defaults of a claim's spec, also of templates.
pub(super) fn default_claim_spec(spec: &mut Map<String, Value>) {
    default_to(spec, "volumeMode", "Filesystem");
    let resources = make_map(spec, "resources");
    round_amounts(resources, "requests");
    round_amounts(resources, "limits");
    // the two ways to name a source follow each other (`NormalizeDataSources`)
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source @ Value::Object(_)), None | Some(Value::Null)) => {
            spec.insert("dataSourceRef".into(), source);
        }
        (None | Some(Value::Null), Some(Value::Object(reference))) if !reference.contains_key("namespace") => {
            let group = reference.get("apiGroup").and_then(Value::as_str).unwrap_or_default();
            let kind = reference.get("kind").and_then(Value::as_str).unwrap_or_default();
            if matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")) {
                spec.insert("dataSource".into(), Value::Object(reference));
            }
        }
        (_, _) => {}
    }
}

pub(super) fn create_claim(object: &mut Object) {
    object.set("status", json!({"phase": "Pending"}));
}

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(errors: &mut Errors, spec: &Value, path: &str) {
    let (modes, field) = (texts(spec, "accessModes"), child(path, "accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(&field, "at least 1 access mode is required"));
    }
    modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)).for_each(|mode| {
        errors.push(FieldError::not_supported(&field, &(*mode).into(), &ACCESS_MODES));
    });
    if modes.len() > 1 && modes.contains(&"ReadWriteOncePod") {
        errors.push(FieldError::forbidden(&field, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// Judges a claim's spec, also of templates.
pub(super) fn validate_claim_spec(spec: &Value, path: &str) -> Errors {
    let mut errors = Vec::new();
    access_modes_and_selector(&mut errors, spec, path);
    let requests = at(spec, &["resources", "requests"]);
    let field = format!("{path}.resources[storage]");
    match quantity(requests, "storage") {
        None => errors.push(FieldError::required(&field, "")),
        Some(amount) => {
            validate_amount(&mut errors, "storage", &amount, &field);
            if amount.is_negative() || amount.is_zero() {
                errors.push(FieldError::invalid(&field, &amount.to_string().into(), "must be greater than zero"));
            }
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        complain(&mut errors, &child(path, "storageClassName"), class, names::dns1123_subdomain(class));
    }
    one_of(&mut errors, spec, path, "volumeMode", &["Block", "Filesystem"], false);
    for key in ["dataSource", "dataSourceRef"] {
        let (source, path) = (get(spec, key), child(path, key));
        if source.is_null() {
            continue;
        }
        required(&mut errors, source, &path, "name");
        required(&mut errors, source, &path, "kind");
        if text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(&path, &text(source, "kind").into(), why));
        }
    }
    errors
}

fn access_modes_and_selector(errors: &mut Errors, spec: &Value, path: &str) {
    access_modes(errors, spec, path);
    meta::label_selector(errors, get(spec, "selector"), &child(path, "selector"));
}

pub(super) fn validate_claim(object: &Object) -> Errors {
    validate_claim_spec(get(&object.to_value(), "spec"), "spec")
}

pub(super) fn validate_claim_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let mut errors = Vec::new();
    if subresource == "status" {
        return errors;
    }
    let (new, old) = (new.to_value(), old.to_value());
    let bound = text(get(&old, "status"), "phase") == "Bound";
    let spec = |object: &Value| {
        let mut spec = get(object, "spec").clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("volumeAttributesClassName");
            // a claim is bound by setting its volume's name once
            if text(get(&old, "spec"), "volumeName").is_empty() {
                spec.remove("volumeName");
            }
            if bound && let Some(requests) = map_mut(spec, "resources").and_then(|r| map_mut(r, "requests")) {
                requests.remove("storage");
            }
        }
        spec
    };
    if !same(&spec(&new), &spec(&old)) {
        let why = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            diff(get(&new, "spec"), get(&old, "spec"))
        );
        errors.push(FieldError::forbidden("spec", &why));
    }
    let storage = |object: &Value| quantity(at(object, &["spec", "resources", "requests"]), "storage");
    let capacity = quantity(at(&old, &["status", "capacity"]), "storage");
    if let (Some(wanted), Some(before)) = (storage(&new), storage(&old))
        && wanted < before
        && capacity.is_none_or(|capacity| wanted < capacity)
    {
        let why = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden("spec.resources.requests.storage", why));
    }
    errors
}

pub(super) fn default_volume(object: &mut Object) {
    if let Some(spec) = map_mut(object.as_map_mut(), "spec") {
        default_to(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_to(spec, "volumeMode", "Filesystem");
        round_amounts(spec, "capacity");
        if let Some(path) = map_mut(spec, "hostPath") {
            path.entry("type").or_insert_with(|| "".into());
        }
    }
    default_to(make_map(object.as_map_mut(), "status"), "phase", "Pending");
}

pub(super) fn create_volume(object: &mut Object) {
    object.set("status", json!({"phase": "Pending"}));
}

/// Volume sources of a PersistentVolume.
const VOLUME_SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

pub(super) fn validate_volume(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    access_modes(&mut errors, spec, "spec");
    let capacity = get(spec, "capacity");
    if members(capacity, "").next().is_none() && capacity.as_object().is_none_or(Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    } else if !has(capacity, "storage") || capacity.as_object().is_some_and(|map| map.len() > 1) {
        errors.push(FieldError::not_supported("spec.capacity", capacity, &["storage"]));
    }
    for (name, amount) in members(spec, "capacity") {
        if let Some(amount) = as_quantity(amount) {
            let field = format!("spec.capacity[{name}]");
            validate_amount(&mut errors, name, &amount, &field);
            if amount.is_negative() || amount.is_zero() {
                errors.push(FieldError::invalid(&field, &amount.to_string().into(), "must be greater than zero"));
            }
        }
    }
    one_of(&mut errors, spec, "spec", "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"], false);
    let sources: Vec<_> = VOLUME_SOURCES.iter().filter(|source| has(spec, source)).collect();
    match sources[..] {
        [] => errors.push(FieldError::required("spec", "must specify a volume type")),
        [_, ref more @ ..] => more.iter().for_each(|source| {
            errors.push(FieldError::forbidden(&format!("spec.{source}"), "may not specify more than 1 volume type"));
        }),
    }
    if has(spec, "hostPath") && required(&mut errors, get(spec, "hostPath"), "spec.hostPath", "path") {
        super::pod::volumes::no_backsteps(&mut errors, text(get(spec, "hostPath"), "path"), "spec.hostPath.path");
    }
    if has(spec, "csi") {
        required(&mut errors, get(spec, "csi"), "spec.csi", "driver");
        required(&mut errors, get(spec, "csi"), "spec.csi", "volumeHandle");
    }
    if has(spec, "nfs") {
        required(&mut errors, get(spec, "nfs"), "spec.nfs", "server");
        required(&mut errors, get(spec, "nfs"), "spec.nfs", "path");
    }
    if has(spec, "local") {
        required(&mut errors, get(spec, "local"), "spec.local", "path");
        if !has(spec, "nodeAffinity") {
            errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        complain(&mut errors, "spec.storageClassName", class, names::dns1123_subdomain(class));
    }
    one_of(&mut errors, spec, "spec", "volumeMode", &["Block", "Filesystem"], false);
    errors
}

pub(super) fn validate_volume_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let mut errors = if subresource == "status" { Vec::new() } else { validate_volume(new) };
    let (new, old) = (new.to_value(), old.to_value());
    let source = |object: &Value| {
        let spec = get(object, "spec");
        let pairs = VOLUME_SOURCES.iter().filter_map(|key| Some(((*key).to_owned(), spec.get(*key)?.clone())));
        Value::Object(pairs.collect())
    };
    if !same(&source(&new), &source(&old)) {
        let why =
            format!("spec.persistentvolumesource is immutable after creation\n{}", diff(&source(&new), &source(&old)));
        errors.push(FieldError::forbidden("spec.persistentvolumesource", &why));
    }
    let mode = |object| at(object, &["spec", "volumeMode"]);
    immutable(&mut errors, mode(&new), mode(&old), "volumeMode");
    errors
}
