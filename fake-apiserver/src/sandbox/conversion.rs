//! Between v1alpha1 and v1beta1: what the controller's conversion webhook answers.
//!
//! Upstream converts by Go types: an object is decoded into the struct of its version, and what leaves is what that of the
//! other version encodes to. Hence `podTemplate.metadata: {}` and `resources: {}` in what was converted. Each way into
//! v1beta1 keeps the whole older object in an annotation, which each way back takes away again.
//!
//! Upstream: `api/v1alpha1/sandbox_conversion.go`, `extensions/api/v1alpha1/*_conversion.go`.

use serde_json::{Map, Value, json};

use super::keys::{NEWER_POLICY, older_state};
use crate::{
    base::{Object, names::split_api_version, status::go_quote},
    clock::time_text,
    schema::Schema,
};

/// Prefix of the pools that stand for "no pool in particular".
const SHADOW: &str = "shadow-pool-";

type Members = Map<String, Value>;

/// Converts objects of the sandbox kinds to an `apiVersion`.
///
/// # Errors
/// Why one cannot be converted, in the webhook's words.
pub fn convert(objects: Vec<Object>, to: &str) -> Result<Vec<Object>, String> {
    objects.into_iter().map(|object| one(object, to)).collect()
}

fn one(object: Object, to: &str) -> Result<Object, String> {
    let from = split_api_version(object.api_version()).1.to_owned();
    match (from.as_str(), split_api_version(to).1) {
        ("v1alpha1", "v1beta1") => newer(object, to),
        ("v1beta1", "v1alpha1") => older(object, to),
        (from, to) if from == to => Ok(object),
        (from, to) => Err(format!("no conversion from {from} to {to}")),
    }
}

fn newer(object: Object, to: &str) -> Result<Object, String> {
    let mut object = as_encoded(object)?;
    let key = older_state(object.kind());
    object.remove_at(&["metadata", "annotations", &key]);
    drop_empty_annotations(&mut object);
    let template = object.str_at(&["spec", "sandboxTemplateRef", "name"]).to_owned();
    if object.kind() == "SandboxWarmPool" {
        object.set_at(&["spec", "sandboxTemplateRef"], template_ref(&template));
    }
    let state = object.to_value().to_string();
    match object.kind() {
        "SandboxWarmPool" => object.set_at(&["spec", "sandboxTemplateRef"], json!({"name": template})),
        "Sandbox" => {
            let replicas = object.remove_at(&["spec", "replicas"]);
            let mode = if replicas.as_ref().and_then(Value::as_i64) == Some(0) { "Suspended" } else { "Running" };
            object.set_at(&["spec", "operatingMode"], mode);
            remove_from_status(&mut object, "replicas");
        }
        "SandboxTemplate" => {
            if let Some(policy) = object.remove_at(&["metadata", "annotations", NEWER_POLICY]) {
                let policy = policy.as_str().unwrap_or_default();
                if !["Disallowed", "Allowed", "Overrides"].contains(&policy) {
                    let quoted = go_quote(policy);
                    return Err(format!("invalid VolumeClaimTemplatesPolicy annotation value: {quoted}"));
                }
                object.set_at(&["spec", "volumeClaimTemplatesPolicy"], policy);
            }
        }
        "SandboxClaim" => {
            let pool = wanted_pool(&object);
            object.remove_at(&["spec", "sandboxTemplateRef"]);
            object.remove_at(&["spec", "warmpool"]);
            object.set_at(&["spec", "warmPoolRef"], json!({"name": pool}));
        }
        _ => {}
    }
    object.set("apiVersion", to);
    object.set_at(&["metadata", "annotations", &key], state);
    Ok(object)
}

fn older(object: Object, to: &str) -> Result<Object, String> {
    let mut object = as_encoded(object)?;
    let kind = object.kind().to_owned();
    let state = object.remove_at(&["metadata", "annotations", &older_state(&kind)]);
    drop_empty_annotations(&mut object);
    match kind.as_str() {
        "Sandbox" => {
            let mode = object.remove_at(&["spec", "operatingMode"]);
            let mode = mode.as_ref().and_then(Value::as_str).unwrap_or_default();
            let mut replicas = Some(i64::from(mode != "Suspended"));
            // A guess, which says nothing of a pod.
            let mut current = replicas;
            if let Some(state) = state {
                let original = decode_state(&kind, &state)?;
                let spec = original.at(&["spec", "replicas"]).and_then(Value::as_i64);
                if mode == "Running" && spec != Some(0) {
                    replicas = spec;
                }
                current = original.at(&["status", "replicas"]).and_then(Value::as_i64);
            }
            match replicas {
                Some(replicas) => object.set_at(&["spec", "replicas"], replicas),
                None => drop(object.remove_at(&["spec", "replicas"])),
            }
            remove_from_status(&mut object, "nodeName");
            if let Some(current) = current.filter(|current| *current != 0) {
                object.set_at(&["status", "replicas"], current);
            }
        }
        "SandboxTemplate" => {
            object.remove_at(&["metadata", "annotations", NEWER_POLICY]);
            match object.remove_at(&["spec", "volumeClaimTemplatesPolicy"]) {
                Some(policy) => object.set_at(&["metadata", "annotations", NEWER_POLICY], policy),
                None => drop_empty_annotations(&mut object),
            }
        }
        "SandboxWarmPool" => {
            if object.at(&["spec", "replicas"]).is_none() {
                object.set_at(&["spec", "replicas"], 1);
            }
            let template = object.str_at(&["spec", "sandboxTemplateRef", "name"]).to_owned();
            object.set_at(&["spec", "sandboxTemplateRef"], template_ref(&template));
            object.remove_at(&["status", "observedGeneration"]);
        }
        "SandboxClaim" => {
            let pool = object.str_at(&["spec", "warmPoolRef", "name"]).to_owned();
            object.remove_at(&["spec", "warmPoolRef"]);
            object.remove_at(&["spec", "volumeClaimTemplates"]);
            let (template, policy) = match pool.strip_prefix(SHADOW) {
                Some(template) => (template, "default"),
                None => (pool.as_str(), pool.as_str()),
            };
            object.set_at(&["spec", "sandboxTemplateRef"], template_ref(template));
            object.set_at(&["spec", "warmpool"], policy);
            if let Some(state) = state {
                restore_claim(&mut object, &decode_state(&kind, &state)?, &pool);
            }
        }
        _ => {}
    }
    object.set("apiVersion", to);
    Ok(object)
}

/// A reference of the older version: an empty name is left out, the reference is not.
fn template_ref(name: &str) -> Value {
    if name.is_empty() { json!({}) } else { json!({"name": name}) }
}

/// The pool that stands for what an older claim asks for.
fn wanted_pool(claim: &Object) -> String {
    let policy = claim.str_at(&["spec", "warmpool"]);
    if is_specific(policy) {
        return policy.into();
    }
    let sandbox = claim.str_at(&["status", "sandbox", "name"]);
    if !sandbox.is_empty() && sandbox != claim.name() {
        return without_suffix(sandbox).into();
    }
    format!("{SHADOW}{}", claim.str_at(&["spec", "sandboxTemplateRef", "name"]))
}

fn is_specific(policy: &str) -> bool {
    !["", "none", "default"].contains(&policy)
}

fn without_suffix(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(start, _)| start)
}

/// Gives a claim back what it said when it was written in the older version, as far as that still holds.
fn restore_claim(claim: &mut Object, original: &Object, pool: &str) {
    let policy = original.at(&["spec", "warmpool"]).cloned();
    let template = original.str_at(&["spec", "sandboxTemplateRef", "name"]);
    let expected = policy.as_ref().and_then(Value::as_str).filter(|policy| is_specific(policy)).unwrap_or(template);
    let sandbox = claim.str_at(&["status", "sandbox", "name"]);
    let unchanged = pool == expected
        || pool.strip_prefix(SHADOW) == Some(expected)
        || (!sandbox.is_empty() && (pool == sandbox || pool == without_suffix(sandbox)));
    claim.set_at(&["spec", "sandboxTemplateRef"], template_ref(template));
    match policy.filter(|_| unchanged) {
        Some(policy) => claim.set_at(&["spec", "warmpool"], policy),
        None if unchanged => drop(claim.remove_at(&["spec", "warmpool"])),
        None => claim.set_at(&["spec", "warmpool"], pool),
    }
}

fn decode_state(kind: &str, state: &Value) -> Result<Object, String> {
    let text = state.as_str().unwrap_or_default();
    let fail = |why: &str| format!("failed to unmarshal v1alpha1 {kind} state: {why}");
    let value: Value = serde_json::from_str(text).map_err(|_| fail(&go_syntax_error(text)))?;
    match Object::from_value(value.clone()) {
        Some(object) => Ok(object),
        None if value.is_null() => Ok(Object::default()),
        None => {
            let what = crate::base::status::json_kind(&value);
            Err(fail(&format!("json: cannot unmarshal {what} into Go value of type v1alpha1.{kind}")))
        }
    }
}

/// What Go says of the commonest ways in which a text is no JSON.
fn go_syntax_error(text: &str) -> String {
    match text.trim_start().chars().next() {
        Some(first) if !"{[\"-0123456789tfn".contains(first) => {
            format!("invalid character '{first}' looking for beginning of value")
        }
        Some(_) | None => "unexpected end of JSON input".into(),
    }
}

fn remove_from_status(object: &mut Object, member: &str) {
    object.remove_at(&["status", member]);
    if object.get("status").and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove("status");
    }
}

fn drop_empty_annotations(object: &mut Object) {
    if object.at(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove_at(&["metadata", "annotations"]);
    }
}

/// An object as the Go type of its kind and version encodes it.
fn as_encoded(mut object: Object) -> Result<Object, String> {
    object.metadata_mut().remove("resourceVersion");
    let kind = object.kind().to_owned();
    if let Some(Value::Object(mut spec)) = object.remove("spec") {
        encode_spec(&kind, &mut spec)?;
        object.set("spec", spec);
    }
    if kind == "SandboxTemplate" {
        return Ok(object);
    }
    let mut status = match object.remove("status") {
        Some(Value::Object(status)) => status,
        Some(_) | None => Map::new(),
    };
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions {
            *condition = typed("io.k8s.apimachinery.pkg.apis.meta.v1.Condition", condition.take())?;
        }
    }
    drop_empty(&mut status, &["sandbox"]);
    // `omitzero` drops a status without anything in it, `omitempty` does not.
    match kind.as_str() {
        "SandboxWarmPool" => object.set("status", status),
        "SandboxClaim" => {
            let mut sandbox = match status.remove("sandbox") {
                Some(Value::Object(sandbox)) => sandbox,
                Some(_) | None => Map::new(),
            };
            drop_empty(&mut sandbox, &[]);
            if !(status.is_empty() && sandbox.is_empty()) {
                status.insert("sandbox".into(), sandbox.into());
                object.set("status", status);
            }
        }
        _ if status.is_empty() => {}
        _ => object.set("status", status),
    }
    Ok(object)
}

fn encode_spec(kind: &str, spec: &mut Members) -> Result<(), String> {
    // Numbers and truth values of a spec are behind pointers, as is an older claim's pool: what is 0, false or empty stays.
    let keep = ["podTemplate", "networkPolicy", "lifecycle", "updateStrategy"];
    match kind {
        "Sandbox" | "SandboxTemplate" => {
            let template = spec.remove("podTemplate").unwrap_or_default();
            let pod = typed("io.k8s.api.core.v1.PodSpec", template.get("spec").cloned().unwrap_or_else(|| json!({})))?;
            spec.insert("podTemplate".into(), json!({"metadata": metadata(template.get("metadata")), "spec": pod}));
            encode_network(spec.get_mut("networkPolicy"))?;
        }
        "SandboxClaim" => {
            let more = metadata(spec.get("additionalPodMetadata"));
            spec.insert("additionalPodMetadata".into(), more.into());
            for env in spec.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(env) = env.as_object_mut() {
                    drop_empty(env, &["name", "value"]);
                }
            }
            if let Some(lifecycle) = spec.get_mut("lifecycle").and_then(Value::as_object_mut) {
                encode_time(lifecycle);
                drop_empty(lifecycle, &[]);
            }
        }
        _ => {}
    }
    if let Some(claims) = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut) {
        for claim in claims {
            let definition = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";
            let of = typed(definition, claim.get("spec").cloned().unwrap_or_else(|| json!({})))?;
            *claim = json!({"metadata": metadata(claim.get("metadata")), "spec": of});
        }
    }
    encode_time(spec);
    let keep: Vec<&str> = keep.into_iter().chain(["additionalPodMetadata", "replicas", "warmpool"]).collect();
    drop_empty(spec, &keep);
    Ok(())
}

fn encode_network(policy: Option<&mut Value>) -> Result<(), String> {
    let Some(policy) = policy.and_then(Value::as_object_mut) else { return Ok(()) };
    // One whole built-in kind: its parts are found at once then.
    let rules = json!({"spec": {"podSelector": {}, "ingress": policy.get("ingress"), "egress": policy.get("egress")}});
    let typed = typed("io.k8s.api.networking.v1.NetworkPolicy", rules)?;
    for direction in ["ingress", "egress"] {
        match typed["spec"].get(direction) {
            Some(rules) => drop(policy.insert(direction.into(), rules.clone())),
            None => drop(policy.remove(direction)),
        }
    }
    Ok(())
}

/// Go writes times in UTC, to the second.
fn encode_time(members: &mut Members) {
    let time = members.get("shutdownTime").and_then(Value::as_str).and_then(|text| text.parse().ok());
    if let Some(time) = time {
        members.insert("shutdownTime".into(), time_text(time).into());
    }
}

fn metadata(value: Option<&Value>) -> Members {
    let mut members = value.and_then(Value::as_object).cloned().unwrap_or_default();
    drop_empty(&mut members, &[]);
    members
}

/// What `omitempty` leaves out of a struct whose members are texts, lists, maps and pointers.
fn drop_empty(members: &mut Members, keep: &[&str]) {
    members.retain(|key, value| {
        keep.contains(&key.as_str())
            || match value {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(members) => !members.is_empty(),
                Value::Bool(_) => true,
                // Counters of a status are plain numbers, and the numbers of a spec are kept by name.
                Value::Number(number) => number.as_i64() != Some(0) || key.ends_with("Finished"),
            }
    });
}

/// A value as a built-in Go type encodes it.
fn typed(definition: &str, value: Value) -> Result<Value, String> {
    Schema::builtin(definition).decode(value).map(|decoded| decoded.value)
}

#[cfg(test)]
mod tests;
