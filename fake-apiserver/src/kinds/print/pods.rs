//! Pods and their templates.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::util::{at, flag, get, int_or_zero, items, text},
    age, condition_is_true, containers, label_text, object_age, or, root,
};
use crate::base::Object;

/// What `kubectl get pods` shows as the status of a pod, and its restarts (with the time of the last one).
fn pod_state(pod: &Value, now: Timestamp) -> (String, usize, usize, String) {
    let (spec, status) = (get(pod, "spec"), get(pod, "status"));
    let mut reason = or(text(status, "reason"), text(status, "phase")).to_owned();
    for condition in items(status, "conditions") {
        if text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated" {
            reason = "SchedulingGated".into();
        }
    }
    let init = items(spec, "initContainers");
    let sidecar = |name: &str| init.iter().any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always");
    let total = items(spec, "containers").len()
        + init.iter().filter(|container| text(container, "restartPolicy") == "Always").count();
    let (mut ready, mut restarts, mut last) = (0, 0, None::<Timestamp>);
    let (mut sidecar_restarts, mut last_sidecar) = (0, None::<Timestamp>);
    let finished = |container: &Value| -> Option<Timestamp> {
        text(at(container, &["lastState", "terminated"]), "finishedAt").parse().ok()
    };
    let mut initializing = false;
    for (i, container) in items(status, "initContainerStatuses").iter().enumerate() {
        restarts += int_or_zero(container, "restartCount");
        last = last.max(finished(container));
        let is_sidecar = sidecar(text(container, "name"));
        if is_sidecar {
            sidecar_restarts += int_or_zero(container, "restartCount");
            last_sidecar = last_sidecar.max(finished(container));
        }
        let terminated = at(container, &["state", "terminated"]);
        let waiting = text(at(container, &["state", "waiting"]), "reason");
        if !terminated.is_null() && int_or_zero(terminated, "exitCode") == 0 {
            continue;
        }
        if is_sidecar && flag(container, "started") {
            ready += usize::from(flag(container, "ready"));
            continue;
        }
        reason = if !terminated.is_null() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", init.len())
        };
        initializing = true;
        break;
    }
    if !initializing || condition_is_true(status, "Initialized") {
        (restarts, last) = (sidecar_restarts, last_sidecar);
        let mut running = false;
        for container in items(status, "containerStatuses").iter().rev() {
            restarts += int_or_zero(container, "restartCount");
            last = last.max(finished(container));
            let terminated = at(container, &["state", "terminated"]);
            let waiting = text(at(container, &["state", "waiting"]), "reason");
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if !terminated.is_null() {
                reason = ended(terminated);
            } else if flag(container, "ready") && !at(container, &["state", "running"]).is_null() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if condition_is_true(status, "Ready") { "Running".into() } else { "NotReady".into() };
        }
    }
    let deleting = !text(get(pod, "metadata"), "deletionTimestamp").is_empty();
    if deleting && text(status, "reason") == "NodeLost" {
        reason = "Unknown".into();
    } else if deleting && !matches!(text(status, "phase"), "Failed" | "Succeeded") {
        reason = "Terminating".into();
    }
    let restarts = match last {
        Some(last) if restarts != 0 => format!("{restarts} ({} ago)", age(last, now)),
        Some(_) | None => restarts.to_string(),
    };
    (reason, ready, total, restarts)
}

/// How a container ended, in a word.
fn ended(terminated: &Value) -> String {
    let (reason, signal) = (text(terminated, "reason"), int_or_zero(terminated, "signal"));
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", int_or_zero(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

/// `Pod`.
pub(in crate::kinds) fn pod(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let (reason, ready, total, restarts) = pod_state(&value, now);
    let ip = items(status, "podIPs").first().map_or(text(status, "podIP"), |ip| text(ip, "ip"));
    let gates = items(spec, "readinessGates");
    let gates = if gates.is_empty() {
        "<none>".into()
    } else {
        let open = gates.iter().filter(|gate| condition_is_true(status, text(gate, "conditionType"))).count();
        format!("{open}/{}", gates.len())
    };
    vec![
        object.name().into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        object_age(object, now),
        or(ip, "<none>").into(),
        or(text(spec, "nodeName"), "<none>").into(),
        or(text(status, "nominatedNodeName"), "<none>").into(),
        gates.into(),
    ]
}

/// `PodTemplate`.
pub(in crate::kinds) fn pod_template(object: &Object, _: Timestamp) -> Vec<Value> {
    let value = root(object);
    let template = get(&value, "template");
    let [names, images] = containers(template);
    vec![object.name().into(), names, images, label_text(at(template, &["metadata", "labels"])).into()]
}
