//! The admission plugins of kube-apiserver that the simulated cluster has.

use serde_json::{Value, json};

use super::{Attributes, Operation, View};
use crate::{
    base::{Object, Status},
    ids::Ids,
};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Seconds that a pod tolerates a node that is not ready or unreachable.
const TOLERATION_SECONDS: u64 = 300;

/// Seconds that a pod's projected token is good for; one hour, and 7 s that mark it as an extended one.
const TOKEN_SECONDS: u64 = 3607;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `NamespaceLifecycle`: nothing is created where there is no namespace, or in one that goes.
pub(super) fn namespace_lifecycle(attributes: &Attributes<'_>, view: View<'_>) -> Result<(), Status> {
    let Attributes { operation, group, resource, namespace, name, .. } = *attributes;
    if operation != Operation::Create || namespace.is_empty() || (group.is_empty() && resource == "namespaces") {
        return Ok(());
    }
    let Some(found) = view("namespaces", "", namespace) else {
        return Err(Status::not_found("", "namespaces", namespace));
    };
    // Access reviews are no content.
    if found.is_deleting() && !(group == "authorization.k8s.io" && resource == "localsubjectaccessreviews") {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
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
    let forbidden = |why: &str| Status::forbidden("", "pods", pod.name(), why);
    if pod.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
        return Ok(());
    }
    let mut name = pod.str_at(&["spec", "serviceAccountName"]).to_owned();
    if name.is_empty() {
        name = "default".into();
    }
    let Some(account) = view("serviceaccounts", attributes.namespace, &name) else {
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
    if let Some(secrets) = account.get("imagePullSecrets").filter(|_| pod.at(&["spec", "imagePullSecrets"]).is_none()) {
        pod.set_at(&["spec", "imagePullSecrets"], secrets.clone());
    }
    Ok(())
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

/// `Priority`: the number behind `priorityClassName`.
pub(super) fn priority(pod: &mut Object, view: View<'_>) -> Result<(), Status> {
    let class = pod.str_at(&["spec", "priorityClassName"]).to_owned();
    let (value, policy) = match class.as_str() {
        "" => (0, "PreemptLowerPriority".to_owned()),
        "system-cluster-critical" => (2_000_000_000, "PreemptLowerPriority".to_owned()),
        "system-node-critical" => (2_000_001_000, "PreemptLowerPriority".to_owned()),
        name => {
            let Some(found) = view("priorityclasses.scheduling.k8s.io", "", name) else {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(Status::forbidden("", "pods", pod.name(), &why));
            };
            let policy = found.str_at(&["preemptionPolicy"]);
            let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
            (found.get("value").and_then(Value::as_i64).unwrap_or_default(), policy.to_owned())
        }
    };
    if pod.at(&["spec", "priority"]).and_then(Value::as_i64).is_some_and(|given| given != value) {
        let why = format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name",
            pod.at(&["spec", "priority"]).unwrap_or(&Value::Null)
        );
        return Err(Status::forbidden("", "pods", pod.name(), &why));
    }
    pod.set_at(&["spec", "priority"], value);
    if pod.at(&["spec", "preemptionPolicy"]).is_none() {
        pod.set_at(&["spec", "preemptionPolicy"], policy);
    }
    Ok(())
}

/// `RuntimeClass`: the class must exist; its overhead and scheduling go into the pod.
pub(super) fn runtime_class(attributes: &Attributes<'_>, pod: &mut Object, view: View<'_>) -> Result<(), Status> {
    let name = pod.str_at(&["spec", "runtimeClassName"]).to_owned();
    if name.is_empty() {
        return Ok(());
    }
    let Some(class) = view("runtimeclasses.node.k8s.io", "", &name) else {
        let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
        return Err(Status::forbidden("", "pods", attributes.name, &why));
    };
    if let Some(overhead) = class.at(&["overhead", "podFixed"]) {
        pod.set_at(&["spec", "overhead"], overhead.clone());
    }
    if let Some(selector) = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object) {
        for (key, value) in selector {
            pod.set_at(&["spec", "nodeSelector", key], value.clone());
        }
    }
    for toleration in class.at(&["scheduling", "tolerations"]).and_then(Value::as_array).into_iter().flatten() {
        push(pod, "tolerations", toleration.clone());
    }
    Ok(())
}

/// `StorageObjectInUseProtection`.
pub(super) fn claim_protection(claim: &mut Object) {
    const FINALIZER: &str = "kubernetes.io/pvc-protection";
    let mut finalizers: Vec<String> = claim.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.into());
        claim.set_finalizers(finalizers);
    }
}

/// `DefaultStorageClass`: the class that says it is the default.
pub(super) fn default_storage_class(claim: &mut Object, view: View<'_>) {
    if claim.at(&["spec", "storageClassName"]).is_some() {
        return;
    }
    // The view looks up by name only, so the default class of the simulated cluster has a fixed one.
    let class = view("storageclasses.storage.k8s.io", "", "standard");
    let is_default = |class: &Object| class.annotation("storageclass.kubernetes.io/is-default-class") == Some("true");
    if let Some(class) = class.filter(|class| is_default(class)) {
        claim.set_at(&["spec", "storageClassName"], class.name());
    }
}
