//! What may change in a pod that exists.
//!
//! Upstream: `ValidatePodUpdate`, `ValidatePodStatusUpdate`, `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{
    super::{
        core::diff,
        meta,
        util::{
            Errors, GoMember, at, child, complain, get, go_struct, has, immutable, indexed, int, int_or_zero, items,
            members, same, strings, text,
        },
    },
    qos_class, spec,
};
use crate::base::{
    FieldError, Object,
    names::{self, range_error},
};

/// Judges a write to a pod through `subresource`.
pub(in super::super) fn validate_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let (value, before) = (new.to_value(), old.to_value());
    match subresource {
        "status" => status(&value, &before),
        "ephemeralcontainers" => ephemeral(&value, &before),
        "resize" => resize(new, old, &value, &before),
        _ => whole(&value, &before),
    }
}

/// Judges the metadata and spec of a changed pod as those of a new one; upstream tells of both once more.
fn anew(new: &Value) -> Errors {
    let mut errors = Object::from_value(new.clone()).map_or_else(Vec::new, |pod| {
        let mut errors = meta::validate_object_meta(&pod, true, names::name_is_subdomain);
        errors.extend(meta::standard_finalizers(&pod, true));
        errors
    });
    errors.extend(spec::whole(new));
    errors
}

fn whole(new: &Value, old: &Value) -> Errors {
    let mut errors = anew(new);
    annotations(&mut errors, new, old);
    let (spec, before) = (get(new, "spec"), get(old, "spec"));
    // a count that differs is told on its own, and nothing else is compared then
    for list in ["containers", "initContainers"] {
        if items(spec, list).len() != items(before, list).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(&child("spec", list), why));
            return errors;
        }
    }
    for list in ["containers", "initContainers"] {
        for (path, _) in indexed(spec, "spec", list).filter(|(_, container)| text(container, "image").is_empty()) {
            errors.push(FieldError::required(&child(&path, "image"), ""));
        }
    }
    if !deadline(&mut errors, spec, before) {
        return errors;
    }
    added_tolerations(&mut errors, spec, before);
    added_gates(&mut errors, spec, before);
    // what may change is made what it was; the rest must be the same
    let mut fixed = spec.clone();
    let Some(map) = fixed.as_object_mut() else { return errors };
    for list in ["containers", "initContainers"] {
        let images: Vec<_> = items(before, list).iter().map(|container| get(container, "image").clone()).collect();
        let containers = map.get_mut(list).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            if let Some(container) = container.as_object_mut() {
                container.insert("image".into(), image);
            }
        }
    }
    let mut put_back = |key: &str| put_back(map, before, key);
    put_back("activeDeadlineSeconds");
    put_back("tolerations");
    put_back("schedulingGates");
    if int(before, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && int(spec, "terminationGracePeriodSeconds") == Some(1)
    {
        put_back("terminationGracePeriodSeconds");
    }
    if !items(before, "schedulingGates").is_empty() {
        narrowed(&mut errors, map, spec, before);
    }
    if !same(&fixed, before) {
        let why = format!(
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n{}",
            diff(&fixed, before)
        );
        errors.push(FieldError::forbidden("spec", &why));
    }
    errors
}

/// Makes a member what it was.
fn put_back(map: &mut Map<String, Value>, before: &Value, key: &str) {
    match before.get(key) {
        Some(value) => map.insert(key.into(), value.clone()),
        None => map.remove(key),
    };
}

/// Annotations that say what a pod is from its start.
fn annotations(errors: &mut Errors, new: &Value, old: &Value) {
    let of = |pod: &Value| strings(get(pod, "metadata"), "annotations");
    let (pod, new, old) = (new, of(new), of(old));
    let kinds = [
        ("container.apparmor.security.beta.kubernetes.io/", "AppArmor annotations"),
        ("kubernetes.io/config.mirror", "mirror pod annotation"),
    ];
    let fixed = |key: &str| {
        let (prefix, noun) = kinds.iter().find(|(prefix, _)| key.starts_with(prefix))?;
        (prefix.ends_with('/') || *prefix == key).then_some(*noun)
    };
    let mut tell = |key: &str, verb: &str| {
        if let Some(noun) = fixed(key) {
            let field = format!("metadata.annotations[{key}]");
            errors.push(FieldError::forbidden(&field, &format!("may not {verb} {noun}")));
        }
    };
    old.iter().filter(|(key, value)| new.get(*key) != Some(value)).for_each(|(key, _)| tell(key, "remove or update"));
    new.keys().filter(|key| !old.contains_key(*key)).for_each(|key| tell(key, "add"));
    spec::annotations(errors, get(pod, "metadata"), get(pod, "spec"), "metadata.annotations");
}

/// A gated pod's node selector and node affinity may be narrowed; what may be is put back, so that the rest is compared.
fn narrowed(errors: &mut Errors, map: &mut Map<String, Value>, spec: &Value, before: &Value) {
    let (selector, old) = (get(spec, "nodeSelector"), get(before, "nodeSelector"));
    if !same(selector, old) {
        let kept = old.as_object().into_iter().flatten().all(|(key, value)| get(selector, key) == value);
        if !kept {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid("spec.nodeSelector", selector, why));
        }
        put_back(map, before, "nodeSelector");
    }
    let affinity = |spec: &Value| at(spec, &["affinity", "nodeAffinity"]).clone();
    let (node, old) = (affinity(spec), affinity(before));
    if same(&node, &old) {
        return;
    }
    narrowed_affinity(errors, &node, &old);
    let others = ["podAffinity", "podAntiAffinity"].iter().any(|key| has(get(spec, "affinity"), key));
    if !has(spec, "affinity") {
        if !old.is_null() {
            map.insert("affinity".into(), json!({"nodeAffinity": old}));
        }
    } else if !has(before, "affinity") && !others {
        map.remove("affinity");
    } else if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
        if old.is_null() {
            affinity.remove("nodeAffinity");
        } else {
            affinity.insert("nodeAffinity".into(), old);
        }
    }
}

fn narrowed_affinity(errors: &mut Errors, node: &Value, old: &Value) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let path = format!("spec.affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms");
    let terms = |affinity| items(get(affinity, REQUIRED), "nodeSelectorTerms");
    let (new, old) = (terms(node), terms(old));
    if !old.is_empty() && old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(&path, &json!(new), why));
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let lists = ["matchExpressions", "matchFields"];
        let empty = |term: &Value| lists.iter().all(|list| items(term, list).is_empty());
        let extended = lists.iter().all(|list| {
            let (new, old) = (items(new, list), items(old, list));
            new.len() >= old.len() && new.iter().zip(old).all(|(new, old)| same(new, old))
        });
        if !extended || empty(old) && !empty(new) {
            const REQUIREMENT: &[GoMember] = &[
                GoMember("Key", "key", "\"\"", &[]),
                GoMember("Operator", "operator", "\"\"", &[]),
                GoMember("Values", "values", "null", &[]),
            ];
            const TERM: [GoMember; 2] = [
                GoMember("MatchExpressions", "matchExpressions", "null", REQUIREMENT),
                GoMember("MatchFields", "matchFields", "null", REQUIREMENT),
            ];
            let why = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid_shown(&format!("{path}[{i}]"), &go_struct(new, &TERM), why));
        }
    }
}

/// Judges the deadline; `false` where nothing else is looked at then.
fn deadline(errors: &mut Errors, spec: &Value, before: &Value) -> bool {
    let field = "spec.activeDeadlineSeconds";
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(FieldError::invalid(field, &new.into(), &range_error(0, i32::MAX.into())));
            false
        }
        (Some(new), Some(old)) if new > old => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(field, &new.into(), why));
            false
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(field, &Value::Null, why));
            true
        }
        (Some(_) | None, _) => true,
    }
}

fn added_tolerations(errors: &mut Errors, spec: &Value, before: &Value) {
    let bare = |toleration: &Value| {
        let mut bare = toleration.clone();
        if let Some(map) = bare.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        bare
    };
    let kept = items(before, "tolerations")
        .iter()
        .all(|old| items(spec, "tolerations").iter().any(|new| same(&bare(new), &bare(old))));
    if !kept {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", why));
    } else {
        super::spec::tolerations(errors, spec, "spec");
    }
}

fn added_gates(errors: &mut Errors, spec: &Value, before: &Value) {
    for (path, gate) in indexed(spec, "spec", "schedulingGates") {
        let name = text(gate, "name");
        if !items(before, "schedulingGates").iter().any(|old| text(old, "name") == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(&child(&path, "name"), &why));
        }
    }
}

fn status(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    annotations(&mut errors, new, old);
    let (status, before) = (get(new, "status"), get(old, "status"));
    let negative = "must be a non-negative integer";
    for (path, condition) in indexed(status, "status", "conditions") {
        if let Some(number) = int(condition, "observedGeneration").filter(|number| *number < 0) {
            errors.push(FieldError::invalid(&child(&path, "observedGeneration"), &number.into(), negative));
        }
        let kind = text(condition, "type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            complain(&mut errors, &child(&path, "Type"), kind, names::qualified_name(kind));
        }
    }
    let (node, field) = (text(status, "nominatedNodeName"), "status.nominatedNodeName");
    if !node.is_empty() && node != text(before, "nominatedNodeName") {
        complain(&mut errors, field, node, names::dns1123_subdomain(node));
        if !text(get(old, "spec"), "nodeName").is_empty() {
            errors.push(FieldError::forbidden(field, "may not be set on pods that are already bound to a node"));
        }
    }
    if let Some(number) = int(status, "observedGeneration").filter(|number| *number < 0) {
        errors.push(FieldError::invalid("status.observedGeneration", &number.into(), negative));
    }
    let class = |status: &Value| text(status, "qosClass").into();
    immutable(&mut errors, &class(status), &class(before), "status.qosClass");
    for (list, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        stays_ended(&mut errors, (status, before), list, items(get(old, "spec"), containers), get(old, "spec"));
    }
    addresses(&mut errors, status, before, "podIPs");
    let hosts = items(status, "hostIPs");
    if let Some(first) = hosts.first()
        && text(first, "ip") != text(status, "hostIP")
    {
        let why = "must be equal to `hostIP`";
        errors.push(FieldError::invalid("status.hostIPs[0].ip", &text(first, "ip").into(), why));
    }
    addresses(&mut errors, status, before, "hostIPs");
    errors
}

/// A container that has ended and may not start again stays ended.
fn stays_ended(errors: &mut Errors, (status, before): (&Value, &Value), list: &str, of: &[Value], spec: &Value) {
    // a rule of one container that restarts all lets any of them start again
    let all = |container: &Value| {
        items(container, "restartPolicyRules").iter().any(|rule| text(rule, "action") == "RestartAllContainers")
    };
    if ["containers", "initContainers"].iter().any(|list| items(spec, list).iter().any(all)) {
        return;
    }
    for (path, container) in indexed(before, "status", list) {
        let terminated = at(container, &["state", "terminated"]);
        let name = text(container, "name");
        let now = items(status, list).iter().find(|now| text(now, "name") == name);
        if terminated.is_null() || now.is_none_or(|now| has(get(now, "state"), "terminated")) {
            continue;
        }
        let code = int_or_zero(terminated, "exitCode");
        let container = of.iter().find(|container| text(container, "name") == name);
        if container.is_none_or(|container| !may_restart(container, spec, code)) {
            let why = "may not be transitioned to non-terminated state";
            errors.push(FieldError::forbidden(&child(&path, "state"), why));
        }
    }
}

/// Whether a container that ended with a code is started again (`ContainerShouldRestart`).
fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    for rule in items(container, "restartPolicyRules").iter().filter(|rule| text(rule, "action") == "Restart") {
        let codes = get(rule, "exitCodes");
        let listed = items(codes, "values").iter().any(|value| value.as_i64() == Some(code));
        match text(codes, "operator") {
            "In" if listed => return true,
            "NotIn" if !listed => return true,
            _ => {}
        }
    }
    let policy = match text(container, "restartPolicy") {
        "" => text(spec, "restartPolicy"),
        own => own,
    };
    policy == "Always" || policy == "OnFailure" && code != 0
}

/// New addresses must be right, and of two one each of IPv4 and IPv6.
fn addresses(errors: &mut Errors, status: &Value, before: &Value, list: &str) {
    let known: Vec<_> = items(before, list).iter().map(|entry| text(entry, "ip")).collect();
    let found: Vec<_> = items(status, list).iter().map(|entry| text(entry, "ip")).collect();
    for (i, address) in found.iter().enumerate().filter(|(_, address)| !known.contains(address)) {
        spec::ip(errors, address, &format!("status.{list}[{i}]"));
    }
    let parsed: Vec<IpAddr> = found.iter().filter_map(|address| address.parse().ok()).collect();
    let both = parsed.iter().any(IpAddr::is_ipv4) && parsed.iter().any(IpAddr::is_ipv6);
    if found.len() > 1 && parsed.len() == found.len() && (found.len() > 2 || !both) {
        let why = "may specify no more than one IP for each IP family";
        let shown: Vec<_> = found.iter().map(|address| format!("{{\"IP\":{}}}", json!(address))).collect();
        errors.push(FieldError::invalid_shown(&format!("status.{list}"), &format!("[{}]", shown.join(",")), why));
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";

fn is_mirror(pod: &Value) -> bool {
    has(at(pod, &["metadata", "annotations"]), MIRROR)
}

fn ephemeral(new: &Value, old: &Value) -> Errors {
    if is_mirror(old) {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let mut errors = anew(new);
    annotations(&mut errors, new, old);
    let (list, before) =
        (items(get(new, "spec"), "ephemeralContainers"), items(get(old, "spec"), "ephemeralContainers"));
    for old in before {
        let name = text(old, "name");
        match list.iter().find(|container| text(container, "name") == name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden("spec.ephemeralContainers", &why));
            }
            Some(container) if !same(container, old) => {
                let why =
                    format!("existing ephemeral containers {name:?} may not be changed\n{}", diff(container, old));
                errors.push(FieldError::forbidden("spec.ephemeralContainers", &why));
            }
            Some(_) => {}
        }
    }
    errors
}

fn resize(new: &Object, old: &Object, value: &Value, before: &Value) -> Errors {
    if is_mirror(before) {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    let (spec, old_spec) = (get(value, "spec"), get(before, "spec"));
    if text(get(old_spec, "os"), "name") == "windows" {
        return vec![FieldError::forbidden("", "windows pods cannot be resized")];
    }
    let mut errors = anew(value);
    let was = match old.str_at(&["status", "qosClass"]) {
        "" => qos_class(old),
        class => class,
    };
    if qos_class(new) != was {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", &was.into(), why));
    }
    let running = items(get(before, "status"), "containerStatuses");
    let running = running.iter().find(|status| has(get(status, "state"), "running"));
    if running.is_some_and(|status| !has(status, "resources")) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    let count = errors.len();
    for list in ["containers", "initContainers"] {
        let (now, then) = (items(spec, list), items(old_spec, list));
        if now.len() != then.len() {
            let why = format!("{list} may not be added or removed on resize");
            errors.push(FieldError::forbidden(&child("spec", list), &why));
            continue;
        }
        for (i, _) in
            now.iter().zip(then).enumerate().filter(|(_, (now, then))| text(now, "name") != text(then, "name"))
        {
            let why = format!("{list} may not be renamed or reordered on resize");
            errors.push(FieldError::forbidden(&format!("spec.{list}[{i}].name"), &why));
        }
    }
    if errors.len() > count {
        return errors;
    }
    let sidecar = |container: &Value| text(container, "restartPolicy") == "Always";
    for (list, init) in [("initContainers", true), ("containers", false)] {
        for ((path, container), old) in indexed(spec, "spec", list).zip(items(old_spec, list)) {
            for kind in ["requests", "limits"] {
                let has_all = members(get(old, "resources"), kind)
                    .all(|(name, _)| has(get(get(container, "resources"), kind), name));
                if !has_all && (!init || sidecar(old)) {
                    let why = format!("resource {kind} cannot be removed");
                    errors.push(FieldError::forbidden(&format!("{path}.resources.{kind}"), &why));
                }
            }
        }
    }
    for (list, init) in [("containers", false), ("initContainers", true)] {
        for ((path, container), old) in indexed(spec, "spec", list).zip(items(old_spec, list)) {
            if same(container, old) {
                continue;
            }
            if init && !sidecar(container) {
                let why = "resources for non-sidecar init containers are immutable";
                errors.push(FieldError::forbidden("spec", why));
            } else if !same(&without_amounts(container, old), old) {
                errors.push(if init {
                    let why = "only cpu and memory resources for init or sidecar containers are mutable";
                    FieldError::forbidden(&path, why)
                } else {
                    FieldError::forbidden("spec", "only cpu and memory resources are mutable")
                });
            }
        }
    }
    errors
}

/// A container with the CPU and memory that it had, and no claims.
fn without_amounts(container: &Value, old: &Value) -> Value {
    let mut resources = Map::new();
    for kind in ["limits", "requests"] {
        let of = |container: &Value| get(get(container, "resources"), kind).clone();
        let (now, then) = (of(container), of(old));
        let mut amounts = now.as_object().cloned().unwrap_or_default();
        for name in ["cpu", "memory"] {
            put_back(&mut amounts, &then, name);
        }
        if !amounts.is_empty() {
            resources.insert(kind.into(), amounts.into());
        }
    }
    let mut container = container.clone();
    if let Some(members) = container.as_object_mut() {
        members.insert("resources".into(), resources.into());
    }
    container
}
