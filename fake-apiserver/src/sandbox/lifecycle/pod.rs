//! The pod of a Sandbox: which one it is, and what to do about it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    super::{
        keys::{POD_NAME, name_hash},
        metadata,
        ownership::{
            Ownership, controller_reference, foreign_text, is_adoptable, is_own, ownership, unadoptable_text,
            with_controller,
        },
    },
    volumes,
};
use crate::base::{Object, Stored};

/// The name that a Sandbox's pod goes by: what the annotation says, else the Sandbox's own.
pub(super) fn tracked_name(sandbox: &Object) -> &str {
    sandbox.annotation(POD_NAME).filter(|name| !name.is_empty()).unwrap_or_else(|| sandbox.name())
}

/// Which pod a Sandbox has.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// Whether the annotation names a pod that is not the one, and is to be removed first.
    pub(super) clear_annotation: bool,
    /// The pod; or how many pods the Sandbox controls, if they are several.
    pub(super) pod: Result<Option<Arc<Stored>>, usize>,
}

/// Which pod it is, of those with the Sandbox's label and the one that goes by its name. The controller reference decides.
pub(super) fn resolve(sandbox: &Object, labelled: Vec<Arc<Stored>>, named: Option<Arc<Stored>>) -> Resolved {
    let annotated = sandbox.annotation(POD_NAME).is_some();
    let mut owned: Vec<_> = labelled.into_iter().filter(|pod| is_own(pod, sandbox)).collect();
    if let Some(named) = &named
        && is_own(named, sandbox)
        && !owned.iter().any(|pod| pod.uid() == named.uid())
    {
        owned.push(named.clone());
    }
    if owned.len() > 1 {
        return Resolved { clear_annotation: annotated && named.is_none(), pod: Err(owned.len()) };
    }
    match owned.pop() {
        Some(own) => {
            let other = named.is_none_or(|named| named.name() != own.name());
            Resolved { clear_annotation: annotated && other, pod: Ok(Some(own)) }
        }
        None => Resolved { clear_annotation: annotated && named.is_none(), pod: Ok(named) },
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PodAction {
    /// Remove the annotation from the Sandbox.
    ClearAnnotation,
    /// Set the annotation on the Sandbox.
    Annotate,
    /// Delete the pod.
    Delete,
    /// Merge-patch the pod.
    Patch(Value),
    /// Create the pod.
    Create(Object),
}

/// What to do about a Sandbox's pod, in order; `refusal` says why the pod cannot be the Sandbox's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodPlan {
    /// What to do.
    pub(super) actions: Vec<PodAction>,
    /// Why the pod is not used after all.
    pub(super) refusal: Option<String>,
}

/// What to do.
pub(super) fn decide(sandbox: &Object, pod: Option<&Object>) -> PodPlan {
    let annotated = sandbox.annotation(POD_NAME).is_some();
    let clear = if annotated { vec![PodAction::ClearAnnotation] } else { Vec::new() };
    let plan = |actions| PodPlan { actions, refusal: None };
    if is_suspended(sandbox) {
        return plan(match pod {
            Some(pod) if is_own(pod, sandbox) && pod.is_deleting() => Vec::new(),
            Some(pod) if is_own(pod, sandbox) => vec![PodAction::Delete],
            Some(_) | None => clear,
        });
    }
    let Some(pod) = pod else {
        return plan([vec![PodAction::Create(new_pod(sandbox))], annotate(sandbox)].concat());
    };
    let mut metadata = Map::new();
    match ownership(pod, sandbox) {
        Ownership::Foreign(owner) => {
            return PodPlan { actions: clear, refusal: Some(foreign_text("pod", pod, &owner, sandbox)) };
        }
        Ownership::Nobodys if !is_adoptable(pod, sandbox) => {
            return PodPlan { actions: Vec::new(), refusal: Some(unadoptable_text("pod", pod)) };
        }
        Ownership::Nobodys => {
            metadata.insert("ownerReferences".into(), with_controller(pod, sandbox));
        }
        Ownership::Own => {}
    }
    metadata.extend(metadata::sync(pod, sandbox));
    let patch = if metadata.is_empty() { Vec::new() } else { vec![PodAction::Patch(json!({"metadata": metadata}))] };
    plan([patch, annotate(sandbox)].concat())
}

/// A name that stands in the annotation already stays, even if it is another.
fn annotate(sandbox: &Object) -> Vec<PodAction> {
    match sandbox.annotation(POD_NAME) {
        Some(name) if !name.is_empty() => Vec::new(),
        Some(_) | None => vec![PodAction::Annotate],
    }
}

/// Whether the Sandbox is to have no pod.
pub(super) fn is_suspended(sandbox: &Object) -> bool {
    sandbox.str_at(&["spec", "operatingMode"]) == "Suspended"
}

/// Why several pods are none.
pub(super) fn conflict_text(count: usize) -> String {
    format!("multiple Pods ({count}) are controlled by this Sandbox; refusing to choose or create a Pod")
}

/// The pod of a Sandbox that has none.
fn new_pod(sandbox: &Object) -> Object {
    let mut pod = Object::new("v1", "Pod", sandbox.namespace(), sandbox.name());
    let (labels, annotations) = metadata::for_new_pod(sandbox);
    pod.set_at(&["metadata", "labels"], json!(labels));
    if !annotations.is_empty() {
        pod.set_at(&["metadata", "annotations"], json!(annotations));
    }
    pod.set_at(&["metadata", "ownerReferences"], vec![controller_reference(sandbox)]);
    let mut spec = sandbox.at(&["spec", "podTemplate", "spec"]).cloned().unwrap_or_else(|| json!({}));
    let templates = volumes::templates(sandbox);
    if !templates.is_empty() {
        let old = spec.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let replaced = |volume: &Value| templates.iter().any(|t| volume["name"] == *volumes::template_name(t));
        let mut list: Vec<_> = old.into_iter().filter(|volume| !replaced(volume)).collect();
        list.extend(templates.iter().map(|template| {
            let claim = volumes::claim_name(template, sandbox);
            json!({"name": volumes::template_name(template), "persistentVolumeClaim": {"claimName": claim}})
        }));
        spec["volumes"] = list.into();
    }
    pod.set("spec", spec);
    pod
}

/// The selector that finds the pod, as the status shows it.
pub(super) fn selector(sandbox: &Object) -> String {
    format!("{}={}", super::super::keys::NAME_HASH, name_hash(sandbox.name()))
}
