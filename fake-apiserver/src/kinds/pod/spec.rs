//! The spec of a pod or pod template as a whole: scheduling, DNS, security context, names.
//!
//! Upstream: `ValidatePodSpec` and what it calls.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    super::{
        meta,
        util::{
            Errors, child, complain, flag, get, has, indexed, int, int_or_zero, items, one_of, strings, text, texts,
        },
    },
    containers::{self, Around},
    resources, volumes,
};
use crate::base::{
    FieldError, Object,
    names::{self, range_error},
};

/// Judges a new pod.
pub(in super::super) fn validate(object: &Object) -> Errors {
    let value = object.to_value();
    let mut errors = whole(&value);
    if !items(get(&value, "spec"), "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    errors
}

/// Judges a pod's annotations and spec.
pub(super) fn whole(pod: &Value) -> Errors {
    let (mut errors, spec) = (Vec::new(), get(pod, "spec"));
    annotations(&mut errors, get(pod, "metadata"), spec, "metadata.annotations");
    validate_spec(&mut errors, spec, "spec", text(get(pod, "metadata"), "name"), true);
    if text(spec, "serviceAccountName").is_empty() {
        for (path, volume) in indexed(spec, "spec", "volumes") {
            for (path, source) in indexed(get(volume, "projected"), &child(&path, "projected"), "sources") {
                if has(source, "serviceAccountToken") {
                    let why = "must not be specified when serviceAccountName is not set";
                    errors.push(FieldError::forbidden(&child(&path, "serviceAccountToken"), why));
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for (path, container) in indexed(spec, "spec", list) {
            containers::image_space(&mut errors, container, &path);
        }
    }
    errors
}

fn annotations(errors: &mut Errors, metadata: &Value, spec: &Value, path: &str) {
    let annotations = get(metadata, "annotations");
    let mirror = "kubernetes.io/config.mirror";
    if has(annotations, mirror) && text(spec, "nodeName").is_empty() {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&format!("{path}[{mirror}]"), get(annotations, mirror), why));
    }
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = get(annotations, cost).as_str()
        && (value.parse::<i32>().is_err() || value.starts_with('+') || value.len() > 1 && value.starts_with('0'))
    {
        let why = "must be a 32bit integer";
        errors.push(FieldError::invalid(&format!("{path}[{cost}]"), &value.into(), why));
    }
}

/// Judges a pod template of another kind.
pub(in super::super) fn validate_template(errors: &mut Errors, template: &Value, path: &str) {
    let metadata = get(template, "metadata");
    meta::labels(errors, metadata, path);
    meta::annotations(errors, metadata, path);
    annotations(errors, metadata, get(template, "spec"), &child(path, "annotations"));
    let spec = get(template, "spec");
    validate_spec(errors, spec, &child(path, "spec"), "", false);
    if !items(spec, "ephemeralContainers").is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&format!("{path}.spec.ephemeralContainers"), why));
    }
}

/// Judges a pod's spec; `pod` is its name, `""` in a template.
fn validate_spec(errors: &mut Errors, spec: &Value, path: &str, pod: &str, is_pod: bool) {
    if int(spec, "terminationGracePeriodSeconds").is_none() {
        errors.push(FieldError::required(&child(path, "terminationGracePeriodSeconds"), ""));
    }
    let volumes = volumes::validate(errors, spec, path, pod);
    let claims = items(spec, "resourceClaims").iter().map(|claim| text(claim, "name"));
    let claims = claims.filter(|name| !name.is_empty()).collect();
    resource_claims(errors, spec, path);
    containers::validate(errors, &Around { spec, volumes, claims }, path);
    if has(spec, "resources") {
        resources::validate(errors, get(spec, "resources"), &child(path, "resources"), &[]);
    }
    if flag(spec, "hostNetwork") {
        for (path, container) in indexed(spec, path, "containers") {
            for (path, port) in indexed(container, &path, "ports") {
                let (host, number) = (int_or_zero(port, "hostPort"), int_or_zero(port, "containerPort"));
                if (is_pod || host != 0) && host != number {
                    let why = "must match `containerPort` when `hostNetwork` is true";
                    errors.push(FieldError::invalid(&child(&path, "hostPort"), &host.into(), why));
                }
            }
        }
    }
    one_of(errors, spec, path, "restartPolicy", &["Always", "OnFailure", "Never"], true);
    one_of(errors, spec, path, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"], true);
    meta::label_map(errors, &strings(spec, "nodeSelector"), &child(path, "nodeSelector"));
    security(errors, spec, path);
    affinity(errors, get(spec, "affinity"), &child(path, "affinity"));
    dns(errors, spec, &child(path, "dnsConfig"));
    for (path, gate) in indexed(spec, path, "readinessGates") {
        let kind = text(gate, "conditionType");
        complain(errors, &child(&path, "conditionType"), kind, names::qualified_name(kind));
    }
    let mut gates = BTreeSet::new();
    for (path, gate) in indexed(spec, path, "schedulingGates") {
        let name = text(gate, "name");
        complain(errors, &path, name, names::qualified_name(name));
        if !gates.insert(name) {
            errors.push(FieldError::duplicate(&path, &name.into()));
        }
    }
    spread(errors, spec, path);
    if get(spec, "hostUsers").as_bool() == Some(false) {
        for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if flag(spec, key) {
                errors.push(FieldError::forbidden(&child(path, shown), "when `hostUsers` is false"));
            }
        }
    }
    named(errors, spec, path, "serviceAccountName", names::dns1123_subdomain);
    named(errors, spec, path, "nodeName", names::dns1123_subdomain);
    if let Some(seconds) = int(spec, "activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = range_error(1, i32::MAX.into());
        errors.push(FieldError::invalid(&child(path, "activeDeadlineSeconds"), &seconds.into(), &why));
    }
    named(errors, spec, path, "hostname", names::dns1123_label);
    named(errors, spec, path, "subdomain", names::dns1123_label);
    tolerations(errors, spec, path);
    for (path, alias) in indexed(spec, path, "hostAliases") {
        ip(errors, text(alias, "ip"), &child(&path, "ip"));
        for (path, name) in indexed(alias, &path, "hostnames") {
            let name = name.as_str().unwrap_or_default();
            complain(errors, &path, name, names::dns1123_subdomain(name));
        }
    }
    named(errors, spec, path, "priorityClassName", names::dns1123_subdomain);
    if let Some(name) = get(spec, "runtimeClassName").as_str() {
        complain(errors, &child(path, "runtimeClassName"), name, names::dns1123_subdomain(name));
    }
    one_of(errors, spec, path, "preemptionPolicy", &["PreemptLowerPriority", "Never"], false);
    if has(spec, "overhead") {
        let limits = serde_json::json!({"limits": get(spec, "overhead")});
        resources::validate(errors, &limits, &child(path, "overhead"), &[]);
    }
    let os = get(spec, "os");
    if !os.is_null() {
        operating_system(errors, spec, os, path);
    }
}

fn named(errors: &mut Errors, spec: &Value, path: &str, key: &str, check: fn(&str) -> names::Complaints) {
    let name = text(spec, key);
    if !name.is_empty() {
        complain(errors, &child(path, key), name, check(name));
    }
}

/// Judges an IP address.
pub(in super::super) fn ip(errors: &mut Errors, address: &str, field: &str) {
    if address.parse::<IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid(field, &address.into(), why));
    }
}

fn operating_system(errors: &mut Errors, spec: &Value, os: &Value, path: &str) {
    let (name, field) = (text(os, "name"), child(path, "os"));
    match name {
        "" => errors.push(FieldError::required(&child(&field, "name"), "cannot be empty")),
        "linux" => {
            if has(get(spec, "securityContext"), "windowsOptions") {
                let field = format!("{path}.securityContext.windowsOptions");
                errors.push(FieldError::forbidden(&field, "windows options cannot be set for a linux pod"));
            }
        }
        "windows" => {}
        other => errors.push(FieldError::not_supported(&field, &other.into(), &["linux", "windows"])),
    }
}

fn resource_claims(errors: &mut Errors, spec: &Value, path: &str) {
    let mut names = BTreeSet::new();
    for (path, claim) in indexed(spec, path, "resourceClaims") {
        let name = text(claim, "name");
        let field = child(&path, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(&field, &name.into()));
        } else {
            complain(errors, &field, name, names::dns1123_label(name));
        }
        let why = match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            (false, false) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            (true, false) | (false, true) => continue,
        };
        errors.push(FieldError::invalid(&path, claim, why));
    }
}

fn security(errors: &mut Errors, spec: &Value, path: &str) {
    let (context, field) = (get(spec, "securityContext"), child(path, "securityContext"));
    containers::user(errors, context, &field, "fsGroup");
    containers::user(errors, context, &field, "runAsUser");
    containers::user(errors, context, &field, "runAsGroup");
    for (path, group) in indexed(context, &field, "supplementalGroups") {
        let max = i64::from(i32::MAX);
        if let Some(id) = group.as_i64().filter(|id| !(0..=max).contains(id)) {
            errors.push(FieldError::invalid(&path, &id.into(), &range_error(0, max)));
        }
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&child(path, "shareProcessNamespace"), &true.into(), why));
    }
    sysctls(errors, context, spec, &field);
    one_of(errors, context, &field, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], false);
    containers::profile(errors, context, &field, "seccompProfile");
    containers::profile(errors, context, &field, "appArmorProfile");
    one_of(errors, context, &field, "supplementalGroupsPolicy", &["Merge", "Strict"], false);
    one_of(errors, context, &field, "seLinuxChangePolicy", &["MountOption", "Recursive"], false);
}

fn sysctls(errors: &mut Errors, context: &Value, spec: &Value, path: &str) {
    const REGEX: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?([\\./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let part = |text: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(text.chars().next())
            && edge(text.chars().last())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
    };
    let mut names = BTreeSet::new();
    for (path, sysctl) in indexed(context, path, "sysctls") {
        let (name, field) = (text(sysctl, "name"), child(&path, "name"));
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else if name.len() > 253 || !name.split(['.', '/']).all(part) {
            let why = format!("must have at most 253 characters and match regex ^{REGEX}$");
            errors.push(FieldError::invalid(&field, &name.into(), &why));
        } else if !names.insert(name) {
            errors.push(FieldError::duplicate(&field, &name.into()));
        }
        let dotted = name.replace('/', ".");
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(&field, &name.into(), "may not be specified when 'hostNetwork' is true"));
        }
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted.starts_with("fs.mqueue.")
            || dotted == "kernel.sem";
        if flag(spec, "hostIPC") && ipc {
            errors.push(FieldError::invalid(&field, &name.into(), "may not be specified when 'hostIPC' is true"));
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn affinity(errors: &mut Errors, affinity: &Value, path: &str) {
    let (node, node_path) = (get(affinity, "nodeAffinity"), child(path, "nodeAffinity"));
    if has(node, REQUIRED) {
        node_selector(errors, get(node, REQUIRED), &child(&node_path, REQUIRED));
    }
    for (path, term) in indexed(node, &node_path, PREFERRED) {
        weight(errors, term, &path);
        node_term(errors, get(term, "preference"), &child(&path, "preference"));
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (get(affinity, key), child(path, key));
        for (path, term) in indexed(terms, &path, REQUIRED) {
            pod_term(errors, term, &path);
        }
        for (path, term) in indexed(terms, &path, PREFERRED) {
            weight(errors, term, &path);
            pod_term(errors, get(term, "podAffinityTerm"), &child(&path, "podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Errors, term: &Value, path: &str) {
    let weight = int_or_zero(term, "weight");
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&child(path, "weight"), &weight.into(), "must be in the range 1-100"));
    }
}

/// Judges a `NodeSelector`.
pub(in super::super) fn node_selector(errors: &mut Errors, selector: &Value, path: &str) {
    if items(selector, "nodeSelectorTerms").is_empty() {
        let why = "must have at least one node selector term";
        errors.push(FieldError::required(&child(path, "nodeSelectorTerms"), why));
    }
    for (path, term) in indexed(selector, path, "nodeSelectorTerms") {
        node_term(errors, term, &path);
    }
}

fn node_term(errors: &mut Errors, term: &Value, path: &str) {
    for (path, requirement) in indexed(term, path, "matchExpressions") {
        let (values, field) = (items(requirement, "values").len(), child(&path, "values"));
        match text(requirement, "operator") {
            "In" | "NotIn" if values == 0 => {
                errors.push(FieldError::required(&field, "must be specified when `operator` is 'In' or 'NotIn'"))
            }
            "Exists" | "DoesNotExist" if values > 0 => errors.push(FieldError::forbidden(
                &field,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Gt" | "Lt" if values != 1 => errors
                .push(FieldError::required(&field, "must be specified single value when `operator` is 'Lt' or 'Gt'")),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                let why = "not a valid selector operator";
                errors.push(FieldError::invalid(&child(&path, "operator"), &other.into(), why));
            }
        }
        let key = text(requirement, "key");
        complain(errors, &child(&path, "key"), key, names::qualified_name(key));
    }
    for (path, requirement) in indexed(term, path, "matchFields") {
        match text(requirement, "operator") {
            "In" | "NotIn" => {
                if items(requirement, "values").len() != 1 {
                    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.push(FieldError::required(&child(&path, "values"), why));
                }
            }
            other => {
                let why = "not a valid selector operator";
                errors.push(FieldError::invalid(&child(&path, "operator"), &other.into(), why));
            }
        }
        let key = text(requirement, "key");
        if key == "metadata.name" {
            for (path, name) in indexed(requirement, &path, "values") {
                let name = name.as_str().unwrap_or_default();
                complain(errors, &path, name, names::dns1123_subdomain(name));
            }
        } else {
            let why = "not a valid field selector key";
            errors.push(FieldError::invalid(&child(&path, "key"), &key.into(), why));
        }
    }
}

fn pod_term(errors: &mut Errors, term: &Value, path: &str) {
    meta::label_selector(errors, get(term, "labelSelector"), &child(path, "labelSelector"));
    meta::label_selector(errors, get(term, "namespaceSelector"), &child(path, "namespaceSelector"));
    for name in texts(term, "namespaces") {
        complain(errors, &child(path, "namespace"), name, names::dns1123_label(name));
    }
    let (key, field) = (text(term, "topologyKey"), child(path, "topologyKey"));
    if key.is_empty() {
        errors.push(FieldError::required(&field, "can not be empty"));
    }
    complain(errors, &field, key, names::qualified_name(key));
}

fn dns(errors: &mut Errors, spec: &Value, path: &str) {
    let config = get(spec, "dnsConfig");
    let servers = texts(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(&child(path, "nameservers"), why));
            return;
        }
    }
    if servers.len() > 3 {
        let why = "must not have more than 3 nameservers";
        errors.push(FieldError::invalid(&child(path, "nameservers"), get(config, "nameservers"), why));
    }
    for (i, server) in servers.iter().enumerate() {
        ip(errors, server, &format!("{path}.nameservers[{i}]"));
    }
    let searches = texts(config, "searches");
    if searches.len() > 32 {
        let why = "must not have more than 32 search paths";
        errors.push(FieldError::invalid(&child(path, "searches"), get(config, "searches"), why));
    }
    if searches.join(" ").len() > 2048 {
        let why = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(FieldError::invalid(&child(path, "searches"), get(config, "searches"), why));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        // underscores have been allowed since 1.34
        let complaints = names::dns1123_subdomain(&search.replace('_', "a"));
        complain(errors, &format!("{path}.searches[{i}]"), search, complaints);
    }
    for (path, option) in indexed(config, path, "options") {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(&path, "must not be empty"));
        }
    }
}

fn spread(errors: &mut Errors, spec: &Value, path: &str) {
    let mut seen = BTreeSet::new();
    for (path, constraint) in indexed(spec, path, "topologySpreadConstraints") {
        let skew = int_or_zero(constraint, "maxSkew");
        if skew <= 0 {
            errors.push(FieldError::invalid(&child(&path, "maxSkew"), &skew.into(), "must be greater than zero"));
        }
        let (key, otherwise) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if key.is_empty() {
            errors.push(FieldError::required(&child(&path, "topologyKey"), "can not be empty"));
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&otherwise) {
            let known = ["DoNotSchedule", "ScheduleAnyway"];
            errors.push(FieldError::not_supported(&child(&path, "whenUnsatisfiable"), &otherwise.into(), &known));
        }
        if !seen.insert((key, otherwise)) {
            let pair = format!("{{{key}, {otherwise}}}");
            errors.push(FieldError::duplicate(&format!("{path}.{{topologyKey, whenUnsatisfiable}}"), &pair.into()));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            let field = child(&path, "minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(&field, &domains.into(), "must be greater than zero"));
            }
            if otherwise != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {otherwise}");
                errors.push(FieldError::invalid(&field, &domains.into(), &why));
            }
        }
        one_of(errors, constraint, &path, "nodeAffinityPolicy", &["Honor", "Ignore"], false);
        one_of(errors, constraint, &path, "nodeTaintsPolicy", &["Honor", "Ignore"], false);
        meta::label_selector(errors, get(constraint, "labelSelector"), &child(&path, "labelSelector"));
    }
}

/// Judges tolerations.
pub(in super::super) fn tolerations(errors: &mut Errors, spec: &Value, path: &str) {
    for (path, toleration) in indexed(spec, path, "tolerations") {
        let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        let field = child(&path, "operator");
        if !key.is_empty() {
            complain(errors, &child(&path, "key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&field, &operator.into(), why));
        }
        let effect = text(toleration, "effect");
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&child(&path, "effect"), &effect.into(), why));
        }
        match operator {
            "Equal" | "" => {
                let complaints = names::label_value(value);
                if !complaints.is_empty() {
                    errors.push(FieldError::invalid(&field, &value.into(), &complaints.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let why = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&field, toleration, why));
                }
            }
            other => errors.push(FieldError::not_supported(&field, &other.into(), &["Equal", "Exists"])),
        }
        one_of(errors, toleration, &path, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], false);
    }
}
