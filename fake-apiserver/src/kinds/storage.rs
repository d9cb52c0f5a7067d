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
    // of a feature that is off
    let elsewhere =
        |reference: &Value| reference.get("namespace").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if spec.get("dataSourceRef").is_some_and(elsewhere) {
        spec.remove("dataSourceRef");
    }
    for key in ["dataSource", "dataSourceRef"] {
        // Go always writes the group
        if let Some(source) = map_mut(spec, key) {
            source.entry("apiGroup").or_insert(Value::Null);
        }
    }
    let known = |source: &Value| {
        let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
        matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    };
    let alone = spec.get("dataSourceRef").is_none_or(Value::is_null);
    if alone && spec.get("dataSource").is_some_and(|source| !known(source)) {
        spec.remove("dataSource"); // dropped ever since, in silence (`EnforceDataSourceBackwardsCompatibility`)
    }
    // the two ways to name a source follow each other (`NormalizeDataSources`)
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source @ Value::Object(_)), None | Some(Value::Null)) => {
            spec.insert("dataSourceRef".into(), source);
        }
        (None | Some(Value::Null), Some(Value::Object(reference))) => {
            spec.insert("dataSource".into(), Value::Object(reference));
        }
        (_, _) => {}
    }
}

/// What upstream warns of in a claim's spec, also of templates.
pub(super) fn claim_spec_warnings(spec: &Value, path: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for kind in ["requests", "limits"] {
        let amount = quantity(at(spec, &["resources", kind]), "storage");
        if let Some(amount) = amount.filter(crate::base::quantity::Quantity::is_fractional) {
            let shown = crate::base::status::go_quote(&amount.to_string());
            let field = format!("{path}.resources.{kind}[storage]");
            warnings.push(format!("{field}: fractional byte value {shown} is invalid, must be an integer"));
        }
    }
    warnings
}

pub(super) fn create_claim(object: &mut Object) {
    object.set("status", json!({"phase": "Pending"}));
}

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(errors: &mut Errors, spec: &Value, path: &str, why: &str) {
    let (modes, field) = (texts(spec, "accessModes"), child(path, "accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(&field, why));
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
    let class = text(spec, "volumeAttributesClassName");
    if !class.is_empty() {
        complain(&mut errors, &child(path, "volumeAttributesClassName"), class, names::dns1123_subdomain(class));
    }
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
        let group = text(source, "apiGroup");
        if !group.is_empty() {
            complain(&mut errors, &child(&path, "apiGroup"), group, names::dns1123_subdomain(group));
        }
    }
    let (source, reference) = (get(spec, "dataSource"), get(spec, "dataSourceRef"));
    if !source.is_null() && !reference.is_null() && !same(source, reference) {
        errors.push(FieldError::invalid_shown(path, "{}", "must match dataSourceRef"));
    }
    errors
}

fn access_modes_and_selector(errors: &mut Errors, spec: &Value, path: &str) {
    access_modes(errors, spec, path, "at least 1 access mode is required");
    meta::label_selector(errors, get(spec, "selector"), &child(path, "selector"));
}

pub(super) fn validate_claim(object: &Object) -> Errors {
    validate_claim_spec(get(&object.to_value(), "spec"), "spec")
}

pub(super) fn validate_claim_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let mut errors = Vec::new();
    if subresource == "status" {
        let status = new.get("status").cloned().unwrap_or_default();
        for (name, amount) in members(&status, "capacity") {
            if let Some(amount) = as_quantity(amount).filter(|amount| amount.value() < 0) {
                let field = format!("status.capacity[{name}]");
                errors.push(FieldError::invalid(&field, &amount.value().into(), "must be a valid resource quantity"));
            }
        }
        return errors;
    }
    let (new, old) = (new.to_value(), old.to_value());
    // a claim that came before there was a default class may get one
    let classed = |claim: &Value| has(get(claim, "spec"), "storageClassName");
    let beta = at(&old, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let gets_class = classed(&new) && !classed(&old) && beta.is_null();
    let bound = text(get(&old, "status"), "phase") == "Bound";
    let spec = |object: &Value| {
        let mut spec = get(object, "spec").clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("volumeAttributesClassName");
            if gets_class {
                spec.remove("storageClassName");
            }
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
        return errors;
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
        if let Some(iscsi) = map_mut(spec, "iscsi") {
            default_to(iscsi, "iscsiInterface", "default");
        }
        if let Some(rbd) = map_mut(spec, "rbd") {
            default_to(rbd, "pool", "rbd");
            default_to(rbd, "user", "admin");
            default_to(rbd, "keyring", "/etc/ceph/keyring");
        }
    }
    default_to(make_map(object.as_map_mut(), "status"), "phase", "Pending");
}

pub(super) fn create_volume(object: &mut Object) {
    // the time is put in by whoever has a clock
    object.set("status", json!({"phase": "Pending", "lastPhaseTransitionTime": null}));
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
    access_modes(&mut errors, spec, "spec", "");
    let capacity = get(spec, "capacity");
    if members(capacity, "").next().is_none() && capacity.as_object().is_none_or(Map::is_empty) {
        errors.push(FieldError::required("spec.capacity", ""));
    }
    if !has(capacity, "storage") || capacity.as_object().is_some_and(|map| map.len() > 1) {
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
        if required(&mut errors, get(spec, "nfs"), "spec.nfs", "path")
            && !text(get(spec, "nfs"), "path").starts_with('/')
        {
            let shown = text(get(spec, "nfs"), "path").into();
            errors.push(FieldError::invalid("spec.nfs.path", &shown, "must be an absolute path"));
        }
    }
    if has(spec, "local") {
        required(&mut errors, get(spec, "local"), "spec.local", "path");
        if !has(spec, "nodeAffinity") {
            errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
        }
    }
    let affinity = get(spec, "nodeAffinity");
    if !affinity.is_null() {
        if has(affinity, "required") {
            super::pod::node_selector(&mut errors, get(affinity, "required"), "spec.nodeAffinity.required");
        } else {
            let why = "must specify required node constraints";
            errors.push(FieldError::required("spec.nodeAffinity.required", why));
        }
    }
    let host = text(get(spec, "hostPath"), "path");
    let is_root = host.starts_with('/') && host.trim_matches('/').is_empty();
    if is_root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", why));
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
