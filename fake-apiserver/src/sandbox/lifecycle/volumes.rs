//! The volume claims of a Sandbox: one for each template, never repaired, never deleted.

use serde_json::{Map, Value, json};

use super::super::{
    keys::{NAME_HASH, name_hash},
    ownership::{
        Ownership, controller_reference, foreign_text, is_adoptable, ownership, unadoptable_text, with_controller,
    },
};
use crate::base::Object;

/// What to do about one claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ClaimStep {
    /// Nothing: it is there and ours.
    Keep,
    /// Create it.
    Create(Object),
    /// Take it with this merge patch.
    Adopt(Value),
    /// It cannot be used.
    Fail(String),
}

/// The volume claim templates.
pub(super) fn templates(sandbox: &Object) -> &[Value] {
    sandbox.at(&["spec", "volumeClaimTemplates"]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Name of a template.
pub(super) fn template_name(template: &Value) -> &str {
    template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// Name of a template's claim.
pub(super) fn claim_name(template: &Value, sandbox: &Object) -> String {
    format!("{}-{}", template_name(template), sandbox.name())
}

/// What to do about a template's claim.
pub(super) fn decide(sandbox: &Object, template: &Value, found: Option<&Object>) -> ClaimStep {
    let Some(claim) = found else { return ClaimStep::Create(new_claim(sandbox, template)) };
    match ownership(claim, sandbox) {
        Ownership::Own => ClaimStep::Keep,
        Ownership::Foreign(owner) => ClaimStep::Fail(foreign_text("PVC", claim, &owner, sandbox)),
        Ownership::Nobodys if is_adoptable(claim, sandbox) => {
            ClaimStep::Adopt(json!({"metadata": {"ownerReferences": with_controller(claim, sandbox)}}))
        }
        Ownership::Nobodys => ClaimStep::Fail(unadoptable_text("PVC", claim)),
    }
}

fn new_claim(sandbox: &Object, template: &Value) -> Object {
    let name = claim_name(template, sandbox);
    let mut claim = Object::new("v1", "PersistentVolumeClaim", sandbox.namespace(), &name);
    let member = |member: &str| template["metadata"][member].as_object().cloned().unwrap_or_default();
    let mut labels: Map<String, Value> = member("labels");
    labels.insert(NAME_HASH.into(), name_hash(sandbox.name()).into());
    claim.set_at(&["metadata", "labels"], labels);
    let annotations = member("annotations");
    if !annotations.is_empty() {
        claim.set_at(&["metadata", "annotations"], annotations);
    }
    claim.set_at(&["metadata", "ownerReferences"], vec![controller_reference(sandbox)]);
    claim.set("spec", template.get("spec").cloned().unwrap_or_else(|| json!({})));
    claim
}
