//! Claims, volumes and their classes.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::util::{flag, get, text, texts},
    object_age, or, root,
};
use crate::base::Object;

/// Access modes as `RWO,ROX`.
fn access_modes(value: &Value) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = texts(value, "accessModes");
    let list: Vec<_> = short.iter().filter(|(mode, _)| modes.contains(mode)).map(|(_, short)| *short).collect();
    list.join(",")
}

/// `PersistentVolumeClaim`.
pub(in crate::kinds) fn claim(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let phase = if object.is_deleting() { "Terminating" } else { text(status, "phase") };
    let volume = text(spec, "volumeName");
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        (or(text(get(status, "capacity"), "storage"), "0"), access_modes(status))
    };
    vec![
        object.name().into(),
        phase.into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        text(spec, "storageClassName").into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>").into(),
        object_age(object, now),
        or(text(spec, "volumeMode"), "<unset>").into(),
    ]
}

/// `PersistentVolume`.
pub(in crate::kinds) fn volume(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let (spec, status) = (get(&value, "spec"), get(&value, "status"));
    let phase = if object.is_deleting() { "Terminating" } else { text(status, "phase") };
    let claim = get(spec, "claimRef");
    let claim =
        if claim.is_null() { String::new() } else { format!("{}/{}", text(claim, "namespace"), text(claim, "name")) };
    vec![
        object.name().into(),
        text(get(spec, "capacity"), "storage").into(),
        access_modes(spec).into(),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        text(spec, "storageClassName").into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>").into(),
        text(status, "reason").into(),
        object_age(object, now),
        or(text(spec, "volumeMode"), "<unset>").into(),
    ]
}

/// `StorageClass`.
pub(in crate::kinds) fn storage_class(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let is_default =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| object.annotation(key) == Some("true"));
    let name = format!("{}{}", object.name(), if is_default { " (default)" } else { "" });
    vec![
        name.into(),
        text(&value, "provisioner").into(),
        or(text(&value, "reclaimPolicy"), "Delete").into(),
        or(text(&value, "volumeBindingMode"), "Immediate").into(),
        flag(&value, "allowVolumeExpansion").into(),
        object_age(object, now),
    ]
}
