//! The status of a Sandbox: what the steps found, in conditions and messages.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    super::{
        conditions::{self, Condition},
        ownership::is_own,
    },
    pod, service,
};
use crate::base::Object;

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StepError {
    /// The Sandbox controls several pods.
    MultiplePods(usize),
    /// Anything else, in words.
    Other(String),
}

impl StepError {
    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::MultiplePods(count) => pod::conflict_text(*count),
            Self::Other(text) => text.clone(),
        }
    }
}

/// What the service step says of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceFound {
    /// There is a service, and it is ours.
    Ours,
    /// There is none.
    None,
    /// Nobody knows: the step failed or was left out.
    Unknown,
}

/// What the steps of a pass found.
#[derive(Clone, Debug)]
pub(super) struct Findings<'a> {
    /// The pod, ours or not.
    pub(super) pod: Option<&'a Object>,
    /// How the volume step failed.
    pub(super) volume_error: Option<StepError>,
    /// How the pod step failed.
    pub(super) pod_error: Option<StepError>,
    /// The service.
    pub(super) service: ServiceFound,
    /// How the service step failed.
    pub(super) service_error: Option<StepError>,
}

impl Findings<'_> {
    fn errors(&self) -> impl Iterator<Item = &StepError> {
        [&self.volume_error, &self.pod_error, &self.service_error].into_iter().flatten()
    }

    /// What the pass failed with, in words; several pods are no failure, for trying again would not help.
    pub(super) fn failure(&self) -> Option<String> {
        let texts: Vec<_> =
            self.errors().filter(|error| matches!(error, StepError::Other(_))).map(StepError::text).collect();
        if texts.is_empty() { None } else { Some(texts.join("\n")) }
    }
}

/// The members of a status.
pub(super) type StatusMap = Map<String, Value>;

/// The status as it stands.
pub(super) fn current(sandbox: &Object) -> StatusMap {
    sandbox.get("status").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The conditions in a status.
pub(super) fn conditions_of(status: &StatusMap) -> &[Value] {
    status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn put(status: &mut StatusMap, member: &str, value: Value) {
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if empty {
        status.remove(member);
    } else {
        status.insert(member.into(), value);
    }
}

fn change_conditions(status: &mut StatusMap, change: impl FnOnce(&mut Vec<Value>)) {
    let mut list = conditions_of(status).to_vec();
    change(&mut list);
    put(status, "conditions", list.into());
}

/// The status after a pass over a Sandbox that has not expired.
pub(super) fn after(sandbox: &Object, findings: &Findings<'_>, cluster_domain: &str, now: Timestamp) -> StatusMap {
    let mut status = current(sandbox);
    let (mut ips, mut node) = (Vec::new(), Value::Null);
    if let Some(pod) = findings.pod {
        put(&mut status, "selector", pod::selector(sandbox).into());
        if is_own(pod, sandbox) {
            ips = pod_ips(pod);
            node = pod.str_at(&["spec", "nodeName"]).into();
        }
    }
    put(&mut status, "podIPs", ips.into());
    put(&mut status, "nodeName", node);
    match findings.service {
        ServiceFound::Ours => {
            let (name, namespace) = (sandbox.name(), sandbox.namespace());
            put(&mut status, "service", name.into());
            put(&mut status, "serviceFQDN", format!("{name}.{namespace}.svc.{cluster_domain}").into());
        }
        ServiceFound::None => {
            put(&mut status, "service", Value::Null);
            put(&mut status, "serviceFQDN", Value::Null);
        }
        ServiceFound::Unknown => {}
    }
    let now = crate::clock::time_text(now);
    change_conditions(&mut status, |list| {
        let (finished, scheduled) = (finished(sandbox, findings), scheduled(sandbox, findings));
        let computed =
            [Some(suspended(sandbox, findings)), finished.clone(), scheduled.clone(), Some(ready(sandbox, findings))];
        for condition in computed.iter().flatten() {
            conditions::set(list, condition, sandbox.generation(), &now);
        }
        for (kind, computed) in [("Finished", finished), ("PodScheduled", scheduled)] {
            if computed.is_none() {
                conditions::remove(list, kind);
            }
        }
    });
    status
}

fn pod_ips(pod: &Object) -> Vec<Value> {
    let list = pod.at(&["status", "podIPs"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|entry| entry.get("ip")).cloned().collect()
}

fn pod_condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a Value> {
    let list = pod.at(&["status", "conditions"]).and_then(Value::as_array)?;
    conditions::find(list, kind)
}

/// Condition Suspended.
fn suspended(sandbox: &Object, findings: &Findings<'_>) -> Condition {
    let (status, reason, message) = if !pod::is_suspended(sandbox) {
        ("False", "NotSuspended", "Sandbox is not suspended")
    } else {
        match findings.pod {
            None if findings.pod_error.is_some() => {
                ("Unknown", "PodStateUnknown", "Pod state is unknown. Sandbox suspension cannot be confirmed")
            }
            None => ("True", "PodTerminated", "Pod has been terminated. Sandbox is suspended"),
            Some(pod) if is_own(pod, sandbox) => {
                ("False", "PodTerminating", "Pod is terminating. Sandbox is suspending")
            }
            Some(_) => ("False", "PodNotOwned", "Refused to delete pod because it is not owned by this sandbox"),
        }
    };
    Condition::new("Suspended", status, reason, message)
}

/// Condition Finished, where it applies.
fn finished(sandbox: &Object, findings: &Findings<'_>) -> Option<Condition> {
    let pod = findings.pod.filter(|pod| is_own(pod, sandbox))?;
    let (reason, message) = finished_pod(pod)?;
    Some(Condition::new("Finished", "True", reason, message))
}

fn finished_pod(pod: &Object) -> Option<(&'static str, &'static str)> {
    match pod.str_at(&["status", "phase"]) {
        "Succeeded" => Some(("PodSucceeded", "Pod completed successfully")),
        "Failed" => Some(("PodFailed", "Pod failed")),
        _ => None,
    }
}

/// Condition PodScheduled, where it applies.
fn scheduled(sandbox: &Object, findings: &Findings<'_>) -> Option<Condition> {
    let unknown = |message| Some(Condition::new("PodScheduled", "Unknown", "PodSchedulingUnknown", message));
    let Some(pod) = findings.pod else {
        findings.pod_error.as_ref()?;
        return unknown("Pod state is unknown. Pod scheduling cannot be determined");
    };
    if !is_own(pod, sandbox) {
        return None;
    }
    let Some(condition) = pod_condition(pod, "PodScheduled") else {
        return unknown("Pod has not reported a PodScheduled condition yet");
    };
    let text = |member: &str| condition[member].as_str().unwrap_or_default();
    let reason = match (text("reason"), text("status")) {
        ("", "True") => "PodScheduled",
        ("", _) => "PodSchedulingUnknown",
        (reason, _) => reason,
    };
    Some(Condition::new("PodScheduled", text("status"), reason, text("message")))
}

/// Condition Ready.
fn ready(sandbox: &Object, findings: &Findings<'_>) -> Condition {
    let ready = |reason: &str, message: String| Condition::new("Ready", "False", reason, message);
    if let Some(conflict) = findings.errors().find(|error| matches!(error, StepError::MultiplePods(_))) {
        return ready("MultiplePods", conflict.text());
    }
    if let Some(failure) = findings.failure() {
        return ready("ReconcilerError", format!("Error seen: {failure}"));
    }
    if pod::is_suspended(sandbox) {
        let message = if findings.pod.is_some() { "Sandbox is suspending" } else { "Sandbox is suspended" };
        return ready("SandboxSuspended", message.into());
    }
    if let Some((reason, message)) = findings.pod.and_then(finished_pod) {
        return ready(reason, message.into());
    }
    let (pod_ready, mut message) = match findings.pod {
        None => (false, "Pod does not exist".to_owned()),
        Some(pod) => {
            let phase = pod.str_at(&["status", "phase"]);
            let is_ready = pod_condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True");
            if phase != "Running" {
                (false, format!("Pod exists with phase: {phase}"))
            } else if !is_ready {
                (false, "Pod is Running but not Ready".into())
            } else if pod_ips(pod).is_empty() {
                (false, "Pod is Ready but has no podIPs yet".into())
            } else {
                (true, "Pod is Ready".into())
            }
        }
    };
    let has_service = findings.service == ServiceFound::Ours;
    let needs_service = match service::wanted(sandbox) {
        Some(wanted) => wanted,
        None => has_service,
    };
    if needs_service {
        message.push_str(if has_service { "; Service Exists" } else { "; Service does not exist" });
    }
    if pod_ready && (has_service || !needs_service) {
        Condition::new("Ready", "True", "DependenciesReady", message)
    } else {
        ready("DependenciesNotReady", message)
    }
}

fn expired() -> Condition {
    Condition::new("Ready", "False", "SandboxExpired", "Sandbox has expired")
}

/// Whether a status says that the Sandbox has expired.
pub(super) fn is_marked_expired(status: &StatusMap) -> bool {
    conditions::text(conditions_of(status), "Ready", "reason") == "SandboxExpired"
}

/// Marks a status as expired, so that clients can see it before anything is taken away.
pub(super) fn mark_expired(status: &mut StatusMap, generation: i64, now: Timestamp) {
    change_conditions(status, |list| {
        conditions::set(list, &expired(), generation, &crate::clock::time_text(now));
        conditions::remove(list, "PodScheduled");
    });
}

/// The status of an expired Sandbox that has been cleaned up: only its conditions are left.
pub(super) fn expired_only(status: &StatusMap, generation: i64, now: Timestamp) -> StatusMap {
    let mut kept: StatusMap =
        status.get_key_value("conditions").map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
    change_conditions(&mut kept, |list| {
        conditions::set(list, &expired(), generation, &crate::clock::time_text(now));
    });
    kept
}

/// The merge patch that turns one status into the other; `None` if nothing is to be written. A node's name alone is not
/// worth a write while the Sandbox is not ready: it rides along with the next one.
pub(super) fn patch(old: &StatusMap, new: &StatusMap) -> Option<Value> {
    let mut changes = Map::new();
    for member in old.keys().filter(|member| !new.contains_key(*member)) {
        changes.insert(member.clone(), Value::Null);
    }
    for (member, value) in new.iter().filter(|(member, value)| old.get(*member) != Some(value)) {
        changes.insert(member.clone(), value.clone());
    }
    let node_only = changes.len() == 1 && changes.contains_key("nodeName");
    let is_ready = conditions::text(conditions_of(new), "Ready", "status") == "True";
    if changes.is_empty() || node_only && !is_ready { None } else { Some(json!({"status": changes})) }
}
