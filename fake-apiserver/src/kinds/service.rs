//! Services. Addresses and node ports are given out by the registry; what follows without asking anyone is here.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `ValidateService`, `pkg/registry/core/service/storage`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    core::restore,
    meta,
    pod::{ip, port_or_name},
    util::{
        Errors, at, child, complain, complain_number, default_number, default_to, drop_empty, each_mut, get, has,
        indexed, int, int_or_zero, items, make_map, map_mut, one_of, same, strings, text, texts,
    },
};
use crate::base::{FieldError, Object, names};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub(super) fn default(object: &mut Object) {
    let spec = make_map(object.as_map_mut(), "spec");
    drop_empty(spec, &["selector", "externalIPs", "ports", "clusterIP", "clusterIPs", "loadBalancerSourceRanges"]);
    default_to(spec, "sessionAffinity", "None");
    match spec.get("sessionAffinity").and_then(Value::as_str) {
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        Some("ClientIP") => {
            let client = make_map(make_map(spec, "sessionAffinityConfig"), "clientIP");
            default_number(client, "timeoutSeconds", 10800);
        }
        Some(_) | None => {}
    }
    default_to(spec, "type", "ClusterIP");
    each_mut(spec, "ports", |port| {
        default_to(port, "protocol", "TCP");
        let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
            || port.get("targetPort").and_then(Value::as_i64) == Some(0)
            || port.get("targetPort").and_then(Value::as_str) == Some("");
        if unset {
            let number = port.get("port").cloned().unwrap_or_else(|| 0.into());
            port.insert("targetPort".into(), number);
        }
    });
    let kind = spec.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external {
        default_to(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_to(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts").is_none_or(Value::is_null) {
        spec.insert("allocateLoadBalancerNodePorts".into(), true.into());
    }
    if spec.get("publishNotReadyAddresses") == Some(&Value::Bool(false)) {
        spec.remove("publishNotReadyAddresses");
    }
    make_map(make_map(object.as_map_mut(), "status"), "loadBalancer");
}

/// The two forms of the address follow each other (`normalizeClusterIPs`), families are filled in.
pub(super) fn create(object: &mut Object) {
    object.set("status", json!({"loadBalancer": {}}));
    let Some(spec) = map_mut(object.as_map_mut(), "spec") else { return };
    if spec.get("clusterIPs").is_none()
        && let Some(ip) = spec.get("clusterIP").cloned()
    {
        spec.insert("clusterIPs".into(), json!([ip]));
    }
    fill_families(spec);
}

fn fill_families(spec: &mut serde_json::Map<String, Value>) {
    if spec.get("type").and_then(Value::as_str) == Some("ExternalName") {
        return;
    }
    let headless = spec.get("clusterIP").and_then(Value::as_str) == Some("None");
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|map| !map.is_empty());
    if headless && !selects {
        // without a selector its endpoints may be of any family
        default_to(spec, "ipFamilyPolicy", "RequireDualStack");
        if spec["ipFamilyPolicy"] == "RequireDualStack" || spec["ipFamilyPolicy"] == "PreferDualStack" {
            let first = spec.get("ipFamilies").and_then(|list| list.get(0)).cloned();
            let families = if first == Some("IPv6".into()) { ["IPv6", "IPv4"] } else { ["IPv4", "IPv6"] };
            spec.insert("ipFamilies".into(), json!(families));
        }
    }
    default_to(spec, "ipFamilyPolicy", "SingleStack");
    if spec.get("ipFamilies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let six = spec.get("clusterIP").and_then(Value::as_str).is_some_and(|ip| ip.contains(':'));
        spec.insert("ipFamilies".into(), json!([if six { "IPv6" } else { "IPv4" }]));
    }
}

/// What was given out stays where the write does not name it (`patchAllocatedValues`).
pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    if subresource == "status" {
        restore(new, old, "spec");
        return;
    }
    restore(new, old, "status");
    let before = old.get("spec").cloned().unwrap_or_default();
    let Some(spec) = map_mut(new.as_map_mut(), "spec") else { return };
    let needs_ip = |spec: &Value| text(spec, "type") != "ExternalName";
    let current = Value::Object(spec.clone());
    if needs_ip(&current) && needs_ip(&before) {
        let (ip, old_ip) = (text(&current, "clusterIP"), text(&before, "clusterIP"));
        let same_ips = same(get(&current, "clusterIPs"), get(&before, "clusterIPs"));
        if ip.is_empty() && (items(&current, "clusterIPs").is_empty() || same_ips) && !old_ip.is_empty() {
            spec.insert("clusterIP".into(), old_ip.into());
            spec.insert("clusterIPs".into(), get(&before, "clusterIPs").clone());
        } else if !ip.is_empty() && (items(&current, "clusterIPs").is_empty() || (same_ips && ip != old_ip)) {
            spec.insert("clusterIPs".into(), json!([ip]));
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if !has(&current, key) && has(&before, key) {
                spec.insert(key.into(), get(&before, key).clone());
            }
        }
    } else if !needs_ip(&current) {
        // an address is given back where the service becomes a mere name
        if text(&current, "clusterIP") == text(&before, "clusterIP") {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(key);
            }
        }
    }
    let keeps_ports = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if keeps_ports(&current) && keeps_ports(&before) {
        each_mut(spec, "ports", |port| {
            let this = Value::Object(port.clone());
            let same_port = |old: &&Value| {
                int(old, "port") == int(&this, "port") && text(old, "protocol") == text(&this, "protocol")
            };
            let given = items(&before, "ports").iter().find(same_port).map_or(0, |old| int_or_zero(old, "nodePort"));
            if given != 0 {
                default_number(port, "nodePort", given);
            }
        });
    } else if !keeps_ports(&current) {
        each_mut(spec, "ports", |port| {
            let given = items(&before, "ports").iter().any(|old| {
                int_or_zero(old, "nodePort") != 0
                    && int(old, "nodePort") == port.get("nodePort").and_then(Value::as_i64)
            });
            if given {
                port.remove("nodePort");
            }
        });
    }
    fill_families(spec);
}

pub(super) fn validate(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    let (kind, ips) = (text(spec, "type"), texts(spec, "clusterIPs"));
    let headless = text(spec, "clusterIP") == "None" || ips.first() == Some(&"None");
    if items(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" => {
            for (path, port) in indexed(spec, "spec", "ports") {
                if kind == "LoadBalancer" && int(port, "port") == Some(10250) {
                    let why = "may not expose port 10250 externally since it is used by kubelet";
                    errors.push(FieldError::invalid(&child(&path, "port"), &10250.into(), why));
                }
            }
            if headless {
                let why = format!("may not be set to 'None' for {kind} services");
                errors.push(FieldError::invalid("spec.clusterIPs[0]", &"None".into(), &why));
            }
        }
        "ExternalName" => {
            if !ips.is_empty() {
                let why = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden("spec.clusterIPs", why));
            }
            for key in ["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|key| has(spec, key)) {
                let why = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(&child("spec", key), why));
            }
            let name = text(spec, "externalName");
            let trimmed = name.strip_suffix('.').unwrap_or(name);
            if trimmed.is_empty() {
                errors.push(FieldError::required("spec.externalName", ""));
            } else {
                complain(&mut errors, "spec.externalName", trimmed, names::dns1123_subdomain(trimmed));
            }
        }
        _ => {}
    }
    ports(&mut errors, spec);
    meta::label_map(&mut errors, &strings(spec, "selector"), "spec.selector");
    one_of(&mut errors, spec, "spec", "sessionAffinity", &["ClientIP", "None"], true);
    if text(spec, "sessionAffinity") == "ClientIP" {
        let seconds = int_or_zero(at(spec, &["sessionAffinityConfig", "clientIP"]), "timeoutSeconds");
        if !(1..=86400).contains(&seconds) {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let why = "must be greater than 0 and less than 86400";
            errors.push(FieldError::invalid(field, &seconds.into(), why));
        }
    } else if has(spec, "sessionAffinityConfig") {
        let why = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden("spec.sessionAffinityConfig", why));
    }
    for (i, address) in ips.iter().enumerate().filter(|(_, address)| **address != "None") {
        ip(&mut errors, address, &format!("spec.clusterIPs[{i}]"));
    }
    if !ips.is_empty() && !text(spec, "clusterIP").is_empty() && ips[0] != text(spec, "clusterIP") {
        let why = "first value must match `clusterIP`";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(ips), why));
    }
    for (path, address) in indexed(spec, "spec", "externalIPs") {
        ip(&mut errors, address.as_str().unwrap_or_default(), &path);
    }
    one_of(&mut errors, spec, "spec", "type", &TYPES, true);
    for (path, port) in indexed(spec, "spec", "ports") {
        let node = int_or_zero(port, "nodePort");
        if kind == "ClusterIP" && node != 0 {
            let why = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(&child(&path, "nodePort"), why));
        }
    }
    let (mut nodes, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (path, port) in indexed(spec, "spec", "ports") {
        let (protocol, node) = (text(port, "protocol"), int_or_zero(port, "nodePort"));
        if node != 0 && !nodes.insert((protocol, node)) {
            errors.push(FieldError::duplicate(&child(&path, "nodePort"), &node.into()));
        }
        if !seen.insert((protocol, int_or_zero(port, "port"))) {
            let shown = json!({"protocol": protocol, "port": int_or_zero(port, "port")});
            errors.push(FieldError::duplicate(&path, &shown));
        }
    }
    if has(spec, "internalTrafficPolicy") || kind != "ExternalName" {
        one_of(&mut errors, spec, "spec", "internalTrafficPolicy", &["Cluster", "Local"], kind != "ExternalName");
    }
    one_of(&mut errors, spec, "spec", "externalTrafficPolicy", &["Cluster", "Local"], false);
    one_of(&mut errors, spec, "spec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], false);
    for (path, family) in indexed(spec, "spec", "ipFamilies") {
        if !["IPv4", "IPv6"].iter().any(|known| family == known) {
            errors.push(FieldError::not_supported(&path, family, &["IPv4", "IPv6"]));
        }
    }
    errors
}

fn ports(errors: &mut Errors, spec: &Value) {
    let several = items(spec, "ports").len() > 1;
    let mut seen = BTreeSet::new();
    for (path, port) in indexed(spec, "spec", "ports") {
        let (name, field) = (text(port, "name"), child(&path, "name"));
        if name.is_empty() {
            if several {
                errors.push(FieldError::required(&field, ""));
            }
        } else {
            complain(errors, &field, name, names::dns1123_label(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&field, &name.into()));
            }
        }
        let number = int_or_zero(port, "port");
        complain_number(errors, &child(&path, "port"), number, names::port_number(number));
        one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"], true);
        port_or_name(errors, get(port, "targetPort"), &child(&path, "targetPort"));
        if let Some(protocol) = get(port, "appProtocol").as_str() {
            complain(errors, &child(&path, "appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

pub(super) fn validate_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let mut errors = Vec::new();
    if subresource == "status" {
        return errors;
    }
    let (new, old) = (new.to_value(), old.to_value());
    let (spec, before) = (get(&new, "spec"), get(&old, "spec"));
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if external(spec) || external(before) {
        return errors;
    }
    let (ips, old_ips) = (texts(spec, "clusterIPs"), texts(before, "clusterIPs"));
    if let Some(first) = old_ips.first() {
        if ips.is_empty() {
            let why = "primary clusterIP can not be unset";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", get(spec, "clusterIPs"), why));
        } else if ips[0] != *first {
            let why = "may not change once set";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", get(spec, "clusterIPs"), why));
        }
    }
    errors
}
