//! Pods, and the pod templates of other kinds: defaults, quality of service, what a client may not set.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/registry/core/pod/strategy.go`.

mod containers;
pub mod resources;
mod spec;
mod update;
pub(super) mod volumes;
pub(super) mod warnings;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(super) use self::{
    containers::port_or_name,
    spec::{ip, node_selector, tolerations, validate, validate_template},
    update::validate_update,
};
use super::{
    core::restore,
    util::{
        as_quantity, default_number, default_to, drop_empty, each_mut, get, has, items, make_map, map_mut, members,
        round_amounts, text,
    },
};
use crate::base::{Object, quantity::Quantity};

/// The three lists of containers in a pod's spec.
pub(super) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a pod, as of a pod template and a few more.
pub(super) fn default_pod(object: &mut Object) {
    let status = make_map(object.as_map_mut(), "status");
    // the one address and the list follow each other, the one first (`Convert_v1_PodStatus_To_core_PodStatus`)
    let one = status.get("podIP").and_then(Value::as_str).unwrap_or_default().to_owned();
    let first = status.get("podIPs").and_then(|list| list.get(0)).map(|entry| text(entry, "ip").to_owned());
    match first {
        Some(first) if one.is_empty() && !first.is_empty() => {
            status.insert("podIP".into(), first.into());
        }
        first if !one.is_empty() && first.as_ref() != Some(&one) => {
            status.insert("podIPs".into(), json!([{"ip": one}]));
        }
        _ => {}
    }
    let spec = make_map(object.as_map_mut(), "spec");
    default_spec(spec);
    // of pods, not of templates (`Convert_v1_Pod_To_core_Pod`)
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    // requests follow from limits, but only in pods, so that templates show what was written
    for list in ["initContainers", "containers"] {
        each_mut(spec, list, |container| {
            if let Some(resources) = map_mut(container, "resources") {
                requests_from_limits(resources);
            }
        });
    }
    default_pod_resources(spec);
    spec.entry("enableServiceLinks")
        .and_modify(|v| {
            if v.is_null() {
                *v = true.into()
            }
        })
        .or_insert(true.into());
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_ports(spec);
    }
}

/// Under host networking a container's port is the host's, too (`defaultHostNetworkPorts`).
fn host_ports(spec: &mut Map<String, Value>) {
    for list in ["initContainers", "containers"] {
        each_mut(spec, list, |container| {
            each_mut(container, "ports", |port| {
                let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                if number != 0 {
                    default_number(port, "hostPort", number);
                }
            });
        });
    }
}

fn requests_from_limits(resources: &mut Map<String, Value>) {
    for (name, amount) in resources.get("limits").and_then(Value::as_object).cloned().into_iter().flatten() {
        make_map(resources, "requests").entry(name).or_insert(amount);
    }
}

/// `spec.resources`: what is not requested follows from the pod's limits, unless the containers say (`setDefaults_PodRequests`).
fn default_pod_resources(spec: &mut Map<String, Value>) {
    let of_containers = {
        let value = Value::Object(spec.clone());
        resources::sum(&value, "requests", false)
    };
    let Some(resources) = map_mut(spec, "resources") else { return };
    round_amounts(resources, "limits");
    round_amounts(resources, "requests");
    let limits = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    if limits.is_empty() && resources.get("requests").and_then(Value::as_object).is_none_or(Map::is_empty) {
        return;
    }
    for name in ["cpu", "memory"].into_iter().filter(|name| limits.contains_key(*name)) {
        let requests = make_map(resources, "requests");
        if !requests.contains_key(name) {
            let amount = of_containers.get(name).map_or_else(|| limits[name].clone(), |sum| sum.to_string().into());
            requests.insert(name.into(), amount);
        }
    }
}

/// Defaults of a `PodSpec`.
pub(super) fn default_spec(spec: &mut Map<String, Value>) {
    drop_empty(
        spec,
        &[
            "volumes",
            "initContainers",
            "ephemeralContainers",
            "nodeSelector",
            "imagePullSecrets",
            "tolerations",
            "hostAliases",
            "readinessGates",
            "overhead",
            "topologySpreadConstraints",
            "schedulingGates",
            "resourceClaims",
            "serviceAccountName",
            "serviceAccount",
            "nodeName",
            "hostname",
            "subdomain",
            "priorityClassName",
        ],
    );
    default_to(spec, "dnsPolicy", "ClusterFirst");
    default_to(spec, "restartPolicy", "Always");
    default_to(spec, "terminationGracePeriodSeconds", 30);
    default_to(spec, "schedulerName", "default-scheduler");
    if !spec.get("securityContext").is_some_and(Value::is_object) {
        spec.insert("securityContext".into(), json!({}));
    }
    // the old name of the service account follows the new one, and the new one the old where it is absent
    let account = ["serviceAccountName", "serviceAccount"]
        .iter()
        .find_map(|key| spec.get(*key).and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned));
    if let Some(account) = account {
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.into());
    }
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if spec.get(key) == Some(&Value::Bool(false)) {
            spec.remove(key);
        }
    }
    round_amounts(spec, "overhead");
    each_mut(spec, "imagePullSecrets", |secret| drop_empty(secret, &["name"]));
    for list in CONTAINER_LISTS {
        each_mut(spec, list, default_container);
    }
    each_mut(spec, "volumes", default_volume);
    each_mut(spec, "topologySpreadConstraints", |constraint| {
        default_to(constraint, "nodeAffinityPolicy", Value::Null);
        drop_empty(constraint, &["nodeAffinityPolicy"]);
    });
}

fn default_container(container: &mut Map<String, Value>) {
    drop_empty(
        container,
        &["ports", "env", "envFrom", "volumeMounts", "volumeDevices", "command", "args", "workingDir", "image"],
    );
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if is_latest(image) { "Always" } else { "IfNotPresent" };
    default_to(container, "imagePullPolicy", policy);
    default_to(container, "terminationMessagePath", "/dev/termination-log");
    default_to(container, "terminationMessagePolicy", "File");
    for key in ["stdin", "stdinOnce", "tty"] {
        if container.get(key) == Some(&Value::Bool(false)) {
            container.remove(key);
        }
    }
    let resources = make_map(container, "resources");
    drop_empty(resources, &["limits", "requests", "claims"]);
    round_amounts(resources, "limits");
    round_amounts(resources, "requests");
    each_mut(container, "ports", |port| {
        default_to(port, "protocol", "TCP");
        drop_empty(port, &["name", "hostIP"]);
    });
    each_mut(container, "env", |env| {
        drop_empty(env, &["value"]);
        if let Some(source) = map_mut(env, "valueFrom") {
            default_field_ref(source);
        }
    });
    each_mut(container, "volumeMounts", |mount| {
        if mount.get("readOnly") == Some(&Value::Bool(false)) {
            mount.remove("readOnly");
        }
    });
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = map_mut(container, key) {
            default_number(probe, "timeoutSeconds", 1);
            default_number(probe, "periodSeconds", 10);
            default_number(probe, "successThreshold", 1);
            default_number(probe, "failureThreshold", 3);
            if probe.get("initialDelaySeconds") == Some(&Value::from(0)) {
                probe.remove("initialDelaySeconds");
            }
            default_handler(probe);
        }
    }
    // fields of features that are off
    if let Some(lifecycle) = map_mut(container, "lifecycle")
        && lifecycle.remove("stopSignal").is_some()
        && lifecycle.is_empty()
    {
        container.remove("lifecycle");
    }
    if let Some(lifecycle) = map_mut(container, "lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(handler) = map_mut(lifecycle, key) {
                default_handler(handler);
            }
        }
    }
}

fn default_handler(handler: &mut Map<String, Value>) {
    if let Some(get) = map_mut(handler, "httpGet") {
        default_to(get, "path", "/");
        default_to(get, "scheme", "HTTP");
    }
    if let Some(grpc) = map_mut(handler, "grpc")
        && !grpc.get("service").is_some_and(Value::is_string)
    {
        grpc.insert("service".into(), "".into());
    }
}

/// Fields are of the core version, and resources are counted in units of 1.
fn default_field_ref(source: &mut Map<String, Value>) {
    if let Some(field) = map_mut(source, "fieldRef") {
        default_to(field, "apiVersion", "v1");
    }
    for key in ["resourceFieldRef"] {
        if let Some(field) = map_mut(source, key) {
            default_to(field, "divisor", "0");
        }
    }
    if let Some(key) = map_mut(source, "fileKeyRef")
        && key.get("optional").is_none_or(Value::is_null)
    {
        key.insert("optional".into(), false.into());
    }
}

/// Whether an image's tag is `latest`, or it has neither tag nor digest.
fn is_latest(image: &str) -> bool {
    // what is no reference has no tag
    if image.contains('@') || !image.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:".contains(c)) {
        return false;
    }
    match image.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag == "latest",
        None => true,
    }
}

/// Names of all volume sources, in the order in which upstream looks at them.
const NAMES_OF_SOURCES: [&str; 31] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "",
];

fn default_volume(volume: &mut Map<String, Value>) {
    if !NAMES_OF_SOURCES.iter().any(|source| volume.get(*source).is_some_and(Value::is_object)) {
        volume.insert("emptyDir".into(), json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map_mut(volume, key) {
            drop_empty(source, &["items"]);
            if source.get("defaultMode").is_none_or(Value::is_null) {
                source.insert("defaultMode".into(), 0o644.into());
            }
        }
    }
    if let Some(source) = map_mut(volume, "downwardAPI") {
        each_mut(source, "items", default_field_ref);
    }
    if let Some(source) = map_mut(volume, "projected") {
        if source.get("sources").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            source.insert("sources".into(), Value::Null);
        }
        each_mut(source, "sources", |source| {
            // of features that are off
            source.remove("clusterTrustBundle");
            source.remove("podCertificate");
            if let Some(token) = map_mut(source, "serviceAccountToken") {
                default_number(token, "expirationSeconds", 3600);
            }
            if let Some(api) = map_mut(source, "downwardAPI") {
                each_mut(api, "items", default_field_ref);
            }
        });
    }
    if let Some(path) = map_mut(volume, "hostPath")
        && path.get("type").is_none_or(Value::is_null)
    {
        path.insert("type".into(), "".into());
    }
    if let Some(spec) =
        map_mut(volume, "ephemeral").and_then(|e| map_mut(e, "volumeClaimTemplate")).and_then(|t| map_mut(t, "spec"))
    {
        super::storage::default_claim_spec(spec);
    }
    if let Some(iscsi) = map_mut(volume, "iscsi") {
        default_to(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = map_mut(volume, "rbd") {
        default_to(rbd, "pool", "rbd");
        default_to(rbd, "user", "admin");
        default_to(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = map_mut(volume, "azureDisk") {
        default_to(disk, "cachingMode", "ReadWrite");
        default_to(disk, "kind", "Shared");
        default_to(disk, "fsType", "ext4");
        if disk.get("readOnly").is_none_or(Value::is_null) {
            disk.insert("readOnly".into(), false.into());
        }
    }
    if let Some(scale) = map_mut(volume, "scaleIO") {
        default_to(scale, "storageMode", "ThinProvisioned");
        default_to(scale, "fsType", "xfs");
    }
    if let Some(image) = map_mut(volume, "image") {
        let reference = image.get("reference").and_then(Value::as_str).unwrap_or_default();
        let policy = if is_latest(reference) { "Always" } else { "IfNotPresent" };
        default_to(image, "pullPolicy", policy);
    }
}

/// Defaults of a pod template under a key.
pub(super) fn default_template(parent: &mut Map<String, Value>, key: &str) {
    let template = make_map(parent, key);
    make_map(template, "metadata");
    let spec = make_map(template, "spec");
    default_spec(spec);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_ports(spec);
    }
}

/// A new pod: pending, with its quality of service.
pub(super) fn create(object: &mut Object) {
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(object)});
    if object.at(&["spec", "schedulingGates"]).and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    object.set("status", status);
    let (labels, annotations) = (object.labels(), object.annotations());
    if let Some(spec) = map_mut(object.as_map_mut(), "spec") {
        own_labels(spec, &labels);
        armor_fields(spec, &annotations);
    }
}

/// The labels that a pod names by key become part of its selectors (`mutatePodAffinity`,
/// `mutateTopologySpreadConstraints`).
fn own_labels(spec: &mut Map<String, Value>, labels: &BTreeMap<String, String>) {
    let merge = |term: &mut Map<String, Value>| {
        for (key, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
            let keys: Vec<_> = term.get(key).and_then(Value::as_array).into_iter().flatten().cloned().collect();
            let Some(selector) = map_mut(term, "labelSelector") else { return };
            for key in keys.iter().filter_map(Value::as_str) {
                let Some(value) = labels.get(key) else { continue };
                let list = selector.entry("matchExpressions").or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.push(json!({"key": key, "operator": operator, "values": [value]}));
                }
            }
        }
    };
    each_mut(spec, "topologySpreadConstraints", merge);
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = map_mut(spec, "affinity").and_then(|affinity| map_mut(affinity, kind)) else { continue };
        each_mut(terms, "requiredDuringSchedulingIgnoredDuringExecution", merge);
        each_mut(terms, "preferredDuringSchedulingIgnoredDuringExecution", |term| {
            if let Some(term) = map_mut(term, "podAffinityTerm") {
                merge(term);
            }
        });
    }
}

/// AppArmor profiles of annotations become fields (`applyAppArmorVersionSkew`).
fn armor_fields(spec: &mut Map<String, Value>, annotations: &BTreeMap<String, String>) {
    if spec.get("os").is_some_and(|os| text(os, "name") == "windows") {
        return;
    }
    let whole = spec.get("securityContext").map(|context| get(context, "appArmorProfile").clone());
    for list in CONTAINER_LISTS {
        each_mut(spec, list, |container| {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let annotation = annotations.get(&format!("{}{name}", warnings::ARMOR));
            let Some(profile) = annotation.and_then(|annotation| warnings::armor_profile(annotation)) else { return };
            let own = container.get("securityContext").is_some_and(|context| has(context, "appArmorProfile"));
            if !own && whole.as_ref() != Some(&profile) {
                make_map(container, "securityContext").insert("appArmorProfile".into(), profile);
            }
        });
    }
}

/// What a write through a door of pods leaves as it was.
pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    match subresource {
        "status" => {
            restore(new, old, "spec");
            keep_metadata(new, old, &["ownerReferences"]);
            // the class is fixed when the pod is made
            if new.str_at(&["status", "qosClass"]).is_empty()
                && let Some(class) = old.at(&["status", "qosClass"]).cloned()
            {
                new.set_at(&["status", "qosClass"], class);
            }
            keep_generations(new, old);
        }
        "ephemeralcontainers" => {
            let added = new.at(&["spec", "ephemeralContainers"]).cloned();
            restore(new, old, "status");
            restore(new, old, "spec");
            keep_metadata(new, old, OWN_METADATA);
            match added {
                Some(added) => new.set_at(&["spec", "ephemeralContainers"], added),
                None => {
                    new.remove_at(&["spec", "ephemeralContainers"]);
                }
            }
        }
        "resize" => resize(new, old),
        _ => restore(new, old, "status"),
    }
}

/// The metadata that a subresource does not write (`ResetObjectMetaForStatus`).
const OWN_METADATA: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];

fn keep_metadata(new: &mut Object, old: &Object, keys: &[&str]) {
    for key in keys {
        match old.at(&["metadata", key]).cloned() {
            Some(value) => new.set_at(&["metadata", key], value),
            None => {
                new.remove_at(&["metadata", key]);
            }
        }
    }
}

/// Who does not know of observed generations does not lose them (`preserveOldObservedGeneration`).
fn keep_generations(new: &mut Object, old: &Object) {
    let number = |value: &Value| get(value, "observedGeneration").as_i64().unwrap_or_default();
    let before = old.get("status").cloned().unwrap_or_default();
    let Some(status) = map_mut(new.as_map_mut(), "status") else { return };
    if number(&before) != 0 {
        default_number(status, "observedGeneration", number(&before));
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    each_mut(status, "conditions", |condition| {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let place = seen.entry(kind.clone()).or_default();
        let old = items(&before, "conditions").iter().filter(|old| text(old, "type") == kind).nth(*place);
        *place += 1;
        if let Some(generation) = old.map(number).filter(|generation| *generation != 0) {
            default_number(condition, "observedGeneration", generation);
        }
    });
}

/// A resize writes the resources of containers that stand in their places, and nothing else; where they do not,
/// validation tells.
fn resize(new: &mut Object, old: &Object) {
    let (sent, before) = (new.get("spec").cloned().unwrap_or_default(), old.get("spec").cloned().unwrap_or_default());
    let lists = ["containers", "initContainers"];
    if lists.iter().any(|list| items(&sent, list).len() != items(&before, list).len()) {
        return;
    }
    restore(new, old, "status");
    restore(new, old, "spec");
    keep_metadata(new, old, OWN_METADATA);
    for list in lists {
        let (now, then) = (items(&sent, list), items(&before, list));
        let in_place = now.iter().zip(then).all(|(now, then)| text(now, "name") == text(then, "name"));
        if now.is_empty() {
            continue;
        }
        let merged: Vec<Value> = if in_place {
            let merge = |(now, then): (&Value, &Value)| {
                let mut merged = then.clone();
                for key in ["resources", "resizePolicy"] {
                    match now.get(key) {
                        Some(value) => merged[key] = value.clone(),
                        None => {
                            merged.as_object_mut().map(|map| map.remove(key));
                        }
                    }
                }
                merged
            };
            now.iter().zip(then).map(merge).collect()
        } else {
            now.to_vec()
        };
        new.set_at(&["spec", list], merged);
    }
    match sent.get("resources") {
        Some(resources) => new.set_at(&["spec", "resources"], resources.clone()),
        None => {
            new.remove_at(&["spec", "resources"]);
        }
    }
}

/// A pod's quality of service: `Guaranteed`, `Burstable` or `BestEffort`. Upstream: `pkg/apis/core/v1/helper/qos`.
pub fn qos_class(pod: &Object) -> &'static str {
    let value = pod.to_value();
    let spec = get(&value, "spec");
    let whole = get(spec, "resources");
    let counted = |name: &str| matches!(name, "cpu" | "memory");
    let positive = |amounts: &Value| -> Vec<(String, Quantity)> {
        let pairs = amounts.as_object().into_iter().flatten().filter(|(name, _)| counted(name));
        let pairs = pairs.filter_map(|(name, amount)| Some((name.clone(), as_quantity(amount)?)));
        pairs.filter(|(_, amount)| !amount.is_zero() && !amount.is_negative()).collect()
    };
    if members(whole, "requests").next().is_some() || members(whole, "limits").next().is_some() {
        let (requests, limits) = (positive(get(whole, "requests")), positive(get(whole, "limits")));
        return class_of(&requests, &limits, limits.len() == 2);
    }
    let (mut requests, mut limits, mut all_limited) = (Vec::new(), Vec::new(), true);
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            let resources = get(container, "resources");
            let limited = positive(get(resources, "limits"));
            all_limited &= limited.len() == 2;
            add(&mut requests, positive(get(resources, "requests")));
            add(&mut limits, limited);
        }
    }
    class_of(&requests, &limits, all_limited)
}

fn add(sums: &mut Vec<(String, Quantity)>, amounts: Vec<(String, Quantity)>) {
    for (name, amount) in amounts {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.plus(&amount),
            None => sums.push((name, amount)),
        }
    }
}

fn class_of(requests: &[(String, Quantity)], limits: &[(String, Quantity)], all_limited: bool) -> &'static str {
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.iter().all(|(name, amount)| limits.iter().any(|(n, limit)| n == name && limit == amount));
    if all_limited && equal && requests.len() == limits.len() { "Guaranteed" } else { "Burstable" }
}
