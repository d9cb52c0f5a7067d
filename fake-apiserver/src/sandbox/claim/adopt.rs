//! Members of pools that claims take: which can be taken, and what is rewritten on one that is (`isAdoptable`,
//! `verifySandboxCandidate`, `completeAdoption`).

use serde_json::{Map, Value, json};

use super::{
    super::{
        keys::{
            EXTENSIONS_GROUP, LAUNCH_TYPE, POD_NAME, POD_TEMPLATE_HASH, SAFE_TO_EVICT, TEMPLATE_HASH,
            TEMPLATE_REF_HASH, TRACE_CONTEXT, WARM_POOL, name_hash,
        },
        ownership::controller_reference,
    },
    metadata::{self, PodMetadata, patch},
};
use crate::base::{Object, OwnerReference, names::split_api_version};

/// Whether a reference is to one of the extension kinds, whatever its version.
pub(super) fn refers_to(reference: &OwnerReference, kind: &str) -> bool {
    reference.kind == kind && split_api_version(&reference.api_version).0 == EXTENSIONS_GROUP
}

/// The pool that has a Sandbox: the one that controls it, else the first that owns it.
pub(super) fn pool_of(sandbox: &Object) -> Option<String> {
    let owners = sandbox.controller().into_iter().chain(sandbox.owner_references());
    owners.into_iter().find(|owner| refers_to(owner, "SandboxWarmPool")).map(|owner| owner.name)
}

/// Whether a pool controls a Sandbox.
pub(super) fn is_pooled(sandbox: &Object) -> bool {
    sandbox.controller().is_some_and(|owner| refers_to(&owner, "SandboxWarmPool"))
}

/// Checks that a Sandbox is a pool's member that can be taken. What passes (addresses, readiness) is not looked at.
///
/// # Errors
/// Why not, in words.
pub(super) fn check_adoptable(sandbox: &Object) -> Result<(), String> {
    let place = || format!("{}/{}", sandbox.namespace(), sandbox.name());
    if sandbox.is_deleting() {
        return Err("sandbox is deleted".into());
    }
    if sandbox.label(WARM_POOL).is_none() {
        return Err("sandbox is missing the warm pool sandbox label".into());
    }
    if sandbox.label(TEMPLATE_REF_HASH).is_none() {
        return Err("sandbox is missing the sandbox template ref hash label".into());
    }
    match sandbox.controller() {
        None => Err(format!("sandbox {} is unowned and cannot be safely adopted", place())),
        Some(owner) if !refers_to(&owner, "SandboxWarmPool") => {
            let OwnerReference { kind, name, .. } = owner;
            Err(format!("sandbox {} is not managed by warm pool. Controller: {kind}/{name}", place()))
        }
        Some(_) => Ok(()),
    }
}

/// Checks that a claim can take a Sandbox: a member of its pool.
///
/// # Errors
/// Why not, in words.
pub(super) fn check_candidate(sandbox: &Object, pool: &str) -> Result<(), String> {
    check_adoptable(sandbox)?;
    if pool_of(sandbox).is_none_or(|own| own != pool) {
        return Err(format!("incorrect warm pool, expected {pool}"));
    }
    Ok(())
}

/// The merge patch that makes a member the claim's, for exactly the version of the member that was looked at: whoever
/// else has written it meanwhile makes this write a conflict, so that no member is given twice.
///
/// # Errors
/// If the claim adds metadata that the template has with other values.
pub(super) fn patch_of(sandbox: &Object, claim: &Object, template: Option<&Object>) -> Result<Value, String> {
    let old_labels = sandbox.labels();
    let mut labels = old_labels.clone();
    for key in [WARM_POOL, POD_TEMPLATE_HASH, TEMPLATE_HASH] {
        labels.remove(key);
    }
    labels.insert(LAUNCH_TYPE.into(), "warm".into());
    metadata::mark(&mut labels, claim);
    let hash = match sandbox.label(TEMPLATE_REF_HASH).filter(|hash| !hash.is_empty()) {
        Some(hash) => hash.to_owned(),
        None => template.map(|template| name_hash(template.name())).unwrap_or_default(),
    };
    if !hash.is_empty() {
        labels.insert(TEMPLATE_REF_HASH.into(), hash.clone());
    }

    let old_annotations = sandbox.annotations();
    let mut annotations = old_annotations.clone();
    annotations.insert(POD_NAME.into(), sandbox.name().into());
    annotations.extend(claim.annotation(TRACE_CONTEXT).map(|trace| (TRACE_CONTEXT.to_owned(), trace.to_owned())));

    let old_pods = PodMetadata::of_pods(sandbox);
    let base = match template {
        Some(template) => PodMetadata::of_pods(template),
        None => {
            let mut kept = old_pods.clone();
            kept.annotations.retain(|key, value| key != SAFE_TO_EVICT || value != "true");
            kept
        }
    };
    let pods = metadata::for_claim(base, claim, &hash)?;

    let mut meta = Map::new();
    for (member, old, new) in [("labels", &old_labels, &labels), ("annotations", &old_annotations, &annotations)] {
        meta.extend(patch(old, new).map(|changes| (member.to_owned(), changes)));
    }
    meta.insert("ownerReferences".into(), json!([controller_reference(claim)]));
    meta.insert("resourceVersion".into(), sandbox.resource_version().into());
    let mut patch = json!({"metadata": meta});
    let pods = old_pods.patch_to(&pods);
    if !pods.is_empty() {
        patch["spec"] = json!({"podTemplate": {"metadata": pods}});
    }
    Ok(patch)
}
