//! The Sandbox of a claim that no pool serves (`createSandbox`, `injectEnvs`, `mergeVolumeClaimTemplates`).

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    super::{
        blueprint,
        keys::{API_VERSION, LAUNCH_TYPE, TEMPLATE_REF, TEMPLATE_REF_HASH, TRACE_CONTEXT, name_hash},
        ownership::controller_reference,
    },
    error::{ClaimError, quoted},
    metadata::{self, PodMetadata, Strings},
};
use crate::base::Object;

/// The Sandbox to create for a claim.
///
/// # Errors
/// What the template does not allow, or the claim asks for in vain: volumes first, then metadata, then environment.
pub(super) fn sandbox(claim: &Object, template: &Object) -> Result<Object, ClaimError> {
    let mut sandbox = Object::new(API_VERSION, "Sandbox", claim.namespace(), claim.name());
    let mut annotations = Strings::from([(TEMPLATE_REF.to_owned(), template.name().to_owned())]);
    annotations.extend(claim.annotation(TRACE_CONTEXT).map(|trace| (TRACE_CONTEXT.to_owned(), trace.to_owned())));
    let hash = name_hash(template.name());
    let mut labels =
        Strings::from([(LAUNCH_TYPE.to_owned(), "cold".to_owned()), (TEMPLATE_REF_HASH.to_owned(), hash.clone())]);
    metadata::mark(&mut labels, claim);
    sandbox.set_at(&["metadata", "labels"], json!(labels));
    sandbox.set_at(&["metadata", "annotations"], json!(annotations));
    sandbox.set_at(&["metadata", "ownerReferences"], vec![controller_reference(claim)]);

    let mut spec = Value::Object(blueprint::of(template));
    let volumes = volume_claims(claim, template)?;
    if !volumes.is_empty() {
        spec["volumeClaimTemplates"] = volumes.into();
    }
    let pod_metadata = metadata::for_claim(PodMetadata::of_pods(template), claim, &hash).map_err(ClaimError::Other)?;
    spec["podTemplate"]["metadata"] = pod_metadata.to_value();
    let policy = template.str_at(&["spec", "envVarsInjectionPolicy"]);
    let pod_spec = &mut spec["podTemplate"]["spec"];
    inject(pod_spec, &variables(claim), policy)?;
    blueprint::secure(template, pod_spec);
    sandbox.set("spec", spec);
    Ok(sandbox)
}

/// Whether a claim asks for what no member of a pool has, so that it is served cold.
pub(super) fn is_needed(claim: &Object) -> bool {
    let has = |member: &str| claim.at(&["spec", member]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    has("env") || has("volumeClaimTemplates")
}

// Volumes

fn name_of(entry: &Value) -> &str {
    entry["metadata"]["name"].as_str().unwrap_or_default()
}

fn check_names(entries: &[Value]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let name = name_of(entry);
        if name.is_empty() {
            return Err(format!("invalid volume claim templates: name at index {index} is empty"));
        }
        if !names.insert(name) {
            return Err(format!("invalid volume claim templates: duplicate name {}", quoted(name)));
        }
    }
    Ok(())
}

/// The Sandbox's volume claim templates: the template's, and the claim's as far as the template's policy goes.
fn volume_claims(claim: &Object, template: &Object) -> Result<Vec<Value>, ClaimError> {
    let of = |object: &Object| blueprint::volume_claims(object.at(&["spec", "volumeClaimTemplates"]));
    let (base, own) = (of(template), of(claim));
    let refused = |text: String| ClaimError::VolumeClaims(text);
    if own.is_empty() {
        check_names(&base).map_err(|error| refused(format!("invalid volume claim templates in template: {error}")))?;
        return Ok(base);
    }
    let refused = |text: String| refused(format!("failed to merge volume claim templates: {text}"));
    check_names(&base).map_err(|error| refused(format!("template: {error}")))?;
    check_names(&own).map_err(|error| refused(format!("claim: {error}")))?;
    match template.str_at(&["spec", "volumeClaimTemplatesPolicy"]) {
        "" | "Disallowed" => Err(refused("volume claim templates are disallowed by the template".into())),
        "Allowed" => {
            if let Some(twice) = own.iter().find(|entry| base.iter().any(|old| name_of(old) == name_of(entry))) {
                return Err(refused(format!(
                    "overriding volume claim templates is forbidden by the template: cannot override template volume {}",
                    quoted(name_of(twice))
                )));
            }
            Ok([base, own].concat())
        }
        "Overrides" => {
            let same = |list: &[Value], entry: &Value| list.iter().find(|old| name_of(old) == name_of(entry)).cloned();
            let kept = base.iter().map(|entry| same(&own, entry).unwrap_or_else(|| entry.clone()));
            let added = own.iter().filter(|entry| same(&base, entry).is_none()).cloned();
            Ok(kept.chain(added).collect())
        }
        policy => Err(ClaimError::Other(format!(
            "failed to merge volume claim templates: unknown volume claim templates policy {}",
            quoted(policy)
        ))),
    }
}

// Environment

/// A variable that a claim sets.
struct Variable<'a> {
    name: &'a str,
    value: &'a str,
    /// The container, `""` for the first main one.
    container: &'a str,
}

fn variables(claim: &Object) -> Vec<Variable<'_>> {
    let list = claim.at(&["spec", "env"]).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|entry| {
            let text = |member: &str| entry.get(member).and_then(Value::as_str).unwrap_or_default();
            Variable { name: text("name"), value: text("value"), container: text("containerName") }
        })
        .collect()
}

fn inject(pod_spec: &mut Value, variables: &[Variable<'_>], policy: &str) -> Result<(), ClaimError> {
    if variables.is_empty() {
        return Ok(());
    }
    if !matches!(policy, "Allowed" | "Overrides") {
        let text = "environment variable injection is not allowed by the template policy";
        return Err(ClaimError::EnvironmentRejected(text.into()));
    }
    let named = |list: &str, name: &str| {
        let containers = pod_spec[list].as_array();
        containers.is_some_and(|containers| containers.iter().any(|container| container["name"] == *name))
    };
    for Variable { name, container, .. } in variables.iter().filter(|variable| !variable.container.is_empty()) {
        if !named("initContainers", container) && !named("containers", container) {
            return Err(ClaimError::Other(format!(
                "target container {} not found in template for environment variable {}",
                quoted(container),
                quoted(name)
            )));
        }
    }
    for list in ["initContainers", "containers"] {
        let containers = pod_spec.get_mut(list).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            // Those for this container by name, then, for the first main one, those that name none.
            let by_name =
                variables.iter().filter(|variable| !variable.container.is_empty() && variable.container == name);
            let unnamed =
                variables.iter().filter(|variable| list == "containers" && index == 0 && variable.container.is_empty());
            let wanted: Vec<_> = by_name.chain(unnamed).collect();
            if !wanted.is_empty() {
                inject_one(container, &name, &wanted, policy)?;
            }
        }
    }
    Ok(())
}

fn inject_one(container: &mut Value, name: &str, wanted: &[&Variable<'_>], policy: &str) -> Result<(), ClaimError> {
    let filled = |member: &str| container.get(member).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if policy == "Allowed" && filled("envFrom") {
        return Err(ClaimError::EnvironmentRejected(format!(
            "container {} uses EnvFrom sources; Allowed policy cannot safely prevent overriding EnvFrom-provided variables",
            quoted(name)
        )));
    }
    let mut list = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
    for Variable { name, value, .. } in wanted {
        let new = if value.is_empty() { json!({"name": name}) } else { json!({"name": name, "value": value}) };
        match list.iter_mut().find(|old| old["name"] == **name) {
            Some(_) if policy != "Overrides" => {
                return Err(ClaimError::Other(format!(
                    "environment variable override is not allowed by the template policy for variable {}",
                    quoted(name)
                )));
            }
            Some(old) => *old = new,
            None => list.push(new),
        }
    }
    container["env"] = list.into();
    Ok(())
}
