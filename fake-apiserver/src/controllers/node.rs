//! What becomes of a node whose kubelet has fallen silent: its conditions become unknown, its pods are not ready any more,
//! it is tainted, and what does not tolerate that is deleted when its time is over. When the kubelet is back, all is taken
//! back that can be.
//!
//! Only nodes that have, or had, a lease are judged: behind others there never was a kubelet.
//!
//! Upstream: `pkg/controller/nodelifecycle/node_lifecycle_controller.go`, `pkg/controller/tainteviction/taint_eviction.go`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Change, DeletePolicy, EventKind, Outcome, Server, Source},
    base::{Gvr, Object, Status, Stored, placement},
    clock::time_text,
};

/// How long a kubelet may be silent (`--node-monitor-grace-period`).
const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// How soon something is looked at again that other writes came before.
const SOON: Duration = Duration::from_secs(5);

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// When each node's lease was last seen to change, and to what.
type Heard = Arc<Mutex<BTreeMap<String, (String, Timestamp)>>>;

fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

/// Judges nodes until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let api = Api::new(server, "system:serviceaccount:kube-system:node-controller", KUBE_CONTROLLER_MANAGER);
    let (heard, clock) = (Heard::default(), api.clock().clone());
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let of_leases = heard.clone();
    let mut lease_source = Source::all(leases, move |change| {
        let name = change.object().name().to_owned();
        let mut heard = of_leases.lock().expect("no panic under this lock");
        if let Change::Applied { new, .. } = change {
            let renewed = new.str_at(&["spec", "renewTime"]).to_owned();
            if heard.get(&name).is_none_or(|(before, _)| *before != renewed) {
                let silent = heard.insert(name.clone(), (renewed, clock.now()));
                // A node that is well needs no look for each sign of life.
                return if silent.is_some() { Vec::new() } else { vec![name] };
            }
        }
        Vec::new()
    });
    lease_source.namespace = "kube-node-lease".into();
    let sources = vec![
        lease_source,
        Source::all(core("nodes"), |change| vec![change.object().name().to_owned()]),
        Source::all(core("pods"), |change| match change {
            // A pod that comes to a node, or is ready on one, where that may be lost.
            Change::Applied { new, old } if old.as_deref().is_none_or(|old| node_of(old) != node_of(new)) => {
                Some(node_of(new).to_owned()).filter(|node| !node.is_empty()).into_iter().collect()
            }
            Change::Applied { .. } | Change::Gone(_) => Vec::new(),
        }),
    ];
    actor::run(api.clone(), sources, token, move |name| judge(api.clone(), heard.clone(), name)).await;
}

fn node_of(pod: &Object) -> &str {
    pod.str_at(&["spec", "nodeName"])
}

fn ready_status(object: &Object) -> &str {
    let conditions = object.at(&["status", "conditions"]).and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["status"].as_str()).unwrap_or_default()
}

async fn judge(api: Api, heard: Heard, name: String) -> Result<Outcome, Status> {
    let Some(node) = api.get(&core("nodes"), "", &name).await? else {
        heard.lock().expect("no panic under this lock").remove(&name);
        return Ok(Outcome::Done);
    };
    let last = heard.lock().expect("no panic under this lock").get(&name).map(|(_, time)| *time);
    let Some(last) = last else { return Ok(Outcome::Done) };
    let now = api.clock().now();
    let silent = now.duration_since(last);
    if silent < GRACE {
        if ready_status(&node) == "True" && taints(&node).any(|taint| taint["key"] == UNREACHABLE) {
            let kept: Vec<&Value> = taints(&node).filter(|taint| taint["key"] != UNREACHABLE).collect();
            api.patch(&core("nodes"), "", &name, "", json!({"spec": {"taints": kept}})).await?;
        }
        return Ok(Outcome::After(Duration::try_from(GRACE - silent).unwrap_or(SOON)));
    }
    if ready_status(&node) != "Unknown" {
        let condition = |kind: &str| {
            json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": time_text(now),
            })
        };
        let all: Vec<_> = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"].map(condition).into();
        let patch = json!({"status": {"conditions": all}});
        api.strategic_patch(&core("nodes"), ("", &name, "status"), patch).await?;
        tell(&api, &node, "NodeNotReady", &format!("Node {name} status is now: NodeNotReady")).await;
    }
    if !taints(&node).any(|taint| taint["key"] == UNREACHABLE) {
        let mut all: Vec<Value> = taints(&node).cloned().collect();
        for effect in ["NoSchedule", "NoExecute"] {
            all.push(json!({"key": UNREACHABLE, "effect": effect, "timeAdded": time_text(now)}));
        }
        api.patch(&core("nodes"), "", &name, "", json!({"spec": {"taints": all}})).await?;
        return Ok(Outcome::After(Duration::ZERO));
    }
    let mut next = SOON; // until it is back: its lease alone brings no look
    for pod in api.list(&core("pods"), "", "").await?.0.iter().filter(|pod| node_of(pod) == name) {
        if ready_status(pod) == "True" {
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": time_text(now)});
            let place = (pod.namespace(), pod.name(), "status");
            api.strategic_patch(&core("pods"), place, json!({"status": {"conditions": [condition]}})).await?;
            let note = "Node is not ready";
            api.event(EventKind::Core { component: "node-controller" }, pod, true, "NodeNotReady", note).await;
        }
        if let Some(due) = eviction(pod, &node).filter(|_| !pod.is_deleting()) {
            match Duration::try_from(due.duration_since(now)).ok().filter(|left| !left.is_zero()) {
                Some(left) => next = next.min(left),
                None => evict(&api, pod).await?,
            }
        }
    }
    Ok(Outcome::After(next))
}

fn taints(node: &Object) -> impl Iterator<Item = &Value> {
    node.at(&["spec", "taints"]).and_then(Value::as_array).into_iter().flatten()
}

/// When a pod is deleted for its node's taints; `None` for one that tolerates them for ever.
fn eviction(pod: &Object, node: &Object) -> Option<Timestamp> {
    let mut first: Option<Timestamp> = None;
    for taint in taints(node).filter(|taint| taint["effect"] == "NoExecute") {
        let added: Timestamp = taint["timeAdded"].as_str().and_then(|time| time.parse().ok())?;
        if !placement::tolerates(pod, taint) {
            return Some(added);
        }
        let tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).into_iter().flatten();
        let seconds = tolerations.filter(|toleration| toleration["key"] == taint["key"]);
        if let Some(seconds) = seconds.filter_map(|toleration| toleration["tolerationSeconds"].as_i64()).min() {
            let due = added.checked_add(SignedDuration::from_secs(seconds.max(0))).unwrap_or(Timestamp::MAX);
            first = Some(first.map_or(due, |first| first.min(due)));
        }
    }
    first
}

async fn evict(api: &Api, pod: &Stored) -> Result<(), Status> {
    let note = format!("Marking for deletion Pod {}/{}", pod.namespace(), pod.name());
    let component = EventKind::Core { component: "taint-eviction-controller" };
    api.event(component, pod, false, "TaintManagerEviction", &note).await;
    let policy = DeletePolicy { uid: Some(pod.uid().into()), ..DeletePolicy::default() };
    match api.delete(&core("pods"), pod.namespace(), pod.name(), &policy).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn tell(api: &Api, node: &Object, reason: &str, note: &str) {
    api.event(EventKind::Core { component: "node-controller" }, node, false, reason, note).await;
}
