//! Kinds of the smaller groups: networking, discovery, storage, scheduling, coordination, admission.
//!
//! Upstream: `pkg/apis/*/v1/defaults.go` and `pkg/apis/*/validation` of each group.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{
    core::keep_other_half,
    meta,
    pod::{ip, port_or_name, tolerations},
    util::{
        Errors, GoMember, child, complain, complain_number, default_number, default_to, each_mut, get, go_struct, has,
        immutable, indexed, int, int_or_zero, items, make_map, map_mut, one_of, required, same, text, texts,
    },
};
use crate::base::{FieldError, Object, names, status::FieldErrorKind};

fn spec(object: &mut Object) -> &mut Map<String, Value> {
    make_map(object.as_map_mut(), "spec")
}

fn fill(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

// Networking.

pub(super) fn default_network_policy(object: &mut Object) {
    let spec = spec(object);
    for (list, _) in [("ingress", "from"), ("egress", "to")] {
        each_mut(spec, list, |rule| each_mut(rule, "ports", |port| default_to(port, "protocol", "TCP")));
    }
    make_map(spec, "podSelector");
    if spec.get("policyTypes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

/// An address block: its address and the bits that count.
fn block(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits: u32 = bits.parse().ok().filter(|_| bits.bytes().all(|byte| byte.is_ascii_digit()))?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

/// Whether one block lies in another and is smaller.
fn inside(inner: (IpAddr, u32), outer: (IpAddr, u32)) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let mask = if outer.1 == 0 { 0 } else { u128::MAX << (128 - outer.1) };
    inner.0.is_ipv4() == outer.0.is_ipv4() && inner.1 > outer.1 && number(inner.0) & mask == number(outer.0) & mask
}

/// Judges a CIDR.
pub(super) fn cidr(errors: &mut Errors, text: &str, field: &str) {
    let why = match (block(text), super::warnings::network(text)) {
        (Some((IpAddr::V6(six), _)), _) if six.to_ipv4_mapped().is_some() => {
            "must not have an IPv4-mapped IPv6 address"
        }
        (Some((address, _)), Some((base, _))) if address != base => "must not have bits set beyond the prefix length",
        (Some(_), _) => return,
        (None, Some(_)) => "must not have leading 0s in IP or prefix length",
        (None, None) => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    };
    errors.push(FieldError::invalid(field, &text.into(), why));
}

pub(super) fn validate_network_policy(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    meta::label_selector(&mut errors, get(spec, "podSelector"), "spec.podSelector");
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in indexed(spec, "spec", list) {
            for (path, port) in indexed(rule, &path, "ports") {
                policy_port(&mut errors, port, &path);
            }
            for (path, peer) in indexed(rule, &path, peers) {
                policy_peer(&mut errors, peer, &path);
            }
        }
    }
    let types = items(spec, "policyTypes");
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", get(spec, "policyTypes"), why));
    } else {
        for (path, kind) in indexed(spec, "spec", "policyTypes") {
            if !["Egress", "Ingress"].iter().any(|known| kind == known) {
                errors.push(FieldError::not_supported(&path, kind, &["Ingress", "Egress"]));
            }
        }
    }
    errors
}

fn policy_port(errors: &mut Errors, port: &Value, path: &str) {
    one_of(errors, port, path, "protocol", &["TCP", "UDP", "SCTP"], false);
    let (number, end) = (get(port, "port"), int(port, "endPort"));
    match number {
        Value::Null => {
            if end.is_some() {
                let why = "may not be specified when `port` is not specified";
                errors.push(FieldError::invalid(&child(path, "endPort"), get(port, "endPort"), why));
            }
        }
        Value::String(_) => {
            if let Some(end) = end {
                let why = "may not be specified when `port` is non-numeric";
                errors.push(FieldError::invalid(&child(path, "endPort"), &end.into(), why));
            }
            port_or_name(errors, number, &child(path, "port"));
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            port_or_name(errors, number, &child(path, "port"));
            if let Some(end) = end {
                if end < number.as_i64().unwrap_or_default() {
                    let why = "must be greater than or equal to `port`";
                    errors.push(FieldError::invalid(&child(path, "endPort"), number, why));
                }
                complain_number(errors, &child(path, "endPort"), end, names::port_number(end));
            }
        }
    }
}

fn policy_peer(errors: &mut Errors, peer: &Value, path: &str) {
    let mut others = 0;
    for key in ["podSelector", "namespaceSelector"].into_iter().filter(|key| has(peer, key)) {
        others += 1;
        meta::label_selector(errors, get(peer, key), &child(path, key));
    }
    let ip_block = get(peer, "ipBlock");
    if !ip_block.is_null() {
        ip_block_rules(errors, ip_block, &child(path, "ipBlock"));
        if others > 0 {
            let why = "may not specify both ipBlock and another peer";
            errors.push(FieldError::forbidden(path, why));
        }
    } else if others == 0 {
        errors.push(FieldError::required(path, "must specify a peer"));
    }
}

fn ip_block_rules(errors: &mut Errors, ip_block: &Value, path: &str) {
    let outer = text(ip_block, "cidr");
    if !required(errors, ip_block, path, "cidr") {
        return;
    }
    cidr(errors, outer, &child(path, "cidr"));
    for (path, except) in indexed(ip_block, path, "except") {
        let except = except.as_str().unwrap_or_default();
        match (block(except), block(outer)) {
            (None, _) => cidr(errors, except, &path),
            (Some(inner), Some(outer)) if !inside(inner, outer) => {
                errors.push(FieldError::invalid(&path, &except.into(), "must be a strict subset of `cidr`"));
            }
            (Some(_), _) => {}
        }
    }
}

pub(super) fn validate_network_policy_update(new: &Object, _: &Object, _: &str) -> Errors {
    validate_network_policy(new)
}

pub(super) fn default_ingress(object: &mut Object) {
    make_map(make_map(object.as_map_mut(), "status"), "loadBalancer");
}

pub(super) fn create_ingress(object: &mut Object) {
    object.set("status", json!({"loadBalancer": {}}));
}

pub(super) fn validate_ingress(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    if items(spec, "rules").is_empty() && !has(spec, "defaultBackend") {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", spec, why));
    }
    if has(spec, "defaultBackend") {
        backend(&mut errors, get(spec, "defaultBackend"), "spec.defaultBackend");
    }
    for (path, rule) in indexed(spec, "spec", "rules") {
        let host = text(rule, "host");
        let field = child(&path, "host");
        if !host.is_empty() {
            if host.parse::<IpAddr>().is_ok() {
                errors.push(FieldError::invalid(&field, &host.into(), "must be a DNS name, not an IP address"));
            } else {
                host_name(&mut errors, host, &field);
            }
        }
        let http = get(rule, "http");
        if !http.is_null() && items(http, "paths").is_empty() {
            errors.push(FieldError::required(&format!("{path}.http.paths"), ""));
        }
        for (path, route) in indexed(http, &child(&path, "http"), "paths") {
            http_path(&mut errors, route, &path);
        }
    }
    let class = text(spec, "ingressClassName");
    if !class.is_empty() {
        complain(&mut errors, "spec.ingressClassName", class, names::dns1123_subdomain(class));
    }
    for (path, tls) in indexed(spec, "spec", "tls") {
        for (path, host) in indexed(tls, &path, "hosts") {
            host_name(&mut errors, host.as_str().unwrap_or_default(), &path);
        }
    }
    errors
}

fn host_name(errors: &mut Errors, host: &str, field: &str) {
    let check = if host.contains('*') { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
    complain(errors, field, host, check(host));
}

fn http_path(errors: &mut Errors, route: &Value, path: &str) {
    let (kind, at) = (text(route, "pathType"), text(route, "path"));
    let field = child(path, "path");
    match kind {
        "" => errors.push(FieldError::required(&child(path, "pathType"), "pathType must be specified")),
        "Exact" | "Prefix" => {
            if !at.starts_with('/') {
                errors.push(FieldError::invalid(&field, &at.into(), "must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|bad| at.contains(bad)) {
                let why = format!("must not contain '{bad}'");
                errors.push(FieldError::invalid(&field, &at.into(), &why));
            }
            for bad in ["/..", "/."].into_iter().filter(|bad| at.ends_with(bad)) {
                let why = format!("cannot end with '{bad}'");
                errors.push(FieldError::invalid(&field, &at.into(), &why));
            }
        }
        "ImplementationSpecific" => {
            if !at.is_empty() && !at.starts_with('/') {
                errors.push(FieldError::invalid(&field, &at.into(), "must be an absolute path"));
            }
        }
        other => {
            let known = ["Exact", "ImplementationSpecific", "Prefix"];
            errors.push(FieldError::not_supported(&child(path, "pathType"), &other.into(), &known));
        }
    }
    backend(errors, get(route, "backend"), &child(path, "backend"));
}

fn backend(errors: &mut Errors, backend: &Value, path: &str) {
    let (service, resource) = (get(backend, "service"), get(backend, "resource"));
    match (service.is_null(), resource.is_null()) {
        (false, false) => {
            let why = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(path, &"".into(), why));
        }
        (true, true) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (true, false) => {
            required(errors, resource, &format!("{path}.resource"), "kind");
            required(errors, resource, &format!("{path}.resource"), "name");
        }
        (false, true) => {
            let (whole, path, name) = (path, child(path, "service"), text(service, "name"));
            if required(errors, service, &path, "name") {
                complain(errors, &child(&path, "name"), name, names::dns1035_label(name));
            }
            let (port, path) = (get(service, "port"), child(&path, "port"));
            match (text(port, "name"), int_or_zero(port, "number")) {
                ("", 0) => errors.push(FieldError::required(whole, "port name or number is required")),
                ("", number) => {
                    complain_number(errors, &child(&path, "number"), number, names::port_number(number));
                }
                (name, 0) => complain(errors, &child(&path, "name"), name, names::port_name(name)),
                (_, _) => {
                    errors.push(FieldError::invalid(whole, &"".into(), "cannot set both port name & port number"));
                }
            }
        }
    }
}

pub(super) fn validate_ingress_update(new: &Object, _: &Object, subresource: &str) -> Errors {
    if subresource == "status" { Vec::new() } else { validate_ingress(new) }
}

pub(super) fn default_ingress_class(object: &mut Object) {
    if let Some(parameters) = map_mut(spec(object), "parameters") {
        default_to(parameters, "scope", "Cluster");
    }
}

pub(super) fn default_endpoint_slice(object: &mut Object) {
    each_mut(object.as_map_mut(), "ports", |port| {
        fill(port, "name", "");
        default_to(port, "protocol", "TCP");
    });
    for key in ["endpoints", "ports"] {
        // these lists are written even where there is none
        object.as_map_mut().entry(key).or_insert(Value::Null);
    }
    each_mut(object.as_map_mut(), "endpoints", |endpoint| {
        make_map(endpoint, "conditions");
    });
}

pub(super) fn validate_endpoint_slice(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let kind = text(&value, "addressType");
    one_of(&mut errors, &value, "", "addressType", &["FQDN", "IPv4", "IPv6"], true);
    if items(&value, "endpoints").len() > 1000 {
        errors.push(FieldError::too_many("endpoints", items(&value, "endpoints").len(), 1000));
    }
    for (path, endpoint) in indexed(&value, "", "endpoints") {
        let addresses = texts(endpoint, "addresses");
        if addresses.is_empty() {
            errors.push(FieldError::required(&child(&path, "addresses"), "must contain at least 1 address"));
        } else if addresses.len() > 100 {
            errors.push(FieldError::too_many(&child(&path, "addresses"), addresses.len(), 100));
        }
        for (i, address) in addresses.iter().enumerate() {
            let field = format!("{path}.addresses[{i}]");
            match kind {
                "IPv4" | "IPv6" => {
                    let before = errors.len();
                    ip(&mut errors, address, &field);
                    let family = address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() == (kind == "IPv4"));
                    if errors.len() == before && !family {
                        let why = format!("must be an {kind} address");
                        errors.push(FieldError::invalid(&field, &(*address).into(), &why));
                    }
                }
                "FQDN" => complain(&mut errors, &field, address, names::dns1123_subdomain(address)),
                _ => {}
            }
        }
        let host = text(endpoint, "hostname");
        if !host.is_empty() {
            complain(&mut errors, &child(&path, "hostname"), host, names::dns1123_label(host));
        }
    }
    let mut seen = Vec::new();
    for (path, port) in indexed(&value, "", "ports") {
        let name = text(port, "name");
        if !name.is_empty() {
            complain(&mut errors, &child(&path, "name"), name, names::dns1123_label(name));
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&child(&path, "name"), &name.into()));
        }
        seen.push(name);
        one_of(&mut errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"], true);
    }
    errors
}

pub(super) fn validate_endpoint_slice_update(new: &Object, old: &Object, _: &str) -> Errors {
    let mut errors = validate_endpoint_slice(new);
    let kind = |object: &Object| Value::from(object.str_at(&["addressType"]));
    immutable(&mut errors, &kind(new), &kind(old), "addressType");
    errors
}

pub(super) fn validate_ingress_class(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    let (controller, field) = (text(spec, "controller"), "spec.controller");
    if controller.len() > 250 {
        errors.push(FieldError::too_long(field, 250));
    }
    match controller.split_once('/') {
        _ if controller.is_empty() => errors.push(FieldError::required(field, "")),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            complain(&mut errors, field, domain, names::dns1123_subdomain(domain));
        }
        Some(_) | None => {
            let why = r#"must be a domain-prefixed path (such as "acme.io/foo")"#;
            errors.push(FieldError::invalid(field, &controller.into(), why));
        }
    }
    let (parameters, path) = (get(spec, "parameters"), "spec.parameters");
    if parameters.is_null() {
        return errors;
    }
    if let Some(group) = get(parameters, "apiGroup").as_str() {
        complain(&mut errors, &child(path, "apiGroup"), group, names::dns1123_subdomain(group));
    }
    for key in ["kind", "name"] {
        if required(&mut errors, parameters, path, key) {
            let name = text(parameters, key);
            complain(&mut errors, &child(path, key), name, names::path_segment(name, false));
        }
    }
    let (namespace, field) = (get(parameters, "namespace").as_str(), child(path, "namespace"));
    match (text(parameters, "scope"), namespace) {
        ("Namespace", None) => {
            errors.push(FieldError::required(&field, "`parameters.scope` is set to 'Namespace'"));
        }
        ("Namespace", Some(name)) => complain(&mut errors, &field, name, names::dns1123_label(name)),
        ("Cluster", Some(_)) => {
            errors.push(FieldError::forbidden(&field, "`parameters.scope` is set to 'Cluster'"));
        }
        ("Cluster", None) => {}
        (other, _) => {
            let known = ["Cluster", "Namespace"];
            errors.push(FieldError::not_supported(&child(path, "scope"), &other.into(), &known));
        }
    }
    errors
}

pub(super) fn validate_ingress_class_update(new: &Object, old: &Object, _: &str) -> Errors {
    let mut errors = Vec::new();
    let controller = |object: &Object| Value::from(object.str_at(&["spec", "controller"]));
    immutable(&mut errors, &controller(new), &controller(old), "spec.controller");
    errors
}

// Storage.

pub(super) fn default_storage_class(object: &mut Object) {
    default_to(object.as_map_mut(), "reclaimPolicy", "Delete");
    default_to(object.as_map_mut(), "volumeBindingMode", "Immediate");
}

pub(super) fn validate_storage_class(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    if required(&mut errors, &value, "", "provisioner") {
        let name = text(&value, "provisioner").to_lowercase();
        complain(&mut errors, "provisioner", text(&value, "provisioner"), names::qualified_name(&name));
    }
    one_of(&mut errors, &value, "", "reclaimPolicy", &["Delete", "Retain"], false);
    one_of(&mut errors, &value, "", "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], true);
    errors
}

pub(super) fn validate_storage_class_update(new: &Object, old: &Object, _: &str) -> Errors {
    let (mut errors, new, old) = (Vec::new(), new.to_value(), old.to_value());
    for key in ["parameters", "provisioner", "reclaimPolicy"] {
        if !same(get(&new, key), get(&old, key)) {
            errors.push(FieldError::forbidden(key, &format!("updates to {key} are forbidden.")));
        }
    }
    immutable(&mut errors, get(&new, "volumeBindingMode"), get(&old, "volumeBindingMode"), "volumeBindingMode");
    errors
}

pub(super) fn default_csi_driver(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "attachRequired", true);
    for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        fill(spec, key, false);
    }
    default_to(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

/// A CSI driver has no generation before its spec first changes.
pub(super) fn update_csi_driver(new: &mut Object, old: &Object, _: &str) {
    let spec = |object: &Object| object.get("spec").cloned().unwrap_or_default();
    if !same(&spec(new), &spec(old)) {
        new.metadata_mut().insert("generation".into(), (old.generation() + 1).into());
    }
}

// Flow control.

pub(super) fn default_flow_schema(object: &mut Object) {
    default_number(spec(object), "matchingPrecedence", 1000);
    make_map(object.as_map_mut(), "status");
}

pub(super) fn default_priority_level(object: &mut Object) {
    let spec = spec(object);
    for (key, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(level) = map_mut(spec, key) {
            fill(level, "nominalConcurrencyShares", shares);
            fill(level, "lendablePercent", 0);
            let response = map_mut(level, "limitResponse");
            if let Some(queuing) = response.and_then(|response| map_mut(response, "queuing")) {
                for (key, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                    default_number(queuing, key, number);
                }
            }
        }
    }
    make_map(object.as_map_mut(), "status");
}

// Scheduling, node classes, leases.

pub(super) fn default_priority_class(object: &mut Object) {
    default_to(object.as_map_mut(), "preemptionPolicy", "PreemptLowerPriority");
    fill(object.as_map_mut(), "value", 0);
}

pub(super) fn validate_priority_class(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let number = int_or_zero(&value, "value");
    let standard = match object.name() {
        "system-node-critical" => Some(2_000_001_000),
        "system-cluster-critical" => Some(2_000_000_000),
        _ => None,
    };
    if object.name().starts_with("system-") {
        let why = match standard {
            Some(wanted) if wanted == number => None,
            Some(wanted) => Some(format!("value of {} must be {wanted}", object.name())),
            None => Some(format!("{} is not a known system priority class", object.name())),
        };
        if let Some(why) = why {
            let why =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
            errors.push(FieldError::forbidden("metadata.name", &why));
        }
    } else if number > 1_000_000_000 {
        let why = "maximum allowed value of a user defined priority is 1000000000";
        errors.push(FieldError::forbidden("value", why));
    }
    one_of(&mut errors, &value, "", "preemptionPolicy", &["PreemptLowerPriority", "Never"], false);
    errors
}

pub(super) fn validate_priority_class_update(new: &Object, old: &Object, _: &str) -> Errors {
    let (mut errors, new, old) = (Vec::new(), new.to_value(), old.to_value());
    if int(&new, "value") != int(&old, "value") {
        errors.push(FieldError::forbidden("value", "may not be changed in an update."));
    }
    immutable(&mut errors, get(&new, "preemptionPolicy"), get(&old, "preemptionPolicy"), "preemptionPolicy");
    errors
}

pub(super) fn default_runtime_class(object: &mut Object) {
    if let Some(overhead) = map_mut(object.as_map_mut(), "overhead") {
        super::util::round_amounts(overhead, "podFixed");
    }
}

pub(super) fn validate_runtime_class(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let handler = text(&value, "handler");
    if required(&mut errors, &value, "", "handler") {
        complain(&mut errors, "handler", handler, names::dns1123_label(handler));
    }
    let fixed = get(get(&value, "overhead"), "podFixed");
    if !fixed.is_null() {
        let limits = json!({"limits": fixed});
        super::pod::resources::validate(&mut errors, &limits, "overhead", &[]);
    }
    let scheduling = get(&value, "scheduling");
    let selector = super::util::strings(scheduling, "nodeSelector");
    meta::label_map(&mut errors, &selector, "scheduling.nodeSelector");
    tolerations(&mut errors, scheduling, "scheduling");
    let mut seen = Vec::new();
    for (path, toleration) in indexed(scheduling, "scheduling", "tolerations") {
        const MEMBERS: [GoMember; 5] = [
            GoMember("Key", "key", "\"\"", &[]),
            GoMember("Operator", "operator", "\"\"", &[]),
            GoMember("Value", "value", "\"\"", &[]),
            GoMember("Effect", "effect", "\"\"", &[]),
            GoMember("TolerationSeconds", "tolerationSeconds", "null", &[]),
        ];
        if seen.contains(&toleration) {
            let body = format!("Duplicate value: {}", go_struct(toleration, &MEMBERS));
            errors.push(FieldError { kind: FieldErrorKind::Duplicate, field: path, body });
        }
        seen.push(toleration);
    }
    errors
}

pub(super) fn validate_runtime_class_update(new: &Object, old: &Object, _: &str) -> Errors {
    let mut errors = Vec::new();
    let handler = |object: &Object| Value::from(object.str_at(&["handler"]));
    immutable(&mut errors, &handler(new), &handler(old), "handler");
    errors
}

pub(super) fn default_lease(object: &mut Object) {
    spec(object);
}

pub(super) fn validate_lease(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", &seconds.into(), "must be greater than 0"));
    }
    if let Some(count) = int(spec, "leaseTransitions").filter(|count| *count < 0) {
        let why = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.leaseTransitions", &count.into(), why));
    }
    errors
}

pub(super) fn validate_lease_update(new: &Object, _: &Object, _: &str) -> Errors {
    validate_lease(new)
}

// Admission configurations.

fn default_rules(parent: &mut Map<String, Value>, key: &str) {
    each_mut(parent, key, |rule| default_to(rule, "scope", "*"));
}

fn default_webhook(hook: &mut Map<String, Value>, mutating: bool) {
    default_to(hook, "failurePolicy", "Fail");
    default_to(hook, "matchPolicy", "Equivalent");
    make_map(hook, "namespaceSelector");
    make_map(hook, "objectSelector");
    fill(hook, "timeoutSeconds", 10);
    if mutating {
        default_to(hook, "reinvocationPolicy", "Never");
    }
    default_rules(hook, "rules");
    if let Some(service) = map_mut(hook, "clientConfig").and_then(|client| map_mut(client, "service")) {
        fill(service, "port", 443);
    }
}

pub(super) fn default_validating_webhooks(object: &mut Object) {
    each_mut(object.as_map_mut(), "webhooks", |hook| default_webhook(hook, false));
}

pub(super) fn default_mutating_webhooks(object: &mut Object) {
    each_mut(object.as_map_mut(), "webhooks", |hook| default_webhook(hook, true));
}

fn default_match(resources: &mut Map<String, Value>) {
    default_to(resources, "matchPolicy", "Equivalent");
    make_map(resources, "namespaceSelector");
    make_map(resources, "objectSelector");
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

pub(super) fn default_mutating_policy(object: &mut Object) {
    let spec = spec(object);
    default_to(spec, "failurePolicy", "Fail");
    if let Some(resources) = map_mut(spec, "matchConstraints") {
        default_match(resources);
    }
}

pub(super) fn default_policy(object: &mut Object) {
    default_mutating_policy(object);
    make_map(object.as_map_mut(), "status");
}

pub(super) fn create_policy(object: &mut Object) {
    object.set("status", json!({}));
}

pub(super) fn default_policy_binding(object: &mut Object) {
    if let Some(resources) = map_mut(spec(object), "matchResources") {
        default_match(resources);
    }
}

/// Kinds whose status is written through a door of its own.
pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    keep_other_half(new, old, subresource);
}
