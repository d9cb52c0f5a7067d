//! Whose an object is, and whether a Sandbox may take it.

use serde_json::{Value, json};

use super::keys::{ADOPTABLE, NAME_HASH, name_hash};
use crate::base::{Object, OwnerReference};

/// Whose an object is, seen from a Sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The Sandbox controls it.
    Own,
    /// Nobody controls it.
    Nobodys,
    /// Something else controls it.
    Foreign(OwnerReference),
}

/// Whose an object is.
pub(super) fn ownership(object: &Object, sandbox: &Object) -> Ownership {
    match object.controller() {
        None => Ownership::Nobodys,
        Some(owner) if owner.uid == sandbox.uid() => Ownership::Own,
        Some(owner) => Ownership::Foreign(owner),
    }
}

/// Whether the Sandbox controls an object.
pub(super) fn is_own(object: &Object, sandbox: &Object) -> bool {
    ownership(object, sandbox) == Ownership::Own
}

/// Whether an object that nobody controls may be taken: an operator says so, or it bears the Sandbox's mark.
pub(super) fn is_adoptable(object: &Object, sandbox: &Object) -> bool {
    object.label(ADOPTABLE) == Some("true") || object.label(NAME_HASH) == Some(&name_hash(sandbox.name()))
}

/// Why something else's object is not touched; `what` is `PVC`, `pod` or `service`.
pub(super) fn foreign_text(what: &str, object: &Object, owner: &OwnerReference, sandbox: &Object) -> String {
    let OwnerReference { kind, name, uid, .. } = owner;
    format!("{what} {:?} is owned by {kind}/{name} (UID: {uid}), not by sandbox {:?}", object.name(), sandbox.name())
}

/// Why nobody's object is not taken.
pub(super) fn unadoptable_text(what: &str, object: &Object) -> String {
    format!(
        "cannot adopt unowned {what} {:?}: missing required pool authorization label ({ADOPTABLE:?}) or sandbox \
         tracking label ({NAME_HASH:?})",
        object.name()
    )
}

/// The reference with which an owner controls an object.
pub(super) fn controller_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// An object's owner references with a controller's: in the place of an older one of the same owner, else at the end
/// (`controllerutil.SetControllerReference`).
pub(super) fn with_controller(object: &Object, owner: &Object) -> Value {
    let mut list = object.at(&["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let new = controller_reference(owner);
    match list.iter_mut().find(|reference| reference["uid"] == new["uid"]) {
        Some(old) => *old = new,
        None => list.push(new),
    }
    list.into()
}
