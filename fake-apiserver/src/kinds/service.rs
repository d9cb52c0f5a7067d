//! Services. Addresses and node ports are given out by the registry; what follows without asking anyone is here.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `ValidateService`, `pkg/registry/core/service/storage`.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::{Map, Value, json};

use super::{
    core::restore,
    meta,
    pod::{ip, port_or_name},
    util::{
        Errors, at, child, complain, complain_number, default_number, default_to, drop_empty, each_mut, get, has,
        indexed, int, int_or_zero, items, make_map, map_mut, one_of, same, strings, text, texts,
    },
};
use crate::base::{FieldError, Object, names, status::FieldErrorKind};

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
            if client.get("timeoutSeconds").is_none_or(Value::is_null) {
                client.insert("timeoutSeconds".into(), 10800.into());
            }
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

/// The two forms of the address follow each other (`normalizeClusterIPs`).
pub(super) fn create(object: &mut Object) {
    object.set("status", json!({"loadBalancer": {}}));
    let Some(spec) = map_mut(object.as_map_mut(), "spec") else { return };
    if spec.get("clusterIPs").is_none()
        && let Some(ip) = spec.get("clusterIP").cloned()
    {
        spec.insert("clusterIPs".into(), json!([ip]));
    }
}

/// Fills in the families of addresses of a service in a cluster of IPv4 alone, and tells what cannot be had (upstream's
/// `initIPFamilyFields`).
pub fn choose_families(service: &mut Object, old: Option<&Object>) -> Vec<FieldError> {
    let value = service.to_value();
    let given = get(&value, "spec");
    if text(given, "type") == "ExternalName" {
        return Vec::new();
    }
    let headless = text(given, "clusterIP") == "None";
    let unselective = headless && given.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty);
    let before = old.map(|old| old.str_at(&["spec", "ipFamilyPolicy"])).unwrap_or_default();
    let policy = match (text(given, "ipFamilyPolicy"), before) {
        // without a selector its endpoints may be of any family
        ("", "") if unselective => "RequireDualStack",
        ("", "") => "SingleStack",
        ("", before) => before,
        (policy, _) => policy,
    };
    let mut spec = given.as_object().cloned().unwrap_or_default();
    spec.insert("ipFamilyPolicy".into(), policy.into());
    let mut errors = addresses(&Value::Object(spec.clone()), old);
    if !errors.is_empty() {
        return errors;
    }
    let (ips, mut families) = (texts(given, "clusterIPs"), texts(given, "ipFamilies"));
    let field = "spec.ipFamilyPolicy";
    if policy == "SingleStack" {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple";
        if ips.len() == 2 {
            errors.push(FieldError::invalid(field, &policy.into(), &format!("{why} cluster IPs are specified")));
        }
        if families.len() == 2 {
            errors.push(FieldError::invalid(field, &policy.into(), &format!("{why} IP families are specified")));
        }
    }
    for (i, ip) in ips.iter().enumerate().skip(families.len()).filter(|(_, ip)| **ip != "None") {
        if ip.contains(':') {
            let field = format!("spec.clusterIPs[{i}]");
            errors.push(FieldError::invalid(&field, &json!(ips), "IPv6 is not configured on this cluster"));
        } else {
            families.push("IPv4");
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if unselective {
        if families.is_empty() {
            families.push("IPv4");
        }
        if families.len() < 2 && policy != "SingleStack" {
            families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" });
        }
    } else {
        if policy == "RequireDualStack" {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid(field, &policy.into(), why));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, family)| **family != "IPv4") {
            let field = format!("spec.ipFamilies[{i}]");
            errors.push(FieldError::invalid(&field, &(*family).into(), "not configured on this cluster"));
        }
        if families.is_empty() {
            families.push("IPv4");
        }
    }
    if errors.is_empty() {
        spec.insert("ipFamilies".into(), json!(families));
        service.set("spec", spec);
    }
    errors
}

/// Judges addresses and their families (upstream's `ValidateServiceClusterIPsRelatedFields`).
fn addresses(spec: &Value, old: Option<&Object>) -> Errors {
    let mut errors = Vec::new();
    if text(spec, "type") == "ExternalName" {
        return errors;
    }
    let (ips, first, field) = (texts(spec, "clusterIPs"), text(spec, "clusterIP"), "spec.clusterIPs");
    if first.is_empty() {
        if !ips.is_empty() {
            let why = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(field, &json!(ips), why));
        }
    } else if ips.is_empty() {
        errors.push(FieldError::required(field, ""));
    } else if ips[0] != first {
        errors.push(FieldError::invalid(field, &json!(ips), "first value must match `clusterIP`"));
    }
    let mut seen = BTreeSet::new();
    for (path, family) in indexed(spec, "spec", "ipFamilies") {
        let family = family.as_str().unwrap_or_default();
        if !["IPv4", "IPv6"].contains(&family) {
            errors.push(FieldError::not_supported(&path, &family.into(), &["IPv4", "IPv6"]));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(&path, &family.into()));
        }
    }
    one_of(&mut errors, spec, "spec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], false);
    let known = old.map(|old| texts(get(&old.to_value(), "spec"), "clusterIPs").join(" ")).unwrap_or_default();
    let count = errors.len();
    for (i, address) in ips.iter().enumerate() {
        if i == 0 && *address == "None" {
            if ips.len() > 1 {
                errors.push(FieldError::invalid(field, &json!(ips), "'None' must be the first and only value"));
            }
        } else if !known.split(' ').any(|known| known == *address) {
            ip(&mut errors, address, &format!("{field}[{i}]"));
        }
    }
    let wrong = errors.len() > count;
    if ips.len() > 2 {
        errors.push(FieldError::invalid(field, &json!(ips), "may only hold up to 2 values"));
    }
    if wrong {
        return errors;
    }
    let six = |address: &str| address.contains(':');
    if ips.len() > 1 && (ips.iter().all(|ip| six(ip)) || !ips.iter().any(|ip| six(ip))) {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(field, &json!(ips), why));
    }
    if first != "None" {
        for (i, (address, family)) in ips.iter().zip(texts(spec, "ipFamilies")).enumerate() {
            if (family == "IPv4" && six(address)) || (family == "IPv6" && !six(address)) {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.push(FieldError::invalid(&format!("{field}[{i}]"), &(*address).into(), &why));
            }
        }
    }
    errors
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
    let (dropped, before_type) = (Value::Object(spec.clone()), text(&before, "type"));
    let local = |spec: &Value| text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
    let mut drop_unless = |keeps: bool, had: bool, key: &str| {
        if had && !keeps && same(get(&dropped, key), get(&before, key)) {
            spec.remove(key);
        }
    };
    let balances = |spec: &Value| text(spec, "type") == "LoadBalancer";
    drop_unless(local(&dropped), local(&before), "healthCheckNodePort");
    drop_unless(balances(&dropped), balances(&before), "allocateLoadBalancerNodePorts");
    drop_unless(balances(&dropped), balances(&before), "loadBalancerClass");
    drop_unless(accessible(&dropped), accessible(&before), "externalTrafficPolicy");
    drop_unless(needs_ip(&dropped), needs_ip(&before), "internalTrafficPolicy");
    if local(&dropped) && local(&before) {
        default_number(spec, "healthCheckNodePort", int_or_zero(&before, "healthCheckNodePort"));
    }
    if before_type == "LoadBalancer" && !balances(&dropped) {
        new.set("status", json!({"loadBalancer": {}}));
    }
}

/// Whether a service can be reached from outside the cluster.
fn accessible(spec: &Value) -> bool {
    let kind = text(spec, "type");
    matches!(kind, "LoadBalancer" | "NodePort") || kind == "ClusterIP" && !items(spec, "externalIPs").is_empty()
}

pub(super) fn validate(object: &Object) -> Errors {
    judge(object, None)
}

fn judge(object: &Object, old: Option<&Object>) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let before = old.map(Object::to_value).unwrap_or_default();
    let (spec, before) = (get(&value, "spec"), get(&before, "spec"));
    let (kind, ips) = (text(spec, "type"), texts(spec, "clusterIPs"));
    let (hints, mode) = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode");
    if let (Some(hint), Some(value)) = (object.annotation(hints), object.annotation(mode))
        && hint != value
    {
        let why = format!("must match annotations[{hints}] when both are specified");
        errors.push(FieldError::invalid(&format!("metadata.annotations[{mode}]"), &value.into(), &why));
    }
    let headless = ips.len() == 1 && ips[0] == "None";
    if items(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let why = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", &"None".into(), &why));
        }
        "ExternalName" => {
            let why = "may not be set for ExternalName services";
            for key in ["clusterIPs", "ipFamilies"].into_iter().filter(|key| !items(spec, key).is_empty()) {
                errors.push(FieldError::forbidden(&child("spec", key), why));
            }
            if has(spec, "ipFamilyPolicy") {
                errors.push(FieldError::forbidden("spec.ipFamilyPolicy", why));
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
    affinity(&mut errors, spec);
    errors.extend(addresses(spec, old));
    let known = texts(before, "externalIPs");
    for (path, address) in indexed(spec, "spec", "externalIPs") {
        let (address, count) = (address.as_str().unwrap_or_default(), errors.len());
        if !known.contains(&address) {
            ip(&mut errors, address, &path);
        }
        if errors.len() == count {
            special_address(&mut errors, address, &path);
        }
    }
    one_of(&mut errors, spec, "spec", "type", &TYPES, true);
    duplicate_ports(&mut errors, spec, kind);
    source_ranges(&mut errors, object, spec, before);
    let balances = kind == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    if has(spec, "allocateLoadBalancerNodePorts") && !balances {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", only));
    }
    balancer_class(&mut errors, spec);
    traffic(&mut errors, spec);
    errors
}

fn affinity(errors: &mut Errors, spec: &Value) {
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let field = "spec.sessionAffinityConfig.clientIP";
            let client = at(spec, &["sessionAffinityConfig", "clientIP"]);
            let seconds = int_or_zero(client, "timeoutSeconds");
            if !has(spec, "sessionAffinityConfig") {
                let why = "when session affinity type is ClientIP";
                errors.push(FieldError::required("spec.sessionAffinityConfig", why));
            } else if client.is_null() {
                errors.push(FieldError::required(field, "when session affinity type is ClientIP"));
            } else if !(1..=86400).contains(&seconds) {
                let why = "must be greater than 0 and less than 86400";
                errors.push(FieldError::invalid(&child(field, "timeoutSeconds"), &seconds.into(), why));
            }
        }
        "None" if has(spec, "sessionAffinityConfig") => {
            let why = "must not be set when session affinity is None";
            errors.push(FieldError::forbidden("spec.sessionAffinityConfig", why));
        }
        _ => {}
    }
}

/// Addresses that no endpoint can have (`ValidateEndpointIP`).
pub(super) fn special_address(errors: &mut Errors, address: &str, field: &str) {
    let Ok(parsed) = address.parse::<IpAddr>() else { return };
    let (local, local_multicast) = match parsed {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    let mut tell = |wrong: bool, why: &str| {
        if wrong {
            errors.push(FieldError::invalid(field, &address.into(), why));
        }
    };
    tell(parsed.is_unspecified(), &format!("may not be unspecified ({address})"));
    tell(parsed.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    tell(local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    tell(local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
}

fn duplicate_ports(errors: &mut Errors, spec: &Value, kind: &str) {
    for (path, port) in indexed(spec, "spec", "ports") {
        if kind == "ClusterIP" && int_or_zero(port, "nodePort") != 0 {
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
    }
    for (path, port) in indexed(spec, "spec", "ports") {
        let (protocol, number) = (text(port, "protocol"), int_or_zero(port, "port"));
        if !seen.insert((protocol, number)) {
            // Go shows a struct of its own, with what it compares by
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":\"{protocol}\",\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\
                 \"NodePort\":0}}"
            );
            let body = format!("Duplicate value: {shown}");
            errors.push(FieldError { kind: FieldErrorKind::Duplicate, field: path, body });
        }
    }
}

fn source_ranges(errors: &mut Errors, object: &Object, spec: &Value, before: &Value) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    let balances = text(spec, "type") == "LoadBalancer";
    let (ranges, field) = (texts(spec, "loadBalancerSourceRanges"), "spec.LoadBalancerSourceRanges");
    if !ranges.is_empty() {
        if !balances {
            errors.push(FieldError::forbidden(field, only));
        }
        let known: Vec<_> = texts(before, "loadBalancerSourceRanges").into_iter().map(str::trim).collect();
        for (i, range) in
            ranges.iter().map(|range| range.trim()).enumerate().filter(|(_, range)| !known.contains(range))
        {
            super::others::cidr(errors, range, &format!("{field}[{i}]"));
        }
        return;
    }
    let key = "service.beta.kubernetes.io/load-balancer-source-ranges";
    if let Some(value) = object.annotation(key) {
        let field = format!("metadata.annotations[{key}]");
        if !balances {
            errors.push(FieldError::forbidden(&field, only));
        }
        for range in value.trim().split(',').filter(|_| !value.trim().is_empty()) {
            super::others::cidr(errors, range.trim(), &field);
        }
    }
}

fn balancer_class(errors: &mut Errors, spec: &Value) {
    let field = "spec.loadBalancerClass";
    let Some(class) = get(spec, "loadBalancerClass").as_str() else { return };
    if text(spec, "type") == "LoadBalancer" {
        complain(errors, field, class, names::qualified_name(class));
    } else {
        errors.push(FieldError::forbidden(field, "may only be used when `type` is 'LoadBalancer'"));
    }
}

fn traffic(errors: &mut Errors, spec: &Value) {
    let (kind, policy) = (text(spec, "type"), text(spec, "externalTrafficPolicy"));
    if accessible(spec) {
        one_of(errors, spec, "spec", "externalTrafficPolicy", &["Cluster", "Local"], true);
    } else if !policy.is_empty() {
        let why = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", &policy.into(), why));
    }
    let (port, field) = (int_or_zero(spec, "healthCheckNodePort"), "spec.healthCheckNodePort");
    if kind == "LoadBalancer" && policy == "Local" {
        if port == 0 {
            errors.push(FieldError::required(field, ""));
        } else {
            complain_number(errors, field, port, names::port_number(port));
        }
    } else if port != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid(field, &port.into(), why));
    }
    let must = matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP");
    one_of(errors, spec, "spec", "internalTrafficPolicy", &["Cluster", "Local"], must);
    let known = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    if let Some(given) = get(spec, "trafficDistribution").as_str().filter(|given| !known.contains(given)) {
        errors.push(FieldError::not_supported("spec.trafficDistribution", &given.into(), &known));
    }
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
        let balancer = new.at(&["status", "loadBalancer"]).cloned().unwrap_or_default();
        let path = "status.loadBalancer";
        if !items(&balancer, "ingress").is_empty() && new.str_at(&["spec", "type"]) != "LoadBalancer" {
            let why = "may only be used when `spec.type` is 'LoadBalancer'";
            errors.push(FieldError::forbidden("status.loadBalancer.ingress", why));
        }
        for (path, ingress) in indexed(&balancer, path, "ingress") {
            let (address, host) = (text(ingress, "ip"), text(ingress, "hostname"));
            if !address.is_empty() {
                ip(&mut errors, address, &child(&path, "ip"));
            }
            if !host.is_empty() {
                let field = child(&path, "hostname");
                complain(&mut errors, &field, host, names::dns1123_subdomain(host));
                if host.parse::<IpAddr>().is_ok() {
                    errors.push(FieldError::invalid(&field, &host.into(), "must be a DNS name, not an IP address"));
                }
            }
        }
        return errors;
    }
    let (value, before) = (new.to_value(), old.to_value());
    let (spec, before) = (get(&value, "spec"), get(&before, "spec"));
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    let headless = |spec: &Value| texts(spec, "clusterIPs") == ["None"];
    let without_address = headless(spec) && headless(before);
    if !external(spec) && !external(before) && !without_address {
        let (ips, old_ips) = (texts(spec, "clusterIPs"), texts(before, "clusterIPs"));
        let shown = get(spec, "clusterIPs");
        if let Some(first) = old_ips.first() {
            if ips.is_empty() {
                let why = "primary clusterIP can not be unset";
                errors.push(FieldError::invalid("spec.clusterIPs[0]", shown, why));
            } else if ips[0] != *first {
                errors.push(FieldError::invalid("spec.clusterIPs[0]", shown, "may not change once set"));
            }
        }
        let (families, old_families) = (texts(spec, "ipFamilies"), texts(before, "ipFamilies"));
        if headless(spec) == headless(before)
            && let (Some(family), Some(before)) = (families.first(), old_families.first())
            && family != before
        {
            let shown = get(spec, "ipFamilies");
            errors.push(FieldError::invalid("spec.ipFamilies[0]", shown, "may not change once set"));
        }
    }
    let balances = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balances(spec) && balances(before) {
        let (class, old_class) = (get(spec, "loadBalancerClass"), get(before, "loadBalancerClass"));
        if class != old_class {
            errors.push(FieldError::invalid("spec.loadBalancerClass", class, "may not change once set"));
        }
        balancer_class(&mut errors, spec);
        let checked = |spec: &Value| text(spec, "externalTrafficPolicy") == "Local";
        if checked(spec)
            && checked(before)
            && !same(get(spec, "healthCheckNodePort"), get(before, "healthCheckNodePort"))
        {
            errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
        }
    }
    errors.extend(judge(new, Some(old)));
    errors
}
