//! The smallest kinds of the core group (service accounts, nodes, endpoints), and what many kinds do on a write.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use serde_json::{Value, json};

use super::util::{
    Errors, complain, complain_number, default_to, each_mut, get, indexed, int, items, make_map, one_of, round_amounts,
    text,
};
use crate::base::{FieldError, Object, names};

/// Puts back what a write through this door may not change: everything but the status for `status`, the status otherwise.
pub(super) fn keep_other_half(new: &mut Object, old: &Object, subresource: &str) {
    if subresource == "status" {
        let keys: Vec<String> = new.as_map().keys().cloned().collect();
        for key in keys.iter().filter(|key| !["metadata", "status", "apiVersion", "kind"].contains(&key.as_str())) {
            restore(new, old, key);
        }
        for key in
            old.as_map().keys().filter(|key| !["metadata", "status", "apiVersion", "kind"].contains(&key.as_str()))
        {
            restore(new, old, key);
        }
    } else {
        restore(new, old, "status");
    }
}

/// Makes a member what it was.
pub(super) fn restore(new: &mut Object, old: &Object, key: &str) {
    match old.get(key) {
        Some(value) => new.set(key, value.clone()),
        None => {
            new.remove(key);
        }
    }
}

/// The lines in which two values differ, as upstream appends them to a refusal (`k8s.io/apimachinery/pkg/util/diff`).
pub(super) fn diff(new: &Value, old: &Value) -> String {
    let lines = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (old, new) = (lines(old), lines(new));
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - start;
    let end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (gone, come) = (&old[start..old.len() - end], &new[start..new.len() - end]);
    let mut out = format!("@@ -{0},{1} +{0},{2} @@\n", start + 1, gone.len(), come.len());
    gone.iter().for_each(|line| out.push_str(&format!("-{line}\n")));
    come.iter().for_each(|line| out.push_str(&format!("+{line}\n")));
    out
}

pub(super) fn prepare_service_account(object: &mut Object) {
    // only the name of a secret is kept (`cleanSecretReferences`)
    each_mut(object.as_map_mut(), "secrets", |secret| secret.retain(|key, _| key == "name"));
}

pub(super) fn default_node(object: &mut Object) {
    let status = make_map(object.as_map_mut(), "status");
    round_amounts(status, "capacity");
    round_amounts(status, "allocatable");
    // structs that Go always writes
    let endpoints = make_map(status, "daemonEndpoints");
    make_map(endpoints, "kubeletEndpoint").entry("Port").or_insert_with(|| 0.into());
    let info = make_map(status, "nodeInfo");
    for key in [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
    ] {
        info.entry(key).or_insert_with(|| "".into());
    }
    make_map(object.as_map_mut(), "spec");
}

pub(super) fn validate_node(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    for (path, taint) in indexed(get(&value, "spec"), "spec", "taints") {
        let key = text(taint, "key");
        complain(&mut errors, &format!("{path}.key"), key, names::qualified_name(key));
        let complaints = names::label_value(text(taint, "value"));
        complain(&mut errors, &format!("{path}.value"), text(taint, "value"), complaints);
        one_of(&mut errors, taint, &path, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], true);
    }
    errors
}

/// What a create leaves of the status: an empty one, as Go writes it.
pub(super) fn reset_status(object: &mut Object) {
    object.set("status", json!({}));
}

pub(super) fn default_endpoints(object: &mut Object) {
    each_mut(object.as_map_mut(), "subsets", |subset| {
        each_mut(subset, "ports", |port| default_to(port, "protocol", "TCP"));
    });
}

fn endpoint_address(errors: &mut Errors, address: &Value, path: &str) {
    let (ip, field) = (text(address, "ip"), format!("{path}.ip"));
    super::pod::ip(errors, ip, &field);
    for (key, check) in
        [("hostname", names::dns1123_label as fn(&str) -> Vec<String>), ("nodeName", names::dns1123_subdomain)]
    {
        let name = text(address, key);
        if !name.is_empty() {
            complain(errors, &format!("{path}.{key}"), name, check(name));
        }
    }
    match super::warnings::sloppy(ip) {
        Some(_) => super::service::special_address(errors, ip, &field),
        None => errors.push(FieldError::invalid(&field, &ip.into(), "must be a valid IP address")),
    }
}

/// What was wrong with subsets that stay as they are may stay so.
pub(super) fn validate_endpoints_update(new: &Object, old: &Object, _: &str) -> Errors {
    if new.get("subsets") == old.get("subsets") { Vec::new() } else { validate_endpoints(new) }
}

pub(super) fn validate_endpoints(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    for (path, subset) in indexed(&value, "", "subsets") {
        if items(subset, "addresses").is_empty() && items(subset, "notReadyAddresses").is_empty() {
            errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
        }
        for key in ["addresses", "notReadyAddresses"] {
            indexed(subset, &path, key).for_each(|(path, address)| endpoint_address(&mut errors, address, &path));
        }
        let ports = items(subset, "ports").len();
        for (path, port) in indexed(subset, &path, "ports") {
            if ports > 1 && text(port, "name").is_empty() {
                errors.push(FieldError::required(&format!("{path}.name"), ""));
            } else if !text(port, "name").is_empty() {
                let name = text(port, "name");
                complain(&mut errors, &format!("{path}.name"), name, names::dns1123_label(name));
            }
            let number = int(port, "port").unwrap_or_default();
            complain_number(&mut errors, &format!("{path}.port"), number, names::port_number(number));
            one_of(&mut errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"], true);
        }
    }
    errors
}
