//! Pure: which node a pod goes to, or why to none. Messages follow `pkg/scheduler/framework/types.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::base::Object;

/// What the scheduler says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to this node.
    Bind(String),
    /// It goes nowhere for now.
    Unschedulable(String),
}

/// A claim as the scheduler sees it: `true` when it is bound, `None` where there is none.
pub(super) type ClaimState = Option<bool>;

/// Decides for a pod. `nodes` come with the number of pods on them.
pub(super) fn schedule(pod: &Object, nodes: &[(&Object, usize)], claim: impl Fn(&str) -> ClaimState) -> Verdict {
    let total = nodes.len();
    if total == 0 {
        return Verdict::Unschedulable("no nodes available to schedule pods".into());
    }
    // What does not depend on a node is one reason for all (PreFilter).
    for name in claims(pod) {
        let reason = match claim(&name) {
            Some(true) => continue,
            Some(false) => "pod has unbound immediate PersistentVolumeClaims".to_owned(),
            None => format!("persistentvolumeclaim {name:?} not found"),
        };
        return Verdict::Unschedulable(unschedulable(total, &reason));
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(usize, &str)> = None;
    for (node, pods) in nodes {
        match refusal(pod, node, *pods) {
            Some(reason) => *reasons.entry(reason).or_default() += 1,
            None if best.is_none_or(|(least, _)| *pods < least) => best = Some((*pods, node.name())),
            None => {}
        }
    }
    match best {
        Some((_, name)) => Verdict::Bind(name.into()),
        None => {
            let mut texts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            texts.sort();
            Verdict::Unschedulable(unschedulable(total, &texts.join(", ")))
        }
    }
}

fn unschedulable(total: usize, reason: &str) -> String {
    format!(
        "0/{total} nodes are available: {reason}. preemption: 0/{total} nodes are available: \
         {total} Preemption is not helpful for scheduling."
    )
}

/// The claims that a pod's volumes name.
pub(super) fn claims(pod: &Object) -> Vec<String> {
    let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array).into_iter().flatten();
    volumes.filter_map(|volume| claim_of(pod, volume)).collect()
}

/// The claim that a volume names.
pub(super) fn claim_of(pod: &Object, volume: &Value) -> Option<String> {
    if volume.get("ephemeral").is_some() {
        return Some(format!("{}-{}", pod.name(), volume.get("name")?.as_str()?));
    }
    Some(volume.get("persistentVolumeClaim")?.get("claimName")?.as_str()?.to_owned())
}

/// Why a node does not take a pod.
fn refusal(pod: &Object, node: &Object, pods: usize) -> Option<String> {
    if node.at(&["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        return Some("node(s) were unschedulable".into());
    }
    let labels = node.labels();
    let selector = pod.at(&["spec", "nodeSelector"]).and_then(Value::as_object);
    let selected =
        selector.into_iter().flatten().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    if !selected {
        return Some("node(s) didn't match Pod's node affinity/selector".into());
    }
    let taints = node.at(&["spec", "taints"]).and_then(Value::as_array).into_iter().flatten();
    for taint in taints {
        let text = |field: &str| taint.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("effect") != "PreferNoSchedule" && !tolerated(pod, text("key"), text("value"), text("effect")) {
            return Some(format!("node(s) had untolerated taint {{{}: {}}}", text("key"), text("value")));
        }
    }
    let room = node.str_at(&["status", "allocatable", "pods"]).parse().unwrap_or(usize::MAX);
    (pods >= room).then(|| "Too many pods".into())
}

fn tolerated(pod: &Object, key: &str, value: &str, effect: &str) -> bool {
    let tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).into_iter().flatten();
    tolerations.into_iter().any(|toleration| {
        let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
        let exists = text("operator") == "Exists";
        (text("effect").is_empty() || text("effect") == effect)
            && (text("key") == key || text("key").is_empty() && exists)
            && (exists || text("value") == value)
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn node(name: &str, spec: Value) -> Object {
        let mut node = Object::new("v1", "Node", "", name);
        node.metadata_mut().insert("labels".into(), json!({ "disk": "ssd" }));
        node.set("spec", spec);
        node.set("status", json!({ "allocatable": { "pods": "2" } }));
        node
    }

    fn pod(spec: Value) -> Object {
        let mut pod = Object::new("v1", "Pod", "default", "p");
        pod.set("spec", spec);
        pod
    }

    const TAIL: &str = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

    #[rstest]
    #[case::cordoned(json!({ "unschedulable": true }), 0, json!({}), "1 node(s) were unschedulable.")]
    #[case::selector(
        json!({}), 0, json!({ "nodeSelector": { "disk": "hdd" } }), "1 node(s) didn't match Pod's node affinity/selector."
    )]
    #[case::taint(
        json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }), 0, json!({}),
        "1 node(s) had untolerated taint {k: v}."
    )]
    #[case::full(json!({}), 2, json!({}), "1 Too many pods.")]
    #[case::no_claim(
        json!({}), 0, json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "none" } }] }),
        "persistentvolumeclaim \"none\" not found."
    )]
    #[case::unbound(
        json!({}), 0, json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "unbound" } }] }),
        "pod has unbound immediate PersistentVolumeClaims."
    )]
    fn a_pod_waits(#[case] node_spec: Value, #[case] pods: usize, #[case] spec: Value, #[case] reason: &str) {
        let node = node("a", node_spec);
        let verdict = schedule(&pod(spec), &[(&node, pods)], |name| (name == "unbound").then_some(false));
        assert_eq!(verdict, Verdict::Unschedulable(format!("0/1 nodes are available: {reason}{TAIL}")));
    }

    #[test]
    fn a_pod_goes_to_the_emptiest_node_that_takes_it() {
        let tainted = node("a", json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }));
        let (b, c) = (node("b", json!({})), node("c", json!({})));
        let nodes = [(&tainted, 0), (&b, 1), (&c, 0)];
        assert_eq!(schedule(&pod(json!({})), &nodes, |_| None), Verdict::Bind("c".into()));
        let tolerant = pod(json!({ "tolerations": [{ "key": "k", "operator": "Exists" }] }));
        assert_eq!(schedule(&tolerant, &nodes, |_| None), Verdict::Bind("a".into()));
    }
}
