//! Pure: pods as their controllers see them.
//!
//! Upstream: `pkg/controller/controller_utils.go`, `pkg/api/v1/pod/util.go`.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::base::{Object, Stored};

pub(super) fn phase(pod: &Object) -> &str {
    pod.str_at(&["status", "phase"])
}

/// Whether it has not ended and nobody has asked it to.
pub(super) fn is_active(pod: &Object) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && !pod.is_deleting()
}

/// Whether it was asked to end and has not yet.
pub(super) fn is_terminating(pod: &Object) -> bool {
    !matches!(phase(pod), "Succeeded" | "Failed") && pod.is_deleting()
}

fn ready_condition(pod: &Object) -> Option<&Value> {
    let conditions = pod.at(&["status", "conditions"])?.as_array()?;
    conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))
}

pub(super) fn is_ready(pod: &Object) -> bool {
    ready_condition(pod).and_then(|condition| condition.get("status")).and_then(Value::as_str) == Some("True")
}

/// Since when it is ready.
pub(super) fn ready_since(pod: &Object) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|_| is_ready(pod))?;
    condition.get("lastTransitionTime")?.as_str()?.parse().ok()
}

/// Whether it has been ready for that many seconds; if it is ready and has not, when it will have been.
pub(super) fn is_available(pod: &Object, min_ready_seconds: i64, now: Timestamp) -> Result<bool, Timestamp> {
    if !is_ready(pod) {
        return Ok(false);
    }
    if min_ready_seconds == 0 {
        return Ok(true);
    }
    let Some(since) = ready_since(pod) else { return Ok(false) };
    let at = since.saturating_add(SignedDuration::from_secs(min_ready_seconds)).unwrap_or(Timestamp::MAX);
    if at <= now { Ok(true) } else { Err(at) }
}

/// How many pods are ready, how many available, and how long until that changes by time alone.
pub(super) fn availability<'a>(
    pods: impl Iterator<Item = &'a Object>,
    min_ready_seconds: i64,
    now: Timestamp,
) -> (i64, i64, Option<Duration>) {
    let (mut ready, mut available, mut next) = (0, 0, None);
    for pod in pods {
        ready += i64::from(is_ready(pod));
        match is_available(pod, min_ready_seconds, now) {
            Ok(is) => available += i64::from(is),
            Err(at) => next = Some(next.map_or(at, |next: Timestamp| next.min(at))),
        }
    }
    let wait = next.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    (ready, available, wait)
}

/// A pod as a template says, owned by its controller and named after it (`GetPodFromTemplate`).
pub(super) fn from_template(template: Option<&Value>, owner: &Object) -> Object {
    let mut pod = Object::new("v1", "Pod", owner.namespace(), "");
    let metadata = pod.metadata_mut();
    metadata.remove("name");
    metadata.insert("generateName".into(), prefix(owner.name()).into());
    let given = template.and_then(|template| template.get("metadata"));
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = given.and_then(|metadata| metadata.get(field)) {
            metadata.insert(field.into(), value.clone());
        }
    }
    metadata.insert("ownerReferences".into(), vec![super::controller_reference(owner)].into());
    let spec = template.and_then(|template| template.get("spec")).cloned();
    pod.set("spec", spec.unwrap_or_else(|| Map::new().into()));
    pod
}

/// What the names of an owner's pods begin with: without the dash where that would make no valid name.
fn prefix(owner: &str) -> String {
    if owner.ends_with('.') { owner.to_owned() } else { format!("{owner}-") }
}

/// Sorts pods so that those to be deleted first come first (`ActivePodsWithRanks`).
pub(super) fn sort_for_deletion(pods: &mut [Arc<Stored>]) {
    let node = |pod: &Object| pod.str_at(&["spec", "nodeName"]).to_owned();
    let mut crowds: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        *crowds.entry(node(pod)).or_default() += 1;
    }
    let rank = |pod: &Object| crowds.get(&node(pod)).copied().unwrap_or_default();
    pods.sort_by(|a, b| {
        let (a, b) = (a.object(), b.object());
        let order = |key: &dyn Fn(&Object) -> i64| key(a).cmp(&key(b));
        order(&|pod| i64::from(!node(pod).is_empty()))
            .then_with(|| {
                order(&|pod| match phase(pod) {
                    "Pending" => 0,
                    "Unknown" => 1,
                    _ => 2,
                })
            })
            .then_with(|| order(&|pod| i64::from(is_ready(pod))))
            .then_with(|| order(&deletion_cost))
            .then_with(|| rank(b).cmp(&rank(a)))
            .then_with(|| later_first(ready_since(a), ready_since(b)))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| later_first(a.creation_timestamp(), b.creation_timestamp()))
            .then_with(|| a.uid().cmp(b.uid()))
    });
}

fn later_first(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    b.cmp(&a)
}

fn deletion_cost(pod: &Object) -> i64 {
    pod.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok()).unwrap_or_default()
}

fn restarts(pod: &Object) -> i64 {
    let statuses = pod.at(&["status", "containerStatuses"]).and_then(Value::as_array).into_iter().flatten();
    statuses.filter_map(|status| status.get("restartCount")?.as_i64()).max().unwrap_or_default()
}
