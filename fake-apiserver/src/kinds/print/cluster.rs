//! Kinds with a few plain columns: configuration, nodes, events, policy.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::util::{at, flag, get, int, int_or_zero, items, members, text},
    human_duration, object_age, or, root, since,
};
use crate::base::Object;

/// `ConfigMap`.
pub(in crate::kinds) fn config_map(object: &Object, now: Timestamp) -> Vec<Value> {
    let object_value = root(object);
    let count = members(&object_value, "data").count() + members(&object_value, "binaryData").count();
    vec![object.name().into(), count.into(), object_age(object, now)]
}

/// `Secret`.
pub(in crate::kinds) fn secret(object: &Object, now: Timestamp) -> Vec<Value> {
    let count = members(&root(object), "data").count();
    vec![object.name().into(), object.str_at(&["type"]).into(), count.into(), object_age(object, now)]
}

/// `CertificateSigningRequest`.
pub(in crate::kinds) fn certificate_request(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let has = |kind: &str| items(status, "conditions").iter().any(|condition| text(condition, "type") == kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".to_owned(),
        (false, false) => "Pending".to_owned(),
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(status, "certificate").is_empty() {
        state.push_str(",Issued");
    }
    let asked = int(spec, "expirationSeconds").map_or_else(|| "<none>".to_owned(), human_duration);
    vec![
        object.name().into(),
        object_age(object, now),
        or(text(spec, "signerName"), "<none>").into(),
        text(spec, "username").into(),
        asked.into(),
        state.into(),
    ]
}

/// `Namespace`.
pub(in crate::kinds) fn namespace(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.str_at(&["status", "phase"]).into(), object_age(object, now)]
}

/// `Node`.
pub(in crate::kinds) fn node(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let ready = items(status, "conditions").iter().find(|condition| text(condition, "type") == "Ready");
    let mut state = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(spec, "unschedulable") {
        state.push_str(",SchedulingDisabled");
    }
    let labels = object.labels();
    let roles: BTreeSet<&str> = labels
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => (!role.is_empty()).then_some(role),
            None => (key == "kubernetes.io/role" && !value.is_empty()).then_some(value.as_str()),
        })
        .collect();
    let roles = roles.into_iter().collect::<Vec<_>>().join(",");
    let address = |kind: &str| {
        let found = items(status, "addresses").iter().find(|address| text(address, "type") == kind);
        found.map_or("<none>", |address| text(address, "address")).to_owned()
    };
    let info = |key: &str| text(get(status, "nodeInfo"), key);
    let mut kernel = or(info("kernelVersion"), "<unknown>").to_owned();
    if !info("architecture").is_empty() {
        kernel = format!("{kernel} ({})", info("architecture"));
    }
    vec![
        object.name().into(),
        state.into(),
        or(&roles, "<none>").into(),
        object_age(object, now),
        info("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info("osImage"), "<unknown>").into(),
        kernel.into(),
        or(info("containerRuntimeVersion"), "<unknown>").into(),
    ]
}

/// `Event` of both groups.
pub(in crate::kinds) fn event(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    // the two groups name the same members differently
    let either =
        |a: &str, b: &str| if value.get(a).is_some() { get(&value, a).clone() } else { get(&value, b).clone() };
    let (target, source) = (either("involvedObject", "regarding"), either("source", "deprecatedSource"));
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let count = either("count", "deprecatedCount").as_i64().unwrap_or_default();
    let (first, last) = (first.as_str().unwrap_or_default(), last.as_str().unwrap_or_default());
    let event_time = text(&value, "eventTime");
    let first_seen = if first.is_empty() { since(event_time, now) } else { since(first, now) };
    let last_seen = if last.is_empty() { first_seen.clone() } else { since(last, now) };
    let series = get(&value, "series");
    let (last_seen, count) = if !series.is_null() {
        (since(text(series, "lastObservedTime"), now), int_or_zero(series, "count"))
    } else {
        (last_seen, if count == 0 { 1 } else { count })
    };
    let kind = text(&target, "kind").to_lowercase();
    let target_text = if text(&target, "name").is_empty() { kind } else { format!("{kind}/{}", text(&target, "name")) };
    let component =
        or(text(&source, "component"), or(text(&value, "reportingComponent"), text(&value, "reportingController")));
    let host = or(text(&source, "host"), text(&value, "reportingInstance"));
    let source = [component, host].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ");
    let message = or(text(&value, "message"), text(&value, "note"));
    vec![
        last_seen.into(),
        text(&value, "type").into(),
        text(&value, "reason").into(),
        target_text.into(),
        text(&target, "fieldPath").into(),
        source.into(),
        message.trim().into(),
        first_seen.into(),
        count.into(),
        object.name().into(),
    ]
}

/// `Lease`.
pub(in crate::kinds) fn lease(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.str_at(&["spec", "holderIdentity"]).into(), object_age(object, now)]
}

/// `RuntimeClass`.
pub(in crate::kinds) fn runtime_class(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.str_at(&["handler"]).into(), object_age(object, now)]
}

/// `PriorityClass`.
pub(in crate::kinds) fn priority_class(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    vec![
        object.name().into(),
        int_or_zero(&value, "value").into(),
        flag(&value, "globalDefault").into(),
        object_age(object, now),
        text(&value, "preemptionPolicy").into(),
    ]
}

/// `ResourceQuota`.
pub(in crate::kinds) fn resource_quota(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let status = get(&value, "status");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in members(status, "hard") {
        let used = text(get(status, "used"), name);
        let entry = format!("{name}: {}/{}", or(used, "0"), hard.as_str().unwrap_or_default());
        if name.starts_with("limits.") { &mut limits } else { &mut requests }.push(entry);
    }
    vec![object.name().into(), requests.join(", ").into(), limits.join(", ").into(), object_age(object, now)]
}

/// `RoleBinding` and `ClusterRoleBinding`.
pub(in crate::kinds) fn role_binding(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let role = get(&value, "roleRef");
    let of = |kind: &str| {
        let subjects = items(&value, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let names: Vec<_> = subjects
            .map(|subject| match text(subject, "namespace") {
                namespace if kind == "ServiceAccount" => format!("{namespace}/{}", text(subject, "name")),
                _ => text(subject, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        object.name().into(),
        format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
        object_age(object, now),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

/// Admission configurations: the count of a list.
pub(in crate::kinds) fn webhooks(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), items(&root(object), "webhooks").len().into(), object_age(object, now)]
}

/// `ValidatingAdmissionPolicy`.
pub(in crate::kinds) fn admission_policy(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let spec = get(&value, "spec");
    let param = get(spec, "paramKind");
    let param = if param.is_null() {
        "<unset>".to_owned()
    } else {
        format!("{}/{}", text(param, "apiVersion"), text(param, "kind"))
    };
    let count = items(spec, "validations").len() + items(spec, "mutations").len();
    vec![object.name().into(), count.into(), param.into(), object_age(object, now)]
}

/// `ValidatingAdmissionPolicyBinding`.
pub(in crate::kinds) fn admission_binding(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, param) = (get(&value, "spec"), at(&value, &["spec", "paramRef"]));
    let param = if param.is_null() {
        "<unset>".to_owned()
    } else if text(param, "namespace").is_empty() {
        format!("*/{}", text(param, "name"))
    } else {
        format!("{}/{}", text(param, "namespace"), text(param, "name"))
    };
    vec![object.name().into(), text(spec, "policyName").into(), param.into(), object_age(object, now)]
}
