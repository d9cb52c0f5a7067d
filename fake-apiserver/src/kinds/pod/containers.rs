//! Containers of a pod: main, init and ephemeral ones.
//!
//! Upstream: `validateContainers`, `validateInitContainers`, `validateEphemeralContainers` and what they call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    super::util::{
        Errors, GoMember, as_quantity, child, complain, complain_number, flag, get, go_struct, has, indexed, int,
        int_or_zero, items, not_negative, one_of, required, text, texts,
    },
    resources, volumes,
};
use crate::base::{
    FieldError,
    names::{self, range_error},
};

/// What the rules of a container need to know of its pod.
pub(super) struct Around<'a> {
    /// The pod's spec.
    pub(super) spec: &'a Value,
    /// The volumes that are right, by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Value>,
    /// Names of the pod's resource claims.
    pub(super) claims: Vec<&'a str>,
}

impl Around<'_> {
    fn grace(&self) -> i64 {
        int_or_zero(self.spec, "terminationGracePeriodSeconds")
    }
}

/// Judges all containers of a pod or template.
pub(super) fn validate(errors: &mut Errors, around: &Around<'_>, path: &str) {
    let spec = around.spec;
    let main: Vec<&str> = items(spec, "containers").iter().map(|container| text(container, "name")).collect();
    mains(errors, around, path);
    inits(errors, around, path, &main);
    ephemerals(errors, around, path, &main);
}

fn mains(errors: &mut Errors, around: &Around<'_>, path: &str) {
    if items(around.spec, "containers").is_empty() {
        errors.push(FieldError::required(&child(path, "containers"), ""));
        return;
    }
    let mut names = BTreeSet::new();
    for (path, container) in indexed(around.spec, path, "containers") {
        common(errors, container, &path, around);
        if !names.insert(text(container, "name")) {
            errors.push(FieldError::duplicate(&child(&path, "name"), &text(container, "name").into()));
        }
        lifecycle_and_probes(errors, container, &path, around);
        restart_policy(errors, container, &path);
    }
    let mut ports = BTreeSet::new();
    for (path, container) in indexed(around.spec, path, "containers") {
        host_ports(errors, container, &path, &mut ports);
    }
}

fn inits(errors: &mut Errors, around: &Around<'_>, path: &str, main: &[&str]) {
    let mut names: BTreeSet<&str> = main.iter().copied().collect();
    for (path, container) in indexed(around.spec, path, "initContainers") {
        common(errors, container, &path, around);
        restart_policy(errors, container, &path);
        let name = text(container, "name");
        if names.contains(name) {
            errors.push(FieldError::duplicate(&child(&path, "name"), &name.into()));
        } else if !name.is_empty() {
            names.insert(name);
        }
        host_ports(errors, container, &path, &mut BTreeSet::new());
        if text(container, "restartPolicy") == "Always" {
            lifecycle_and_probes(errors, container, &path, around);
        } else {
            for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if has(container, key) {
                    let why = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(&child(&path, key), why));
                }
            }
        }
    }
}

fn ephemerals(errors: &mut Errors, around: &Around<'_>, path: &str, main: &[&str]) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let init = items(around.spec, "initContainers").iter().map(|container| text(container, "name"));
    let others: BTreeSet<&str> = main.iter().copied().chain(init).collect();
    let mut names = others.clone();
    for (path, container) in indexed(around.spec, path, "ephemeralContainers") {
        common(errors, container, &path, around);
        image_space(errors, container, &path);
        let name = text(container, "name");
        if !names.insert(name) {
            errors.push(FieldError::duplicate(&child(&path, "name"), &name.into()));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(&child(&path, "targetContainerName"), &target.into()));
        }
        for key in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            let set = match get(container, key) {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(map) => key != "resources" || !map.is_empty(),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
            };
            if set {
                errors.push(FieldError::forbidden(&child(&path, key), WHY));
            }
        }
        for (path, mount) in indexed(container, &path, "volumeMounts") {
            for key in ["subPath", "subPathExpr"].into_iter().filter(|key| !text(mount, key).is_empty()) {
                errors.push(FieldError::forbidden(&child(&path, key), WHY));
            }
        }
    }
}

/// An image's name has no space around it; asked of pods, not of templates.
pub(super) fn image_space(errors: &mut Errors, container: &Value, path: &str) {
    let image = text(container, "image");
    if image.len() != image.trim().len() {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&child(path, "image"), &image.into(), why));
    }
}

/// The rules of all three kinds of containers.
fn common(errors: &mut Errors, container: &Value, path: &str, around: &Around<'_>) {
    let name = text(container, "name");
    if required(errors, container, path, "name") {
        complain(errors, &child(path, "name"), name, names::dns1123_label(name));
    }
    required(errors, container, path, "image");
    one_of(errors, container, path, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], true);
    ports(errors, container, path);
    env(errors, container, path);
    env_from(errors, container, path);
    volumes::mounts(errors, container, path, &around.volumes);
    one_of(errors, container, path, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], true);
    resources::validate(errors, get(container, "resources"), &child(path, "resources"), &around.claims);
    resize(errors, container, path, around);
    security(errors, get(container, "securityContext"), &child(path, "securityContext"), around.spec);
}

fn restart_policy(errors: &mut Errors, container: &Value, path: &str) {
    let known = ["Always", "Never", "OnFailure"];
    if let Some(policy) = get(container, "restartPolicy").as_str().filter(|policy| !known.contains(policy)) {
        errors.push(FieldError::not_supported(&child(path, "restartPolicy"), &policy.into(), &known));
    }
    if !items(container, "restartPolicyRules").is_empty() && text(container, "restartPolicy").is_empty() {
        let why = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(&child(path, "restartPolicy"), why));
    }
    let count = items(container, "restartPolicyRules").len();
    if count > 20 {
        errors.push(FieldError::too_many(&child(path, "restartPolicyRules"), count, 20));
    }
    for (path, rule) in indexed(container, path, "restartPolicyRules") {
        let (action, known) = (text(rule, "action"), ["Restart", "RestartAllContainers"]);
        if !known.contains(&action) {
            errors.push(FieldError::not_supported(&child(&path, "action"), &action.into(), &known));
        }
        let (codes, path) = (get(rule, "exitCodes"), child(&path, "exitCodes"));
        if codes.is_null() {
            errors.push(FieldError::required(&path, "must be specified"));
            continue;
        }
        let operator = text(codes, "operator");
        if !["In", "NotIn"].contains(&operator) {
            errors.push(FieldError::not_supported(&child(&path, "operator"), &operator.into(), &["In", "NotIn"]));
        }
        if items(codes, "values").len() > 255 {
            errors.push(FieldError::too_many(&child(&path, "values"), items(codes, "values").len(), 255));
        }
    }
}

fn ports(errors: &mut Errors, container: &Value, path: &str) {
    let mut names = BTreeSet::new();
    for (path, port) in indexed(container, path, "ports") {
        let name = text(port, "name");
        if !name.is_empty() {
            let (complaints, field) = (names::port_name(name), child(&path, "name"));
            if complaints.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(&field, &name.into()));
            }
            complain(errors, &field, name, complaints);
        }
        let (number, host) = (int_or_zero(port, "containerPort"), int_or_zero(port, "hostPort"));
        if number == 0 {
            errors.push(FieldError::required(&child(&path, "containerPort"), ""));
        } else {
            complain_number(errors, &child(&path, "containerPort"), number, names::port_number(number));
        }
        if host != 0 {
            complain_number(errors, &child(&path, "hostPort"), host, names::port_number(host));
        }
        one_of(errors, port, &path, "protocol", &["SCTP", "TCP", "UDP"], true);
    }
}

fn host_ports(errors: &mut Errors, container: &Value, path: &str, taken: &mut BTreeSet<String>) {
    for (path, port) in indexed(container, path, "ports") {
        let number = int_or_zero(port, "hostPort");
        let shown = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
        if number != 0 && !taken.insert(shown.clone()) {
            errors.push(FieldError::duplicate(&child(&path, "hostPort"), &shown.into()));
        }
    }
}

fn env(errors: &mut Errors, container: &Value, path: &str) {
    for (path, variable) in indexed(container, path, "env") {
        if required(errors, variable, &path, "name") {
            let name = text(variable, "name");
            complain(errors, &child(&path, "name"), name, names::env_var_name(name));
        }
        let source = get(variable, "valueFrom");
        if source.is_null() {
            continue;
        }
        let path = child(&path, "valueFrom");
        let mut count = 0;
        if has(source, "fieldRef") {
            count += 1;
            let known = [
                "metadata.name",
                "metadata.namespace",
                "metadata.uid",
                "spec.nodeName",
                "spec.serviceAccountName",
                "status.hostIP",
                "status.hostIPs",
                "status.podIP",
                "status.podIPs",
            ];
            field_ref(errors, get(source, "fieldRef"), &child(&path, "fieldRef"), &known);
        }
        if has(source, "resourceFieldRef") {
            count += 1;
            resource_ref(errors, get(source, "resourceFieldRef"), &child(&path, "resourceFieldRef"), false);
        }
        for key in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|key| has(source, key)) {
            count += 1;
            let (selector, path) = (get(source, key), child(&path, key));
            let (name, item) = (text(selector, "name"), text(selector, "key"));
            complain(errors, &child(&path, "name"), name, names::dns1123_subdomain(name));
            if required(errors, selector, &path, "key") {
                complain(errors, &child(&path, "key"), item, names::config_key(item));
            }
        }
        if has(source, "fileKeyRef") {
            count += 1;
            let (selector, path) = (get(source, "fileKeyRef"), child(&path, "fileKeyRef"));
            if required(errors, selector, &path, "key") {
                let key = text(selector, "key");
                complain(errors, &child(&path, "key"), key, names::env_var_name(key));
            }
            required(errors, selector, &path, "volumeName");
            if required(errors, selector, &path, "path") {
                volumes::local_path(errors, text(selector, "path"), &child(&path, "path"));
            }
        }
        let why = match count {
            0 => {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
            }
            _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(&path, &"".into(), why));
    }
}

fn env_from(errors: &mut Errors, container: &Value, path: &str) {
    let list = child(path, "envFrom");
    for (path, source) in indexed(container, path, "envFrom") {
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            complain(errors, &child(&path, "prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        for key in ["configMapRef", "secretRef"].into_iter().filter(|key| has(source, key)) {
            count += 1;
            let (reference, path) = (get(source, key), child(&path, key));
            let name = text(reference, "name");
            if required(errors, reference, &path, "name") {
                complain(errors, &child(&path, "name"), name, names::name_is_subdomain(name, true));
            }
        }
        match count {
            0 => {
                let why = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(FieldError::invalid(&list, &"".into(), why));
            }
            1 => {}
            _ => {
                let why = "may not have more than one field specified at a time";
                errors.push(FieldError::invalid(&list, &"".into(), why));
            }
        }
    }
}

/// Judges a reference to a field of the pod; `known` are the fields allowed here, in order.
pub(super) fn field_ref(errors: &mut Errors, reference: &Value, path: &str, known: &[&str]) {
    const LABELS: [&str; 14] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    ];
    if !required(errors, reference, path, "apiVersion") || !required(errors, reference, path, "fieldPath") {
        return;
    }
    let (label, field) = (text(reference, "fieldPath"), child(path, "fieldPath"));
    let version = text(reference, "apiVersion");
    if version != "v1" && !label.contains("['") {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(FieldError::invalid(&field, &label.into(), &why));
        return;
    }
    let subscript = label.strip_suffix("']").and_then(|label| label.split_once("['"));
    if let Some((map, key)) = subscript {
        let complaints = match map {
            "metadata.annotations" => names::qualified_name(&key.to_lowercase()),
            "metadata.labels" => names::qualified_name(key),
            _ => {
                let why = format!("error converting fieldPath: field label does not support subscript: {label}");
                errors.push(FieldError::invalid(&field, &label.into(), &why));
                return;
            }
        };
        complain(errors, path, key, complaints);
    } else if !LABELS.contains(&label) && label != "spec.host" {
        let why = format!("error converting fieldPath: field label not supported: {label}");
        errors.push(FieldError::invalid(&field, &label.into(), &why));
    } else if !known.contains(&label) && label != "spec.host" {
        errors.push(FieldError::not_supported(&field, &label.into(), known));
    }
}

/// Judges a reference to an amount of a container; in volumes the container must be named.
pub(super) fn resource_ref(errors: &mut Errors, reference: &Value, path: &str, volume: bool) {
    const KNOWN: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = text(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && text(reference, "containerName").is_empty() {
        errors.push(FieldError::required(&child(path, "containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(&child(path, "resource"), ""));
    } else if !KNOWN.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(&child(path, "resource"), &resource.into(), &KNOWN));
    }
    let Some(divisor) = as_quantity(get(reference, "divisor")).filter(|divisor| !divisor.is_zero()) else { return };
    let shown = divisor.to_string();
    let units = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (fits, kind) = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => (["1m", "1"].contains(&shown.as_str()), "cpu"),
        "memory" => (units.contains(&shown.as_str()), "memory"),
        "ephemeral-storage" => (units.contains(&shown.as_str()), "local ephemeral storage"),
        _ if huge => (units.contains(&shown.as_str()), "hugepages"),
        _ => return,
    };
    if !fits {
        let list = if kind == "cpu" { "1m and 1".to_owned() } else { units.join(", ") };
        let why = format!("only divisor's values {list} are supported with the {kind} resource");
        errors.push(FieldError::invalid(&child(path, "divisor"), &resource.into(), &why));
    }
}

fn resize(errors: &mut Errors, container: &Value, path: &str, around: &Around<'_>) {
    let list = child(path, "resizePolicy");
    let mut seen = BTreeSet::new();
    for (path, policy) in indexed(container, path, "resizePolicy") {
        let (name, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, &name.into()));
        }
        for (value, known) in [(name, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])] {
            if value.is_empty() {
                errors.push(FieldError::required(&list, ""));
            } else if !known.contains(&value) {
                errors.push(FieldError::not_supported(&list, &value.into(), &known));
            }
        }
        if text(around.spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(&list, &restart.into(), why));
        }
    }
}

fn lifecycle_and_probes(errors: &mut Errors, container: &Value, path: &str, around: &Around<'_>) {
    for key in ["postStart", "preStop"] {
        let hook = get(get(container, "lifecycle"), key);
        if !hook.is_null() {
            handler(errors, hook, &format!("{path}.lifecycle.{key}"), around.grace());
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, path) = (get(container, key), child(path, key));
        if probe.is_null() {
            continue;
        }
        handler(errors, probe, &path, around.grace());
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            not_negative(errors, probe, &path, number);
        }
        let (grace, field) =
            (int(probe, "terminationGracePeriodSeconds"), child(&path, "terminationGracePeriodSeconds"));
        if let Some(grace) = grace.filter(|grace| *grace <= 0) {
            errors.push(FieldError::invalid(&field, &grace.into(), "must be greater than 0"));
        }
        if key == "readinessProbe" {
            if let Some(grace) = grace {
                errors.push(FieldError::invalid(&field, &grace.into(), "must not be set for readinessProbes"));
            }
        } else if int_or_zero(probe, "successThreshold") != 1 {
            let value = get(probe, "successThreshold");
            errors.push(FieldError::invalid(&child(&path, "successThreshold"), value, "must be 1"));
        }
    }
}

fn handler(errors: &mut Errors, handler: &Value, path: &str, grace: i64) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"].into_iter().filter(|key| has(handler, key));
    let mut count = 0;
    for key in kinds {
        let (action, path) = (get(handler, key), &child(path, key));
        count += 1;
        if count > 1 {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        match key {
            "exec" => {
                if items(action, "command").is_empty() {
                    errors.push(FieldError::required(&child(path, "command"), ""));
                }
            }
            "httpGet" => {
                required(errors, action, path, "path");
                port_or_name(errors, get(action, "port"), &child(path, "port"));
                let scheme = text(action, "scheme");
                if !["HTTP", "HTTPS"].contains(&scheme) {
                    let known = ["HTTP", "HTTPS"];
                    errors.push(FieldError::not_supported(&child(path, "scheme"), &scheme.into(), &known));
                }
                for header in items(action, "httpHeaders") {
                    let name = text(header, "name");
                    complain(errors, &child(path, "httpHeaders"), name, names::http_header_name(name));
                }
            }
            "tcpSocket" | "grpc" => port_or_name(errors, get(action, "port"), &child(path, "port")),
            _ => {
                let seconds = int_or_zero(action, "seconds");
                if !(0..=grace).contains(&seconds) {
                    let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    errors.push(FieldError::invalid(path, &seconds.into(), &why));
                }
            }
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
}

/// Judges a port that may be a number or a name.
pub(in super::super) fn port_or_name(errors: &mut Errors, port: &Value, field: &str) {
    match port {
        Value::String(name) => complain(errors, field, name, names::port_name(name)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            let number = port.as_i64().unwrap_or_default();
            complain_number(errors, field, number, names::port_number(number));
        }
    }
}

/// Judges a user's or group's number.
pub(super) fn user(errors: &mut Errors, context: &Value, path: &str, key: &str) {
    let max = i64::from(i32::MAX);
    if let Some(id) = int(context, key).filter(|id| !(0..=max).contains(id)) {
        errors.push(FieldError::invalid(&child(path, key), &id.into(), &range_error(0, max)));
    }
}

/// Judges a seccomp or AppArmor profile.
pub(super) fn profile(errors: &mut Errors, context: &Value, path: &str, key: &str) {
    let profile = get(context, key);
    if profile.is_null() {
        return;
    }
    let (path, name) = (child(path, key), if key == "seccompProfile" { "seccomp" } else { "AppArmor" });
    let (kind, local) = (text(profile, "type"), get(profile, "localhostProfile"));
    let field = child(&path, "localhostProfile");
    if kind.is_empty() {
        let why = format!("type is required when {key} is set");
        errors.push(FieldError::required(&child(&path, "type"), &why));
    } else if !["Localhost", "RuntimeDefault", "Unconfined"].contains(&kind) {
        let known = ["Localhost", "RuntimeDefault", "Unconfined"];
        errors.push(FieldError::not_supported(&child(&path, "type"), &kind.into(), &known));
    } else if kind == "Localhost" {
        match local.as_str() {
            None => {
                let why = format!("must be set when {name} type is Localhost");
                errors.push(FieldError::required(&field, &why));
            }
            Some(file) if name == "seccomp" => volumes::local_path(errors, file, &field),
            Some("") => {
                errors.push(FieldError::required(&field, "must be set when AppArmor type is Localhost"));
            }
            Some(file) if file.trim() != file => {
                errors.push(FieldError::invalid(&field, local, "must not be padded with whitespace"));
            }
            Some(file) if file.len() > 4095 => errors.push(FieldError::too_long(&field, 4095)),
            Some(_) => {}
        }
    } else if !local.is_null() {
        let why = format!("can only be set when {name} type is Localhost");
        errors.push(if name == "seccomp" {
            FieldError::invalid_shown(&field, &go_struct(profile, &PROFILE), &why)
        } else {
            FieldError::invalid(&field, local, &why)
        });
    }
}

fn security(errors: &mut Errors, context: &Value, path: &str, spec: &Value) {
    if context.is_null() {
        return;
    }
    user(errors, context, path, "runAsUser");
    user(errors, context, path, "runAsGroup");
    let mount = text(context, "procMount");
    if has(context, "procMount") && !["Default", "Unmasked"].contains(&mount) {
        let known = ["Default", "Unmasked"];
        errors.push(FieldError::not_supported(&child(path, "procMount"), &mount.into(), &known));
    }
    if mount == "Unmasked" && get(spec, "hostUsers").as_bool() != Some(false) {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&child(path, "procMount"), &mount.into(), why));
    }
    profile(errors, context, path, "seccompProfile");
    if get(context, "allowPrivilegeEscalation").as_bool() == Some(false) {
        if flag(context, "privileged") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid_shown(path, &go_struct(context, &CONTEXT), why));
        }
        if texts(get(context, "capabilities"), "add").contains(&"CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid_shown(path, &go_struct(context, &CONTEXT), why));
        }
    }
    windows_options(errors, get(context, "windowsOptions"), &child(path, "windowsOptions"));
    profile(errors, context, path, "appArmorProfile");
}

const PROFILE: [GoMember; 2] =
    [GoMember("Type", "type", "\"\"", &[]), GoMember("LocalhostProfile", "localhostProfile", "null", &[])];

/// The members of a container's security context, in Go's order.
const CONTEXT: [GoMember; 12] = [
    GoMember(
        "Capabilities",
        "capabilities",
        "null",
        &[GoMember("Add", "add", "null", &[]), GoMember("Drop", "drop", "null", &[])],
    ),
    GoMember("Privileged", "privileged", "null", &[]),
    GoMember(
        "SELinuxOptions",
        "seLinuxOptions",
        "null",
        &[
            GoMember("User", "user", "\"\"", &[]),
            GoMember("Role", "role", "\"\"", &[]),
            GoMember("Type", "type", "\"\"", &[]),
            GoMember("Level", "level", "\"\"", &[]),
        ],
    ),
    GoMember(
        "WindowsOptions",
        "windowsOptions",
        "null",
        &[
            GoMember("GMSACredentialSpecName", "gmsaCredentialSpecName", "null", &[]),
            GoMember("GMSACredentialSpec", "gmsaCredentialSpec", "null", &[]),
            GoMember("RunAsUserName", "runAsUserName", "null", &[]),
            GoMember("HostProcess", "hostProcess", "null", &[]),
        ],
    ),
    GoMember("RunAsUser", "runAsUser", "null", &[]),
    GoMember("RunAsGroup", "runAsGroup", "null", &[]),
    GoMember("RunAsNonRoot", "runAsNonRoot", "null", &[]),
    GoMember("ReadOnlyRootFilesystem", "readOnlyRootFilesystem", "null", &[]),
    GoMember("AllowPrivilegeEscalation", "allowPrivilegeEscalation", "null", &[]),
    GoMember("ProcMount", "procMount", "null", &[]),
    GoMember("SeccompProfile", "seccompProfile", "null", &PROFILE),
    GoMember("AppArmorProfile", "appArmorProfile", "null", &PROFILE),
];

/// Judges what Windows asks for.
pub(super) fn windows_options(errors: &mut Errors, options: &Value, path: &str) {
    if let Some(name) = get(options, "gmsaCredentialSpecName").as_str() {
        complain(errors, &child(path, "gmsaCredentialSpecName"), name, names::dns1123_subdomain(name));
    }
    for key in ["gmsaCredentialSpec", "runAsUserName"].into_iter().filter(|key| get(options, key).as_str() == Some(""))
    {
        let why = format!("{key} cannot be an empty string");
        errors.push(FieldError::invalid(&child(path, key), &"".into(), &why));
    }
    let name = text(options, "runAsUserName");
    if !name.is_empty() {
        for why in wrong_windows_user(name) {
            let why = format!("runAsUserName{why}");
            errors.push(FieldError::invalid(&child(path, "runAsUserName"), &name.into(), &why));
        }
    }
}

/// What is wrong with the name of a Windows user, whose domain may stand before it.
fn wrong_windows_user(name: &str) -> Vec<&'static str> {
    if name.chars().any(char::is_control) {
        return vec![" cannot contain control characters"];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, rest)) if rest.contains('\\') => return vec![" cannot contain more than one backslash"],
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut wrong = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= 256) {
        wrong.push("'s Domain length must be under 256 characters");
    }
    if domain.is_some_and(|domain| !is_windows_domain(domain)) {
        wrong.push("'s Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty");
    } else if user.len() > 104 {
        wrong.push("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        wrong.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(|c: char| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        wrong.push(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#);
    }
    wrong
}

/// Whether a text could be the domain of a Windows user, in the form of NetBIOS or of DNS.
fn is_windows_domain(domain: &str) -> bool {
    let net_bios = domain.len() <= 15
        && !domain.starts_with('.')
        && !domain.is_empty()
        && !domain.contains(|c: char| r#"\/:*?"<>|"#.contains(c));
    let label = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    net_bios || domain.split('.').all(label)
}
