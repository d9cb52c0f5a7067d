//! The admission plugins of kube-apiserver that the simulated cluster has.

use std::{cmp::Reverse, sync::Arc};

use serde_json::{Value, json};

use super::{Attributes, Operation, View};
use crate::{
    base::{
        Object, Status, Stored,
        user::MASTERS,
        value::{at, get, has, int, items, quantity, strings, text},
    },
    ids::Ids,
    kinds::{self, resources},
};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Seconds that a pod tolerates a node that is not ready or unreachable.
const TOLERATION_SECONDS: u64 = 300;

/// Seconds that a pod's projected token is good for; one hour, and 7 s that mark it as an extended one.
const TOKEN_SECONDS: u64 = 3607;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `NamespaceLifecycle`: nothing is created where there is no namespace, or in one that goes.
pub(super) fn namespace_lifecycle(attributes: &Attributes<'_>, object: &Object, view: View<'_>) -> Result<(), Status> {
    let Attributes { operation, group, resource, namespace, .. } = *attributes;
    // Access reviews are no content.
    let review = group == "authorization.k8s.io" && resource == "localsubjectaccessreviews";
    let of_cluster = namespace.is_empty() || (group.is_empty() && resource == "namespaces");
    if operation != Operation::Create || of_cluster || review {
        return Ok(());
    }
    let Some(found) = view.get("namespaces", "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    if found.is_deleting() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let name = attributes.shown_name(object);
        return Err(Status::forbidden(group, resource, name, &why).with_cause(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        ));
    }
    Ok(())
}

/// `NamespaceLifecycle`: some namespaces stay.
pub(super) fn immortal_namespaces(attributes: &Attributes<'_>) -> Result<(), Status> {
    let Attributes { group, resource, name, .. } = *attributes;
    if group.is_empty() && resource == "namespaces" && IMMORTAL.contains(&name) {
        return Err(Status::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// `ServiceAccount`: the default account, and its token mounted in every container.
pub(super) fn service_account(
    attributes: &Attributes<'_>,
    pod: &mut Object,
    view: View<'_>,
    ids: &Ids,
) -> Result<(), Status> {
    let shown = attributes.shown_name(pod).to_owned();
    let forbidden = |why: &str| Status::forbidden("", "pods", &shown, why);
    if pod.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
        return mirror(&pod.to_value()).map_or(Ok(()), |why| Err(forbidden(why)));
    }
    let mut name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
    if name.is_empty() {
        name = "default".into();
    }
    let Some(account) = view.get("serviceaccounts", attributes.namespace, &name) else {
        let place = format!("{}/{name}", attributes.namespace);
        return Err(forbidden(&format!(
            "error looking up service account {place}: serviceaccount \"{name}\" not found"
        )));
    };
    pod.set_at(&["spec", "serviceAccountName"], name.clone());
    pod.set_at(&["spec", "serviceAccount"], name);
    let wants = pod.at(&["spec", "automountServiceAccountToken"]).and_then(Value::as_bool);
    let offers = account.get("automountServiceAccountToken").and_then(Value::as_bool);
    if wants.or(offers).unwrap_or(true) {
        mount_token(pod, ids);
    }
    let given = pod.at(&["spec", "imagePullSecrets"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if let Some(secrets) = account.get("imagePullSecrets").filter(|_| !given) {
        pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
    }
    let enforced = account.annotation("kubernetes.io/enforce-mountable-secrets");
    if enforced.is_some_and(|value| ["1", "t", "T", "TRUE", "true", "True"].contains(&value))
        && let Some(why) = unmountable(&account, &pod.to_value())
    {
        return Err(forbidden(&why));
    }
    Ok(())
}

/// What a pod that mirrors a file of the kubelet may not name.
fn mirror(pod: &Value) -> Option<&'static str> {
    let spec = get(pod, "spec");
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    let containers = || ["initContainers", "containers"].into_iter().flat_map(|list| items(spec, list));
    let named = containers().any(|container| {
        items(container, "env").iter().any(|env| has(get(env, "valueFrom"), "secretKeyRef"))
            || items(container, "envFrom").iter().any(|source| has(source, "secretRef"))
    });
    let volumes = items(spec, "volumes");
    let sources = || volumes.iter().flat_map(|volume| items(get(volume, "projected"), "sources"));
    let mounted = volumes.iter().any(|volume| has(volume, "secret")) || sources().any(|source| has(source, "secret"));
    if named || mounted || !items(spec, "imagePullSecrets").is_empty() {
        return Some("a mirror pod may not reference secrets");
    }
    let token = sources().any(|source| has(source, "serviceAccountToken"));
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// The first secret that a pod names and its account does not, where the account insists.
fn unmountable(account: &Stored, pod: &Value) -> Option<String> {
    let names = |key: &str| -> Vec<String> {
        let list = account.get(key).and_then(Value::as_array).into_iter().flatten();
        list.map(|item| text(item, "name").to_owned()).collect()
    };
    let (mountable, pull, who) = (names("secrets"), names("imagePullSecrets"), account.name());
    let not = |name: &str| !mountable.iter().any(|known| known == name);
    let that = format!("is not allowed because service account {who} does not reference that");
    let spec = get(pod, "spec");
    for volume in items(spec, "volumes").iter().filter(|volume| has(volume, "secret")) {
        let secret = text(get(volume, "secret"), "secretName");
        if not(secret) {
            return Some(format!("volume with secret.secretName=\"{secret}\" {that} secret"));
        }
    }
    for (list, noun) in [("initContainers", "init container"), ("containers", "container")] {
        for container in items(spec, list) {
            let what = format!("{noun} {}", text(container, "name"));
            for env in items(container, "env") {
                let reference = at(env, &["valueFrom", "secretKeyRef"]);
                let (secret, variable) = (text(reference, "name"), text(env, "name"));
                if !reference.is_null() && not(secret) {
                    let what = format!("{what} with envVar {variable} referencing");
                    return Some(format!("{what} secret.secretName=\"{secret}\" {that} secret"));
                }
            }
            for source in items(container, "envFrom") {
                let secret = text(get(source, "secretRef"), "name");
                if has(source, "secretRef") && not(secret) {
                    let what = format!("{what} with envFrom referencing");
                    return Some(format!("{what} secret.secretName=\"{secret}\" {that} secret"));
                }
            }
        }
    }
    let mut secrets = items(spec, "imagePullSecrets").iter().map(|secret| text(secret, "name")).enumerate();
    let (i, name) = secrets.find(|(_, name)| !pull.iter().any(|known| known == name))?;
    Some(format!("imagePullSecrets[{i}].name=\"{name}\" {that} imagePullSecret"))
}

fn mount_token(pod: &mut Object, ids: &Ids) {
    const PREFIX: &str = "kube-api-access-";
    let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array);
    let existing = volumes
        .into_iter()
        .flatten()
        .filter_map(|volume| volume["name"].as_str())
        .find(|name| name.starts_with(PREFIX));
    let volume = existing.map_or_else(|| format!("{PREFIX}{}", ids.suffix(5)), str::to_owned);
    let is_new = existing.is_none();
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let Some(containers) = pod.as_map_mut().get_mut("spec").and_then(|spec| spec.get_mut(list)) else { continue };
        for container in containers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_PATH) {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": TOKEN_PATH}));
                used = true;
            }
        }
    }
    if used && is_new {
        let source = json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]}});
        push(pod, "volumes", source);
    }
}

fn push(pod: &mut Object, list: &str, item: Value) {
    match pod.as_map_mut().get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => pod.set_at(&["spec", list], json!([item])),
    }
}

/// `DefaultTolerationSeconds`.
pub(super) fn default_tolerations(pod: &mut Object) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array);
        let tolerates = tolerations.into_iter().flatten().any(|toleration| {
            let (of_key, effect) = (toleration["key"].as_str(), toleration["effect"].as_str().unwrap_or_default());
            of_key.is_none_or(|of_key| of_key == key || of_key.is_empty())
                && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerates {
            let toleration = json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
            });
            push(pod, "tolerations", toleration);
        }
    }
}

/// The classes that are marked by an annotation, the newest first, then by name; the first is the default.
fn default_class(view: View<'_>, bucket: &str, annotations: &[&str]) -> Option<Arc<Stored>> {
    let classes = view.list(bucket, "");
    let marked = |class: &&Arc<Stored>| annotations.iter().any(|key| class.annotation(key) == Some("true"));
    let order = |class: &&Arc<Stored>| (Reverse(class.creation_timestamp()), class.name().to_owned());
    classes.iter().filter(marked).min_by_key(order).cloned()
}

/// The priority class of pods that name none: of several the one of the lowest value.
fn default_priority_class(view: View<'_>) -> Option<Arc<Stored>> {
    let classes = view.list("priorityclasses.scheduling.k8s.io", "");
    let is_default = |class: &&Arc<Stored>| class.get("globalDefault") == Some(&Value::Bool(true));
    classes.iter().filter(is_default).min_by_key(|class| class.get("value").and_then(Value::as_i64)).cloned()
}

/// `Priority`: the number behind `priorityClassName`.
pub(super) fn priority(attributes: &Attributes<'_>, pod: &mut Object, view: View<'_>) -> Result<(), Status> {
    const LOWER: &str = "PreemptLowerPriority";
    let shown = attributes.shown_name(pod).to_owned();
    let forbidden = |why: &str| Status::forbidden("", "pods", &shown, why);
    let name = pod.str_at(&["spec", "priorityClassName"]).to_owned();
    let of_class = |class: &Stored| {
        let policy = Some(class.str_at(&["preemptionPolicy"])).filter(|policy| !policy.is_empty());
        (class.get("value").and_then(Value::as_i64).unwrap_or_default(), policy.unwrap_or(LOWER).to_owned())
    };
    let (value, policy) = match name.as_str() {
        "" => match default_priority_class(view) {
            None => (0, LOWER.to_owned()),
            Some(class) => {
                pod.set_at(&["spec", "priorityClassName"], class.name());
                of_class(&class)
            }
        },
        "system-cluster-critical" => (2_000_000_000, LOWER.to_owned()),
        "system-node-critical" => (2_000_001_000, LOWER.to_owned()),
        name => match view.get("priorityclasses.scheduling.k8s.io", "", name) {
            Some(class) => of_class(&class),
            None => return Err(forbidden(&format!("no PriorityClass with name {name} was found"))),
        },
    };
    let from = "from the given PriorityClass name";
    let must = "must not be provided in pod spec; priority admission controller computed";
    if let Some(given) = pod.at(&["spec", "priority"]).and_then(Value::as_i64).filter(|given| *given != value) {
        return Err(forbidden(&format!("the integer value of priority ({given}) {must} {value} {from}")));
    }
    pod.set_at(&["spec", "priority"], value);
    let given = pod.str_at(&["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        return Err(forbidden(&format!("the string value of PreemptionPolicy ({given}) {must} {policy} {from}")));
    }
    pod.set_at(&["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// `Priority`: an update that leaves the priority out means the one that the pod has.
pub(super) fn keep_priority(pod: &mut Object, old: Option<&Object>) {
    for key in ["priority", "preemptionPolicy"] {
        if let Some(value) = old.and_then(|old| old.at(&["spec", key])).filter(|value| !value.is_null())
            && pod.at(&["spec", key]).is_none_or(Value::is_null)
        {
            pod.set_at(&["spec", key], value.clone());
        }
    }
}

/// `Priority`: only one class is the default.
pub(super) fn one_default_priority(attributes: &Attributes<'_>, class: &Object, view: View<'_>) -> Result<(), Status> {
    let of_kind = (attributes.group, attributes.resource) == ("scheduling.k8s.io", "priorityclasses");
    if !of_kind || class.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    let other = default_priority_class(view);
    let taken = |other: &Stored| attributes.operation == Operation::Create || other.name() != class.name();
    match other.filter(|other| taken(other)) {
        None => Ok(()),
        Some(other) => {
            let why =
                format!("PriorityClass {} is already marked as default. Only one default can exist", other.name());
            Err(Status::forbidden(attributes.group, attributes.resource, attributes.shown_name(class), &why))
        }
    }
}

/// `RuntimeClass`: the class must exist; its overhead and scheduling go into the pod.
pub(super) fn runtime_class(attributes: &Attributes<'_>, pod: &mut Object, view: View<'_>) -> Result<(), Status> {
    let shown = attributes.shown_name(pod).to_owned();
    let forbidden = |why: &str| Status::forbidden("", "pods", &shown, why);
    let name = pod.at(&["spec", "runtimeClassName"]).and_then(Value::as_str).map(str::to_owned);
    let class = match &name {
        None => None,
        Some(name) => {
            if name.is_empty() {
                return Err(Status::unexpected("resource name may not be empty"));
            }
            let class = view.get("runtimeclasses.node.k8s.io", "", name);
            let why = || forbidden(&format!("pod rejected: RuntimeClass \"{name}\" not found"));
            Some(class.ok_or_else(why)?)
        }
    };
    let overhead = class.as_ref().filter(|class| class.get("overhead").is_some_and(|overhead| !overhead.is_null()));
    let given = pod.at(&["spec", "overhead"]).filter(|overhead| !overhead.is_null());
    match overhead {
        None => {}
        Some(class) => {
            let fixed = class.at(&["overhead", "podFixed"]).cloned().unwrap_or_default();
            let is_empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
            if given.is_some_and(|given| !is_empty(given) && !same_amounts(given, &fixed)) {
                return Err(forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
            }
            if !fixed.is_null() {
                pod.set_at(&["spec", "overhead"], fixed);
            }
        }
    }
    let Some(class) = class.filter(|class| class.get("scheduling").is_some_and(Value::is_object)) else {
        return Ok(());
    };
    let value = class.to_value();
    let scheduling = get(&value, "scheduling");
    for (key, wanted) in strings(scheduling, "nodeSelector") {
        let given = pod.at(&["spec", "nodeSelector", &key]).and_then(Value::as_str);
        if let Some(given) = given.filter(|given| *given != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {given}"
            );
            return Err(forbidden(&why));
        }
        pod.set_at(&["spec", "nodeSelector", &key], wanted);
    }
    let own = pod.at(&["spec", "tolerations"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let all: Vec<_> = own.into_iter().chain(items(scheduling, "tolerations").iter().cloned()).collect();
    if !all.is_empty() {
        pod.set_at(&["spec", "tolerations"], merged_tolerations(&all));
    }
    Ok(())
}

/// `RuntimeClass`: no overhead without a class that has one.
pub(super) fn overhead_of_class(attributes: &Attributes<'_>, pod: &Object, view: View<'_>) -> Result<(), Status> {
    let of_kind = (attributes.group, attributes.resource, attributes.subresource) == ("", "pods", "");
    let given = pod.at(&["spec", "overhead"]).is_some_and(|overhead| !overhead.is_null());
    if !of_kind || attributes.operation != Operation::Create || !given {
        return Ok(());
    }
    let class = view.get("runtimeclasses.node.k8s.io", "", pod.str_at(&["spec", "runtimeClassName"]));
    if class.is_some_and(|class| class.get("overhead").is_some_and(Value::is_object)) {
        return Ok(());
    }
    let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    Err(Status::forbidden("", "pods", attributes.shown_name(pod), why))
}

fn same_amounts(a: &Value, b: &Value) -> bool {
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    keys(a) == keys(b)
        && a.as_object().into_iter().flatten().all(|(key, _)| match (quantity(a, key), quantity(b, key)) {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => false,
        })
}

/// Tolerations without those that another one covers (`pkg/util/tolerations`).
fn merged_tolerations(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|wider| covers(wider, toleration))
            || all[i + 1..].iter().any(|wider| wider != toleration && covers(wider, toleration));
        if !covered {
            merged.push(toleration.clone());
        }
    }
    merged
}

fn covers(wider: &Value, toleration: &Value) -> bool {
    if wider == toleration {
        return true;
    }
    let same = |key: &str| text(wider, key) == text(toleration, key);
    let any_key = text(wider, "key").is_empty() && text(wider, "operator") == "Exists";
    if !same("key") && !any_key {
        return false;
    }
    if !same("effect") && !text(wider, "effect").is_empty() {
        return false;
    }
    if text(wider, "effect") == "NoExecute"
        && let Some(seconds) = int(wider, "tolerationSeconds")
        && int(toleration, "tolerationSeconds").is_none_or(|shorter| shorter > seconds)
    {
        return false;
    }
    match text(wider, "operator") {
        "Equal" | "" => text(toleration, "operator") == "Equal" && same("value"),
        "Exists" => true,
        _ => false,
    }
}

/// `PodTopologyLabels`: where a pod's node stands becomes part of its labels.
pub(super) fn pod_topology_labels(pod: &mut Object, view: View<'_>) {
    let node = pod.str_at(&["spec", "nodeName"]).to_owned();
    for (key, value) in topology_of(&node, view) {
        pod.set_at(&["metadata", "labels", &key], value);
    }
}

/// The labels of a node that pods on it get.
pub fn topology_of(node: &str, view: View<'_>) -> Vec<(String, String)> {
    if node.is_empty() {
        return Vec::new();
    }
    let labels = view.get("nodes", "", node).map(|node| node.labels()).unwrap_or_default();
    let topology = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];
    labels.into_iter().filter(|(key, _)| topology.contains(&key.as_str())).collect()
}

/// `StorageObjectInUseProtection`.
pub(super) fn protect(object: &mut Object, finalizer: &str) {
    let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.into());
        object.set_finalizers(finalizers);
    }
}

/// `DefaultStorageClass`: the class that says it is the default.
pub(super) fn default_storage_class(claim: &mut Object, view: View<'_>) {
    let named = claim.at(&["spec", "storageClassName"]).is_some_and(|class| !class.is_null());
    if named || claim.annotation("volume.beta.kubernetes.io/storage-class").is_some() {
        return;
    }
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(class) = default_class(view, "storageclasses.storage.k8s.io", &marks) {
        claim.set_at(&["spec", "storageClassName"], class.name());
    }
}

/// `DefaultIngressClass`: the class that says it is the default.
pub(super) fn default_ingress_class(ingress: &mut Object, view: View<'_>) {
    let named = ingress.at(&["spec", "ingressClassName"]).is_some_and(|class| !class.is_null());
    if named || ingress.annotation("kubernetes.io/ingress.class").is_some() {
        return;
    }
    let mark = "ingressclass.kubernetes.io/is-default-class";
    if let Some(class) = default_class(view, "ingressclasses.networking.k8s.io", &[mark]) {
        ingress.set_at(&["spec", "ingressClassName"], class.name());
    }
}

/// `PersistentVolumeClaimResize`: a claim grows only when it is bound and its class allows it.
pub(super) fn claim_resize(attributes: &Attributes<'_>, claim: &Object, view: View<'_>) -> Result<(), Status> {
    let of_kind = (attributes.group, attributes.resource, attributes.subresource) == ("", "persistentvolumeclaims", "");
    let Some(old) = attributes.old.filter(|_| of_kind) else { return Ok(()) };
    let (new, before) = (claim.to_value(), old.to_value());
    let size = |claim: &Value| quantity(at(claim, &["spec", "resources", "requests"]), "storage");
    let (Some(wanted), had) = (size(&new), size(&before)) else { return Ok(()) };
    if had.is_some_and(|had| wanted <= had) {
        return Ok(());
    }
    let forbidden = |why: &str| Err(Status::forbidden("", attributes.resource, attributes.shown_name(claim), why));
    if old.str_at(&["status", "phase"]) != "Bound" {
        return forbidden("Only bound persistent volume claims can be expanded");
    }
    let class_of = |claim: &Object| {
        let annotation = claim.annotation("volume.beta.kubernetes.io/storage-class");
        annotation.unwrap_or_else(|| claim.str_at(&["spec", "storageClassName"])).to_owned()
    };
    let class = Some(class_of(claim)).filter(|class| !class.is_empty() && *class == class_of(old));
    let class = class.and_then(|class| view.get("storageclasses.storage.k8s.io", "", &class));
    if class.is_none_or(|class| class.get("allowVolumeExpansion") != Some(&Value::Bool(true))) {
        return forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
             support resize",
        );
    }
    Ok(())
}

/// `PodResizeValidator`: what a pod on a node asks for when it is resized must fit that node.
pub(super) fn pod_resize(attributes: &Attributes<'_>, pod: &Object, view: View<'_>) -> Result<(), Status> {
    let of_kind = (attributes.group, attributes.resource, attributes.subresource) == ("", "pods", "resize");
    let name = pod.str_at(&["spec", "nodeName"]);
    let unchanged = attributes.old.is_none_or(|old| old.generation() == pod.generation());
    if !of_kind || name.is_empty() || unchanged {
        return Ok(());
    }
    let forbidden = |why: &str| Status::forbidden("", "pods", attributes.shown_name(pod), why);
    let Some(node) = view.get("nodes", "", name) else {
        return Err(forbidden(&format!("node \"{name}\" not found")));
    };
    if let Some(system) = node.label("kubernetes.io/os").filter(|system| *system != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{system}\"");
        return Err(forbidden(&why).with_cause("UnsupportedPlatform", "", ""));
    }
    let (value, spec) = (node.to_value(), pod.get("spec").cloned().unwrap_or_default());
    let allocatable = at(&value, &["status", "allocatable"]);
    let requests = resources::sum(&spec, "requests", true);
    let mut short = Vec::new();
    let amount = |name: &str| quantity(allocatable, name).unwrap_or_else(crate::base::quantity::Quantity::zero);
    if let Some(asked) = requests.get("cpu").filter(|asked| **asked > amount("cpu")) {
        short.push(format!("cpu, requested: {}, allocatable: {}", asked.milli(), amount("cpu").milli()));
    }
    if let Some(asked) = requests.get("memory").filter(|asked| **asked > amount("memory")) {
        short.push(format!("memory, requested: {}, allocatable: {}", asked.value(), amount("memory").value()));
    }
    if short.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", short.join("; "));
    Err(forbidden(&why).with_cause("NodeCapacity", "", ""))
}

/// `CertificateSubjectRestriction`: nobody asks for a certificate of those who may do everything.
pub(super) fn certificate_subject(attributes: &Attributes<'_>, request: &Object) -> Result<(), Status> {
    const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
    let of_kind = (attributes.group, attributes.resource, attributes.subresource)
        == ("certificates.k8s.io", "certificatesigningrequests", "");
    if !of_kind || request.str_at(&["spec", "signerName"]) != SIGNER {
        return Ok(());
    }
    let refuse =
        |why: &str| Err(Status::forbidden(attributes.group, attributes.resource, attributes.shown_name(request), why));
    match kinds::organizations(request) {
        Err(why) => refuse(&format!("failed to parse CSR: {why}")),
        Ok(groups) if groups.iter().any(|group| group == MASTERS) => {
            refuse(&format!("use of {SIGNER} signer with {MASTERS} group is not allowed"))
        }
        Ok(_) => Ok(()),
    }
}
