//! What makes pods, and what scales and guards them.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::util::{at, flag, get, int, int_or_zero, items, text},
    age, condition_is_true, containers, label_text, object_age, or, root, selector_text, since,
};
use crate::base::Object;

/// `Deployment`.
pub(in crate::kinds) fn deployment(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let [names, images] = containers(get(spec, "template"));
    vec![
        object.name().into(),
        format!("{}/{}", int_or_zero(status, "readyReplicas"), int_or_zero(spec, "replicas")).into(),
        int_or_zero(status, "updatedReplicas").into(),
        int_or_zero(status, "availableReplicas").into(),
        object_age(object, now),
        names,
        images,
        selector_text(get(spec, "selector")).into(),
    ]
}

/// `ReplicaSet` and `ReplicationController`.
pub(in crate::kinds) fn replica_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let [names, images] = containers(get(spec, "template"));
    let selector = get(spec, "selector");
    let structured = ["matchLabels", "matchExpressions"].iter().any(|key| selector.get(key).is_some());
    vec![
        object.name().into(),
        int_or_zero(spec, "replicas").into(),
        int_or_zero(status, "replicas").into(),
        int_or_zero(status, "readyReplicas").into(),
        object_age(object, now),
        names,
        images,
        if structured { selector_text(selector) } else { label_text(selector) }.into(),
    ]
}

/// `StatefulSet`.
pub(in crate::kinds) fn stateful_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let [names, images] = containers(get(spec, "template"));
    let ready = format!("{}/{}", int_or_zero(status, "readyReplicas"), int_or_zero(spec, "replicas"));
    vec![object.name().into(), ready.into(), object_age(object, now), names, images]
}

/// `DaemonSet`.
pub(in crate::kinds) fn daemon_set(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let [names, images] = containers(get(spec, "template"));
    let count = |key| int_or_zero(status, key).into();
    vec![
        object.name().into(),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        label_text(at(spec, &["template", "spec", "nodeSelector"])).into(),
        object_age(object, now),
        names,
        images,
        selector_text(get(spec, "selector")).into(),
    ]
}

/// `Job`.
pub(in crate::kinds) fn job(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let done = int_or_zero(status, "succeeded");
    let completions = match (int(spec, "completions"), int_or_zero(spec, "parallelism")) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        (None, _) => format!("{done}/1"),
    };
    let time = |key| text(status, key).parse::<Timestamp>().ok();
    let duration = match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(start), None) => age(start, now),
        (Some(start), Some(end)) => age(start, end),
    };
    let state = if condition_is_true(status, "Complete") {
        "Complete"
    } else if condition_is_true(status, "Failed") {
        "Failed"
    } else if object.is_deleting() {
        "Terminating"
    } else if condition_is_true(status, "Suspended") {
        "Suspended"
    } else if condition_is_true(status, "FailureTarget") {
        "FailureTarget"
    } else if condition_is_true(status, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    };
    let [names, images] = containers(get(spec, "template"));
    vec![
        object.name().into(),
        state.into(),
        completions.into(),
        duration.into(),
        object_age(object, now),
        names,
        images,
        selector_text(get(spec, "selector")).into(),
    ]
}

/// `CronJob`.
pub(in crate::kinds) fn cron_job(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let last = text(status, "lastScheduleTime");
    let job = at(spec, &["jobTemplate", "spec"]);
    let [names, images] = containers(get(job, "template"));
    vec![
        object.name().into(),
        text(spec, "schedule").into(),
        or(text(spec, "timeZone"), "<none>").into(),
        if flag(spec, "suspend") { "True" } else { "False" }.into(),
        items(status, "active").len().into(),
        if last.is_empty() { "<none>".into() } else { since(last, now).into() },
        object_age(object, now),
        names,
        images,
        selector_text(get(job, "selector")).into(),
    ]
}

/// `ControllerRevision`.
pub(in crate::kinds) fn controller_revision(object: &Object, now: Timestamp) -> Vec<Value> {
    let controller = object.controller().map_or("<none>".to_owned(), |owner| {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = owner.kind.to_lowercase();
        format!("{kind}{}{group}/{}", if group.is_empty() { "" } else { "." }, owner.name)
    });
    let revision = int_or_zero(&root(object), "revision");
    vec![object.name().into(), controller.into(), revision.into(), object_age(object, now)]
}

/// `PodDisruptionBudget`.
pub(in crate::kinds) fn disruption_budget(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let bound = |key: &str| match at(&value, &["spec", key]) {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => "N/A".into(),
    };
    vec![
        object.name().into(),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        int_or_zero(get(&value, "status"), "disruptionsAllowed").into(),
        object_age(object, now),
    ]
}

/// `HorizontalPodAutoscaler`.
pub(in crate::kinds) fn autoscaler(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let target = get(spec, "scaleTargetRef");
    let current = items(status, "currentMetrics");
    let mut targets: Vec<String> = items(spec, "metrics")
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let kind = text(metric, "type");
            let key = format!("{}{}", kind[..kind.len().min(1)].to_lowercase(), kind.get(1..).unwrap_or_default());
            let (wanted, is) = (get(metric, &key), current.get(i).map_or(&Value::Null, |c| get(c, &key)));
            let name = text(wanted, "name");
            let (goal, is) = (get(wanted, "target"), get(is, "current"));
            match int(goal, "averageUtilization") {
                Some(goal) => {
                    let is = int(is, "averageUtilization").map_or("<unknown>".to_owned(), |is| format!("{is}%"));
                    format!("{name}: {is}/{goal}%")
                }
                None => {
                    let key = if text(goal, "averageValue").is_empty() { "value" } else { "averageValue" };
                    let avg = if key == "averageValue" { " (avg)" } else { "" };
                    let shown = format!("{}/{}{avg}", or(text(is, key), "<unknown>"), text(goal, key));
                    if kind == "Resource" { format!("{name}: {shown}") } else { shown }
                }
            }
        })
        .collect();
    if let Some(goal) = int(spec, "targetCPUUtilizationPercentage") {
        let is = int(status, "currentCPUUtilizationPercentage").map_or("<unknown>".into(), |is| format!("{is}%"));
        targets.push(format!("cpu: {is}/{goal}%"));
    }
    let targets = match targets.len() {
        0 => "<none>".into(),
        1..=2 => targets.join(", "),
        more => format!("{} + {} more...", targets[..2].join(", "), more - 2),
    };
    vec![
        object.name().into(),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        targets.into(),
        int(spec, "minReplicas").map_or("<unset>".to_owned(), |min| min.to_string()).into(),
        int_or_zero(spec, "maxReplicas").into(),
        int_or_zero(status, "currentReplicas").into(),
        object_age(object, now),
    ]
}
