//! Blueprints: what templates and Sandboxes have in common, pod template, volume claim templates and service.
//!
//! Upstream reads and writes them through Go types; what these do to the JSON (`resources: {}` in each container,
//! quantities in their shortest form, empty lists dropped) is seen by clients and done here by the built-in schemas.

use serde_json::{Map, Value, json};

use super::keys::name_hash;
use crate::{base::Object, schema::Schema};

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const VOLUME_CLAIM_SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeClaimSpec";

/// A value as its Go type writes it; as it is where the type does not take it (the definition's schema has let it in).
fn typed(definition: &str, value: &Value) -> Value {
    let decoded = Schema::builtin(definition).decode(value.clone());
    decoded.map_or_else(|_| value.clone(), |decoded| decoded.value)
}

/// Embedded metadata as its Go type writes it: without what is empty.
fn metadata(value: Option<&Value>) -> Value {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    let filled = members.filter(|(_, value)| match value {
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => false,
    });
    Value::Object(filled.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Volume claim templates as their Go type writes them.
pub(super) fn volume_claims(list: Option<&Value>) -> Vec<Value> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    let spec = |entry: &Value| typed(VOLUME_CLAIM_SPEC, entry.get("spec").unwrap_or(&json!({})));
    entries.map(|entry| json!({"metadata": metadata(entry.get("metadata")), "spec": spec(entry)})).collect()
}

/// The blueprint in a template's or Sandbox's spec, as upstream's Go type writes it.
pub(super) fn of(object: &Object) -> Map<String, Value> {
    let pod_template = |member: &str| object.at(&["spec", "podTemplate", member]);
    let spec = typed(POD_SPEC, pod_template("spec").unwrap_or(&json!({})));
    let mut blueprint = Map::new();
    blueprint.insert("podTemplate".into(), json!({"metadata": metadata(pod_template("metadata")), "spec": spec}));
    let claims = volume_claims(object.at(&["spec", "volumeClaimTemplates"]));
    if !claims.is_empty() {
        blueprint.insert("volumeClaimTemplates".into(), claims.into());
    }
    if let Some(service) = object.at(&["spec", "service"]).filter(|service| service.is_boolean()) {
        blueprint.insert("service".into(), service.clone());
    }
    blueprint
}

/// What pods that are made from a template get unless it says otherwise: no service account token, and public name
/// servers where the template's network policy is the default one (`ApplySandboxSecureDefaults`).
pub(super) fn secure(template: &Object, pod_spec: &mut Value) {
    let Some(spec) = pod_spec.as_object_mut() else { return };
    spec.entry("automountServiceAccountToken").or_insert(false.into());
    let managed = matches!(template.str_at(&["spec", "networkPolicyManagement"]), "" | "Managed");
    let default_policy = managed && template.at(&["spec", "networkPolicy"]).is_none_or(Value::is_null);
    if default_policy && !spec.contains_key("dnsPolicy") {
        spec.insert("dnsPolicy".into(), "None".into());
        spec.insert("dnsConfig".into(), json!({"nameservers": ["8.8.8.8", "1.1.1.1"]}));
    }
}

/// The hash of a template's blueprint: another one when the blueprint is another. Upstream's hash is over Go's order of
/// members, so its value is not the same.
pub(super) fn hash(template: &Object) -> String {
    name_hash(&Value::Object(of(template)).to_string())
}

/// Whether a Sandbox is as the template would have it today, but for metadata (`compareSandboxBlueprint`).
pub(super) fn is_current(template: &Object, sandbox: &Object) -> bool {
    let (mut wanted, actual) = (of(template), of(sandbox));
    let Some(pod_spec) = wanted.get_mut("podTemplate").and_then(|pod| pod.get_mut("spec")) else { return false };
    secure(template, pod_spec);
    fn claims(blueprint: &Map<String, Value>) -> Vec<(&Value, &Value)> {
        let list = blueprint.get("volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten();
        list.map(|entry| (&entry["metadata"]["name"], &entry["spec"])).collect()
    }
    wanted["podTemplate"]["spec"] == actual["podTemplate"]["spec"]
        && claims(&wanted) == claims(&actual)
        && wanted.get("service") == actual.get("service")
}
