//! How objects of each resource are counted (`pkg/quota/v1/evaluator/core`, `k8s.io/apiserver/pkg/quota/v1/generic`).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{super::Attributes, Amounts, Scope, amounts};
use crate::{
    admission::Operation,
    base::{
        Object,
        quantity::Quantity,
        value::{at, get, has, int_or_zero, items, quantity, text},
    },
    kinds::{qos_class, resources},
};

/// A resource whose objects quotas count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    group: String,
    resource: String,
}

/// What follows the name of a storage class in the name of a quota's resource.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// What no quota counts (upstream's `DefaultIgnoredResources`).
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];

fn one() -> Quantity {
    Quantity::whole(1)
}

impl Counted {
    /// A resource by its group and plural.
    pub fn new(group: &str, resource: &str) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }

    fn core(&self) -> &str {
        if self.group.is_empty() { &self.resource } else { "" }
    }

    /// `count/pods`, `count/deployments.apps`
    fn count(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("count/{}{dot}{}", self.resource, self.group)
    }

    /// Whether quotas look at a write.
    pub(super) fn handles(&self, attributes: &Attributes<'_>, object: &Object) -> bool {
        if IGNORED.contains(&(self.group.as_str(), self.resource.as_str())) {
            return false;
        }
        let create = attributes.operation == Operation::Create;
        match (self.core(), attributes.subresource) {
            ("pods", "") => create || attributes.old.is_some_and(|old| terminating(old) != terminating(object)),
            ("pods", "resize") => !create,
            ("services" | "persistentvolumeclaims", "") => true,
            ("persistentvolumeclaims", "status") => attributes.old.is_some_and(|old| claim_replenishes(old, object)),
            (_, subresource) => create && subresource.is_empty(),
        }
    }

    /// Those of a quota's names that this resource is counted under.
    pub fn matching<'a>(&self, names: impl Iterator<Item = &'a String>) -> Vec<String> {
        names.filter(|name| self.matches(name)).cloned().collect()
    }

    fn matches(&self, name: &str) -> bool {
        const COMPUTE: [&str; 10] = [
            "cpu",
            "memory",
            "ephemeral-storage",
            "requests.cpu",
            "requests.memory",
            "requests.ephemeral-storage",
            "limits.cpu",
            "limits.memory",
            "limits.ephemeral-storage",
            "pods",
        ];
        if name == self.count() {
            return true;
        }
        match self.core() {
            "pods" => {
                COMPUTE.contains(&name)
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || name.strip_prefix("requests.").is_some_and(|name| !resources::is_native(name))
            }
            "services" => ["services", "services.nodeports", "services.loadbalancers"].contains(&name),
            "persistentvolumeclaims" => {
                let name = name.split_once(OF_CLASS).map_or(name, |(_, name)| name);
                ["persistentvolumeclaims", "requests.storage"].contains(&name)
            }
            alias @ ("configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => name == alias,
            _ => false,
        }
    }

    /// Whether an object is in all scopes of a quota.
    pub(super) fn in_scopes(&self, scopes: &[Scope], object: &Object) -> bool {
        scopes.iter().all(|scope| match (self.core(), scope.name.as_str()) {
            ("pods", "Terminating") => terminating(object),
            ("pods", "NotTerminating") => !terminating(object),
            ("pods", "BestEffort") => class_of(object) == "BestEffort",
            ("pods", "NotBestEffort") => class_of(object) != "BestEffort",
            ("pods", "PriorityClass") => {
                let class = object.str_at(&["spec", "priorityClassName"]);
                scope.takes(Some(class).filter(|class| !class.is_empty()))
            }
            ("pods", "CrossNamespacePodAffinity") => looks_into_other_namespaces(&object.to_value()),
            ("persistentvolumeclaims", "VolumeAttributesClass") => {
                let classes = attributes_classes(object);
                if classes.is_empty() {
                    scope.takes(None)
                } else {
                    classes.iter().any(|class| scope.takes(Some(class)))
                }
            }
            _ => false,
        })
    }

    /// What a pod's containers would have to say of themselves, `limits.cpu for: a,b; …`.
    pub(super) fn missing(&self, names: &[String], object: &Object) -> Option<String> {
        const MUST: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
        let value = object.to_value();
        let spec = get(&value, "spec");
        let whole = |kind: &str| {
            let whole = amounts(at(spec, &["resources", kind]));
            whole.keys().any(|name| ["cpu", "memory"].contains(&name.as_str()) || name.starts_with("hugepages-"))
        };
        if self.core() != "pods" || whole("requests") || whole("limits") {
            return None;
        }
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for container in ["containers", "initContainers"].iter().flat_map(|list| items(spec, list)) {
            let of = |kind: &str| amounts(at(container, &["resources", kind]));
            let given = computed(&of("requests"), &of("limits"));
            for name in names.iter().filter(|name| MUST.contains(&name.as_str()) && !given.contains_key(*name)) {
                missing.entry(name).or_default().insert(text(container, "name"));
            }
        }
        let list = missing.iter().map(|(name, containers)| {
            format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(","))
        });
        Some(list.collect::<Vec<_>>().join("; ")).filter(|_| !missing.is_empty())
    }

    /// What an object uses.
    pub(super) fn usage(&self, object: &Object, now: Timestamp) -> Amounts {
        let mut used = Amounts::from([(self.count(), one())]);
        let value = object.to_value();
        let spec = get(&value, "spec");
        match self.core() {
            "pods" if lives(object, now) => {
                let sum = |kind| resources::sum(spec, kind, true);
                used.extend(computed(&sum("requests"), &sum("limits")));
            }
            "services" => {
                let ports = items(spec, "ports");
                let own = |port: &&Value| int_or_zero(port, "nodePort") != 0;
                let without = get(spec, "allocateLoadBalancerNodePorts") == &Value::Bool(false);
                let (balancers, on_nodes) = match text(spec, "type") {
                    "NodePort" => (0, ports.len()),
                    "LoadBalancer" if without => (1, ports.iter().filter(own).count()),
                    "LoadBalancer" => (1, ports.len()),
                    _ => (0, 0),
                };
                used.insert("services".into(), one());
                used.insert("services.loadbalancers".into(), Quantity::whole(balancers));
                let on_nodes = i64::try_from(on_nodes).unwrap_or(i64::MAX);
                used.insert("services.nodeports".into(), Quantity::whole(on_nodes));
            }
            "persistentvolumeclaims" => {
                let class = object.annotation("volume.beta.kubernetes.io/storage-class");
                let class = class.unwrap_or_else(|| text(spec, "storageClassName"));
                let mut add = |name: &str, amount: Quantity| {
                    if !class.is_empty() {
                        used.insert(format!("{class}{OF_CLASS}{name}"), amount.clone());
                    }
                    used.insert(name.into(), amount);
                };
                add("persistentvolumeclaims", one());
                let allocated = quantity(at(&value, &["status", "allocatedResources"]), "storage");
                if let Some(asked) = quantity(at(spec, &["resources", "requests"]), "storage") {
                    let most = allocated.filter(|allocated| *allocated > asked).unwrap_or(asked);
                    add("requests.storage", most.rounded_to_whole());
                }
            }
            alias @ ("configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
                used.insert(alias.into(), one());
            }
            _ => {}
        }
        used
    }
}

impl Scope {
    fn takes(&self, value: Option<&str>) -> bool {
        let listed = || value.is_some_and(|value| self.values.iter().any(|known| known == value));
        match self.operator.as_str() {
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "In" => listed(),
            "NotIn" => !listed(),
            _ => false,
        }
    }
}

/// Requests and limits under the names that quotas have for them (upstream's `podComputeUsageHelper`).
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), one())]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = requests.get(name) {
            used.insert(name.into(), amount.clone());
            used.insert(format!("requests.{name}"), amount.clone());
        }
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), amount.clone());
        }
    }
    for (name, amount) in requests {
        let huge = name.starts_with("hugepages-");
        if huge {
            used.insert(name.clone(), amount.clone());
        }
        if huge || resources::is_extended(name) {
            used.insert(format!("requests.{name}"), amount.clone());
        }
    }
    used
}

fn terminating(pod: &Object) -> bool {
    pod.at(&["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_some_and(|seconds| seconds >= 0)
}

fn class_of(pod: &Object) -> &str {
    match pod.str_at(&["status", "qosClass"]) {
        "" => qos_class(pod),
        class => class,
    }
}

/// Whether a pod uses anything: it has not ended, and its time to go is not over.
fn lives(pod: &Object, now: Timestamp) -> bool {
    if ["Failed", "Succeeded"].contains(&pod.str_at(&["status", "phase"])) {
        return false;
    }
    let grace = pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    match (pod.deletion_timestamp(), grace) {
        (Some(time), Some(grace)) => {
            now <= time.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX)
        }
        (None, _) | (_, None) => true,
    }
}

fn looks_into_other_namespaces(pod: &Value) -> bool {
    let affinity = at(pod, &["spec", "affinity"]);
    let terms = ["podAffinity", "podAntiAffinity"].into_iter().flat_map(|kind| {
        let kind = get(affinity, kind);
        let required = items(kind, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = items(kind, "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.map(|term| get(term, "podAffinityTerm")))
    });
    let mut terms = terms;
    terms.any(|term| !items(term, "namespaces").is_empty() || has(term, "namespaceSelector"))
}

fn attributes_classes(claim: &Object) -> BTreeSet<String> {
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    paths.iter().map(|path| claim.str_at(path).to_owned()).filter(|class| !class.is_empty()).collect()
}

fn claim_replenishes(old: &Object, new: &Object) -> bool {
    let allocated = |claim: &Object| quantity(&claim.to_value()["status"]["allocatedResources"], "storage");
    allocated(old) != allocated(new) || attributes_classes(old) != attributes_classes(new)
}

/// Whether a change that no quota was charged for changes what is used (upstream's `DefaultUpdateFilter`).
pub fn replenishes(group: &str, resource: &str, old: &Object, new: &Object, now: Timestamp) -> bool {
    match (group, resource) {
        ("", "pods") => terminating(old) != terminating(new) || lives(old, now) && !lives(new, now),
        ("", "services") => {
            let kind = |service: &Object| {
                let kind = service.str_at(&["spec", "type"]).to_owned();
                Some(kind).filter(|kind| ["NodePort", "LoadBalancer"].contains(&kind.as_str()))
            };
            kind(old) != kind(new)
        }
        ("", "persistentvolumeclaims") => claim_replenishes(old, new),
        _ => false,
    }
}
