//! The spec of a pod or pod template as a whole: scheduling, DNS, security context, names.
//!
//! Upstream: `ValidatePodSpec` and what it calls.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::{
    super::{
        meta,
        util::{
            Errors, GoMember, child, complain, flag, get, go_struct, has, indexed, int, int_or_zero, items, one_of,
            strings, text, texts,
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
    let spec = get(&value, "spec");
    if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", why));
    }
    profiles_agree(&mut errors, &value);
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

/// Judges the annotations that say how a pod runs.
pub(super) fn annotations(errors: &mut Errors, metadata: &Value, spec: &Value, path: &str) {
    let annotations = get(metadata, "annotations");
    let mirror = "kubernetes.io/config.mirror";
    if has(annotations, mirror) && text(spec, "nodeName").is_empty() {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&format!("{path}[{mirror}]"), get(annotations, mirror), why));
    }
    profile_annotations(errors, metadata, spec, path);
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = get(annotations, cost).as_str()
        && (value.parse::<i32>().is_err() || value.starts_with('+') || value.len() > 1 && value.starts_with('0'))
    {
        let why = "must be a 32bit integer";
        errors.push(FieldError::invalid(&format!("{path}[{cost}]"), &value.into(), why));
    }
}

/// Annotations that stand for seccomp and AppArmor profiles.
fn profile_annotations(errors: &mut Errors, metadata: &Value, spec: &Value, path: &str) {
    const SECCOMP: [&str; 2] =
        ["seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"];
    let annotations = strings(metadata, "annotations");
    for (key, value) in annotations.iter().filter(|(key, _)| *key == SECCOMP[0] || key.starts_with(SECCOMP[1])) {
        let field = format!("{path}.{key}");
        match value.strip_prefix("localhost/") {
            Some(file) => volumes::local_path(errors, file, &field),
            None if ["runtime/default", "docker/default", "unconfined"].contains(&value.as_str()) => {}
            None => {
                errors.push(FieldError::invalid(&field, &value.as_str().into(), "must be a valid seccomp profile"));
            }
        }
    }
    for (key, value) in &annotations {
        let Some(name) = key.strip_prefix(super::warnings::ARMOR) else { continue };
        let field = format!("{path}[{key}]");
        let mut lists = super::CONTAINER_LISTS.iter().flat_map(|list| items(spec, list));
        if !lists.any(|container| text(container, "name") == name) {
            errors.push(FieldError::invalid(&field, &name.into(), "container not found"));
        }
        let known = ["", "runtime/default", "unconfined"].contains(&value.as_str()) || value.starts_with("localhost/");
        if !known {
            let why = format!("invalid AppArmor profile name: {}", crate::base::status::go_quote(value));
            errors.push(FieldError::invalid(&field, &value.as_str().into(), &why));
        }
    }
}

/// On create, annotations must not say another seccomp or AppArmor profile than the fields.
fn profiles_agree(errors: &mut Errors, pod: &Value) {
    let annotations = strings(get(pod, "metadata"), "annotations");
    let spec = get(pod, "spec");
    let mut compare = |annotation: Option<&String>, profile: &Value, path: &str, noun: &str| {
        let (Some(annotation), false) = (annotation, profile.is_null()) else { return };
        let file = annotation.strip_prefix("localhost/");
        let agrees = match text(profile, "type") {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default" || noun == "seccomp" && annotation == "docker/default",
            "Localhost" => file.is_some(),
            _ => true,
        };
        if !agrees {
            let why = format!("{noun} type in annotation and field must match");
            errors.push(FieldError::forbidden(&child(path, "type"), &why));
        } else if text(profile, "type") == "Localhost" && file != get(profile, "localhostProfile").as_str() {
            let why = format!("{noun} profile in annotation and field must match");
            errors.push(FieldError::forbidden(&child(path, "localhostProfile"), &why));
        }
    };
    let context = get(spec, "securityContext");
    let of_pod = annotations.get("seccomp.security.alpha.kubernetes.io/pod");
    compare(of_pod, get(context, "seccompProfile"), "spec.securityContext.seccompProfile", "seccomp");
    let all = || {
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        lists.into_iter().flat_map(|list| indexed(spec, "spec", list))
    };
    for (path, container) in all() {
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", text(container, "name"));
        let profile = get(get(container, "securityContext"), "seccompProfile");
        compare(annotations.get(&key), profile, &format!("{path}.securityContext.seccompProfile"), "seccomp");
    }
    if text(get(spec, "os"), "name") == "windows" {
        return;
    }
    for (path, container) in all() {
        let key = format!("{}{}", super::warnings::ARMOR, text(container, "name"));
        let own = get(get(container, "securityContext"), "appArmorProfile");
        let profile = if own.is_null() { get(context, "appArmorProfile") } else { own };
        compare(annotations.get(&key), profile, &format!("{path}.securityContext.appArmorProfile"), "apparmor");
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
    let claims: Vec<&str> = claims.filter(|name| !name.is_empty()).collect();
    resource_claims(errors, spec, path);
    containers::validate(errors, &Around { spec, volumes, claims: claims.clone() }, path);
    if has(spec, "resources") {
        resources::validate_whole(errors, spec, &claims, &child(path, "resources"));
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
    file_keys(errors, spec, path);
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
    if let Some(name) = get(spec, "hostnameOverride").as_str() {
        let field = child(path, "hostnameOverride");
        for key in ["setHostnameAsFQDN", "hostNetwork"].into_iter().filter(|key| flag(spec, key)) {
            errors.push(FieldError::forbidden(&field, &format!("may not be specified when {key} is true")));
        }
        if name.len() > 64 {
            errors.push(FieldError::too_long(&field, 64));
        }
        complain(errors, &field, name, names::dns1123_subdomain(name));
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
    host_processes(errors, spec, path);
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
    let why = match (address.parse::<IpAddr>(), super::super::warnings::sloppy(address)) {
        (Ok(IpAddr::V6(six)), _) if six.to_ipv4_mapped().is_some() => "must not be an IPv4-mapped IPv6 address",
        (Ok(_), _) => return,
        (Err(_), Some(_)) => "must not have leading 0s",
        (Err(_), None) => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
    };
    errors.push(FieldError::invalid(field, &address.into(), why));
}

/// Whether a search path of DNS is one: like a subdomain, with underscores.
fn search_path(search: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let part = |part: &str| {
        let part = part.strip_prefix('_').unwrap_or(part);
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        edge(part.chars().next()) && edge(part.chars().last()) && part.chars().all(inner)
    };
    search.split('.').all(part)
}

/// Files that variables are read from lie in an `emptyDir` of the pod.
fn file_keys(errors: &mut Errors, spec: &Value, path: &str) {
    for list in super::CONTAINER_LISTS {
        for (path, container) in indexed(spec, path, list) {
            for (path, variable) in indexed(container, &path, "env") {
                let reference = get(get(variable, "valueFrom"), "fileKeyRef");
                if reference.is_null() {
                    continue;
                }
                let (name, field) = (text(reference, "volumeName"), format!("{path}.valueFrom.fileKeyRef.volumeName"));
                match items(spec, "volumes").iter().rfind(|volume| text(volume, "name") == name) {
                    None => errors.push(FieldError::not_found(&field, &name.into())),
                    Some(volume) if !has(volume, "emptyDir") => {
                        let why = "referenced volume must be of type emptyDir";
                        errors.push(FieldError::invalid(&field, &name.into(), why));
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// What a Windows pod cannot have (`validateWindows`).
fn windows(errors: &mut Errors, spec: &Value, path: &str) {
    const WHY: &str = "cannot be set for a windows pod";
    let context = get(spec, "securityContext");
    let mut refuse = |set: bool, field: &str| {
        if set {
            errors.push(FieldError::forbidden(field, WHY));
        }
    };
    let of_context = |key: &str| format!("{path}.securityContext.{key}");
    for key in ["appArmorProfile", "seLinuxOptions"] {
        refuse(has(context, key), &of_context(key));
    }
    refuse(has(spec, "hostUsers"), &child(path, "hostUsers"));
    for key in ["hostPID", "hostIPC"] {
        refuse(flag(spec, key), &child(path, key));
    }
    for key in ["seccompProfile", "fsGroup", "fsGroupChangePolicy"] {
        refuse(has(context, key), &of_context(key));
    }
    refuse(!items(context, "sysctls").is_empty(), &of_context("sysctls"));
    refuse(has(spec, "shareProcessNamespace"), &child(path, "shareProcessNamespace"));
    for key in ["runAsUser", "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy"] {
        refuse(has(context, key), &of_context(key));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (path, container) in indexed(spec, path, list) {
            let (context, path) = (get(container, "securityContext"), child(&path, "securityContext"));
            for key in [
                "appArmorProfile",
                "seLinuxOptions",
                "seccompProfile",
                "capabilities",
                "readOnlyRootFilesystem",
                "privileged",
                "allowPrivilegeEscalation",
                "procMount",
                "runAsUser",
                "runAsGroup",
            ] {
                refuse(has(context, key), &child(&path, key));
            }
        }
    }
}

/// Containers that run as the host's processes (`validateWindowsHostProcessPod`).
fn host_processes(errors: &mut Errors, spec: &Value, path: &str) {
    let asked = |of: &Value| get(get(get(of, "securityContext"), "windowsOptions"), "hostProcess").as_bool();
    let (pod, mut all, mut of_host) = (asked(spec), 0, 0);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (path, container) in indexed(spec, path, list) {
            let own = asked(container);
            all += 1;
            of_host += i32::from(own.or(pod) == Some(true));
            if let (Some(pod), Some(own)) = (pod, own)
                && pod != own
            {
                let field = format!("{path}.securityContext.windowsOptions.hostProcess");
                let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                errors.push(FieldError::invalid(&field, &own.into(), &why));
            }
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, &"".into(), why));
    }
    if !flag(spec, "hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(&child(path, "hostNetwork"), &false.into(), why));
    }
}

/// Labels of the pod that a term takes over (`ValidateMatchLabelKeysAndMismatchLabelKeys`).
fn own_label_keys(errors: &mut Errors, term: &Value, path: &str) {
    let selector = get(term, "labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        if !items(term, list).is_empty() && selector.is_null() {
            let why = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(&child(path, list), why));
        }
        for (path, key) in indexed(term, path, list) {
            let key = key.as_str().unwrap_or_default();
            complain(errors, &path, key, names::qualified_name(key));
        }
    }
    let others = texts(term, "mismatchLabelKeys");
    for (path, key) in indexed(term, path, "matchLabelKeys") {
        if others.iter().any(|other| key == other) {
            errors.push(FieldError::invalid(&path, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}

fn operating_system(errors: &mut Errors, spec: &Value, os: &Value, path: &str) {
    let (name, field) = (text(os, "name"), child(path, "os"));
    match name {
        "" => errors.push(FieldError::required(&child(&field, "name"), "")),
        "linux" => {
            if has(get(spec, "securityContext"), "windowsOptions") {
                let field = format!("{path}.securityContext.windowsOptions");
                errors.push(FieldError::forbidden(&field, "windows options cannot be set for a linux pod"));
            }
        }
        "windows" => windows(errors, spec, path),
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
            (true, false) | (false, true) => {
                for key in ["resourceClaimName", "resourceClaimTemplateName"] {
                    if let Some(name) = get(claim, key).as_str() {
                        complain(errors, &child(&path, key), name, names::dns1123_subdomain(name));
                    }
                }
                continue;
            }
        };
        const MEMBERS: [GoMember; 3] = [
            GoMember("Name", "name", "\"\"", &[]),
            GoMember("ResourceClaimName", "resourceClaimName", "null", &[]),
            GoMember("ResourceClaimTemplateName", "resourceClaimTemplateName", "null", &[]),
        ];
        errors.push(FieldError::invalid_shown(&path, &go_struct(claim, &MEMBERS), why));
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
        errors.push(FieldError::invalid(&child(&field, "shareProcessNamespace"), &true.into(), why));
    }
    sysctls(errors, context, spec, &field);
    one_of(errors, context, &field, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], false);
    containers::profile(errors, context, &field, "seccompProfile");
    containers::profile(errors, context, &field, "appArmorProfile");
    one_of(errors, context, &field, "supplementalGroupsPolicy", &["Merge", "Strict"], false);
    let change = text(context, "seLinuxChangePolicy");
    if !["", "Recursive"].contains(&change) {
        // the other values are of a feature that is off
        errors.push(FieldError::not_supported(&child(&field, "seLinuxChangePolicy"), &change.into(), &["Recursive"]));
    }
    containers::windows_options(errors, get(context, "windowsOptions"), &child(&field, "windowsOptions"));
}

fn sysctls(errors: &mut Errors, context: &Value, spec: &Value, path: &str) {
    const REGEX: &str = "([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
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
        let (required, path) = (get(node, REQUIRED), child(&node_path, REQUIRED));
        node_selector(errors, required, &path);
    }
    for (path, term) in indexed(node, &node_path, PREFERRED) {
        weight(errors, term, &path);
        node_term(errors, get(term, "preference"), &child(&path, "preference"), false);
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
        node_term(errors, term, &path, true);
    }
}

/// Judges a term; a `strict` one may only have values that a label can have.
fn node_term(errors: &mut Errors, term: &Value, path: &str, strict: bool) {
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
        for (path, value) in indexed(requirement, &path, "values").filter(|_| strict) {
            let value = value.as_str().unwrap_or_default();
            complain(errors, &path, value, names::label_value(value));
        }
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
    own_label_keys(errors, term, path);
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
        if !search_path(search) {
            const REGEX: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
            let why = format!(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
                 must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '{REGEX}')"
            );
            errors.push(FieldError::invalid(&format!("{path}.searches[{i}]"), &search.into(), &why));
        } else if search.len() > 253 {
            let why = "must be no more than 253 characters";
            errors.push(FieldError::invalid(&format!("{path}.searches[{i}]"), &search.into(), why));
        }
    }
    for (path, option) in indexed(config, path, "options") {
        if text(option, "name").is_empty() {
            errors.push(FieldError::required(&path, "must not be empty"));
        }
    }
}

fn spread(errors: &mut Errors, spec: &Value, path: &str) {
    for (at, (path, constraint)) in indexed(spec, path, "topologySpreadConstraints").enumerate() {
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
        // told of at the first of the two
        let later = items(spec, "topologySpreadConstraints").iter().skip(at + 1);
        let same = |other: &Value| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == otherwise;
        if later.into_iter().any(same) {
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
        if !items(constraint, "matchLabelKeys").is_empty() && get(constraint, "labelSelector").is_null() {
            let why = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(&child(&path, "matchLabelKeys"), why));
        }
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
                    errors.push(FieldError::invalid(&field, &value.into(), why));
                }
            }
            other @ ("Lt" | "Gt") => {
                let known = ["Equal", "Exists", "Lt", "Gt"]; // the last two are of a feature that is off
                errors.push(FieldError::not_supported(&field, &other.into(), &known));
            }
            other => errors.push(FieldError::not_supported(&field, &other.into(), &["Equal", "Exists"])),
        }
        one_of(errors, toleration, &path, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], false);
    }
}
