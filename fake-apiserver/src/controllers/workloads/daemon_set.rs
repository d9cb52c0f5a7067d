//! Keeps a pod of each daemon set on each node that it is for.
//!
//! Upstream: `pkg/controller/daemon/daemon_controller.go`, `update.go`, `util/daemonset_util.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Key, StatusMap, api_of, apps, claim, core, int, key_of, pods, revisions, scaled, selector_of, sources, write_status,
};
use crate::{
    actor::{self, Api, Change, DeletePolicy, EventKind, Outcome, Server, Source},
    base::{Gvr, Object, Status, Stored, placement},
};

const EVENTS: EventKind<'static> = EventKind::Core { component: "daemonset-controller" };

fn sets() -> Gvr {
    apps("daemonsets")
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server, "daemon-set-controller");
    let all: Arc<Mutex<BTreeSet<Key>>> = Arc::default();
    let known = all.clone();
    let mut sources = sources(sets(), "DaemonSet", core("pods"));
    sources.push(Source::all(sets(), move |change| {
        let mut known = known.lock().expect("no panic under this lock");
        match change {
            Change::Applied { new, .. } => known.insert(key_of(new)),
            Change::Gone(last) => known.remove(&key_of(last)),
        };
        Vec::new()
    }));
    sources.push(Source::all(core("nodes"), move |change| {
        let what = |node: &Arc<Stored>| (node.labels(), node.at(&["spec"]).cloned());
        let same = matches!(change, Change::Applied { new, old: Some(old) } if what(new) == what(old));
        if same { Vec::new() } else { all.lock().expect("no panic under this lock").iter().cloned().collect() }
    }));
    actor::run(api.clone(), sources, token, move |key| reconcile(api.clone(), key)).await;
}

async fn reconcile(api: Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(set) = api.get(&sets(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    if selector_of(&set).is_empty() || set.is_deleting() {
        return Ok(Outcome::Done);
    }
    let (nodes, _) = api.list(&core("nodes"), "", "").await?;
    let mut by_node: BTreeMap<String, Vec<Arc<Stored>>> = BTreeMap::new();
    for pod in claim(&api, &set, &core("pods")).await? {
        by_node.entry(node_of(&pod)).or_default().push(pod);
    }
    let revisions = revisions::keep(&api, &set, revisions::HASH).await?;
    let Some(update) = revisions.last() else { return Ok(Outcome::Retry) };
    let hash = update.label(revisions::HASH).unwrap_or_default();
    let now = api.clock().now();
    let plan = plan(&set, &nodes, &by_node, hash, now);
    for node in &plan.missing {
        let pod = pod(&set, node, hash);
        match api.create(&core("pods"), pod).await {
            Ok(made) => {
                let note = format!("Created pod: {}", made.name());
                api.event(EVENTS, &set, false, "SuccessfulCreate", &note).await;
            }
            Err(error) => {
                let note = format!("Error creating: {}", error.message);
                api.event(EVENTS, &set, true, "FailedCreate", &note).await;
                return Err(error);
            }
        }
    }
    for (pod, ended) in &plan.surplus {
        if let Some((warning, reason, note)) = ended {
            api.event(EVENTS, &set, *warning, reason, note).await;
        }
        let policy = DeletePolicy { uid: Some(pod.uid().into()), ..DeletePolicy::default() };
        match api.delete(&core("pods"), pod.namespace(), pod.name(), &policy).await {
            Err(error) if !error.is_not_found() => return Err(error),
            Ok(()) | Err(_) => {}
        }
        api.event(EVENTS, &set, false, "SuccessfulDelete", &format!("Deleted pod: {}", pod.name())).await;
    }
    let (status, wait) = status(&set, &nodes, &by_node, hash, now);
    write_status(&api, &sets(), &set, status).await?;
    let used = |revision: &Stored| {
        let of = |pod: &Arc<Stored>| pod.label(revisions::HASH) == revision.label(revisions::HASH);
        revision.uid() == update.uid() || by_node.values().flatten().any(of)
    };
    revisions::clean_up(&api, &set, &revisions, used).await?;
    Ok(wait.map_or(Outcome::Done, Outcome::After))
}

/// The node that a pod is on or is for.
fn node_of(pod: &Object) -> String {
    let bound = pod.str_at(&["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let name = pod
        .at(&required)
        .and_then(|required| required.pointer("/nodeSelectorTerms/0/matchFields/0/values/0").and_then(Value::as_str));
    name.unwrap_or_default().to_owned()
}

/// A daemon set's pod for a node (`NewPod`, `ReplaceDaemonSetPodNodeNameNodeAffinity`, `AddOrUpdateDaemonPodTolerations`).
fn pod(set: &Object, node: &str, hash: &str) -> Object {
    let mut pod = pods::from_template(set.at(&["spec", "template"]), set);
    pod.set_at(&["metadata", "labels", revisions::HASH], hash);
    let field = json!([{ "key": "metadata.name", "operator": "In", "values": [node] }]);
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let given = pod.at(&required).and_then(|required| required.get("nodeSelectorTerms")?.as_array()).cloned();
    let terms: Vec<Value> = match given {
        Some(terms) => terms
            .into_iter()
            .map(|mut term| {
                term["matchFields"] = field.clone();
                term
            })
            .collect(),
        None => vec![json!({ "matchFields": field })],
    };
    pod.set_at(&required, json!({ "nodeSelectorTerms": terms }));
    let mut tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut tolerate = |name: &str, effect: &str| {
        let key = format!("node.kubernetes.io/{name}");
        let toleration = json!({ "key": key, "operator": "Exists", "effect": effect });
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    };
    tolerate("not-ready", "NoExecute");
    tolerate("unreachable", "NoExecute");
    for name in ["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"] {
        tolerate(name, "NoSchedule");
    }
    if pod.at(&["spec", "hostNetwork"]) == Some(&Value::Bool(true)) {
        tolerate("network-unavailable", "NoSchedule");
    }
    pod.set_at(&["spec", "tolerations"], tolerations);
    pod
}

/// Whether a set's pod is to be started on a node, and whether one that is there may stay.
fn runs_on(set: &Object, node: &Object) -> (bool, bool) {
    let pod = pod(set, node.name(), "");
    let named = pod.str_at(&["spec", "nodeName"]);
    if !(named.is_empty() || named == node.name()) || !placement::selects(&pod, node) {
        return (false, false);
    }
    let fits = placement::untolerated(&pod, node, &["NoSchedule", "NoExecute"]).is_none();
    (fits, fits || placement::untolerated(&pod, node, &["NoExecute"]).is_none())
}

/// Why a pod that ended is deleted: warning or not, reason, message.
type Ended = Option<(bool, &'static str, String)>;

/// What has to be done.
#[derive(Debug, Default)]
struct Plan {
    /// Nodes that lack a pod.
    missing: Vec<String>,
    /// Pods that must go.
    surplus: Vec<(Arc<Stored>, Ended)>,
}

fn plan(
    set: &Object,
    nodes: &[Arc<Stored>],
    by_node: &BTreeMap<String, Vec<Arc<Stored>>>,
    hash: &str,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let min_ready = int(set, &["spec", "minReadySeconds"]);
    let wanted: Vec<&Arc<Stored>> = nodes.iter().filter(|node| runs_on(set, node).0).collect();
    let total = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let at = |field| set.at(&["spec", "updateStrategy", "rollingUpdate", field]);
    let surge = scaled(at("maxSurge"), total, true).unwrap_or_default();
    let most = scaled(at("maxUnavailable"), total, true).unwrap_or(1);
    let most = if surge == 0 { most.max(1) } else { most };
    let rolling = set.str_at(&["spec", "updateStrategy", "type"]) != "OnDelete";
    let available = |pod: &Object| pods::is_available(pod, min_ready, now) == Ok(true) && !pod.is_deleting();
    let is_new = |pod: &Object| pod.label(revisions::HASH) == Some(hash);
    let none = Vec::new();
    let (mut missing, mut surging, mut old) = (0, 0, Vec::new());
    for node in nodes {
        let (starts, stays) = runs_on(set, node);
        let here = by_node.get(node.name()).unwrap_or(&none);
        if !stays {
            plan.surplus.extend(here.iter().filter(|pod| !pod.is_deleting()).map(|pod| (pod.clone(), None)));
            continue;
        }
        let mut running: Vec<&Arc<Stored>> = Vec::new();
        for pod in here.iter().filter(|pod| !pod.is_deleting()) {
            let (namespace, name) = (set.namespace(), pod.name());
            let node = node.name();
            let said = |how: &str, end: &str| {
                format!("Found {how} daemon pod {namespace}/{name} on node {node}, will try to {end} it")
            };
            match pods::phase(pod) {
                "Failed" => plan.surplus.push((pod.clone(), Some((true, "FailedDaemonPod", said("failed", "kill"))))),
                "Succeeded" => {
                    plan.surplus.push((pod.clone(), Some((false, "SucceededDaemonPod", said("succeeded", "delete")))));
                }
                _ => running.push(pod),
            }
        }
        running.sort_by_key(|pod| (pod.creation_timestamp(), pod.name().to_owned()));
        if starts && here.is_empty() {
            plan.missing.push(node.name().to_owned());
        }
        let newest = running.iter().find(|pod| is_new(pod)).copied();
        let older = running.iter().find(|pod| !is_new(pod)).copied();
        let kept = |pod: &Arc<Stored>| {
            let keeps = if surge > 0 { [newest, older] } else { [running.first().copied(), None] };
            keeps.into_iter().flatten().any(|keep| keep.uid() == pod.uid())
        };
        plan.surplus.extend(running.iter().filter(|pod| !kept(pod)).map(|pod| ((*pod).clone(), None)));
        if starts && !running.iter().any(|pod| available(pod)) {
            missing += 1;
        }
        match (newest, older) {
            (Some(new), Some(older)) if surge > 0 => {
                surging += 1;
                if available(new) || !pods::is_ready(older) {
                    plan.surplus.push((older.clone(), None));
                }
            }
            (None, Some(older)) if starts => old.push((node.name().to_owned(), older.clone())),
            _ => {}
        }
    }
    if rolling {
        for (node, pod) in old {
            if surge > 0 {
                if surging < surge {
                    surging += 1;
                    plan.missing.push(node);
                }
            } else if !available(&pod) {
                plan.surplus.push((pod, None)); // it is missing already
            } else if missing < most {
                missing += 1;
                plan.surplus.push((pod, None));
            }
        }
    }
    plan
}

fn status(
    set: &Object,
    nodes: &[Arc<Stored>],
    by_node: &BTreeMap<String, Vec<Arc<Stored>>>,
    hash: &str,
    now: Timestamp,
) -> (Value, Option<std::time::Duration>) {
    let min_ready = int(set, &["spec", "minReadySeconds"]);
    let (mut desired, mut current, mut misplaced, mut updated, mut ready, mut available) = (0, 0, 0, 0, 0, 0);
    let mut next: Option<Timestamp> = None;
    for node in nodes {
        let here = by_node.get(node.name()).map(Vec::as_slice).unwrap_or_default();
        if !runs_on(set, node).0 {
            misplaced += i64::from(!here.is_empty());
            continue;
        }
        desired += 1;
        let newest = here.iter().max_by_key(|pod| (pod.label(revisions::HASH) == Some(hash), pod.creation_timestamp()));
        let Some(pod) = newest else { continue };
        current += 1;
        updated += i64::from(pod.label(revisions::HASH) == Some(hash));
        // Of several, one that serves is enough.
        let serving = here.iter().find(|pod| pods::is_ready(pod)).unwrap_or(pod);
        ready += i64::from(pods::is_ready(serving));
        match pods::is_available(serving, min_ready, now) {
            Ok(is) => available += i64::from(is),
            Err(at) => next = Some(next.map_or(at, |next| next.min(at))),
        }
    }
    let mut status = StatusMap::of(set);
    status.set("currentNumberScheduled", current);
    status.set("numberMisscheduled", misplaced);
    status.set("desiredNumberScheduled", desired);
    status.set("numberReady", ready);
    status.count("observedGeneration", set.generation());
    status.count("updatedNumberScheduled", updated);
    status.count("numberAvailable", available);
    status.count("numberUnavailable", desired - available);
    let wait = next.map(|at| std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default());
    (status.into_value(), wait)
}
