//! Which labels and annotations reach a pod, and how they are kept in step with the Sandbox.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keys::{
    CREATED_BY, EXTENSIONS_GROUP, NAME_HASH, PROPAGATED_ANNOTATIONS, PROPAGATED_LABELS, TEMPLATE_REF_HASH,
    TRACE_CONTEXT, WARM_POOL, is_reserved, name_hash,
};
use crate::base::{Object, names::split_api_version};

type Strings = BTreeMap<String, String>;

/// What a template asks of its pod's labels or annotations (`member`), without reserved keys.
fn template(sandbox: &Object, member: &str) -> Strings {
    let map = sandbox.at(&["spec", "podTemplate", "metadata", member]).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter(|(key, _)| !is_reserved(key) && (member == "labels" || *key != TRACE_CONTEXT))
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The labels that claims and pools put on a Sandbox for its pod, each with its value or without one.
fn extension_labels(sandbox: &Object) -> [(&'static str, Option<String>); 2] {
    let owner = sandbox.controller().filter(|owner| split_api_version(&owner.api_version).0 == EXTENSIONS_GROUP);
    let label = |key: &str| sandbox.label(key).filter(|value| !value.is_empty()).map(str::to_owned);
    let pooled = owner.as_ref().is_some_and(|owner| owner.kind == "SandboxWarmPool");
    [
        (WARM_POOL, if pooled { label(WARM_POOL) } else { None }),
        (TEMPLATE_REF_HASH, if owner.is_some() { label(TEMPLATE_REF_HASH) } else { None }),
    ]
}

/// Who made an object, in one of the known words (`NormalizeCreatedBy`).
pub(super) fn known_creator(by: &str) -> &str {
    if ["go-client", "python-client", "controller"].contains(&by) { by } else { "unknown" }
}

/// Who made the Sandbox, in one of the known words.
fn created_by(sandbox: &Object) -> Option<String> {
    sandbox.label(CREATED_BY).filter(|by| !by.is_empty()).map(|by| known_creator(by).to_owned())
}

fn joined(keys: &Strings) -> String {
    keys.keys().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// Labels and annotations of a new pod.
pub(super) fn for_new_pod(sandbox: &Object) -> (Strings, Strings) {
    let (mut labels, mut annotations) = (template(sandbox, "labels"), template(sandbox, "annotations"));
    let (label_keys, annotation_keys) = (joined(&labels), joined(&annotations));
    labels.insert(NAME_HASH.into(), name_hash(sandbox.name()));
    for (key, value) in extension_labels(sandbox) {
        labels.extend(value.map(|value| (key.to_owned(), value)));
    }
    labels.extend(created_by(sandbox).map(|by| (CREATED_BY.to_owned(), by)));
    for (key, list) in [(PROPAGATED_LABELS, label_keys), (PROPAGATED_ANNOTATIONS, annotation_keys)] {
        if !list.is_empty() {
            annotations.insert(key.into(), list);
        }
    }
    (labels, annotations)
}

/// The merge patch of `metadata` that brings an existing pod in step; empty if it is. What others put on the pod stays.
pub(super) fn sync(pod: &Object, sandbox: &Object) -> Map<String, Value> {
    let (old_labels, old_annotations) = (pod.labels(), pod.annotations());
    let (mut labels, mut annotations) = (old_labels.clone(), old_annotations.clone());
    let (wanted_labels, wanted_annotations) = (template(sandbox, "labels"), template(sandbox, "annotations"));

    labels.insert(NAME_HASH.into(), name_hash(sandbox.name()));
    add(&mut labels, &wanted_labels);
    drop_stale(&mut labels, &wanted_labels, old_annotations.get(PROPAGATED_LABELS), &[NAME_HASH]);
    for (key, value) in extension_labels(sandbox) {
        put(&mut labels, key, value);
    }
    put(&mut labels, CREATED_BY, created_by(sandbox));

    add(&mut annotations, &wanted_annotations);
    let own = [PROPAGATED_LABELS, PROPAGATED_ANNOTATIONS];
    drop_stale(&mut annotations, &wanted_annotations, old_annotations.get(PROPAGATED_ANNOTATIONS), &own);
    for (key, wanted) in [(PROPAGATED_LABELS, &wanted_labels), (PROPAGATED_ANNOTATIONS, &wanted_annotations)] {
        // An empty list is written only over one that was there.
        if !wanted.is_empty() || annotations.contains_key(key) {
            annotations.insert(key.into(), joined(wanted));
        }
    }

    let mut patch = Map::new();
    for (member, old, new) in [("labels", &old_labels, &labels), ("annotations", &old_annotations, &annotations)] {
        let changes = changes(old, new);
        if !changes.is_empty() {
            patch.insert(member.into(), changes.into());
        }
    }
    patch
}

/// Adds what the template asks for. What it asks for without a value is as good as there, and never added to a pod that
/// exists: upstream compares with what a map without the key gives (`updatePodMetadata`).
fn add(map: &mut Strings, wanted: &Strings) {
    for (key, value) in wanted {
        if map.get(key).map_or("", String::as_str) != value {
            map.insert(key.clone(), value.clone());
        }
    }
}

/// Takes away what once came from the template and no longer does.
fn drop_stale(map: &mut Strings, wanted: &Strings, propagated: Option<&String>, keep: &[&str]) {
    let keys = propagated.map(String::as_str).unwrap_or_default().split(',').filter(|key| !key.is_empty());
    for key in keys.filter(|key| !keep.contains(key) && !wanted.contains_key(*key)) {
        map.remove(key);
    }
}

fn put(map: &mut Strings, key: &str, value: Option<String>) {
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.remove(key),
    };
}

fn changes(old: &Strings, new: &Strings) -> Map<String, Value> {
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    removed.chain(set.map(|(key, value)| (key.clone(), json!(value)))).collect()
}

#[cfg(test)]
mod tests;
