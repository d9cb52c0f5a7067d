//! What Go's encoder makes of the parts of an object: the webhook reads objects into Go types and writes them out again.
//! What is empty goes then, but for what lies behind a pointer; what is a struct by value is always there; quantities and
//! times have one form.
//!
//! Facts from `k8s.io/api/core/v1/types.go` and `k8s.io/api/networking/v1/types.go`, for what a pod, a volume claim and a
//! rule of a network policy are made of. Members are told by their names, and where one name is of two types by the member
//! that they stand in.

use serde_json::{Map, Value, json};

use super::quantity;

/// Lists that stay though they are empty.
const LISTS_THAT_STAY: [&str; 4] = ["containers", "monitors", "nodeSelectorTerms", "sources"];

/// Maps, whose keys are the user's own: those go when they are empty, and what is in them is not looked at.
const MAPS: [&str; 7] =
    ["annotations", "labels", "matchLabels", "nodeSelector", "options", "userAnnotations", "volumeAttributes"];

/// Maps of quantities.
const AMOUNTS: [&str; 3] = ["limits", "overhead", "requests"];

/// Texts that go when they are empty.
const TEXTS: &[&str] = &[
    "action",
    "apiVersion",
    "audience",
    "certificateChainPath",
    "containerName",
    "credentialBundlePath",
    "datasetName",
    "datasetUUID",
    "directory",
    "dnsPolicy",
    "effect",
    "group",
    "host",
    "hostIP",
    "hostname",
    "image",
    "imagePullPolicy",
    "iscsiInterface",
    "keyPath",
    "keyType",
    "keyring",
    "level",
    "medium",
    "nodeName",
    "operation",
    "pool",
    "prefix",
    "priorityClassName",
    "protectionDomain",
    "protocol",
    "pullPolicy",
    "reference",
    "request",
    "revision",
    "role",
    "schedulerName",
    "scheme",
    "secretFile",
    "serviceAccount",
    "serviceAccountName",
    "storageMode",
    "storagePolicyID",
    "storagePolicyName",
    "storagePool",
    "subPath",
    "subPathExpr",
    "subdomain",
    "subresource",
    "targetContainerName",
    "tenant",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "user",
    "volumeName",
    "volumeNamespace",
    "workingDir",
];

/// Texts that go when they are empty, in these members only.
const TEXTS_IN: &[(&str, &[&str])] = &[
    ("env", &["value"]),
    ("tolerations", &["key", "operator", "value"]),
    ("ports", &["name"]),
    ("imagePullSecrets", &["name"]),
    ("configMap", &["name"]),
    ("configMapRef", &["name"]),
    ("configMapKeyRef", &["name"]),
    ("secret", &["name", "secretName"]),
    ("secretRef", &["name"]),
    ("secretKeyRef", &["name"]),
    ("seLinuxOptions", &["type"]),
    ("httpGet", &["path"]),
];

/// Truth values that go when they are false; `readOnly` stays where it is behind a pointer.
const FLAGS: [&str; 9] = [
    "chapAuthDiscovery",
    "chapAuthSession",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "sslEnabled",
    "stdin",
    "stdinOnce",
    "tty",
];

/// Numbers that go when they are 0.
const NUMBERS: [&str; 7] = [
    "failureThreshold",
    "hostPort",
    "initialDelaySeconds",
    "partition",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];

/// Writes a value as Go would, in the member of this name.
pub(super) fn encode(value: &mut Value, member: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| encode(item, member)),
        Value::Object(members) => encode_members(members, member),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn encode_members(members: &mut Map<String, Value>, of: &str) {
    for (name, value) in &mut *members {
        let name = name.as_str();
        if AMOUNTS.contains(&name) {
            value.as_object_mut().into_iter().flatten().for_each(|(_, amount)| quantity::canonical(amount));
        } else if name == "sizeLimit" || name == "divisor" {
            quantity::canonical(value);
        } else if !MAPS.contains(&name) || value.is_array() {
            encode(value, name);
        }
    }
    members.retain(|name, value| !is_dropped(name, value, of));
    let is_container = ["containers", "initContainers", "ephemeralContainers"].contains(&of);
    if is_container || of == VOLUME_CLAIM_SPEC || (of == "spec" && members.contains_key("accessModes")) {
        members.entry("resources").or_insert_with(|| json!({}));
    }
    match of {
        "resourceFieldRef" => drop(members.entry("divisor").or_insert_with(|| json!("0"))),
        "volumeClaimTemplate" => drop(members.entry("metadata").or_insert_with(|| json!({}))),
        _ => {}
    }
}

/// What [`encode`] is told for the spec of a volume claim.
pub(super) const VOLUME_CLAIM_SPEC: &str = "volumeClaimTemplates";

fn is_dropped(name: &str, value: &Value, of: &str) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty() && !LISTS_THAT_STAY.contains(&name),
        Value::Object(members) => members.is_empty() && (MAPS.contains(&name) || AMOUNTS.contains(&name)),
        Value::String(text) => {
            let here = TEXTS_IN.iter().any(|(member, names)| *member == of && names.contains(&name));
            let everywhere = TEXTS.contains(&name) && !(name == "image" && of == "rbd");
            text.is_empty() && (here || everywhere)
        }
        Value::Bool(yes) => {
            !yes && (FLAGS.contains(&name) || (name == "readOnly" && !["azureDisk", "csi"].contains(&of)))
        }
        Value::Number(number) => number.as_i64() == Some(0) && NUMBERS.contains(&name),
    }
}

/// A time in UTC and to the second.
pub(super) fn encode_time(members: &mut Map<String, Value>, name: &str) {
    let time = members.get(name).and_then(Value::as_str).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let Some(time) = time {
        members.insert(name.into(), time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    }
}
