//! What may change in a pod that exists.
//!
//! Upstream: `ValidatePodUpdate`, `ValidatePodStatusUpdate`, `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use serde_json::{Value, json};

use super::{
    super::{
        core::diff,
        util::{Errors, child, get, has, indexed, int, int_or_zero, items, same, text},
    },
    qos_class, spec,
};
use crate::base::{FieldError, Object, names::range_error};

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

fn whole(new: &Value, old: &Value) -> Errors {
    let mut errors = spec::whole(new);
    let (spec, before) = (get(new, "spec"), get(old, "spec"));
    // a count that differs is told on its own, and nothing else is compared then
    for list in ["containers", "initContainers"] {
        if items(spec, list).len() != items(before, list).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(&child("spec", list), why));
            return errors;
        }
    }
    deadline(&mut errors, spec, before);
    added_tolerations(&mut errors, spec, before);
    if !gates_only_removed(spec, before) {
        for (path, gate) in indexed(spec, "spec", "schedulingGates") {
            let name = text(gate, "name");
            if !items(before, "schedulingGates").iter().any(|old| text(old, "name") == name) {
                let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
                errors.push(FieldError::forbidden(&child(&path, "name"), &why));
            }
        }
    }
    // what may change is made what it was; the rest must be the same
    let mut fixed = spec.clone();
    let Some(map) = fixed.as_object_mut() else { return errors };
    for list in ["containers", "initContainers"] {
        let images: Vec<_> = items(before, list).iter().map(|container| get(container, "image").clone()).collect();
        let containers = map.get_mut(list).and_then(Value::as_array_mut);
        for (container, image) in containers.into_iter().flatten().zip(images) {
            container["image"] = image;
        }
    }
    let mut put_back = |key: &str| match before.get(key) {
        Some(value) => {
            map.insert(key.into(), value.clone());
        }
        None => {
            map.remove(key);
        }
    };
    put_back("activeDeadlineSeconds");
    put_back("tolerations");
    if int(before, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0)
        && int(spec, "terminationGracePeriodSeconds") == Some(1)
    {
        put_back("terminationGracePeriodSeconds");
    }
    if !items(before, "schedulingGates").is_empty() {
        put_back("schedulingGates");
        // a gated pod's node selector and node affinity may be narrowed
        if narrower(spec, before) {
            put_back("nodeSelector");
            put_back("affinity");
        }
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

fn deadline(errors: &mut Errors, spec: &Value, before: &Value) {
    let field = "spec.activeDeadlineSeconds";
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(FieldError::invalid(field, &new.into(), &range_error(0, i32::MAX.into())));
        }
        (Some(new), Some(old)) if new > old => {
            let why = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(field, &new.into(), why));
        }
        (None, Some(_)) => {
            let why = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(field, &Value::Null, why));
        }
        (Some(_) | None, _) => {}
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

fn gates_only_removed(spec: &Value, before: &Value) -> bool {
    let old = items(before, "schedulingGates");
    items(spec, "schedulingGates").iter().all(|gate| old.iter().any(|old| same(old, gate)))
}

fn narrower(spec: &Value, before: &Value) -> bool {
    let selector = get(before, "nodeSelector").as_object();
    selector.into_iter().flatten().all(|(key, value)| get(get(spec, "nodeSelector"), key) == value)
        && (!has(before, "affinity") || same(get(spec, "affinity"), get(before, "affinity")))
}

fn status(new: &Value, old: &Value) -> Errors {
    let mut errors = Vec::new();
    let (status, before) = (get(new, "status"), get(old, "status"));
    let node = text(status, "nominatedNodeName");
    if !node.is_empty() {
        let complaints = crate::base::names::dns1123_subdomain(node);
        super::super::util::complain(&mut errors, "status.nominatedNodeName", node, complaints);
    }
    super::super::util::immutable(
        &mut errors,
        &text(status, "qosClass").into(),
        &text(before, "qosClass").into(),
        "status.qosClass",
    );
    for (path, entry) in indexed(status, "status", "podIPs") {
        spec::ip(&mut errors, text(entry, "ip"), &path);
    }
    let hosts = items(status, "hostIPs");
    if let Some(first) = hosts.first()
        && text(first, "ip") != text(status, "hostIP")
    {
        let why = "must be equal to `hostIP`";
        errors.push(FieldError::invalid("status.hostIPs[0].ip", &text(first, "ip").into(), why));
    }
    for (path, entry) in indexed(status, "status", "hostIPs") {
        spec::ip(&mut errors, text(entry, "ip"), &path);
    }
    // a container that has ended and may not start again stays ended
    let policy = text(get(old, "spec"), "restartPolicy");
    for list in ["containerStatuses", "initContainerStatuses"] {
        if policy == "Always" {
            continue;
        }
        for (path, container) in indexed(before, "status", list) {
            let terminated = get(get(container, "state"), "terminated");
            if terminated.is_null() || policy == "OnFailure" && int_or_zero(terminated, "exitCode") != 0 {
                continue;
            }
            let name = text(container, "name");
            let now = items(status, list).iter().find(|now| text(now, "name") == name);
            if now.is_some_and(|now| !has(get(now, "state"), "terminated")) {
                let why = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(&child(&path, "state"), why));
            }
        }
    }
    errors
}

fn ephemeral(new: &Value, old: &Value) -> Errors {
    let mut errors = spec::whole(new);
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
    let mut errors = spec::whole(value);
    let class = qos_class(new);
    let was = old.str_at(&["status", "qosClass"]);
    if !was.is_empty() && class != was {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("metadata", &class.into(), why));
    }
    let (spec, old_spec) = (get(value, "spec"), get(before, "spec"));
    for (path, container) in indexed(spec, "spec", "containers") {
        let name = text(container, "name");
        let Some(old) = items(old_spec, "containers").iter().find(|old| text(old, "name") == name) else { continue };
        for kind in ["limits", "requests"] {
            let amounts = |container: &Value| {
                let map = get(get(container, "resources"), kind).as_object().cloned().unwrap_or_default();
                let rest: serde_json::Map<_, _> =
                    map.into_iter().filter(|(key, _)| !["cpu", "memory"].contains(&key.as_str())).collect();
                json!(rest)
            };
            if !same(&amounts(container), &amounts(old)) {
                let why = "only cpu and memory resources are mutable";
                errors.push(FieldError::forbidden(&format!("{path}.resources.{kind}"), why));
            }
            for key in ["cpu", "memory"] {
                let had = has(get(get(old, "resources"), kind), key);
                if had && !has(get(get(container, "resources"), kind), key) {
                    let why = format!("resource {kind} cannot be removed");
                    errors.push(FieldError::forbidden(&format!("{path}.resources.{kind}"), &why));
                }
            }
        }
    }
    errors
}
