//! Pure: which node a pod goes to, or why to none.
//!
//! Upstream: `pkg/scheduler/framework/types.go` and the plugins of `pkg/scheduler/framework/plugins` (`nodeunschedulable`,
//! `tainttoleration`, `nodeaffinity`, `nodeports`, `noderesources`, `interpodaffinity`), asked in their default order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    base::{Object, Stored, placement, quantity::Quantity, selector::LabelSelector, value::as_quantity},
    kinds::resources,
};

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

/// Namespace and name.
type Key = (String, String);

/// A port of a node that a pod takes: address, protocol, number.
type HostPort = (String, String, u64);

/// What a pod takes of its node.
#[derive(Clone, Debug, Default)]
struct Demand {
    requests: BTreeMap<String, Quantity>,
    ports: Vec<HostPort>,
}

impl Demand {
    fn of(pod: &Object) -> Self {
        let Some(spec) = pod.get("spec") else { return Self::default() };
        let sidecar = |container: &&Value| container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
        let list = |field: &str| spec.get(field).and_then(Value::as_array).into_iter().flatten();
        let containers = list("containers").chain(list("initContainers").filter(sidecar));
        let ports = containers.filter_map(|container| container.get("ports")?.as_array()).flatten();
        let host_port = |port: &Value| {
            let text = |field: &str| port.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let number = port.get("hostPort").and_then(Value::as_u64).filter(|number| *number > 0)?;
            Some((text("hostIP"), text("protocol"), number))
        };
        Self { requests: resources::sum(spec, "requests", true), ports: ports.filter_map(host_port).collect() }
    }
}

/// What the pods of a node take together.
#[derive(Clone, Debug, Default)]
struct Load {
    pods: usize,
    used: BTreeMap<String, Quantity>,
    ports: Vec<HostPort>,
}

/// A pod that has a node.
#[derive(Debug)]
struct Placed {
    node: String,
    pod: Arc<Stored>,
    demand: Demand,
    repels: bool,
}

/// The pods that have nodes and may still run.
#[derive(Debug, Default)]
pub(super) struct Placements {
    pods: BTreeMap<Key, Placed>,
    loads: BTreeMap<String, Load>,
    /// How many pods want certain others away from them.
    repelling: usize,
}

impl Placements {
    /// Takes a pod in that is on a node.
    pub(super) fn put(&mut self, key: Key, node: &str, pod: &Arc<Stored>) {
        let what = |pod: &Stored| (pod.uid().to_owned(), pod.generation());
        if let Some(placed) = self.pods.get_mut(&key)
            && placed.node == node
            && what(&placed.pod) == what(pod)
        {
            placed.pod = pod.clone();
            return;
        }
        self.remove(&key);
        let demand = Demand::of(pod);
        let load = self.loads.entry(node.to_owned()).or_default();
        load.pods += 1;
        for (name, amount) in &demand.requests {
            let used = load.used.entry(name.clone()).or_insert_with(Quantity::zero);
            *used = used.plus(amount);
        }
        load.ports.extend(demand.ports.iter().cloned());
        let repels = !terms(pod, "podAntiAffinity").is_empty();
        self.repelling += usize::from(repels);
        self.pods.insert(key, Placed { node: node.to_owned(), pod: pod.clone(), demand, repels });
    }

    /// Forgets a pod; whether it was known.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(Placed { node, demand, repels, .. }) = self.pods.remove(key) else { return false };
        self.repelling -= usize::from(repels);
        if let Some(load) = self.loads.get_mut(&node) {
            load.pods -= 1;
            for (name, amount) in &demand.requests {
                if let Some(used) = load.used.get_mut(name) {
                    *used = used.minus(amount);
                }
            }
            for port in &demand.ports {
                if let Some(at) = load.ports.iter().position(|other| other == port) {
                    load.ports.swap_remove(at);
                }
            }
            if load.pods == 0 {
                self.loads.remove(&node);
            }
        }
        true
    }
}

/// Why a node does not take a pod, and whether it could if others went (`Unschedulable` against
/// `UnschedulableAndUnresolvable`).
struct Refusal {
    reasons: Vec<String>,
    resolvable: bool,
}

impl Refusal {
    fn never(reason: &str) -> Self {
        Self { reasons: vec![reason.into()], resolvable: false }
    }

    fn for_now(reason: &str) -> Self {
        Self { reasons: vec![reason.into()], resolvable: true }
    }
}

/// Decides for a pod.
pub(super) fn schedule(
    pod: &Object,
    nodes: &BTreeMap<String, Arc<Stored>>,
    placements: &Placements,
    claim: impl Fn(&str) -> ClaimState,
) -> Verdict {
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
        return Verdict::Unschedulable(unschedulable(total, &reason, 0));
    }
    let demand = Demand::of(pod);
    let company = Company::of(pod, nodes, placements);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut resolvable = 0;
    let mut best = None;
    let none = Load::default();
    for node in nodes.values() {
        let load = placements.loads.get(node.name()).unwrap_or(&none);
        match refusal(pod, node, &demand, load).or_else(|| company.refusal(node)) {
            Some(refusal) => {
                resolvable += usize::from(refusal.resolvable);
                refusal.reasons.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
            }
            None => {
                let avoided = placement::untolerated(pod, node, &["PreferNoSchedule"]).is_some();
                let rank = (avoided, Reverse(preference(pod, node)), load.pods);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, node.name()));
                }
            }
        }
    }
    match best {
        Some((_, name)) => Verdict::Bind(name.into()),
        None => {
            let mut texts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            texts.sort();
            Verdict::Unschedulable(unschedulable(total, &texts.join(", "), resolvable))
        }
    }
}

fn unschedulable(total: usize, reason: &str, resolvable: usize) -> String {
    let mut preemption = Vec::new();
    if resolvable > 0 {
        preemption.push(format!("{resolvable} No preemption victims found for incoming pod"));
    }
    if resolvable < total {
        preemption.push(format!("{} Preemption is not helpful for scheduling", total - resolvable));
    }
    preemption.sort();
    let preemption = preemption.join(", ");
    format!("0/{total} nodes are available: {reason}. preemption: 0/{total} nodes are available: {preemption}.")
}

/// How much the pod would like the node: the weights of the preferred affinity that it meets.
fn preference(pod: &Object, node: &Object) -> i64 {
    let preferred = ["spec", "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution"];
    let terms = pod.at(&preferred).and_then(Value::as_array).into_iter().flatten();
    let met = terms.filter(|term| placement::matches(&json!({ "nodeSelectorTerms": [term.get("preference")] }), node));
    met.filter_map(|term| term.get("weight")?.as_i64()).sum()
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

/// Why a node does not take a pod, whatever other pods want.
fn refusal(pod: &Object, node: &Object, demand: &Demand, load: &Load) -> Option<Refusal> {
    let cordon = json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
    if node.at(&["spec", "unschedulable"]) == Some(&Value::Bool(true)) && !placement::tolerates(pod, &cordon) {
        return Some(Refusal::never("node(s) were unschedulable"));
    }
    if placement::untolerated(pod, node, &["NoSchedule", "NoExecute"]).is_some() {
        return Some(Refusal::never("node(s) had untolerated taint(s)"));
    }
    if !placement::selects(pod, node) {
        return Some(Refusal::never("node(s) didn't match Pod's node affinity/selector"));
    }
    let wild = |address: &str| matches!(address, "" | "0.0.0.0");
    let clash = |(address, protocol, number): &HostPort| {
        load.ports.iter().any(|(other, other_protocol, other_number)| {
            let same = address == other || wild(address) || wild(other);
            same && protocol == other_protocol && number == other_number
        })
    };
    if demand.ports.iter().any(clash) {
        return Some(Refusal::for_now("node(s) didn't have free ports for the requested pod ports"));
    }
    let room =
        |name: &str| node.at(&["status", "allocatable", name]).and_then(as_quantity).unwrap_or_else(Quantity::zero);
    let mut refusal = Refusal { reasons: Vec::new(), resolvable: true };
    if i64::try_from(load.pods).unwrap_or(i64::MAX) >= room("pods").value() {
        refusal.reasons.push("Too many pods".into());
    }
    for (name, amount) in demand.requests.iter().filter(|(_, amount)| !amount.is_zero()) {
        let all = room(name);
        let used = load.used.get(name).cloned().unwrap_or_else(Quantity::zero);
        if *amount > all.minus(&used) {
            refusal.reasons.push(format!("Insufficient {name}"));
            refusal.resolvable &= *amount <= all;
        }
    }
    (!refusal.reasons.is_empty()).then_some(refusal)
}

/// The required terms of a pod's affinity to other pods.
fn terms<'a>(pod: &'a Object, kind: &str) -> Vec<&'a Value> {
    let required = ["spec", "affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"];
    pod.at(&required).and_then(Value::as_array).into_iter().flatten().collect()
}

/// Whether a term of one pod's affinity means another pod.
fn means(term: &Value, of: &Object, other: &Object) -> bool {
    let listed = term.get("namespaces").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let all = term.get("namespaceSelector").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
    let own = listed.is_empty() && term.get("namespaceSelector").is_none() && other.namespace() == of.namespace();
    let here = all || own || listed.iter().any(|name| name.as_str() == Some(other.namespace()));
    here && LabelSelector::from_value(term.get("labelSelector")).is_ok_and(|selector| selector.matches_object(other))
}

/// A label of nodes and its value: a place that pods share.
type Domain = (String, String);

fn domain(term: &Value, node: &Object) -> Option<Domain> {
    let key = term.get("topologyKey").and_then(Value::as_str)?;
    Some((key.to_owned(), node.label(key)?.to_owned()))
}

/// What a pod's affinity to other pods, and theirs to it, make of the places that nodes are in.
#[derive(Default)]
struct Company<'a> {
    /// For each term, where pods are that the pod wants to be with; `None` where it may be the first.
    wanted: Vec<(&'a Value, Option<BTreeSet<Domain>>)>,
    /// Where pods are that it wants not to be with.
    shunned: BTreeSet<Domain>,
    /// Where pods are that want not to be with it.
    forbidden: BTreeSet<Domain>,
}

impl<'a> Company<'a> {
    fn of(pod: &'a Object, nodes: &BTreeMap<String, Arc<Stored>>, placements: &Placements) -> Self {
        let (with, without) = (terms(pod, "podAffinity"), terms(pod, "podAntiAffinity"));
        if with.is_empty() && without.is_empty() && placements.repelling == 0 {
            return Self::default();
        }
        let mut company = Self::default();
        let placed = || {
            let all = placements.pods.values();
            all.filter_map(|placed| Some((placed, nodes.get(&placed.node)?)))
        };
        let first = with.iter().all(|term| means(term, pod, pod));
        for term in with {
            let there = placed().filter(|(other, _)| means(term, pod, &other.pod));
            let domains: BTreeSet<_> = there.filter_map(|(_, node)| domain(term, node)).collect();
            company.wanted.push((term, (!(domains.is_empty() && first)).then_some(domains)));
        }
        for term in without {
            let there = placed().filter(|(other, _)| means(term, pod, &other.pod));
            company.shunned.extend(there.filter_map(|(_, node)| domain(term, node)));
        }
        for (other, node) in placed().filter(|(other, _)| other.repels) {
            let against = terms(&other.pod, "podAntiAffinity").into_iter().filter(|term| means(term, &other.pod, pod));
            company.forbidden.extend(against.filter_map(|term| domain(term, node)));
        }
        company
    }

    fn refusal(&self, node: &Object) -> Option<Refusal> {
        let met = |(term, domains): &(&Value, Option<BTreeSet<Domain>>)| {
            domain(term, node).is_some_and(|here| domains.as_ref().is_none_or(|domains| domains.contains(&here)))
        };
        let within =
            |domains: &BTreeSet<Domain>| domains.iter().any(|(key, value)| node.label(key) == Some(value.as_str()));
        if !self.wanted.iter().all(met) {
            Some(Refusal::never("node(s) didn't match pod affinity rules"))
        } else if within(&self.shunned) {
            Some(Refusal::for_now("node(s) didn't match pod anti-affinity rules"))
        } else if within(&self.forbidden) {
            Some(Refusal::for_now("node(s) didn't satisfy existing pods anti-affinity rules"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
