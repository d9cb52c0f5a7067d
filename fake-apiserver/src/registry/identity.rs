//! What a write says about who an object is: its name and namespace, its version, its owners and finalizers.

use serde_json::Value;

use super::{Caller, Target};
use crate::base::{Object, Status, Stored};

/// The `finalize` door of a namespace writes its spec's finalizers and nothing else.
pub(super) fn take_finalizers(new: &mut Object, old: &Object) {
    let finalizers = new.at(&["spec", "finalizers"]).cloned();
    let managed = new.metadata().and_then(|metadata| metadata.get("managedFields")).cloned();
    *new = old.clone();
    match finalizers {
        Some(finalizers) => new.set_at(&["spec", "finalizers"], finalizers),
        None => {
            new.remove_at(&["spec", "finalizers"]);
        }
    }
    if let Some(managed) = managed {
        new.metadata_mut().insert("managedFields".into(), managed);
    }
}

pub(super) fn check_preconditions(target: &Target, old: &Object, new: &Object) -> Result<(), Status> {
    let (wanted, actual) = (new.uid(), old.uid());
    if wanted.is_empty() || wanted == actual {
        return Ok(());
    }
    let Target { resource, namespace, name, .. } = target;
    let prefix = if resource.custom.is_some() {
        format!("{}/{}", resource.gvr.group, resource.gvr.resource)
    } else {
        resource.gvr.resource.clone()
    };
    let place = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{prefix}/{place}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}"
    );
    Err(Status::conflict(&resource.gvr.group, &resource.gvr.resource, name, &why))
}

/// An owner that stands there twice in the same words is kept once, and told of (`dedupOwnerReferencesAndAddWarning`).
pub(super) fn drop_repeated_owners(caller: &Caller, object: &mut Object) {
    let Some(Value::Array(owners)) = object.metadata().and_then(|metadata| metadata.get("ownerReferences")) else {
        return;
    };
    let (mut kept, mut repeated): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for owner in owners {
        if !kept.contains(owner) {
            kept.push(owner.clone());
            continue;
        }
        let uid = owner["uid"].as_str().unwrap_or_default();
        if !repeated.iter().any(|known| known == uid) {
            repeated.push(uid.to_owned());
        }
    }
    if repeated.is_empty() {
        return;
    }
    object.metadata_mut().insert("ownerReferences".into(), kept.into());
    caller.warnings.add(format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject \
         such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    ));
}

/// An object lives in the namespace of its path.
pub(super) fn take_namespace(target: &Target, object: &mut Object) -> Result<(), Status> {
    if !target.resource.namespaced {
        object.metadata_mut().remove("namespace"); // what lives nowhere loses it without a word
        return Ok(());
    }
    if object.namespace().is_empty() {
        object.metadata_mut().insert("namespace".into(), target.namespace.clone().into());
    }
    if object.namespace() != target.namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    Ok(())
}

pub(super) fn check_name(target: &Target, object: &Object) -> Result<(), Status> {
    let (given, wanted) = (object.name(), &target.name);
    if given.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != wanted {
        return Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({wanted})"
        )));
    }
    Ok(())
}

/// 409 for a name that is taken; of one whose holder is on its way out, it says that
/// (`pkg/registry/generic/registry/store.go`).
pub(super) fn already_exists(target: &Target, holder: Option<&Stored>) -> Status {
    let gvr = &target.resource.gvr;
    let mut status = Status::already_exists(&gvr.group, &gvr.resource, &target.name);
    if holder.is_some_and(|holder| holder.is_deleting()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

pub(super) fn modified(target: &Target) -> Status {
    Status::modified(&target.resource.gvr.group, &target.resource.gvr.resource, &target.name)
}
