//! The headless service of a Sandbox that wants one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::super::{
    keys::{NAME_HASH, name_hash},
    ownership::{
        Ownership, controller_reference, foreign_text, is_adoptable, ownership, unadoptable_text, with_controller,
    },
};
use crate::base::Object;

/// What to do about the service.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ServiceStep {
    /// There is none, and none is used.
    None,
    /// It is there, ours and right.
    Keep,
    /// Create it.
    Create(Object),
    /// Repair it with this merge patch.
    Patch(Value),
    /// Take it: write it so.
    Adopt(Object),
    /// Delete it.
    Delete,
    /// It cannot be used.
    Fail(String),
}

/// `spec.service`: absent is neither yes nor no.
pub(super) fn wanted(sandbox: &Object) -> Option<bool> {
    sandbox.at(&["spec", "service"]).and_then(Value::as_bool)
}

/// What to do.
pub(super) fn decide(sandbox: &Object, found: Option<&Object>) -> ServiceStep {
    let wanted = wanted(sandbox);
    let Some(service) = found else {
        return if wanted == Some(true) { ServiceStep::Create(new_service(sandbox)) } else { ServiceStep::None };
    };
    match (ownership(service, sandbox), wanted) {
        (Ownership::Own, Some(false)) => ServiceStep::Delete,
        (Ownership::Nobodys | Ownership::Foreign(_), Some(false)) | (Ownership::Nobodys, None) => ServiceStep::None,
        (Ownership::Foreign(owner), None | Some(true)) => {
            ServiceStep::Fail(foreign_text("service", service, &owner, sandbox))
        }
        (Ownership::Nobodys, Some(true)) => adopt(sandbox, service),
        (Ownership::Own, None | Some(true)) => repair(sandbox, service, wanted == Some(true)),
    }
}

fn adopt(sandbox: &Object, service: &Object) -> ServiceStep {
    if !is_adoptable(service, sandbox) {
        return ServiceStep::Fail(unadoptable_text("service", service));
    }
    let ip = service.str_at(&["spec", "clusterIP"]);
    if !ip.is_empty() && ip != "None" {
        let why = format!("ClusterIP is {ip:?} (expected \"None\", field is immutable)");
        return ServiceStep::Fail(format!("cannot adopt service {:?}: {why}", service.name()));
    }
    let mut service = service.clone();
    let hash = name_hash(sandbox.name());
    service.set_at(&["metadata", "labels", NAME_HASH], hash.clone());
    service.set_at(&["metadata", "ownerReferences"], with_controller(&service, sandbox));
    service.set_at(&["spec", "selector"], json!({NAME_HASH: hash}));
    let ports = ports(sandbox);
    if ports.is_empty() {
        service.remove_at(&["spec", "ports"]);
    } else {
        service.set_at(&["spec", "ports"], ports);
    }
    ServiceStep::Adopt(service)
}

fn repair(sandbox: &Object, service: &Object, with_ports: bool) -> ServiceStep {
    let hash = name_hash(sandbox.name());
    let mut patch = Object::default();
    if service.label(NAME_HASH) != Some(&hash) {
        patch.set_at(&["metadata", "labels", NAME_HASH], hash.clone());
    }
    let old = service.at(&["spec", "selector"]).and_then(Value::as_object).cloned().unwrap_or_default();
    if old != *json!({NAME_HASH: hash}).as_object().expect("made as a map") {
        let mut selector: Map<String, Value> = old.into_iter().map(|(key, _)| (key, Value::Null)).collect();
        selector.insert(NAME_HASH.into(), hash.into());
        patch.set_at(&["spec", "selector"], selector);
    }
    if with_ports {
        let wanted = ports(sandbox);
        let old = service.at(&["spec", "ports"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let same = |(a, b): (&Value, &Value)| {
            ["name", "protocol", "port", "targetPort"].iter().all(|member| a[member] == b[member])
        };
        if old.len() != wanted.len() || !old.iter().zip(&wanted).all(same) {
            patch.set_at(&["spec", "ports"], if wanted.is_empty() { Value::Null } else { wanted.into() });
        }
    }
    if patch.as_map().is_empty() { ServiceStep::Keep } else { ServiceStep::Patch(patch.into_value()) }
}

fn new_service(sandbox: &Object) -> Object {
    let hash = name_hash(sandbox.name());
    let mut service = Object::new("v1", "Service", sandbox.namespace(), sandbox.name());
    service.set_at(&["metadata", "labels"], json!({NAME_HASH: hash}));
    service.set_at(&["metadata", "ownerReferences"], vec![controller_reference(sandbox)]);
    service.set("spec", json!({"clusterIP": "None", "selector": {NAME_HASH: hash}}));
    let ports = ports(sandbox);
    if !ports.is_empty() {
        service.set_at(&["spec", "ports"], ports);
    }
    service
}

/// The ports of the template's containers, and of its init containers that stay: each once, by number and protocol, named
/// by the first name that nobody else has.
pub(super) fn ports(sandbox: &Object) -> Vec<Value> {
    let containers = |member: &str| {
        let list = sandbox.at(&["spec", "podTemplate", "spec", member]).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    };
    let stays = |container: &&Value| container["restartPolicy"] == "Always";
    let sources = containers("containers").iter().chain(containers("initContainers").iter().filter(stays));

    let mut by_port = BTreeMap::<(i64, String), String>::new();
    let mut taken = BTreeSet::<String>::new();
    for port in sources.filter_map(|container| container["ports"].as_array()).flatten() {
        let number = port["containerPort"].as_i64().unwrap_or_default();
        if number == 0 {
            continue;
        }
        let protocol = port["protocol"].as_str().filter(|protocol| !protocol.is_empty()).unwrap_or("TCP");
        let chosen = by_port.entry((number, protocol.to_owned())).or_default();
        let name = port["name"].as_str().unwrap_or_default();
        if !name.is_empty() && chosen.is_empty() && taken.insert(name.to_owned()) {
            name.clone_into(chosen);
        }
    }
    let mut list = Vec::with_capacity(by_port.len());
    for ((number, protocol), mut name) in by_port {
        if name.is_empty() {
            name = generated_name(number, &protocol, &taken);
            taken.insert(name.clone());
        }
        list.push(json!({"name": name, "protocol": protocol, "port": number, "targetPort": number}));
    }
    list
}

fn generated_name(number: i64, protocol: &str, taken: &BTreeSet<String>) -> String {
    let base = format!("p-{number}-{}", protocol.to_lowercase());
    let numbered = (2..).map(|suffix: u32| format!("{base}-{suffix}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name)).expect("numbers do not end")
}
